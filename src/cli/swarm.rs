//! `cidfs swarm`: the peers of the node.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Outcome;
use super::client::{Call, Reply};
use super::context::Context;
use crate::daemon::api::swarm::{PeeringLine, Peers, Sentences};

/// Show and change whom the daemon is connected to
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs swarm peers -v
  cidfs swarm connect /ip4/10.0.0.2/tcp/4001/p2p/12D3Koo...
  cidfs swarm peering add /ip4/10.0.0.2/tcp/4001/p2p/12D3Koo...")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Peers(PeersArguments),
    Connect(Connect),
    Disconnect(Disconnect),
    Addrs(Addrs),
    Peering(Peering),
}

/// List the connected peers
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs swarm peers -v")]
struct PeersArguments {
    /// Prints all of the below
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Prints how long each took to answer last
    #[arg(long)]
    latency: bool,
    /// Prints who dialed whom
    #[arg(long)]
    direction: bool,
    /// Prints what each told of itself
    #[arg(long)]
    identify: bool,
}

/// Connect to peers; such a connection is not given up when there are too many
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs swarm connect /ip4/10.0.0.2/tcp/4001/p2p/12D3Koo...
  cidfs swarm connect /p2p/12D3Koo...           its addresses are looked up")]
struct Connect {
    /// Addresses that end in /p2p/PEER
    #[arg(required = true)]
    addresses: Vec<String>,
}

/// Close connections
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs swarm disconnect 12D3Koo...")]
struct Disconnect {
    /// Peers, or addresses that end in /p2p/PEER
    #[arg(required = true)]
    peers: Vec<String>,
}

/// List the addresses of all peers that are known
///
/// `cidfs swarm addrs local` lists the addresses that this node tells others, `cidfs swarm addrs listen` those that it listens
/// on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs swarm addrs\n  cidfs swarm addrs local --id")]
struct Addrs {
    /// `local` or `listen`: those of this node
    #[arg(value_parser = ["local", "listen"], hide_possible_values = true)]
    which: Option<String>,
    /// Puts the peer ID at the end of local addresses
    #[arg(long)]
    id: bool,
}

/// Stay connected to peers, until the daemon ends; the setting network.peering is for ever
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs swarm peering add /ip4/10.0.0.2/tcp/4001/p2p/12D3Koo...
  cidfs swarm peering rm 12D3Koo...
  cidfs swarm peering ls")]
struct Peering {
    #[command(subcommand)]
    action: PeeringAction,
}

#[derive(Subcommand, Debug)]
enum PeeringAction {
    /// Stay connected to these
    #[command(after_help = "Examples:\n  cidfs swarm peering add /ip4/10.0.0.2/tcp/4001/p2p/12D3Koo...")]
    Add {
        /// Addresses that end in /p2p/PEER
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Stay connected to these no longer
    #[command(after_help = "Examples:\n  cidfs swarm peering rm 12D3Koo...")]
    Rm {
        /// The peers
        #[arg(required = true)]
        peers: Vec<String>,
    },
    /// List the peers that the daemon stays connected to
    #[command(after_help = "Examples:\n  cidfs swarm peering ls")]
    Ls,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    match &arguments.action {
        Action::Peers(peers) => {
            let call = client.call("swarm/peers").flag("verbose", peers.verbose).flag("latency", peers.latency);
            let call = call.flag("direction", peers.direction).flag("identify", peers.identify);
            let found: Peers = send(call, context).await?.json().await?;
            context.print(&found, |out| {
                found.peers.iter().flatten().try_for_each(|line| {
                    write!(out, "{}/p2p/{}", line.addr, line.peer)?;
                    if !line.latency.is_empty() {
                        write!(out, " {}", line.latency)?;
                    }
                    match line.direction {
                        1 => write!(out, " inbound")?,
                        2 => write!(out, " outbound")?,
                        _ => {}
                    }
                    if !line.identify.agent_version.is_empty() {
                        write!(out, " {}", line.identify.agent_version)?;
                    }
                    writeln!(out)?;
                    line.identify.protocols.iter().flatten().try_for_each(|protocol| writeln!(out, "  {protocol}"))
                })
            })?;
        }
        Action::Connect(connect) => {
            sentences(
                &send(client.call("swarm/connect").args(&connect.addresses), context).await?.json().await?,
                context,
            )?;
        }
        Action::Disconnect(disconnect) => {
            sentences(
                &send(client.call("swarm/disconnect").args(&disconnect.peers), context).await?.json().await?,
                context,
            )?;
        }
        Action::Addrs(Addrs { which: Some(which), id }) => {
            let call = client.call(&format!("swarm/addrs/{which}")).flag("id", *id);
            sentences(&send(call, context).await?.json().await?, context)?;
        }
        Action::Addrs(Addrs { which: None, .. }) => {
            let all: Value = send(client.call("swarm/addrs"), context).await?.json().await?;
            context.print(&all, |out| {
                all["Addrs"].as_object().into_iter().flatten().try_for_each(|(peer, addresses)| {
                    let addresses = addresses.as_array().map(Vec::as_slice).unwrap_or_default();
                    writeln!(out, "{peer} ({})", addresses.len())?;
                    addresses.iter().filter_map(Value::as_str).try_for_each(|it| writeln!(out, "  {it}"))
                })
            })?;
        }
        Action::Peering(peering) => {
            let call = match &peering.action {
                PeeringAction::Add { addresses } => client.call("swarm/peering/add").args(addresses),
                PeeringAction::Rm { peers } => client.call("swarm/peering/rm").args(peers),
                PeeringAction::Ls => {
                    let all: Value = send(client.call("swarm/peering/ls"), context).await?.json().await?;
                    context.print(&all, |out| {
                        all["Peers"].as_array().into_iter().flatten().try_for_each(|peer| {
                            writeln!(out, "{}", peer["ID"].as_str().unwrap_or_default())?;
                            let addresses = peer["Addrs"].as_array().into_iter().flatten();
                            addresses.filter_map(Value::as_str).try_for_each(|it| writeln!(out, "  {it}"))
                        })
                    })?;
                    return Ok(Outcome::Done);
                }
            };
            let reply = send(call, context).await?;
            reply
                .each(|line: PeeringLine| context.print(&line, |out| writeln!(out, "{} {}", line.id, line.status)))
                .await?;
        }
    }
    Ok(Outcome::Done)
}

async fn send(call: Call<'_>, context: &Context) -> anyhow::Result<Reply> {
    call.maybe("timeout", context.timeout()).send().await
}

fn sentences(sentences: &Sentences, context: &Context) -> anyhow::Result<()> {
    context.print(&sentences, |out| sentences.strings.iter().try_for_each(|line| writeln!(out, "{line}")))
}
