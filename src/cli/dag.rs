//! `cidfs dag`: nodes in the IPLD data model.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Outcome;
use super::client::read;
use super::context::{Context, shows_progress};
use super::output::{size, table};
use super::progress::Bar;

/// Read and write nodes of any codec
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs dag get bafy... | jq .
  echo '{\"train\": {\"/\": \"bafy...\"}}' | cidfs dag put
  cidfs dag stat bafy...")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Get(Get),
    Put(Put),
    Resolve(Resolve),
    Stat(Stat),
    /// The same as `cidfs car export`
    #[command(hide = true)]
    Export(super::car::Export),
    /// The same as `cidfs car import`
    #[command(hide = true)]
    Import(super::car::Import),
}

/// Print how many blocks DAGs have, and how many bytes; each block is counted once
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs dag stat bafy...old bafy...new")]
struct Stat {
    /// The roots: CIDs or paths
    #[arg(required = true)]
    roots: Vec<String>,
    /// Draws progress; on a terminal it is drawn anyway
    #[arg(short = 'p', long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    progress: Option<bool>,
}

/// Print a node, or a part of one
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs dag get bafyrei.../splits/0\n  cidfs dag get --output-codec dag-cbor bafyrei... > node.cbor"
)]
struct Get {
    /// The node: a CID, and keys below it
    path: String,
    /// The codec to print it in
    #[arg(long, value_name = "NAME", default_value = "dag-json")]
    output_codec: String,
}

/// Keep files as nodes, and print their CIDs
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs dag put manifest.json\n  cidfs dag put --store-codec dag-json --pin < manifest.json"
)]
struct Put {
    /// The files; standard input where none is given
    files: Vec<PathBuf>,
    /// The codec of the files
    #[arg(long, value_name = "NAME", default_value = "dag-json")]
    input_codec: String,
    /// The codec of the blocks
    #[arg(long, value_name = "NAME", default_value = "dag-cbor")]
    store_codec: String,
    /// The hash function
    #[arg(long, value_name = "NAME", default_value = "sha2-256")]
    hash: String,
    /// Pins the nodes, and with them what they link to
    #[arg(long)]
    pin: bool,
}

/// Print the block that a path ends in, and what of the path is left within it
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs dag resolve bafyrei.../splits/0/files")]
struct Resolve {
    /// The path
    path: String,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    match &arguments.action {
        Action::Export(arguments) => return super::car::export(arguments, context).await,
        Action::Import(arguments) => return super::car::import(arguments, context).await,
        _ => {}
    }
    let client = context.connect().await?;
    match &arguments.action {
        // Answered above.
        Action::Export(_) | Action::Import(_) => {}
        Action::Stat(stat) => {
            let progress = stat.progress.unwrap_or_else(|| shows_progress(context));
            let bar = Bar::count(progress, None, "blocks");
            let call = client.call("dag/stat").args(&stat.roots).flag("progress", progress);
            let reply = call.maybe("timeout", context.timeout()).send().await?;
            let mut last = Value::Null;
            reply
                .each(|line: Value| {
                    let roots = line["DagStats"].as_array().into_iter().flatten();
                    bar.set(roots.filter_map(|root| root["NumBlocks"].as_u64()).sum());
                    last = line;
                    Ok(())
                })
                .await?;
            bar.finish();
            context.print(&last, |out| print_stat(out, &last))?;
        }
        Action::Get(get) => {
            let call = client.call("dag/get").arg(&get.path).option("output-codec", &get.output_codec);
            let reply = call.maybe("timeout", context.timeout()).send().await?;
            let mut out = std::io::stdout().lock();
            reply.pieces(|piece| Ok(out.write_all(&piece)?)).await?;
            if get.output_codec.ends_with("json") {
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
        Action::Put(put) => {
            let stdin = [PathBuf::from("-")];
            for file in if put.files.is_empty() { &stdin } else { &put.files[..] } {
                let call = client.call("dag/put").option("input-codec", &put.input_codec).flag("pin", put.pin);
                let call = call.option("store-codec", &put.store_codec).option("hash", &put.hash);
                let reply = call.file(read(Some(file)).await?).send().await?;
                reply
                    .each(|node: Value| {
                        let cid = context.cid(node["Cid"]["/"].as_str().unwrap_or_default());
                        context.print(&node, |out| writeln!(out, "{cid}"))
                    })
                    .await?;
            }
        }
        Action::Resolve(resolve) => {
            let call = client.call("dag/resolve").arg(&resolve.path).maybe("timeout", context.timeout());
            let value: Value = call.send().await?.json().await?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            context.print(&value, |out| {
                writeln!(out, "{}{}", context.cid(&text(&value["Cid"]["/"])), text(&value["RemPath"]))
            })?;
        }
    }
    client.close().await?;
    Ok(Outcome::Done)
}

fn print_stat(out: &mut dyn Write, stat: &Value) -> std::io::Result<()> {
    let bytes = |value: &Value| value.as_u64().unwrap_or_default();
    let rows = stat["DagStats"].as_array().into_iter().flatten().map(|root| {
        let cid = root["Cid"].as_str().unwrap_or_default().to_owned();
        vec![cid, bytes(&root["NumBlocks"]).to_string(), bytes(&root["Size"]).to_string(), size(bytes(&root["Size"]))]
    });
    writeln!(out, "{}", table(&["root", "blocks", "bytes", ""], rows))?;
    writeln!(
        out,
        "all together: {} blocks, {} bytes ({}); {} of the bytes are shared",
        bytes(&stat["UniqueBlocks"]),
        bytes(&stat["TotalSize"]),
        size(bytes(&stat["TotalSize"])),
        size(bytes(&stat["SharedSize"]))
    )
}
