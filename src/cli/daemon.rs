//! `cidfs daemon`: serves the repository until it is told to end.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use clap::Args;

use super::context::Context;
use super::{Outcome, logs};
use crate::daemon::{Daemon, Repository, Role, ServeError, serve};
use crate::limits::{API_MAX_REQUESTS, REPOSITORY_WAIT};

/// Serve the repository to other commands, in the foreground
///
/// The daemon answers the Kubo RPC API on the socket `api.sock` in the repository, and on the addresses of the setting
/// `api.listen`. `cidfs mount` starts one in the background where none runs; start it yourself to keep it between mounts,
/// or under a supervisor (systemd: `Type=notify`).
///
/// SIGTERM and Ctrl-C end it: requests and reads in flight are finished, mounts are unmounted, and it exits with 0. A second
/// one does not wait.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs daemon\n  cidfs -c api.listen=127.0.0.1:5001 daemon\n  RUST_LOG=cidfs=debug cidfs daemon"
)]
pub struct Arguments {
    /// Ends after its last mount, goes into the background, and reports on its standard output: how `cidfs mount` starts it
    #[arg(long, hide = true)]
    for_mounts: bool,
}

/// What the daemon in the background tells the process that started it, once, when it takes requests.
pub const READY: &str = "ready\n";

pub fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    if !arguments.for_mounts {
        logs::for_daemon(context)?;
        serve_until_told(context, Role::Daemon, async |_| Ok(()))?;
        return Ok(Outcome::Done);
    }
    // Away from the terminal and the directory of whoever started it.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    logs::for_daemon_in_background(context)?;
    let mut told = false;
    let result = serve_until_told(context, Role::Mounts, async |_| {
        told = true;
        tell_starter(READY);
        Ok(())
    });
    if let Err(error) = &result {
        tracing::error!("{}", super::one_line(error));
        if !told {
            tell_starter(&super::one_line(error));
        }
    }
    result.map(|()| Outcome::Done)
}

/// Writes to the process that waits on our standard output, and lets go of it: nothing may be left open of ours that the
/// starter's own starter waits for. The descriptor itself stays taken, by /dev/null, as FUSE must not get it.
fn tell_starter(text: &str) {
    let mut out = std::io::stdout();
    // A starter that has gone needs to be told nothing.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if let Ok(null) = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(null);
    }
}

/// Opens the repository and serves it in this process until it is told to end. `start` runs once requests are taken.
pub fn serve_until_told(
    context: &Context,
    role: Role,
    start: impl AsyncFnOnce(Daemon) -> Result<(), ServeError>,
) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let repository = Repository::lock(&context.repository, &context.purpose, REPOSITORY_WAIT)?;
        let settings = context.settings.clone();
        let daemon = tokio::task::spawn_blocking(move || Daemon::open(repository, settings, role)).await??;
        // The lock of the repository goes with the process: threads that are still ending may use what it guards.
        std::mem::forget(daemon.clone());
        serve(daemon.clone(), start(daemon)).await?;
        anyhow::Ok(())
    });
    runtime.shutdown_background();
    result
}

/// The runtime of a daemon: two workers suffice, as what blocks has threads of its own, and idle threads cost memory.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(API_MAX_REQUESTS * 2)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .thread_name("cidfs")
        .enable_all()
        .build()
}
