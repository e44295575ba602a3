//! `cidfs warmup`: brings trees to this machine before they are read.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use axum::body::Body;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::Outcome;
use super::client::read;
use super::context::{Context, shows_progress};
use super::output::size;
use super::progress::Bar;
use crate::daemon::api::warmup::Line;

/// Bring a tree to this machine before it is read
///
/// What is here already is not fetched again, so a warmup that was stopped goes on where it was. Exit status 1 where a block
/// could not be had; with --check, where anything is not here.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs warmup bafy.../train
  cidfs warmup --background bafy...          goes on by itself; `cidfs status` says how far it is
  head -1000 order.txt | cidfs warmup bafy.../train -f -
  cidfs warmup --metadata-only bafy...       enough for `ls -lR`
  cidfs warmup --check bafy... && echo all here
  cidfs warmup --evict bafy...")]
pub struct Arguments {
    /// What to bring: a CID, or a path
    #[arg(required_unless_present = "stop")]
    path: Option<String>,
    /// Brings the paths below PATH that the file lists, one a line; `-` is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    files: Option<PathBuf>,
    /// Says what is here and what is missing, and fetches nothing
    #[arg(long, conflicts_with_all = ["evict", "background", "tier"])]
    check: bool,
    /// Drops what is here and no pin needs. What nobody else has is then lost
    #[arg(long, conflicts_with_all = ["metadata_only", "background", "tier"])]
    evict: bool,
    /// Only directories, and the nodes of files that say where their data is
    #[arg(long)]
    metadata_only: bool,
    /// Leaves the work to the daemon and returns at once
    #[arg(long)]
    background: bool,
    /// Where it is wanted: on the disk, or in RAM too
    #[arg(long, value_name = "TIER")]
    tier: Option<Tier>,
    /// Stops the warmups of PATH in the background, or all; what they brought stays
    #[arg(long, conflicts_with_all = ["files", "check", "evict", "metadata_only", "background", "tier"])]
    stop: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tier {
    Disk,
    Ram,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    if arguments.stop {
        let call = client.call("cidfs/warmup/stop").args(&arguments.path);
        let value: Value = call.send().await?.json().await?;
        context.print(&value, |out| writeln!(out, "stopped {}", value["Stopped"]))?;
        client.close().await?;
        return Ok(Outcome::Done);
    }
    let path = arguments.path.as_deref().context("a path is required")?;
    let action = if arguments.check {
        "check"
    } else if arguments.evict {
        "evict"
    } else {
        "bring"
    };
    let body = match &arguments.files {
        Some(files) => read(Some(files)).await?,
        None => Body::empty(),
    };
    let call = client.call("cidfs/warmup").arg(path).option("action", action).body(body);
    let call = call.flag("list", arguments.files.is_some()).flag("metadata-only", arguments.metadata_only);
    let tier = arguments.tier.map(|tier| if matches!(tier, Tier::Ram) { "ram" } else { "disk" });
    let call = call.flag("background", arguments.background).maybe("tier", tier).maybe("timeout", context.timeout());
    let began = Instant::now();
    let reply = call.send().await?;
    let bar = Bar::bytes_and_files(shows_progress(context));
    let mut out = std::io::stdout().lock();
    let mut outcome = Outcome::Done;
    reply
        .each(|line: Line| {
            if let Line::Progress(progress) = &line {
                bar.set_length(progress.claimed_bytes.max(progress.bytes));
                bar.set(progress.bytes);
                bar.say(format!("{} files", progress.files));
            } else {
                bar.finish();
            }
            if let Line::Done(done) = &line
                && done.missing > 0
            {
                outcome = Outcome::BadNews;
                for missing in &done.first_missing {
                    eprintln!("cidfs: {missing}");
                }
                if done.missing > done.first_missing.len() as u64 {
                    eprintln!("cidfs: {} blocks are missing in all, as far as is known", done.missing);
                }
            }
            if context.json() {
                serde_json::to_writer(&mut out, &line)?;
                return Ok(out.write_all(b"\n")?);
            }
            match line {
                Line::Progress(_) => {}
                Line::Background(_) => writeln!(out, "{path} is brought in the background: see `cidfs status`")?,
                Line::Evicted(evicted) => {
                    write!(out, "dropped {} blocks ({})", evicted.blocks, size(evicted.bytes))?;
                    match evicted.kept_blocks {
                        0 => writeln!(out)?,
                        kept => writeln!(out, "; {kept} stay, as a pin or a write needs them")?,
                    }
                }
                Line::Done(done) => {
                    write!(out, "{} files, {} blocks, {} are here", done.files, done.blocks, size(done.bytes))?;
                    if done.fetched_blocks > 0 {
                        let seconds = began.elapsed().as_secs_f64().max(0.001);
                        let speed = size((done.fetched_bytes as f64 / seconds) as u64);
                        write!(out, "; {} of it fetched in {seconds:.1} s, {speed}/s", size(done.fetched_bytes))?;
                    }
                    if done.missing > 0 {
                        write!(out, "; {} blocks are missing, and what is below them", done.missing)?;
                    }
                    writeln!(out)?;
                }
            }
            Ok(())
        })
        .await?;
    out.flush()?;
    client.close().await?;
    Ok(outcome)
}
