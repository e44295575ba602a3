//! Starts a daemon in the background and waits until it takes requests.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::client::Client;
use super::context::Context;
use super::daemon::READY;
use super::logs;
use crate::daemon::repository;
use crate::limits::DAEMON_START_WAIT;

/// The daemon of the repository: the one that runs, else a new one that ends after its last mount.
pub async fn daemon(context: &Context) -> anyhow::Result<Client> {
    if let Some(client) = Client::running(&context.repository).await {
        return Ok(client);
    }
    repository::create(&context.repository)?;
    let log_path = logs::daemon_log(&context.repository);
    let log = logs::open_daemon_log(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find the program itself")?);
    command.arg("--repo").arg(&context.repository);
    for setting in &context.global.config {
        command.arg("-c").arg(setting);
    }
    if let Some(format) = &context.global.log_format {
        command.arg("--log-format").arg(format);
    }
    command.args(["daemon", "--for-mounts"]);
    // A supervisor of ours waits for us, not for the daemon.
    command.env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut child = command.spawn().context("cannot start the daemon")?;
    let out = child.stdout.take().context("the daemon has no standard output")?;
    let mut out = Receiver::from_owned_fd(OwnedFd::from(out))?;
    let mut told = String::new();
    // It lets go of its standard output once it has said how it went; so does one that dies.
    let read = out.read_to_string(&mut told);
    tokio::time::timeout(DAEMON_START_WAIT, read).await.map_err(|_| {
        anyhow!("the daemon has not started after {} s: see {}", DAEMON_START_WAIT.as_secs(), log_path.display())
    })??;
    if told == READY {
        return Client::running(&context.repository).await.context("the daemon started and ended again");
    }
    // Somebody else may have started one in the meantime.
    if let Some(client) = Client::running(&context.repository).await {
        return Ok(client);
    }
    let told = told.trim();
    if told.is_empty() {
        return Err(anyhow!("the daemon did not start: see {}", log_path.display()));
    }
    Err(anyhow!("the daemon did not start: {told}"))
}
