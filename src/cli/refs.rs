//! `cidfs refs`: the links of nodes.

use std::io::Write;

use clap::Args;

use super::Outcome;
use super::context::Context;
use crate::daemon::api::refs::Ref;

/// List the links of nodes
///
/// `cidfs refs local` lists all blocks that are here.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs refs bafy...
  cidfs refs -r --format '<linkname> <dst>' bafy...
  cidfs refs local | wc -l")]
pub struct Arguments {
    /// The nodes: CIDs or paths; or `local`
    #[arg(required = true)]
    paths: Vec<String>,
    /// Goes on to all nodes below
    #[arg(short = 'r', long)]
    recursive: bool,
    /// Lists each link once
    #[arg(short = 'u', long)]
    unique: bool,
    /// Prints `FROM -> TO`
    #[arg(short = 'e', long)]
    edges: bool,
    /// What to print of each link: <src>, <dst>, <linkname>
    #[arg(long, value_name = "TEXT", default_value = "<dst>")]
    format: String,
    /// How many links deep to go with -r; -1 for all
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    max_depth: i64,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let call = if arguments.paths == ["local"] {
        client.call("refs/local")
    } else {
        let call = client.call("refs").args(&arguments.paths).flag("recursive", arguments.recursive);
        let call = call.flag("unique", arguments.unique).flag("edges", arguments.edges);
        call.option("format", &arguments.format).option("max-depth", arguments.max_depth.to_string())
    };
    let reply = call.maybe("timeout", context.timeout()).send().await?;
    let mut out = std::io::stdout().lock();
    let mut failed = Outcome::Done;
    reply
        .each(|line: Ref| {
            if context.json() {
                serde_json::to_writer(&mut out, &line)?;
                out.write_all(b"\n")?;
            } else if line.err.is_empty() {
                writeln!(out, "{}", line.text)?;
            } else {
                eprintln!("cidfs: {}", line.err);
            }
            if !line.err.is_empty() {
                failed = Outcome::BadNews;
            }
            Ok(())
        })
        .await?;
    out.flush()?;
    client.close().await?;
    Ok(failed)
}
