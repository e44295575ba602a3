//! One running cidfs: the repository opened, the floors wired together, and the control API over them.
//!
//! A [`Daemon`] is the same thing in two roles. In a process of its own (`cidfs daemon`, or the one that `cidfs mount`
//! starts) it serves the API on the socket of its repository, holds mounts, and ends on SIGTERM: see [`serve`]. In the
//! process of a verb, where no daemon runs, nothing is served: the verb calls the same [`api::router`] directly. So a verb
//! does one thing in one way, whoever does it.
//!
//! Whichever role, it has the lock of the repository ([`Repository`]) for as long as it lives.
//!
//! What it refuses: to parse arguments, and to hold policy that a floor below could hold.

pub mod api;
pub mod identity;
pub mod mounts;
pub mod repository;
pub mod server;
pub mod warmups;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub use self::repository::{Repository, RepositoryError};
pub use self::server::{ServeError, serve};
use crate::config::{Config, Settings};
use crate::fetch::Fetch;
use crate::store::{Store, StoreError};
use crate::tree::Tree;

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A verb that does its work itself.
    Verb,
    /// A daemon that somebody started, and that runs until it is told to end.
    Daemon,
    /// A daemon that `cidfs mount` started, and that ends after its last mount.
    Mounts,
}

/// One running cidfs. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    role: Role,
    started: Instant,
    store: Store,
    fetch: Fetch,
    tree: Tree,
    mounts: mounts::Mounts,
    warmups: warmups::Warmups,
    /// Cancelled when the daemon is told to end.
    stop: CancellationToken,
    /// Last, so that its lock goes when nothing is in use any more.
    repository: Repository,
}

impl Daemon {
    /// Opens the store of `repository`. Blocks while indexes are read.
    pub fn open(repository: Repository, settings: Settings, role: Role) -> Result<Daemon, StoreError> {
        api::clean_uploads(repository.path());
        let store = Store::open(&repository.store(), &settings.config().store)?;
        let fetch = Fetch::new(store.clone());
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        let inner = Inner {
            repository,
            settings,
            role,
            started: Instant::now(),
            tree: Tree::new(fetch.clone()),
            fetch,
            store,
            mounts: mounts::Mounts::default(),
            warmups: warmups::Warmups::default(),
            stop: CancellationToken::new(),
        };
        Ok(Daemon { inner: Arc::new(inner) })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// The settings, with their sources.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The settings, typed.
    pub fn config(&self) -> &Config {
        self.inner.settings.config()
    }

    /// What this process is for.
    pub fn role(&self) -> Role {
        self.inner.role
    }

    /// When the repository was opened.
    pub fn started(&self) -> Instant {
        self.inner.started
    }

    /// The blocks of this machine.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The way to any block.
    pub fn fetch(&self) -> &Fetch {
        &self.inner.fetch
    }

    /// The DAG as files and directories; mounts and the API share it.
    pub fn tree(&self) -> &Tree {
        &self.inner.tree
    }

    /// The mounts of this process.
    pub fn mounts(&self) -> &mounts::Mounts {
        &self.inner.mounts
    }

    /// The warmups of this process.
    pub fn warmups(&self) -> &warmups::Warmups {
        &self.inner.warmups
    }

    /// Tells the daemon to end: requests and reads in flight are finished, mounts are unmounted.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Whether and when the daemon is told to end.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }
}
