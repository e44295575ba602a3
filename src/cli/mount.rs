//! `cidfs mount`: makes the blocks of this machine readable below a directory.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Call, Client};
use super::context::Context;
use super::daemon::serve_until_told;
use super::{Outcome, logs, spawn};
use crate::config::{Config, MountProfile};
use crate::daemon::mounts::MountReport;
use crate::daemon::server::notify_supervisor;
use crate::daemon::{Role, ServeError};

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
timeout=SECONDS, fsname=NAME, exec, noexec, and the generic options of mount(8) that suit a read-only
filesystem. In /etc/fstab, with a link /sbin/mount.cidfs to this program:
  /var/lib/cidfs  /mnt/ipfs  cidfs  ro,allow_other,nofail  0  0")]
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
    let client = spawn::daemon(context).await?;
    let call = request(&client, arguments, context)?;
    let report: MountReport = call.maybe("timeout", context.timeout()).send().await?.json().await?;
    tell(&report, context)?;
    Ok(Outcome::Done)
}

fn tell(report: &MountReport, context: &Context) -> anyhow::Result<()> {
    context.print(report, |out| writeln!(out, "mounted on {} ({})", report.mountpoint.display(), report.profile))
}

/// The request that mounts.
fn request<'a>(client: &'a Client, arguments: &Arguments, context: &Context) -> anyhow::Result<Call<'a>> {
    let mountpoint = std::path::absolute(&arguments.mountpoint)?;
    let mountpoint = mountpoint.to_str().context("the mountpoint's name is not UTF-8")?;
    let mut call = client.call("cidfs/mount").arg(mountpoint).option("options", settings_list(context.config()));
    if let Some(profile) = &arguments.profile {
        call = call.option("options", format!("profile={profile}"));
    }
    for list in &arguments.options {
        call = call.option("options", list);
    }
    Ok(call)
}

/// Mounts, and stays until the mount is gone or a signal ends it. Where a daemon runs, it has the mount; where none does, this
/// process is the daemon.
pub fn foreground(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let running = runtime.block_on(Client::running(&context.repository));
    if let Some(client) = running {
        logs::for_verbs(context)?;
        return runtime.block_on(beside(&client, arguments, context));
    }
    drop(runtime);
    logs::for_daemon(context)?;
    serve_until_told(context, Role::Mounts, async |daemon| {
        let failed = |error: anyhow::Error| ServeError::Start(super::one_line(&error));
        let client = Client::here(daemon);
        let mounted = async {
            let call = request(&client, arguments, context)?;
            let report: MountReport = call.send().await?.json().await?;
            tell(&report, context)
        };
        mounted.await.map_err(failed)
    })?;
    Ok(Outcome::Done)
}

/// Asks a daemon that runs for the mount, and stays beside it.
async fn beside(client: &Client, arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reply = request(client, arguments, context)?.flag("wait", true).send().await?;
    let first = reply.next().await?.context("the answer broke off")?;
    let report: MountReport = serde_json::from_slice(&first)?;
    tell(&report, context)?;
    notify_supervisor("READY=1");
    let ended = async { while let Ok(Some(_)) = reply.next().await {} };
    tokio::select! {
        () = ended => return Ok(Outcome::Done),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    notify_supervisor("STOPPING=1");
    client.call("cidfs/umount").arg(report.mountpoint.to_string_lossy()).send().await?;
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
