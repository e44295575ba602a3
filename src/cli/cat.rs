//! `cidfs cat`: the bytes of files.

use std::io::Write;

use clap::Args;

use super::Outcome;
use super::context::Context;

/// Write the contents of files to standard output
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs cat bafy.../train/labels.csv | head
  cidfs cat --offset 1MiB --length 64KiB bafy.../model.safetensors > part")]
pub struct Arguments {
    /// The files: a CID or a name of `cidfs name`, and names below it
    #[arg(required = true)]
    paths: Vec<String>,
    /// Begins at this byte, counted over all files
    #[arg(short = 'o', long, value_name = "BYTES", value_parser = super::context::bytes)]
    offset: Option<u64>,
    /// Writes this many bytes at most
    #[arg(short = 'l', long, value_name = "BYTES", value_parser = super::context::bytes)]
    length: Option<u64>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let call = client.call("cat").args(&arguments.paths).maybe("offset", arguments.offset);
    let reply = call.maybe("length", arguments.length).maybe("timeout", context.timeout()).send().await?;
    let mut out = std::io::stdout().lock();
    reply.pieces(|piece| Ok(out.write_all(&piece)?)).await?;
    out.flush()?;
    client.close().await?;
    Ok(Outcome::Done)
}
