//! `cidfs bitswap`: what goes to and fro between this node and its peers.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Outcome;
use super::context::Context;
use super::output::size;
use crate::daemon::api::bitswap::{Ledger, Stat};

/// Show what goes to and fro between this node and its peers
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs bitswap stat\n  cidfs bitswap wantlist\n  cidfs bitswap ledger 12D3Koo...")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what was sent and received since the start
    #[command(after_help = "Examples:\n  cidfs bitswap stat\n  cidfs bitswap stat --json")]
    Stat {
        /// Lists the peers and the wanted blocks, too
        #[arg(short = 'v', long)]
        verbose: bool,
    },
    /// List the blocks that are wanted
    #[command(after_help = "Examples:\n  cidfs bitswap wantlist\n  cidfs bitswap wantlist -p 12D3Koo...")]
    Wantlist {
        /// What this peer wants of us, in the place of what we want
        #[arg(short = 'p', long, value_name = "PEER")]
        peer: Option<String>,
    },
    /// Show what a peer got and gave
    #[command(after_help = "Examples:\n  cidfs bitswap ledger 12D3Koo...")]
    Ledger {
        /// The peer
        peer: String,
    },
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    match &arguments.action {
        Action::Stat { verbose } => {
            let reply = client.call("bitswap/stat").maybe("timeout", context.timeout()).send().await?;
            let stat: Stat = reply.json().await?;
            context.print(&stat, |out| {
                writeln!(out, "received: {} blocks, {}", stat.blocks_received, size(stat.data_received))?;
                writeln!(out, "of them twice: {} blocks, {}", stat.dup_blks_received, size(stat.dup_data_received))?;
                writeln!(out, "messages received: {}", stat.messages_received)?;
                writeln!(out, "sent: {} blocks, {}", stat.blocks_sent, size(stat.data_sent))?;
                writeln!(out, "asked of a second peer: {} blocks", stat.hedges)?;
                writeln!(out, "peers put aside for their silence: {} times", stat.timeouts)?;
                writeln!(out, "faults of peers: {}", stat.faults)?;
                writeln!(out, "roots being read: {}", stat.sessions)?;
                writeln!(out, "wanted: {} blocks", stat.wantlist.len())?;
                if *verbose {
                    cids(&stat.wantlist).try_for_each(|cid| writeln!(out, "  {cid}"))?;
                }
                writeln!(out, "peers: {}", stat.peers.len())?;
                stat.peers.iter().filter(|_| *verbose).try_for_each(|peer| writeln!(out, "  {peer}"))
            })?;
        }
        Action::Wantlist { peer } => {
            let call = client.call("bitswap/wantlist").maybe("peer", peer.as_ref());
            let list: Value = call.maybe("timeout", context.timeout()).send().await?.json().await?;
            context.print(&list, |out| {
                let keys = list["Keys"].as_array().map(Vec::as_slice).unwrap_or_default();
                cids(keys).try_for_each(|cid| writeln!(out, "{cid}"))
            })?;
        }
        Action::Ledger { peer } => {
            let call = client.call("bitswap/ledger").arg(peer);
            let ledger: Ledger = call.maybe("timeout", context.timeout()).send().await?.json().await?;
            context.print(&ledger, |out| {
                writeln!(out, "peer: {}", ledger.peer)?;
                writeln!(out, "it got: {}, in {} messages", size(ledger.sent), ledger.exchanged)?;
                writeln!(out, "it gave: {}", size(ledger.recv))
            })?;
        }
    }
    Ok(Outcome::Done)
}

fn cids(links: &[Value]) -> impl Iterator<Item = &str> {
    links.iter().filter_map(|link| link["/"].as_str())
}
