//! `cidfs repo`, `cidfs gc`, and `cidfs verify`: the store as a whole.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Outcome;
use super::context::{Context, shows_progress};
use super::output::size;
use super::progress::Bar;
use crate::daemon::api::repo::{GcLine, VerifyLine};

/// Show the repository in numbers
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs repo stat\n  cidfs repo stat --json | jq .NumObjects")]
pub struct RepoArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Stat(Stat),
    Gc(GcArguments),
    Verify(VerifyArguments),
    Version(Version),
}

/// Print how many blocks there are and how much room they take
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs repo stat\n  cidfs repo stat --human")]
struct Stat {
    /// Only the sizes
    #[arg(short = 's', long)]
    size_only: bool,
    /// Sizes for people
    #[arg(short = 'H', long)]
    human: bool,
}

/// Print the version of the repository's layout
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs repo version")]
struct Version {}

/// Remove every block that no pin needs
///
/// Reads and adds go on meanwhile. Nothing is removed while a pin lacks a node, as what hangs below it cannot be told from
/// what nobody needs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs gc\n  cidfs gc --json | tail -1")]
pub struct GcArguments {
    /// Prints the CIDs of removed blocks alone
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Prints each removed block
    #[arg(short = 'v', long)]
    verbose: bool,
}

/// Hash every block, and check every pin
///
/// Damaged blocks are listed; with --repair they are dropped, so that they are fetched again, or show up as missing. Exit
/// status 1 where something is damaged, and not repaired, or where a pin lacks blocks.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs verify\n  cidfs verify --repair")]
pub struct VerifyArguments {
    /// Drops what is damaged
    #[arg(long)]
    repair: bool,
}

pub async fn run(arguments: &RepoArguments, context: &Context) -> anyhow::Result<Outcome> {
    match &arguments.action {
        Action::Gc(arguments) => gc(arguments, context).await,
        Action::Verify(arguments) => verify(arguments, context).await,
        Action::Version(_) => {
            let client = context.connect().await?;
            let value: Value = client.call("repo/version").send().await?.json().await?;
            context.print(&value, |out| writeln!(out, "{}", value["Version"].as_str().unwrap_or_default()))?;
            client.close().await?;
            Ok(Outcome::Done)
        }
        Action::Stat(stat) => {
            let client = context.connect().await?;
            let call = client.call("repo/stat").flag("size-only", stat.size_only);
            let value: Value = call.send().await?.json().await?;
            let bytes = |name: &str| match value[name].as_u64() {
                Some(u64::MAX) => "unlimited".to_owned(),
                Some(bytes) if stat.human => size(bytes),
                _ => value[name].to_string(),
            };
            context.print(&value, |out| {
                if !stat.size_only {
                    writeln!(out, "NumObjects: {}", value["NumObjects"])?;
                }
                writeln!(out, "RepoSize:   {}\nStorageMax: {}", bytes("RepoSize"), bytes("StorageMax"))?;
                if !stat.size_only {
                    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
                    writeln!(out, "RepoPath:   {}\nVersion:    {}", text("RepoPath"), text("Version"))?;
                }
                Ok(())
            })?;
            client.close().await?;
            Ok(Outcome::Done)
        }
    }
}

pub async fn gc(arguments: &GcArguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let reply = client.call("cidfs/gc").maybe("timeout", context.timeout()).send().await?;
    let bar = Bar::count(shows_progress(context) && !arguments.verbose && !arguments.quiet, None, "blocks");
    let mut out = std::io::stdout().lock();
    let mut removed = 0;
    reply
        .each(|line: GcLine| {
            match line {
                GcLine::Marked(blocks) => bar.set(blocks),
                GcLine::Removed(cid) => {
                    removed += 1;
                    bar.set(removed);
                    if context.json() {
                        writeln!(out, "{}", json!({ "Removed": cid }))?;
                    } else if arguments.quiet {
                        writeln!(out, "{cid}")?;
                    } else if arguments.verbose {
                        writeln!(out, "removed {cid}")?;
                    }
                }
                GcLine::Compacting => {}
                GcLine::Done(done) => {
                    bar.finish();
                    if context.json() {
                        writeln!(out, "{}", serde_json::to_string(&done)?)?;
                    } else if !arguments.quiet {
                        writeln!(
                            out,
                            "removed {} blocks ({}), kept {} ({}); {} less on the disk",
                            done.removed_blocks,
                            size(done.removed_bytes),
                            done.kept_blocks,
                            size(done.kept_bytes),
                            size(done.freed_bytes)
                        )?;
                    }
                }
            }
            Ok(())
        })
        .await?;
    out.flush()?;
    client.close().await?;
    Ok(Outcome::Done)
}

pub async fn verify(arguments: &VerifyArguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let call = client.call("cidfs/verify").flag("repair", arguments.repair).maybe("timeout", context.timeout());
    let reply = call.send().await?;
    let bar = Bar::bytes(shows_progress(context), Some(0));
    let mut out = std::io::stdout().lock();
    let mut outcome = Outcome::Done;
    reply
        .each(|line: VerifyLine| {
            if context.json() && !matches!(line, VerifyLine::Read { .. }) {
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n")?;
            }
            let text = match &line {
                VerifyLine::Read { bytes, total_bytes, .. } => {
                    bar.set_length(*total_bytes);
                    bar.set(*bytes);
                    None
                }
                VerifyLine::Damaged { hash, segment, offset, why } => {
                    Some(format!("damaged {hash} ({segment} at byte {offset}): {why}"))
                }
                VerifyLine::Incomplete { hash, name, missing, first } => {
                    let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
                    Some(format!("incomplete pin {hash}{name}: {missing} blocks are missing, the first is {first}"))
                }
                VerifyLine::Done { blocks, bytes, damaged, dropped, incomplete } => {
                    bar.finish();
                    if damaged > dropped || *incomplete > 0 {
                        outcome = Outcome::BadNews;
                    }
                    let read = format!("{blocks} blocks ({}) were hashed", size(*bytes));
                    let hint = if damaged > dropped { "; `cidfs verify --repair` drops what is damaged" } else { "" };
                    Some(match (damaged, incomplete) {
                        (0, 0) => format!("{read}: all are good"),
                        _ => format!(
                            "{read}: {damaged} damaged, of which {dropped} were dropped; {incomplete} pins lack \
                             blocks{hint}"
                        ),
                    })
                }
            };
            if let Some(text) = text.filter(|_| !context.json()) {
                writeln!(out, "{text}")?;
            }
            Ok(())
        })
        .await?;
    out.flush()?;
    client.close().await?;
    Ok(outcome)
}
