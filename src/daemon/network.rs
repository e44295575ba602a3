//! The daemon's side of the network: the node over the store, and the store's word to the node.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{OpenError, Repository, Role, api, identity, sources};
use crate::block::{Block, Cid};
use crate::config::{Config, NetworkProfile, Provide};
use crate::fetch::Fetch;
use crate::fetch::gateways::GatewaySource;
use crate::fetch::peers::Peers;
use crate::fetch::source::Source;
use crate::limits::{ANNOUNCEMENTS_WAITING, NETWORK_MEMORY_BYTES};
use crate::net::bitswap::{self, Blocks};
use crate::net::caps::Caps;
use crate::net::{Net, Options};
use crate::store::{Pin, Store, Watcher};

/// What [`start`] has started.
pub(super) struct Started {
    pub net: Option<Net>,
    pub fetch: Fetch,
    pub gateways: Option<Arc<GatewaySource>>,
}

/// The node and the way to any block, as the settings have it. A verb on its own and the profile `offline` have no node.
pub(super) fn start(
    repository: &Repository,
    config: &Config,
    role: Role,
    store: &Store,
    caps: &Arc<Caps>,
) -> Result<Started, OpenError> {
    if role == Role::Verb || config.network.profile == NetworkProfile::Offline {
        let fetch = Fetch::new(store.clone());
        let offline = config.network.profile == NetworkProfile::Offline;
        let fetch =
            if offline { fetch } else { fetch.alone("only a daemon asks others: start one with `cidfs daemon`") };
        return Ok(Started { net: None, fetch, gateways: None });
    }
    let runtime = Handle::current();
    let identity = identity::load_or_make(repository.path())?;
    let net = Net::start(Options {
        private_key: identity.to_bytes(),
        config: config.network.clone(),
        swarm_key: repository.path().join("swarm.key"),
        agent: api::node::agent(),
        memory_bytes: NETWORK_MEMORY_BYTES.saturating_add(config.store.ram_bytes as usize),
        routers: sources::routers(config)?,
        blocks: Arc::new(Served(store.clone())),
        bitswap: bitswap::Config { caps: caps.clone(), ..bitswap::Config::default() },
    })?;
    let fetch = Fetch::networked(store.clone(), &config.fetch, runtime.clone()).map_err(OpenError::Threads)?;
    let peers: Arc<dyn Source> = Arc::new(Peers::start(net.clone(), &runtime));
    fetch.add_source(&peers);
    let gateways = sources::gateways(config, caps)?.map(Arc::new);
    if let Some(gateways) = gateways.clone() {
        let gateways: Arc<dyn Source> = gateways;
        fetch.add_source(&gateways);
    }
    // What nobody had a moment ago the new peer may have.
    let forgets = fetch.clone();
    net.when_connected(move || forgets.forget_failures());
    Ok(Started { net: Some(net), fetch, gateways })
}

/// The store, as bitswap serves it.
struct Served(Store);

impl Blocks for Served {
    fn block_bytes(&self, cid: &Cid) -> Option<usize> {
        // A store that cannot be read serves nobody; who reads from it here is told why.
        self.0.size(cid).ok().flatten().map(|bytes| bytes as usize)
    }

    fn get(&self, cid: &Cid) -> Option<Block> {
        self.0.get(cid).ok().flatten()
    }
}

/// Hears of what enters the store: whoever waits for a block has it at once, and what is to be announced is queued.
pub(super) struct Entered {
    bitswap: bitswap::Client,
    fetch: Fetch,
    provide: Provide,
    waiting: mpsc::Sender<Cid>,
}

impl Entered {
    /// What hears, and where what is to be announced arrives.
    pub fn new(net: &Net, fetch: &Fetch, provide: Provide) -> (Entered, mpsc::Receiver<Cid>) {
        let (waiting, announced) = mpsc::channel(ANNOUNCEMENTS_WAITING);
        (Entered { bitswap: net.bitswap().clone(), fetch: fetch.clone(), provide, waiting }, announced)
    }
}

impl Watcher for Entered {
    fn arrived(&self, block: &Block) {
        self.bitswap.arrived(block);
        self.fetch.arrived(block);
        if self.provide == Provide::All {
            // Where too many wait, the next round has it.
            let _ = self.waiting.try_send(block.cid().clone());
        }
    }

    fn pinned(&self, pin: &Pin) {
        if matches!(self.provide, Provide::Roots | Provide::Pinned) {
            let _ = self.waiting.try_send(pin.cid.clone());
        }
    }
}
