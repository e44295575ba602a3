//! `cidfs name`: roots by names of one's own.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::Value;

use super::Outcome;
use super::context::Context;
use super::output::table;
use crate::daemon::api::names::NamedRoot;

/// Give roots names, under which the mount lists them
///
/// `cidfs name add imagenet bafy...` makes /mnt/ipfs/imagenet the same directory as /mnt/ipfs/bafy.... A name keeps no
/// block: pin the root for that (`cidfs pin add`; `cidfs add` does it).
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs name add imagenet bafy...
  cidfs name ls
  cidfs name rm imagenet")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Add(Add),
    Rm(Rm),
    Ls(Ls),
}

/// Name a root; a name that is taken then points here
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs name add imagenet bafy...\n  cidfs name add val bafy.../val")]
struct Add {
    /// The name: one part of a path
    name: String,
    /// The root: a CID, or a path
    path: String,
}

/// Take names away; what they named stays
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs name rm imagenet")]
struct Rm {
    /// The names
    #[arg(required = true)]
    names: Vec<String>,
}

/// List the names and their roots
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs name ls\n  cidfs name ls --json | jq -r '.Names[].Hash'")]
struct Ls {}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Names {
    names: Vec<NamedRoot>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    match &arguments.action {
        Action::Add(add) => {
            let call = client.call("cidfs/name/add").arg(&add.name).arg(&add.path);
            let named: NamedRoot = call.maybe("timeout", context.timeout()).send().await?.json().await?;
            context.print(&named, |out| writeln!(out, "{} {}", named.hash, named.name))?;
        }
        Action::Rm(rm) => {
            let removed: Value = client.call("cidfs/name/rm").args(&rm.names).send().await?.json().await?;
            context.print(&removed, |out| rm.names.iter().try_for_each(|name| writeln!(out, "removed {name}")))?;
        }
        Action::Ls(_) => {
            let value: Value = client.call("cidfs/name/ls").send().await?.json().await?;
            let names = Names::deserialize(&value)?.names;
            context.print(&value, |out| {
                if names.is_empty() {
                    return Ok(());
                }
                let rows = names.iter().map(|named| vec![named.name.clone(), named.hash.clone()]);
                writeln!(out, "{}", table(&["name", "root"], rows))
            })?;
        }
    }
    client.close().await?;
    Ok(Outcome::Done)
}
