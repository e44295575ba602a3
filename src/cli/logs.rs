//! Where log lines go: to standard error, and those of a daemon in the background to `<repository>/daemon.log`, which is its
//! standard error too and is kept [within bounds](DAEMON_LOG_BYTES).

mod file;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::file::LogFile;
use super::context::Context;
use crate::config::{LogFormat, Source};
use crate::limits::DAEMON_LOG_BYTES;

/// The log of a daemon in the background of `repository`.
pub fn daemon_log(repository: &Path) -> PathBuf {
    repository.join("daemon.log")
}

/// Opens the log of a daemon in the background, to be its standard error.
pub fn open_daemon_log(path: &Path) -> std::io::Result<File> {
    file::append(path)
}

/// Logs of a daemon: `log.filter`, over which `RUST_LOG` wins.
pub fn for_daemon(context: &Context) -> anyhow::Result<()> {
    install(context, &context.config().log.filter, BoxMakeWriter::new(std::io::stderr))
}

/// Logs of a daemon in the background: as of any daemon, in its log file.
pub fn for_daemon_in_background(context: &Context) -> anyhow::Result<()> {
    let path = daemon_log(&context.repository);
    // What goes to standard error by other ways goes along.
    let follow = |file: &File| {
        let _ = nix::unistd::dup2_stderr(file);
    };
    let log =
        LogFile::open(&path, DAEMON_LOG_BYTES, follow).with_context(|| format!("cannot write {}", path.display()))?;
    install(context, &context.config().log.filter, BoxMakeWriter::new(Mutex::new(log)))
}

/// Logs of a verb: none, unless somebody asked for them. What went wrong is in its one line of error.
pub fn for_verbs(context: &Context) -> anyhow::Result<()> {
    let asked = context.settings.get("log.filter")?.source != Source::Default;
    let filter = if asked { &context.config().log.filter } else { "off" };
    install(context, filter, BoxMakeWriter::new(std::io::stderr))
}

fn install(context: &Context, filter: &str, writer: BoxMakeWriter) -> anyhow::Result<()> {
    let (place, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.filter", filter.to_owned()),
    };
    let filter = EnvFilter::try_new(&text).with_context(|| format!("{place} cannot be `{text}`"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let installed = match context.config().log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            builder.with_ansi(color).with_target(false).try_init()
        }
    };
    installed.map_err(|error| anyhow::anyhow!("logs cannot be set up: {error}"))
}
