//! `cidfs config`: what is set, by whom, and how to change it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Outcome;
use super::client::Client;
use super::context::Context;
use super::output::table;
use crate::config::{self, Change, Raw, Setting};
use crate::daemon::api::cidfs::setting_json;
use crate::daemon::repository;

/// Show and change settings
///
/// Settings come from the defaults, the file config.toml in the repository, the environment (CIDFS_<SECTION>_<KEY>), and
/// flags; later ones win.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs config show
  cidfs config get store.ram_bytes
  cidfs config set store.ram_bytes 2GiB
  cidfs config set --unset store.ram_bytes")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Show(Show),
    Get(Get),
    Set(Set),
    Reload(Reload),
    Path(PathArguments),
}

/// Print every setting, its value, and where the value came from
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs config show\n  cidfs config show --running --json")]
struct Show {
    /// Asks the daemon that runs, which keeps the settings that it was started with
    #[arg(long)]
    running: bool,
}

/// Print one setting's value
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs config get fetch.timeout")]
struct Get {
    /// The setting, as in `store.ram_bytes`
    key: String,
}

/// Change a setting in the file, keeping its comments
///
/// A daemon that runs follows a change of fetch.max_download_bytes and fetch.max_upload_bytes at once. For all others it keeps
/// what it was started with: restart it (`cidfs shutdown`, then mount again).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs config set store.disk_bytes 500GB
  cidfs config set fetch.max_upload_bytes 20MB
  cidfs config set api.listen 127.0.0.1:5001
  cidfs config set --unset api.listen")]
struct Set {
    /// Takes the setting out of the file, so that its default holds again
    #[arg(long, conflicts_with = "value")]
    unset: bool,
    /// The setting, as in `store.ram_bytes`
    key: String,
    /// Its value; elements of a list are separated by commas
    #[arg(required_unless_present = "unset", allow_hyphen_values = true)]
    value: Option<String>,
}

/// Have the daemon that runs read the settings file again, after it was edited by hand
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs config reload")]
struct Reload {}

/// Print where the settings file is
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  $EDITOR \"$(cidfs config path)\"")]
struct PathArguments {}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let file = repository::config_file(&context.repository);
    match &arguments.action {
        Action::Show(Show { running: false }) => show(context, context.settings.iter().map(shown).collect())?,
        Action::Show(Show { running: true }) => {
            let Some(client) = Client::running(&context.repository).await else {
                return Ok(no_daemon(context));
            };
            let settings: Vec<Value> = client.call("cidfs/config").send().await?.json().await?;
            show(context, settings)?;
        }
        Action::Get(Get { key }) => {
            let setting = context.settings.get(key)?;
            context.print(&shown(setting), |out| match &setting.value {
                Raw::One(text) => writeln!(out, "{text}"),
                Raw::Many(texts) => texts.iter().try_for_each(|text| writeln!(out, "{text}")),
            })?;
        }
        Action::Set(set) => {
            repository::create(&context.repository)?;
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let edited = config::edit(&file.display().to_string(), &text, &set.key, set.value.as_deref())?;
            replace(&file, &edited).with_context(|| format!("cannot write {}", file.display()))?;
            if let Some(client) = Client::running(&context.repository).await {
                reload(&client).await?;
            }
        }
        Action::Reload(_) => {
            let Some(client) = Client::running(&context.repository).await else {
                return Ok(no_daemon(context));
            };
            reload(&client).await?;
        }
        Action::Path(_) => {
            context.print(&json!(file.display().to_string()), |out| writeln!(out, "{}", file.display()))?;
        }
    }
    Ok(Outcome::Done)
}

fn no_daemon(context: &Context) -> Outcome {
    eprintln!("cidfs: no daemon runs on {}", context.repository.display());
    Outcome::NoDaemon
}

/// Has a daemon read the file again, and says what came of it.
async fn reload(client: &Client) -> anyhow::Result<()> {
    let changes: Vec<Change> = client.call("cidfs/config/reload").send().await?.json().await?;
    for Change { key, applied } in changes {
        if applied {
            eprintln!("cidfs: the daemon follows {key} from now on");
        } else {
            eprintln!("cidfs: the daemon runs with another {key} until it is started again: `cidfs shutdown` ends it");
        }
    }
    Ok(())
}

fn shown(setting: &Setting) -> Value {
    Value::Object(setting_json(setting))
}

fn show(context: &Context, settings: Vec<Value>) -> anyhow::Result<()> {
    if context.json() {
        let settings: Map<String, Value> =
            settings.into_iter().filter_map(|setting| Some((setting["Key"].as_str()?.to_owned(), setting))).collect();
        return context.print(&settings, |_| Ok(()));
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    let rows =
        settings.iter().map(|setting| vec![text(&setting["Key"]), text(&setting["Value"]), text(&setting["Source"])]);
    let table = table(&["setting", "value", "from"], rows);
    context.print(&Value::Null, |out| writeln!(out, "{table}"))
}

/// Puts `text` in the place of `file`, whole or not at all.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    // A settings file may be a link into somebody's collection of such files: write through it.
    let file = &std::fs::canonicalize(file)?;
    let fresh = file.with_extension("toml.new");
    let mut opened = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    opened.write_all(text.as_bytes())?;
    opened.sync_all()?;
    std::fs::rename(&fresh, file)
}
