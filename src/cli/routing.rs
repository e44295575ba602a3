//! `cidfs routing` and `cidfs provide`: who has what, and telling others what is here.

use clap::{Args, Subcommand};

use super::Outcome;
use super::client::Client;
use super::context::Context;
use crate::daemon::api::routing::Event;

/// Find out who has a block, and where a peer is
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs routing findprovs bafy...\n  cidfs routing findpeer 12D3Koo...")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Findprovs(Findprovs),
    Findpeer(Findpeer),
    Provide(Provide),
}

/// List those who provide a block, as they are found
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs routing findprovs bafy...\n  cidfs routing findprovs -n 1 bafy...")]
struct Findprovs {
    /// The blocks: CIDs or paths
    #[arg(required = true)]
    paths: Vec<String>,
    /// Ends after so many providers of each
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    num_providers: usize,
    /// Prints the providers' addresses too
    #[arg(short = 'v', long)]
    verbose: bool,
}

/// List the addresses of a peer
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs routing findpeer 12D3Koo...")]
struct Findpeer {
    /// The peers
    #[arg(required = true)]
    peers: Vec<String>,
}

/// Announce that blocks are here
///
/// What is pinned is announced by itself: see the setting network.provide. Ends when those who keep announcements have been
/// told.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs provide bafy...\n  cidfs provide -r bafy...")]
pub struct Provide {
    /// The blocks: CIDs or paths
    #[arg(required = true)]
    paths: Vec<String>,
    /// Announces all blocks below too
    #[arg(short = 'r', long)]
    recursive: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let (call, addresses_only, verbose) = match &arguments.action {
        Action::Provide(arguments) => return provide(arguments, context).await,
        Action::Findprovs(find) => {
            let call = client.call("routing/findprovs").args(&find.paths);
            (call.option("num-providers", find.num_providers.to_string()), false, find.verbose)
        }
        Action::Findpeer(find) => (client.call("routing/findpeer").args(&find.peers), true, true),
    };
    let reply = call.maybe("timeout", context.timeout()).send().await?;
    let mut count = 0;
    reply
        .each(|event: Event| {
            context.print(&event, |out| {
                event.responses.iter().flatten().try_for_each(|found| {
                    count += 1;
                    if !addresses_only {
                        writeln!(out, "{}", found.id)?;
                    }
                    let indent = if addresses_only { "" } else { "  " };
                    let addresses = found.addrs.iter().filter(|_| verbose);
                    addresses.into_iter().try_for_each(|address| writeln!(out, "{indent}{address}"))
                })
            })
        })
        .await?;
    if count == 0 && !context.json() {
        eprintln!("cidfs: nobody was found");
        return Ok(Outcome::BadNews);
    }
    Ok(Outcome::Done)
}

pub async fn provide(arguments: &Provide, context: &Context) -> anyhow::Result<Outcome> {
    announce(&context.connect().await?, &arguments.paths, arguments.recursive, context).await?;
    Ok(Outcome::Done)
}

/// Announces blocks, with all below them if `recursive`, and waits until it is done.
pub async fn announce(client: &Client, paths: &[String], recursive: bool, context: &Context) -> anyhow::Result<()> {
    let call = client.call("routing/provide").args(paths).flag("recursive", recursive);
    call.maybe("timeout", context.timeout()).send().await?.each(|_: Event| Ok(())).await
}
