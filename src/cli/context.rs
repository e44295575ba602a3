//! What every verb is given: the repository, the settings, how to print, and the way to the API.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::client::Client;
use crate::block::CidForm;
use crate::config::{Config, Settings};
use crate::daemon::repository;

/// The flags that every verb takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The repository [default: $CIDFS_PATH, else $XDG_DATA_HOME/cidfs, else ~/.local/share/cidfs]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options")]
    pub repo: Option<PathBuf>,
    /// Sets a setting for this command, as in `-c store.ram_bytes=1GiB`; may be given more than once
    #[arg(short = 'c', long = "config", value_name = "SECTION.KEY=VALUE", global = true)]
    #[arg(help_heading = "Global options")]
    pub config: Vec<String>,
    /// Prints JSON: one value, or one a line
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Gives up after this time, as in `--timeout 30s`
    #[arg(long, value_name = "TIME", global = true, value_parser = span, help_heading = "Global options")]
    pub timeout: Option<Duration>,
    /// The multibase that CIDs are printed in: base32, base36, base58btc, base16, base64url, …; a CIDv0 becomes a CIDv1 in
    /// any but base58btc
    #[arg(long, value_name = "BASE", global = true, value_parser = cid_base, help_heading = "Global options")]
    pub cid_base: Option<CidBase>,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT", global = true, value_parser = ["text", "json"])]
    #[arg(help_heading = "Global options")]
    pub log_format: Option<String>,
}

/// The multibase of CIDs: as it was given, for requests, and read.
#[derive(Clone, Debug)]
pub struct CidBase {
    name: String,
    form: CidForm,
}

fn cid_base(text: &str) -> Result<CidBase, String> {
    Ok(CidBase { name: text.to_owned(), form: text.parse()? })
}

fn span(text: &str) -> Result<Duration, String> {
    crate::config::parse_span(text).ok_or_else(|| "a length of time is like 500ms, 60s or 5m".to_owned())
}

/// A number of bytes on the command line, with or without a unit.
pub fn bytes(text: &str) -> Result<u64, String> {
    crate::config::parse_size(text).ok_or_else(|| "a number of bytes is like 1048576, 64KiB or 1MB".to_owned())
}

/// The user's home, by the system's list of users.
fn home() -> Option<PathBuf> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir)
}

/// What every verb is given.
pub struct Context {
    /// The flags that every verb takes.
    pub global: Global,
    /// The directory of the repository. It need not exist.
    pub repository: PathBuf,
    /// The settings of this process.
    pub settings: Settings,
    /// The verb, for whoever finds the repository locked: `cidfs add`.
    pub purpose: String,
}

impl Context {
    /// Reads the settings. `flags` are the dedicated flags of the verb that stand for settings, as `(flag, key=value)`.
    pub fn new(global: Global, purpose: String, flags: Vec<(String, String)>) -> anyhow::Result<Context> {
        let repository = match &global.repo {
            Some(path) => std::path::absolute(path)?,
            None => repository::locate(|name| std::env::var_os(name), home())?,
        };
        let mut all: Vec<(String, String)> =
            global.config.iter().map(|text| (format!("-c {text}"), text.clone())).collect();
        if let Some(format) = &global.log_format {
            all.push((format!("--log-format {format}"), format!("log.format={format}")));
        }
        all.extend(flags);
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        let settings = Settings::load(&repository::config_file(&repository), environment, &all)?;
        Ok(Context { global, repository, settings, purpose })
    }

    /// The settings, typed.
    pub fn config(&self) -> &Config {
        self.settings.config()
    }

    /// The way to the API: the daemon's, or in this process.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let client = Client::connect(&self.repository, &self.settings, &self.purpose).await?;
        Ok(match &self.global.cid_base {
            Some(base) => client.with_cid_base(&base.name),
            None => client,
        })
    }

    /// How CIDs are to be printed. The API does it where it writes CIDs as text.
    pub fn cid_form(&self) -> CidForm {
        self.global.cid_base.as_ref().map_or_else(CidForm::default, |base| base.form)
    }

    /// A CID of an answer that has one form only, as it is to be printed.
    pub fn cid(&self, text: &str) -> String {
        text.parse().map_or_else(|_| text.to_owned(), |cid| self.cid_form().text(&cid))
    }

    /// Whether JSON is wanted.
    pub fn json(&self) -> bool {
        self.global.json
    }

    /// The `timeout` option of a request, where the user gave one.
    pub fn timeout(&self) -> Option<String> {
        self.global.timeout.map(crate::config::format_span)
    }

    /// Prints `value` as JSON where that is wanted, else what `text` writes.
    pub fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json() {
            serde_json::to_writer(&mut out, value)?;
            out.write_all(b"\n")?;
        } else {
            text(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }
}

/// Whether progress may be drawn: only on a terminal, never over JSON.
pub fn shows_progress(context: &Context) -> bool {
    !context.json() && std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}
