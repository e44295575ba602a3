//! The kernel: mounts, requests and replies, page-cache policy, errno. The only module that knows `fuser`.
//!
//! [`mount`] mounts by itself (mount(2), or `fusermount3` for an ordinary user) and gives fuser the connection alone, for
//! what fuser does at mounting and unmounting is not what a daemon needs. It returns once the mount answers. A [`Mount`] is
//! taken down in steps: detach, so that nobody finds it any more; let open files finish for a grace time, or, where the
//! process ends, what was asked be answered and nothing new be asked; abort the connection, so that whoever is left gets an
//! error; join the threads, with a limit.
//!
//! Data never changes, so the kernel is told to keep everything for a year, and asked to come back for nothing: with
//! [`Profile::Training`] files are not even opened (ENOSYS on OPEN), and a second epoch makes no request at all. Only the
//! root directory, which lists what is pinned, is asked about each time.
//!
//! It holds no policy of its own: what a path means is the tree's.

mod errno;
mod filesystem;
mod flight;
mod mountpoint;
mod options;
mod push;
mod requests;
mod serving;
mod shared;
mod xattr;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;

pub use self::options::{MountOptions, OptionError, Profile};
pub use self::requests::{RequestCounts, RequestKind};

use tokio_util::sync::CancellationToken;

use self::filesystem::CidFs;
use self::mountpoint::Mounted;
use self::push::KernelCaches;
use self::serving::Copies;
use self::shared::Shared;
use crate::prefetch::{Prefetch, Push};
use crate::tree::{Inodes, Tree};

/// Why a directory cannot be mounted on.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint cannot be used or made.
    #[error("cannot mount on {}: {source}", path.display())]
    Mountpoint {
        /// The mountpoint.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The mountpoint is a file.
    #[error("cannot mount on {}: it is not a directory", path.display())]
    NotADirectory {
        /// The mountpoint.
        path: PathBuf,
    },
    /// Something lives there.
    #[error("cannot mount on {path}: {source_name} ({kind}) is mounted there; unmount it first (cidfs umount {path})", path = path.display())]
    Busy {
        /// The mountpoint.
        path: PathBuf,
        /// The type of what is mounted.
        kind: String,
        /// Its name.
        source_name: String,
    },
    /// A stale mount is in the way and cannot be detached.
    #[error("cannot detach the stale mount on {}: {source}", path.display())]
    Stale {
        /// The mountpoint.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no `/dev/fuse`, or it may not be opened.
    #[error("cannot open /dev/fuse: {source}; is the fuse module loaded (modprobe fuse), and may this user open it?")]
    Device {
        /// What the system said.
        source: io::Error,
    },
    /// `fusermount3` cannot be run.
    #[error(
        "cannot run fusermount3, which mounts for ordinary users: {source}; install the fuse3 package, or mount as root"
    )]
    Fusermount {
        /// What the system said.
        source: io::Error,
    },
    /// `fusermount3` refused.
    #[error("cannot mount on {}: {said}", path.display())]
    Refused {
        /// The mountpoint.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// The mount failed, or does not answer.
    #[error("cannot mount on {}: {source}", path.display())]
    Mount {
        /// The mountpoint.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Threads that answer the kernel, at least: they wait for the disk themselves, and fewer would leave it idle.
const MIN_THREADS: usize = 4;
/// How long open files may go on after the mount is detached, before whoever reads them gets an error.
const GRACE: Duration = Duration::from_secs(2);
/// How long files may take to be closed once the last read of them was answered: as long as a program needs to see that
/// the next one fails.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);
/// How long the threads of an aborted mount may take to end.
const JOIN_LIMIT: Duration = Duration::from_secs(5);

/// A mount that answers. Dropped, it is unmounted, which may block the thread for a few seconds where files are open.
pub struct Mount {
    mounted: Mounted,
    counts: Arc<RequestCounts>,
    shared: Arc<Shared>,
    /// Gives the result of the session when it has ended.
    result: Receiver<Option<io::Error>>,
    /// Cancelled when the session has ended, whoever ended it.
    over: CancellationToken,
    session: Option<JoinHandle<()>>,
    own_runtime: Option<Runtime>,
}

/// Mounts `tree` on `mountpoint`, and returns when it answers. Misses are waited for on the current tokio runtime, or on one
/// of the mount's own where there is none.
pub fn mount(mountpoint: &Path, tree: Tree, options: &MountOptions) -> Result<Mount, MountError> {
    let path = mountpoint::prepare(mountpoint)?;
    let failed = |source| MountError::Mount { path: path.clone(), source };
    let tree = tree.with_timeout(options.timeout);
    let (own_runtime, runtime) = if let Ok(handle) = tokio::runtime::Handle::try_current() {
        (None, handle)
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("cidfs-misses").enable_time().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        (Some(runtime), handle)
    };
    let counts = Arc::new(RequestCounts::default());
    let inodes = Arc::new(Inodes::new());
    let caches = Arc::new(KernelCaches::new(path.clone()));
    // Where the kernel reads files by itself, it has its own pages of them.
    let push = (options.profile == Profile::Training).then(|| caches.clone() as Arc<dyn Push>);
    let prefetch = Prefetch::new(tree.clone(), inodes.clone(), push, options.prefetch.clone(), runtime.clone());
    let shared = Arc::new(Shared {
        prefetch,
        tree,
        inodes,
        options: options.clone(),
        counts: counts.clone(),
        flights: Arc::default(),
        copies: Copies::new(options.copies_dir.clone()),
        runtime,
        owner: (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
    });
    let mut config = fuser::Config::default();
    config.n_threads = Some(match options.threads {
        0 => std::thread::available_parallelism().map_or(MIN_THREADS, |cores| cores.get().max(MIN_THREADS)),
        threads => threads,
    });
    let connection = mountpoint::mount(&path, options)?;
    // Who may look inside is the kernel's to decide.
    let session = fuser::Session::from_fd(CidFs { shared: shared.clone() }, connection, fuser::SessionACL::All, config)
        .map_err(failed)?;
    caches.connect(session.notifier());
    let (tell_result, result) = std::sync::mpsc::channel();
    let over = CancellationToken::new();
    let cancel_when_over = over.clone().drop_guard();
    let session = std::thread::Builder::new()
        .name("cidfs-mount".into())
        .spawn(move || {
            // Nobody listens any more once the mount was given up.
            let _ = tell_result.send(session.run().err());
            drop(cancel_when_over);
        })
        .map_err(failed)?;
    let mounted = Mounted::identify(path.clone()).map_err(failed)?;
    if let Err(error) = mounted.set_read_ahead(options.read_ahead_bytes) {
        tracing::info!(%error, "the kernel reads ahead 128 KiB only: more is for root to allow");
    }
    Ok(Mount { mounted, counts, shared, result, over, session: Some(session), own_runtime })
}

/// Takes away a cidfs mount on `path` that another process made, or left behind when it died. Open files in it go on where
/// that process lives. False where no cidfs mount is there.
pub fn take_away(path: &Path) -> io::Result<bool> {
    // A stale mount cannot be resolved itself, but its parent can.
    let path = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => parent.join(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        },
        _ => path.to_owned(),
    };
    match mountpoint::mounts()?.iter().rfind(|mount| mount.path == path) {
        Some(mount) if mount.is_ours() => mountpoint::detach(&path).map(|()| true),
        _ => Ok(false),
    }
}

impl Mount {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted.path
    }

    /// Cancelled when the mount has ended, whoever unmounted it.
    pub fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// What the kernel has asked so far.
    pub fn requests(&self) -> &RequestCounts {
        &self.counts
    }

    /// What is brought ahead of its readers.
    pub fn prefetch(&self) -> &Prefetch {
        &self.shared.prefetch
    }

    /// How many inodes the kernel knows.
    pub fn inode_count(&self) -> usize {
        self.shared.inodes.len()
    }

    /// Unmounts, and returns when nothing of the mount is left. Files that are open may be read to their end for two
    /// seconds; in an ordinary user's mount on a machine where fusectl is not mounted, until they are closed or the process
    /// ends.
    pub fn unmount(mut self) -> io::Result<()> {
        self.take_down(|mount| mount.result.recv_timeout(GRACE))
    }

    /// Unmounts because the process ends: what was asked is answered, for as long as `limit`, and whoever asks anew gets an
    /// error. Returns when nothing of the mount is left.
    pub fn end(mut self, limit: Duration) -> io::Result<()> {
        self.take_down(|mount| {
            mount.shared.flights.end();
            if !mount.shared.flights.wait(limit) {
                tracing::warn!(path = %mount.path().display(), "reads that go on for too long get an error");
            }
            mount.result.recv_timeout(CLOSE_LIMIT)
        })
    }

    /// Takes the mount down. `wait` gives those who still use it, after nobody finds it any more, their time.
    fn take_down(
        &mut self,
        wait: impl FnOnce(&Mount) -> Result<Option<io::Error>, RecvTimeoutError>,
    ) -> io::Result<()> {
        // Taken once: a mount is not taken down again when it is dropped.
        let Some(session) = self.session.take() else { return Ok(()) };
        self.shared.prefetch.stop();
        self.mounted.detach()?;
        let mut result = wait(self);
        if matches!(result, Err(RecvTimeoutError::Timeout)) {
            tracing::info!(path = %self.mounted.path.display(), "files are still open: ending their mount");
            match self.mounted.abort() {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // Nobody finds the mount any more. What is open goes on until it is closed, or the process ends.
                    tracing::info!(path = %self.mounted.path.display(), "an ordinary user cannot end it here: fusectl is not mounted");
                    if let Some(runtime) = self.own_runtime.take() {
                        // Its files may still miss something.
                        std::mem::forget(runtime);
                    }
                    return Ok(());
                }
                aborted => aborted?,
            }
            result = self.result.recv_timeout(JOIN_LIMIT);
        }
        match result {
            Err(RecvTimeoutError::Timeout) => Err(io::Error::other("the threads of the mount have not ended")),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("a thread of the mount has panicked")),
            Ok(outcome) => {
                // It has told its result, and ends.
                let _ = session.join();
                outcome.map_or(Ok(()), Err)
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.take_down(|mount| mount.result.recv_timeout(GRACE)) {
            tracing::warn!(path = %self.mounted.path.display(), %error, "cannot unmount");
        }
        if let Some(runtime) = self.own_runtime.take() {
            // On a thread of another runtime waiting is not allowed.
            match tokio::runtime::Handle::try_current() {
                Ok(_) => runtime.shutdown_background(),
                Err(_) => runtime.shutdown_timeout(JOIN_LIMIT),
            }
        }
    }
}
