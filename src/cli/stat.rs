//! `cidfs stat`: what is known of one path.

use clap::Args;
use serde_json::Value;

use super::Outcome;
use super::context::Context;
use super::output::size;

/// Show what is at a path: its CID, kind, size, and how much of it is here
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs stat bafy.../train/0.jpg\n  cidfs stat --json imagenet")]
pub struct Arguments {
    /// The paths: a CID or a name of `cidfs name`, and names below it
    #[arg(required = true)]
    paths: Vec<String>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    for (index, path) in arguments.paths.iter().enumerate() {
        let call = client.call("cidfs/stat").arg(path).maybe("timeout", context.timeout());
        let stat: Value = call.send().await?.json().await?;
        let text = |name: &str| match &stat[name] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let bytes = |name: &str| stat[name].as_u64().map_or_else(|| "-".to_owned(), |n| format!("{n} ({})", size(n)));
        context.print(&stat, |out| {
            if index > 0 {
                writeln!(out)?;
            }
            writeln!(out, "path     {}", text("Path"))?;
            writeln!(out, "cid      {}", text("Hash"))?;
            writeln!(out, "type     {} ({})", text("Type"), text("Codec"))?;
            if stat["Type"] != "directory" {
                writeln!(out, "size     {}", bytes("Size"))?;
                writeln!(out, "here     {}, {} blocks", bytes("CachedBytes"), text("Blocks"))?;
            }
            writeln!(out, "block    {}", bytes("BlockSize"))?;
            for (label, name) in [("mode     ", "Mode"), ("changed  ", "ModTime")] {
                if !stat[name].is_null() {
                    writeln!(out, "{label}{}", text(name))?;
                }
            }
            Ok(())
        })?;
    }
    client.close().await?;
    Ok(Outcome::Done)
}
