//! `cidfs umount`: takes mounts away, those of a dead daemon too.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::Outcome;
use super::client::Client;
use super::context::Context;
use crate::fuse;

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
    let mut unmounted: Vec<PathBuf> = Vec::new();
    let paths: Vec<PathBuf> = arguments.mountpoints.iter().map(|path| plain(path)).collect::<Result<_, _>>()?;
    if let Some(client) = Client::running(&context.repository).await {
        let mut call = client.call("cidfs/umount").flag("all", arguments.all);
        for path in &paths {
            call = call.arg(path.to_str().context("the mountpoint's name is not UTF-8")?);
        }
        let reply: Unmounted = call.send().await?.json().await?;
        unmounted = reply.unmounted;
    }
    // Those of another daemon, or of one that died.
    for path in paths {
        if unmounted.contains(&path) {
            continue;
        }
        let taken = fuse::take_away(&path).with_context(|| format!("cannot unmount {}", path.display()))?;
        if taken {
            unmounted.push(path);
        } else {
            eprintln!("cidfs: no cidfs is mounted on {}", path.display());
        }
    }
    if arguments.all && unmounted.is_empty() {
        eprintln!("cidfs: nothing is mounted");
    }
    let reply = Unmounted { unmounted };
    context.print(&reply, |out| {
        reply.unmounted.iter().try_for_each(|path| writeln!(out, "unmounted {}", path.display()))
    })?;
    Ok(Outcome::Done)
}

/// What was unmounted.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Unmounted {
    unmounted: Vec<PathBuf>,
}

/// The path as the kernel lists it: absolute, and without links above its last name, which may be a stale mount that cannot be
/// resolved itself.
fn plain(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        let whole = parent.join(name);
        return Ok(if whole.is_symlink() { whole.canonicalize().unwrap_or(whole) } else { whole });
    }
    Ok(path)
}
