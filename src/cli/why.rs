//! `cidfs why`: what was asked of whom for a block, when, and with what answer.

use clap::Args;

use super::Outcome;
use super::context::Context;
use super::output::size;
use crate::daemon::api::fetch::Why;

/// Show why a block came slowly or not at all
///
/// Prints what was asked of whom, when, and what they answered: for the block itself, and where it is the root of what was read, for
/// the blocks below it that took longest. The daemon remembers the last fetches, and longer those that were slow or failed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs why bafy...\n  cidfs why --json bafy... | jq '.Fetches[0].Notes'")]
pub struct Arguments {
    /// The block, or the root that was read: a CID or a path
    cid: String,
    /// How many fetches to print
    #[arg(long, value_name = "N", default_value_t = 10)]
    most: usize,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let why: Why =
        client.call("cidfs/why").arg(&arguments.cid).maybe("timeout", context.timeout()).send().await?.json().await?;
    context.print(&why, |out| {
        writeln!(out, "{} is {}", why.cid, if why.is_here { "here" } else { "not here" })?;
        if why.fetches.is_empty() {
            writeln!(out, "nothing is remembered of a fetch of it, or for it")?;
        }
        for fetch in why.fetches.iter().take(arguments.most) {
            let from = fetch.from.as_ref().map_or_else(String::new, |from| format!(" from {from}"));
            writeln!(
                out,
                "\n{}: {} ({}) {}{from}, {} in {} ms",
                fetch.cid,
                fetch.state,
                fetch.priority,
                if fetch.error.is_some() { "in vain" } else { "" },
                size(fetch.bytes),
                fetch.milliseconds
            )?;
            for note in &fetch.notes {
                writeln!(out, "  {:>7} ms  {}: {}", note.milliseconds, note.whom, note.said)?;
            }
            if let Some(error) = &fetch.error {
                writeln!(out, "  {error}")?;
            }
        }
        if why.fetches.len() > arguments.most {
            writeln!(out, "\nand {} more (--most {})", why.fetches.len() - arguments.most, why.fetches.len())?;
        }
        for gateway in &why.gateways {
            let state = match gateway.aside_milliseconds {
                Some(milliseconds) => format!("put aside for {milliseconds} ms: {}", gateway.last_error),
                None => gateway.latency_milliseconds.map_or("not asked yet".into(), |ms| format!("answers in {ms} ms")),
            };
            writeln!(out, "\ngateway {}: {state}; {} blocks, {} errors", gateway.url, gateway.blocks, gateway.errors)?;
        }
        Ok(())
    })?;
    client.close().await?;
    Ok(Outcome::Done)
}
