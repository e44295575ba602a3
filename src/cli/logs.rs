//! Where log lines go: standard error, which of a daemon in the background is `<repository>/daemon.log`.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use super::context::Context;
use crate::config::{LogFormat, Source};

/// Logs of a daemon: `log.filter`, over which `RUST_LOG` wins.
pub fn for_daemon(context: &Context) -> anyhow::Result<()> {
    install(context, &context.config().log.filter)
}

/// Logs of a verb: none, unless somebody asked for them. What went wrong is in its one line of error.
pub fn for_verbs(context: &Context) -> anyhow::Result<()> {
    let asked = context.settings.get("log.filter")?.source != Source::Default;
    install(context, if asked { &context.config().log.filter } else { "off" })
}

fn install(context: &Context, filter: &str) -> anyhow::Result<()> {
    let (place, text) = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.filter", filter.to_owned()),
    };
    let filter = EnvFilter::try_new(&text).with_context(|| format!("{place} cannot be `{text}`"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
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
