//! `cidfs fetch`: brings whole DAGs here.

use std::fmt::Write as _;
use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;

use super::Outcome;
use super::context::{Context, shows_progress};
use super::output::size;
use super::progress::Bar;
use crate::daemon::api::fetch::Fetched;

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Bring a whole file or directory here, from peers and gateways
///
/// Every block is verified. What is here already is not fetched again, so an interrupted fetch goes on where it was. It ends
/// when all is here. What is fetched may be evicted again when room is needed: `cidfs pin add` keeps it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs fetch bafy...
  cidfs fetch --progress bafy.../train")]
pub struct Arguments {
    /// What to fetch: a CID or a path
    #[arg(required = true)]
    paths: Vec<String>,
    /// Prints how far it is, also where that is no terminal
    #[arg(short = 'p', long)]
    progress: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let mut out = std::io::stdout().lock();
    for path in &arguments.paths {
        let draws = shows_progress(context);
        let wants_lines = arguments.progress && !draws;
        let call = client.call("cidfs/fetch").arg(path).flag("progress", draws || wants_lines);
        let reply = call.maybe("timeout", context.timeout()).send().await?;
        let bar = Bar::bytes(draws, None);
        let mut told = Instant::now();
        let mut done = None;
        reply
            .each(|state: Fetched| {
                if context.json() {
                    serde_json::to_writer(&mut out, &state)?;
                    out.write_all(b"\n")?;
                }
                if state.done {
                    done = Some(state);
                    return Ok(());
                }
                if let Some(total) = state.total_bytes {
                    bar.set_length(total.max(state.bytes));
                }
                bar.set(state.bytes);
                if wants_lines && !context.json() && told.elapsed() >= LINE_EVERY {
                    told = Instant::now();
                    eprintln!("{}", line(&state));
                }
                Ok(())
            })
            .await?;
        bar.finish();
        let Some(done) = done else { anyhow::bail!("the answer broke off") };
        if !context.json() {
            writeln!(out, "fetched {}: {}", done.cid, line(&done))?;
        }
    }
    out.flush()?;
    client.close().await?;
    Ok(Outcome::Done)
}

/// How far it is, in one line.
fn line(state: &Fetched) -> String {
    let brought: u64 = state.brought.iter().map(|brought| brought.bytes).sum();
    let seconds = (state.milliseconds as f64 / 1000.0).max(0.001);
    let rate = brought as f64 / seconds;
    let mut text = format!("{} blocks, {}", state.blocks, size(state.bytes));
    if let Some(total) = state.total_bytes.filter(|total| !state.done && *total > state.bytes) {
        let _ = write!(text, " of {}", size(total));
        if rate >= 1.0 {
            let _ = write!(text, ", {} s to go", ((total - state.bytes) as f64 / rate).ceil());
        }
    }
    let _ = write!(text, ", {:.1} MB/s, {seconds:.1} s", rate / 1e6);
    for brought in state.brought.iter().take(MAX_SHOWN) {
        let _ = write!(text, "; {} from {}", size(brought.bytes), brought.whom);
    }
    if state.brought.len() > MAX_SHOWN {
        let _ = write!(text, "; and from {} others", state.brought.len() - MAX_SHOWN);
    }
    if state.done && state.brought.is_empty() {
        text.push_str("; all of it was here");
    }
    text
}

/// How many of those who sent something a line names.
const MAX_SHOWN: usize = 3;
