//! `cidfs id`: who this repository is to others.

use clap::Args;
use serde_json::Value;

use super::Outcome;
use super::context::Context;

/// Show the identity of this repository, or of a peer
///
/// Prints the peer ID, the public key, the addresses and the protocols, as `ipfs id` does; without a daemon there are neither
/// addresses nor protocols. The identity is made at first use and is kept in `identity.key` in the repository.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs id\n  cidfs id -f '<id>\\n'\n  cidfs id 12D3Koo...")]
pub struct Arguments {
    /// The peer; this repository where none is given
    peer: Option<String>,
    /// A text to fill in: <id>, <aver>, <pubkey>, <addrs>, <protocols>; \n and \t are understood
    #[arg(short = 'f', long)]
    format: Option<String>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let id: Value =
        client.call("id").args(&arguments.peer).maybe("timeout", context.timeout()).send().await?.json().await?;
    let text = |name: &str| id[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| -> String {
        let items = id[name].as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    };
    context.print(&id, |out| match &arguments.format {
        Some(format) => {
            let filled = format
                .replace("<id>", &text("ID"))
                .replace("<aver>", &text("AgentVersion"))
                .replace("<pubkey>", &text("PublicKey"))
                .replace("<addrs>", &list("Addresses"))
                .replace("<protocols>", &list("Protocols"))
                .replace("\\n", "\n")
                .replace("\\t", "\t");
            write!(out, "{filled}")
        }
        None => writeln!(out, "{}", serde_json::to_string_pretty(&id)?),
    })?;
    Ok(Outcome::Done)
}
