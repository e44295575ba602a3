//! The life of a daemon process: the sockets it listens on, the signals it hears, and the order in which it ends.
//!
//! It ends when SIGTERM or SIGINT arrives, when `cidfs shutdown` asks for it, or, where `cidfs mount` started it, when its
//! last mount is gone. Then, in this order: no new connection is taken; every mount is detached, answers the reads that are
//! in flight, and begins no others; requests in flight are finished; the node says goodbye to its peers; the socket is
//! removed; the store is made durable; the lock goes. All of it within [`SHUTDOWN_GRACE`]. A second signal does not wait for anybody: every mount is detached by
//! then, and whoever still reads in one gets an error when the process goes.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::api::{self, Reach};
use super::{Daemon, Role};
use crate::limits::{FIRST_MOUNT_WAIT, SHUTDOWN_GRACE};

/// Why a daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} (setting api.listen or the repository's socket): {source}")]
    Listen {
        /// The path or address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Signals cannot be heard.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// What was to be done at the start failed.
    #[error("{0}")]
    Start(String),
    /// It did not end in time, or was told not to wait.
    #[error("ended before everything in flight was done: {0}")]
    Forced(String),
}

/// Serves the API until the daemon is told to end, then ends it in order. `start` runs once requests are taken; where it
/// fails, so does all. Then a supervisor is told that the daemon is ready.
pub async fn serve(daemon: Daemon, start: impl Future<Output = Result<(), ServeError>>) -> Result<(), ServeError> {
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let mut servers = JoinSet::new();

    let socket = daemon.repository().socket();
    let listener =
        bind_unix(&socket).map_err(|source| ServeError::Listen { address: socket.display().to_string(), source })?;
    let stop = daemon.stopping().clone();
    servers.spawn(
        axum::serve(listener, api::router(daemon.clone(), Reach::Owner))
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future(),
    );
    for address in &daemon.config().api.listen {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address: address.clone(), source })?;
        if listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
            tracing::warn!(address, "the API has no password, and this address can be reached from other machines");
        }
        // Port 0 is the system's choice: say which one it was.
        let shown = listener.local_addr().map_or_else(|_| address.clone(), |address| address.to_string());
        tracing::info!(address = shown, "the Kubo RPC API is served on TCP");
        let router = api::router(daemon.clone(), Reach::Network);
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        servers.spawn(served.into_future());
    }
    daemon.join_network();
    let started = start.await;
    if started.is_ok() {
        notify_supervisor("READY=1");
        tracing::info!(socket = %socket.display(), pid = std::process::id(), "cidfs is ready");
    } else {
        daemon.stop();
    }

    tokio::select! {
        biased;
        () = stop.cancelled() => tracing::info!("ending"),
        name = signals.next() => tracing::info!(signal = name, "ending: requests and reads in flight are finished first"),
        () = last_mount_gone(&daemon) => tracing::info!("ending: the last mount is gone"),
    }
    notify_supervisor("STOPPING=1");
    daemon.stop();
    let ended = async {
        daemon.mounts().end_all(SHUTDOWN_GRACE).await;
        while servers.join_next().await.is_some() {}
    };
    let forced = tokio::select! {
        () = ended => None,
        () = tokio::time::sleep(SHUTDOWN_GRACE) => Some(format!("it took longer than {} s", SHUTDOWN_GRACE.as_secs())),
        name = signals.next() => Some(format!("a second signal ({name})")),
    };
    if let Some(net) = daemon.net() {
        daemon.store().watch(None);
        net.shutdown().await;
    }
    let _ = std::fs::remove_file(&socket);
    let store = daemon.store().clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.finish()).await {
        tracing::error!(%error, "the store could not be made durable");
    }
    match forced {
        None => {
            tracing::info!("ended");
            started
        }
        Some(why) => Err(ServeError::Forced(why)),
    }
}

/// Returns when a daemon that was started for a mount has none any more; never, for one that a person started.
async fn last_mount_gone(daemon: &Daemon) {
    if daemon.role() != Role::Mounts {
        return std::future::pending().await;
    }
    let mut count = daemon.mounts().watch();
    // Its starter asks for the mount at once: where nothing was mounted by then, nothing will be.
    let _ = tokio::time::timeout(FIRST_MOUNT_WAIT, count.wait_for(|busy| *busy > 0)).await;
    let _ = count.wait_for(|busy| *busy == 0).await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// The longest path that a socket's address holds, less its NUL.
const MAX_SOCKET_PATH_BYTES: usize = 107;

/// A path to `socket` that is short enough for a socket's address: where the real one is longer, one through a handle on
/// its directory, which must live as long as the path is used.
pub fn short_socket_path(socket: &Path) -> std::io::Result<(PathBuf, Option<File>)> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Ok((socket.to_owned(), None));
    };
    if socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return Ok((socket.to_owned(), None));
    }
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name), Some(directory)))
}

/// Listens on the socket. The caller has the repository's lock, so a socket that is there already is a dead daemon's.
fn bind_unix(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (path, _directory) = short_socket_path(socket)?;
    let listener = UnixListener::bind(path)?;
    // Between the two calls the directory's mode (0700) keeps others out.
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Tells systemd, or whoever else set `NOTIFY_SOCKET`, of a change of state (`sd_notify(3)`). Where nobody asks, or nobody
/// listens, nothing happens.
pub fn notify_supervisor(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    let send = || -> std::io::Result<()> {
        let bytes = name.as_encoded_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(Path::new(&name))?,
        };
        UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
        Ok(())
    };
    if let Err(error) = send() {
        tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET cannot be told of {state}");
    }
}
