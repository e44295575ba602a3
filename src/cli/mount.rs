//! `cidfs mount`: makes the blocks of this machine readable below a directory.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::context::Context;
use super::{Outcome, spawn};
use crate::config::{Config, MountProfile};
use crate::daemon::mounts::MountReport;

/// Mount: read everything below MOUNTPOINT/<cid>
///
/// Returns when the mount answers. The mount is served by a daemon in the background: the one that runs, or a new one,
/// which ends after its last mount is gone. The mountpoint is made where its parent exists. A mount that was left behind by
/// a daemon that died is healed.
///
/// An ordinary user needs the program `fusermount3` (package fuse3). Root, and root alone, gets larger reads ahead.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs mount /mnt/ipfs
  cidfs mount --profile serving -o allow_other /srv/models
  cidfs mount --foreground /mnt/ipfs          for supervisors; ends on SIGTERM

Options of -o: profile=training|serving, allow_other, default_permissions, threads=N, read_ahead=BYTES,
timeout=SECONDS, exec, noexec, and the generic options of mount(8) that suit a read-only filesystem.
In /etc/fstab:  none /mnt/ipfs fuse.cidfs allow_other,_netdev,nofail 0 0")]
pub struct Arguments {
    /// The directory to mount on
    pub mountpoint: PathBuf,
    /// Mount options, as mount(8) takes them
    #[arg(short = 'o', long = "options", value_name = "LIST", value_delimiter = None)]
    pub options: Vec<String>,
    /// What the mount is tuned for: training (many files, read again and again) or serving (large local files)
    #[arg(long, value_parser = ["training", "serving"])]
    pub profile: Option<String>,
    /// Stays in the foreground until the mount is gone
    #[arg(short = 'f', long)]
    pub foreground: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let mountpoint = std::path::absolute(&arguments.mountpoint)?;
    let mountpoint = mountpoint.to_str().context("the mountpoint's name is not UTF-8")?;
    let client = spawn::daemon(context).await?;
    let mut call = client.call("cidfs/mount").arg(mountpoint).option("options", settings_list(context.config()));
    if let Some(profile) = &arguments.profile {
        call = call.option("options", format!("profile={profile}"));
    }
    for list in &arguments.options {
        call = call.option("options", list);
    }
    let report: MountReport = call.maybe("timeout", context.timeout()).send().await?.json().await?;
    context.print(&report, |out| writeln!(out, "mounted on {} ({})", report.mountpoint.display(), report.profile))?;
    Ok(Outcome::Done)
}

/// The `mount` settings of this process as a `-o` list: they are those of whoever asks, not of the daemon.
fn settings_list(config: &Config) -> String {
    let mount = &config.mount;
    let profile = match mount.profile {
        MountProfile::Training => "training",
        MountProfile::Serving => "serving",
    };
    let mut list = format!("profile={profile},threads={},read_ahead={}", mount.threads, mount.read_ahead_bytes);
    if mount.allow_other {
        list.push_str(",allow_other");
    }
    list
}
