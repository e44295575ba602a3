//! `cidfs pin`: what must stay.

use std::io::Write;

use clap::{ArgAction, Args, Subcommand};
use serde_json::Value;

use super::Outcome;
use super::context::{Context, shows_progress};
use super::progress::Bar;
use crate::daemon::api::pin::{PinLine, PinState, Pins};

/// Say what must stay: pinned blocks are never removed
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs pin add --name imagenet bafy...
  cidfs pin ls --names
  cidfs pin rm bafy...
  cidfs pin verify")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Add(Add),
    Rm(Rm),
    Ls(Ls),
    Update(Update),
    Verify(Verify),
}

/// Pin roots, and with them everything below
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs pin add --name imagenet bafy...\n  cidfs pin add -r=false bafy...     the block alone"
)]
struct Add {
    /// The roots: CIDs or paths
    #[arg(required = true)]
    paths: Vec<String>,
    /// Pins everything below too
    #[arg(short = 'r', long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    recursive: bool,
    /// A name for the pins
    #[arg(short = 'n', long, value_name = "NAME")]
    name: Option<String>,
    /// Draws progress; on a terminal it is drawn anyway
    #[arg(long)]
    progress: bool,
}

/// Take pins away; the blocks stay until they are collected (`cidfs gc`)
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs pin rm bafy... && cidfs gc")]
struct Rm {
    /// The roots: CIDs or paths
    #[arg(required = true)]
    paths: Vec<String>,
    /// Takes recursive pins away too
    #[arg(short = 'r', long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    recursive: bool,
}

/// List pins: the CID, how it is pinned, and the pin's name
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs pin ls --names
  cidfs pin ls -q | wc -l
  cidfs pin ls bafk...               what keeps this block?")]
struct Ls {
    /// What to look for; everything where nothing is given
    paths: Vec<String>,
    /// The kind of pins: set (recursive and direct), recursive, direct, indirect (what hangs below recursive pins), all
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "set", hide_possible_values = true)]
    #[arg(value_parser = ["set", "recursive", "direct", "indirect", "all"])]
    kind: String,
    /// Prints CIDs alone
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Prints the pins' names
    #[arg(long)]
    names: bool,
    /// Only pins whose name contains this; implies --names
    #[arg(short = 'n', long, value_name = "PART")]
    name: Option<String>,
    /// Accepted for kubo's sake: pins come as they are found anyway
    #[arg(short = 's', long, hide = true)]
    stream: bool,
}

/// Pin a new version of a root in the place of an old one
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs pin update bafy...old bafy...new")]
struct Update {
    /// The root that is pinned
    from: String,
    /// The root to pin
    to: String,
    /// Takes the old pin away
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    unpin: bool,
}

/// Check that everything below recursive pins is here
///
/// Exit status 1 where a pin lacks something. Whether the bytes of blocks are still good is for `cidfs verify`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs pin verify --verbose")]
struct Verify {
    /// Prints whole pins too
    #[arg(long)]
    verbose: bool,
    /// Prints the CIDs of broken pins alone
    #[arg(short = 'q', long, conflicts_with = "verbose")]
    quiet: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let mut outcome = Outcome::Done;
    let mut out = std::io::stdout().lock();
    match &arguments.action {
        Action::Add(add) => {
            let bar = Bar::count(add.progress || shows_progress(context), None, "blocks");
            for path in &add.paths {
                let call = client.call("pin/add").arg(path).flag("recursive", add.recursive).flag("progress", true);
                let reply = call.maybe("name", add.name.as_ref()).maybe("timeout", context.timeout()).send().await?;
                let how = if add.recursive { "recursively" } else { "directly" };
                reply
                    .each(|pins: Pins| {
                        bar.set(pins.progress);
                        if pins.pins.is_empty() {
                            return Ok(());
                        }
                        bar.finish();
                        print(&mut out, context, &pins, |out| {
                            pins.pins.iter().try_for_each(|cid| writeln!(out, "pinned {cid} {how}"))
                        })
                    })
                    .await?;
            }
        }
        Action::Rm(rm) => {
            for path in &rm.paths {
                let reply = client.call("pin/rm").arg(path).flag("recursive", rm.recursive).send().await?;
                let pins: Pins = reply.json().await?;
                print(&mut out, context, &pins, |out| {
                    pins.pins.iter().try_for_each(|cid| writeln!(out, "unpinned {cid}"))
                })?;
            }
        }
        Action::Ls(ls) => {
            // With something to look for, whatever keeps it is of interest.
            let kinds = match ls.kind.as_str() {
                "set" if ls.paths.is_empty() => vec!["recursive", "direct"],
                "set" => vec!["all"],
                kind => vec![kind],
            };
            for kind in kinds {
                let call = client.call("pin/ls").args(&ls.paths).option("type", kind).flag("stream", true);
                let call = call.flag("names", ls.names).maybe("name", ls.name.as_ref());
                let reply = call.maybe("timeout", context.timeout()).send().await?;
                reply
                    .each(|line: PinLine| {
                        print(&mut out, context, &line, |out| match (ls.quiet, line.name.as_str()) {
                            (true, _) => writeln!(out, "{}", line.cid),
                            (false, "") => writeln!(out, "{} {}", line.cid, line.kind),
                            (false, name) => writeln!(out, "{} {} {name}", line.cid, line.kind),
                        })
                    })
                    .await?;
            }
        }
        Action::Update(update) => {
            let call = client.call("pin/update").arg(&update.from).arg(&update.to).flag("unpin", update.unpin);
            let value: Value = call.maybe("timeout", context.timeout()).send().await?.json().await?;
            let cid = |index: usize| value["Pins"][index].as_str().unwrap_or_default().to_owned();
            print(&mut out, context, &value, |out| writeln!(out, "updated {} to {}", cid(0), cid(1)))?;
        }
        Action::Verify(verify) => {
            let call = client.call("pin/verify").flag("verbose", verify.verbose).flag("quiet", verify.quiet);
            let reply = call.maybe("timeout", context.timeout()).send().await?;
            reply
                .each(|state: PinState| {
                    if !state.ok {
                        outcome = Outcome::BadNews;
                    }
                    print(&mut out, context, &state, |out| match (state.ok, verify.quiet) {
                        (true, _) => writeln!(out, "{} ok", state.cid),
                        (false, true) => writeln!(out, "{}", state.cid),
                        (false, false) => {
                            writeln!(out, "{} broken", state.cid)?;
                            state.bad_nodes.iter().try_for_each(|bad| writeln!(out, "  {}: {}", bad.cid, bad.err))
                        }
                    })
                })
                .await?;
        }
    }
    out.flush()?;
    client.close().await?;
    Ok(outcome)
}

/// Prints one line of a stream: as JSON where that is wanted.
fn print<T: serde::Serialize>(
    out: &mut impl Write,
    context: &Context,
    value: &T,
    text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    if context.json() {
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")?;
    } else {
        text(out)?;
    }
    Ok(())
}
