//! `cidfs shutdown`: ends the daemon.

use clap::Args;

use super::Outcome;
use super::client::Client;
use super::context::Context;

/// End the daemon
///
/// Requests and reads in flight are finished, and everything it has mounted is unmounted. Returns when the daemon has
/// ended. Without a daemon there is nothing to do, which is no error.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs shutdown")]
pub struct Arguments {}

pub async fn run(_arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let Some(client) = Client::running(&context.repository).await else {
        eprintln!("cidfs: no daemon runs on {}", context.repository.display());
        return Ok(Outcome::Done);
    };
    client.call("shutdown").send().await?;
    // The daemon has the repository's lock until it is gone.
    let lock = std::fs::File::open(context.repository.join("repo.lock"))?;
    tokio::task::spawn_blocking(move || lock.lock_shared()).await??;
    Ok(Outcome::Done)
}
