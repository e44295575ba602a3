//! `cidfs block`: single blocks.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Outcome;
use super::client::read;
use super::context::Context;
use crate::daemon::api::block::BlockStat;

/// Read and write single blocks
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs block stat bafy...
  cidfs block get bafk... > block
  echo hello | cidfs block put")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Get(Get),
    Put(Put),
    Stat(Stat),
}

/// Write a block's bytes to standard output
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs block get bafk... | xxd | head")]
struct Get {
    /// The block's CID, or a path
    cid: String,
}

/// Keep files as blocks, as they are, and print their CIDs
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  echo hello | cidfs block put
  cidfs block put --cid-codec dag-cbor --pin manifest.cbor")]
struct Put {
    /// The files; standard input where none is given
    files: Vec<PathBuf>,
    /// The codec that the CID names
    #[arg(long, value_name = "NAME", default_value = "raw")]
    cid_codec: String,
    /// The hash function
    #[arg(long, value_name = "NAME", default_value = "sha2-256")]
    mhtype: String,
    /// The bytes of the digest that are kept; -1 for all
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    mhlen: i64,
    /// Pins the blocks, and with them what they link to
    #[arg(long)]
    pin: bool,
    /// An old way to name a codec; v0 makes a CIDv0
    #[arg(short = 'f', long, value_name = "NAME", hide = true)]
    format: Option<String>,
}

/// Print the CID and the size of blocks
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs block stat bafy.../train")]
struct Stat {
    /// The blocks' CIDs, or paths
    #[arg(required = true)]
    cids: Vec<String>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    match &arguments.action {
        Action::Get(get) => {
            let reply = client.call("block/get").arg(&get.cid).maybe("timeout", context.timeout()).send().await?;
            let mut out = std::io::stdout().lock();
            reply.pieces(|piece| Ok(out.write_all(&piece)?)).await?;
            out.flush()?;
        }
        Action::Put(put) => {
            let stdin = [PathBuf::from("-")];
            for file in if put.files.is_empty() { &stdin } else { &put.files[..] } {
                let call = client.call("block/put").option("cid-codec", &put.cid_codec).option("mhtype", &put.mhtype);
                let call = call.option("mhlen", put.mhlen.to_string()).flag("pin", put.pin);
                let reply = call.maybe("format", put.format.as_ref()).file(read(Some(file)).await?).send().await?;
                reply.each(|stat: BlockStat| context.print(&stat, |out| writeln!(out, "{}", stat.key))).await?;
            }
        }
        Action::Stat(stat) => {
            for cid in &stat.cids {
                let call = client.call("block/stat").arg(cid).maybe("timeout", context.timeout());
                let stat: BlockStat = call.send().await?.json().await?;
                context.print(&stat, |out| writeln!(out, "Key: {}\nSize: {}", stat.key, stat.size))?;
            }
        }
    }
    client.close().await?;
    Ok(Outcome::Done)
}
