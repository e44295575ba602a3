//! `cidfs umount`: takes mounts away, those of a dead daemon too.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::client::Client;
use super::context::Context;

/// Unmount
///
/// Reads in flight are answered first. A daemon that `cidfs mount` started ends when nothing is mounted any more. What a
/// dead daemon left behind is taken away too. It is no error where nothing is mounted.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs umount /mnt/ipfs\n  cidfs umount --all")]
pub struct Arguments {
    /// The mountpoints
    #[arg(required_unless_present = "all")]
    mountpoints: Vec<PathBuf>,
    /// Everything that the daemon of this repository has mounted
    #[arg(short = 'a', long, conflicts_with = "mountpoints")]
    all: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let mut unmounted: Vec<String> = Vec::new();
    if let Some(client) = Client::running(&context.repository).await {
        let mut call = client.call("cidfs/umount").flag("all", arguments.all);
        for path in &arguments.mountpoints {
            call = call.arg(std::path::absolute(path)?.to_string_lossy());
        }
        let reply: Value = call.send().await?.json().await?;
        unmounted.extend(reply["Unmounted"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into));
    }
    context.print(&json!({ "Unmounted": unmounted }), |out| {
        unmounted.iter().try_for_each(|path| writeln!(out, "unmounted {path}"))
    })?;
    Ok(Outcome::Done)
}
