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

mod announce;
pub mod api;
pub mod identity;
pub mod mounts;
mod network;
pub mod plans;
pub mod repository;
pub mod server;
pub mod sources;
pub mod warmups;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub use self::repository::{Repository, RepositoryError};
pub use self::server::{ServeError, serve};
use crate::config::{Change, Config, ConfigError, Provide, Settings};
use crate::fetch::Fetch;
use crate::fetch::gateways::GatewaySource;
use crate::net::caps::Caps;
use crate::net::{Net, NetError};
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

/// Why a repository cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has no identity that could be shown to others.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The node does not start.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The system gives no thread for fetches.
    #[error("cannot start a thread for fetches: {0}")]
    Threads(std::io::Error),
    /// What blocks are fetched from cannot be used.
    #[error(transparent)]
    Sources(#[from] sources::SourcesError),
}

/// One running cidfs. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Daemon {
    inner: Arc<Inner>,
}

struct Inner {
    /// What it was started with.
    config: Config,
    /// What it runs with: the same, but for what may change meanwhile.
    settings: Mutex<Settings>,
    role: Role,
    started: Instant,
    /// Ends before the store does: see [`serve`].
    net: Option<Net>,
    store: Store,
    fetch: Fetch,
    gateways: Option<Arc<GatewaySource>>,
    caps: Arc<Caps>,
    tree: Tree,
    mounts: mounts::Mounts,
    warmups: warmups::Warmups,
    plans: plans::Plans,
    /// Cancelled when the daemon is told to end.
    stop: CancellationToken,
    /// Last, so that its lock goes when nothing is in use any more.
    repository: Repository,
}

impl Daemon {
    /// Opens the store of `repository`, and starts the node where this is a daemon that shall have one: call it within a
    /// runtime then. Blocks while indexes are read.
    pub fn open(repository: Repository, settings: Settings, role: Role) -> Result<Daemon, OpenError> {
        if role != Role::Verb {
            crate::store::keep_some_memory();
        }
        api::clean_uploads(repository.path());
        let store = Store::open(&repository.store(), &settings.config().store)?;
        let caps = Arc::new(Caps::default());
        sources::set_caps(&caps, settings.config());
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        let network::Started { net, fetch, gateways } =
            network::start(&repository, settings.config(), role, &store, &caps)?;
        let inner = Inner {
            net,
            repository,
            config: settings.config().clone(),
            settings: Mutex::new(settings),
            role,
            started: Instant::now(),
            tree: Tree::new(fetch.clone()),
            fetch,
            gateways,
            caps,
            store,
            mounts: mounts::Mounts::default(),
            warmups: warmups::Warmups::default(),
            plans: plans::Plans::default(),
            stop: CancellationToken::new(),
        };
        Ok(Daemon { inner: Arc::new(inner) })
    }

    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// The settings that it runs with now, with their sources.
    pub fn settings(&self) -> Settings {
        self.inner.settings.lock().clone()
    }

    /// The settings that it was started with, typed.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Reads the settings file again, and follows it where that is possible while it runs.
    pub fn reload_settings(&self) -> Result<Vec<Change>, ConfigError> {
        let mut settings = self.inner.settings.lock();
        let changes = settings.reload(&repository::config_file(self.repository().path()))?;
        sources::set_caps(&self.inner.caps, settings.config());
        Ok(changes)
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

    /// The node, where there is one: neither a verb on its own nor the profile `offline` has.
    pub fn net(&self) -> Option<&Net> {
        self.inner.net.as_ref()
    }

    /// Joins the store to the node: what enters the store goes to whoever waits for it, and is announced.
    fn join_network(&self) {
        let Some(net) = self.net() else { return };
        let provide = self.config().network.provide;
        let (entered, announced) = network::Entered::new(net, self.fetch(), provide);
        self.store().watch(Some(Box::new(entered)));
        if net.routes() && provide != Provide::None {
            tokio::spawn(announce::run(self.clone(), net.clone(), announced));
        }
    }

    /// The way to any block.
    pub fn fetch(&self) -> &Fetch {
        &self.inner.fetch
    }

    /// The gateways that are asked for blocks, where there are any.
    pub fn gateways(&self) -> Option<&GatewaySource> {
        self.inner.gateways.as_deref()
    }

    /// How much may come in and go out in a second.
    pub fn caps(&self) -> &Arc<Caps> {
        &self.inner.caps
    }

    /// The DAG as files and directories; mounts and the API share it.
    pub fn tree(&self) -> &Tree {
        &self.inner.tree
    }

    /// The mounts of this process.
    pub fn mounts(&self) -> &mounts::Mounts {
        &self.inner.mounts
    }

    /// The plans that the mounts of this process follow.
    pub fn plans(&self) -> &plans::Plans {
        &self.inner.plans
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
