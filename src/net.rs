//! The node: this machine among others, over libp2p.
//!
//! [`Net`] is a handle to a task of its own that drives the swarm (`node`). The handle is cheap to clone, may be used from any
//! thread, and never blocks: what is asked travels to the task as a closure, and the answer comes back as a future or a
//! stream. The task ends when the last handle is dropped, or when it is [told to](Net::shutdown).
//!
//! The parts: `transport` moves bytes; `behaviour` puts the protocols together; `profile` says what each profile allows;
//! `dht` and `records` are the two DHTs, `lookups` those who wait for their answers; `book` holds addresses; `peering` keeps
//! configured peers connected, `trim` lets go of others; `relays` let others through to us; `probe` pings. Beside the node,
//! [`http`] asks trustless gateways and delegated routers, and [`caps`] bounds what all bring in a second.
//!
//! The profile `offline` has no node at all: nothing here runs, and no socket is opened.
//!
//! This floor knows blocks and their stores, never files or paths.

pub mod address;
mod behaviour;
pub mod bitswap;
mod book;
pub mod caps;
mod dht;
mod error;
pub mod http;
mod listen;
mod lookups;
mod node;
mod peering;
mod probe;
mod profile;
mod records;
mod relays;
mod report;
mod swarm_key;
mod transport;
mod trim;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use libp2p::identity::Keypair;
use libp2p::kad::RecordKey;
pub use libp2p::{Multiaddr, PeerId};
use libp2p::{Swarm, relay, swarm};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use self::behaviour::{Behaviour, Parts};
use self::bitswap::SessionId;
pub use self::dht::Reach;
pub use self::error::NetError;
use self::node::{Node, Task};
pub use self::profile::PUBLIC_BOOTSTRAP;
use self::profile::Plan;
use self::report::Shared;
pub use self::report::{Connection, Counters, Identified, Own};
use crate::block::Cid;
use crate::config::{NetworkConfig, NetworkProfile};
use crate::limits::{
    CONNECT_TIMEOUT, MAX_FOUND_PROVIDERS, MAX_NEGOTIATING_STREAMS, NODE_TASKS, PING_TIMEOUT, SHUTDOWN_NODE,
};
use crate::metrics::NetworkFigures;

/// Somebody who has a block, or is said to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who.
    pub peer: PeerId,
    /// Where; empty where that is not known.
    pub addresses: Vec<Multiaddr>,
}

/// Another way to find providers than the DHTs: delegated routing.
pub trait Router: Send + Sync + 'static {
    /// What people call it.
    fn name(&self) -> String;

    /// Those who provide the block, as they are found.
    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, Provider>;
}

/// What a node is made of.
pub struct Options {
    /// The private key of the repository, in libp2p's encoding.
    pub private_key: Vec<u8>,
    /// The settings `network.*`.
    pub config: NetworkConfig,
    /// Where the key of a private swarm is, or would be.
    pub swarm_key: std::path::PathBuf,
    /// How we call our program to others.
    pub agent: String,
    /// The memory of the process past which no more connections are taken, in bytes.
    pub memory_bytes: usize,
    /// Other ways to find providers.
    pub routers: Vec<Arc<dyn Router>>,
    /// What is served to peers.
    pub blocks: Arc<dyn bitswap::Blocks>,
    /// How bitswap is to behave.
    pub bitswap: bitswap::Config,
}

/// A handle to the node.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    tasks: mpsc::Sender<Task>,
    own: PeerId,
    profile: NetworkProfile,
    routes: bool,
    shared: Arc<Shared>,
    routers: Vec<Arc<dyn Router>>,
    bitswap: bitswap::Client,
    /// For the one who looks for providers.
    providers_wanted: Mutex<Option<mpsc::Receiver<(SessionId, Cid)>>>,
}

impl Net {
    /// Starts a node on the runtime that this is called in. An address that cannot be listened on is one of the node's
    /// [problems](Net::problems): it still reaches others.
    pub fn start(options: Options) -> Result<Net, NetError> {
        let failed = |what| move |error: &dyn std::fmt::Display| NetError::Start { what, why: error.to_string() };
        let keypair = Keypair::from_protobuf_encoding(&options.private_key)
            .map_err(|error| failed("use the identity")(&error))?;
        let own = PeerId::from(keypair.public());
        let plan = read_plan(&options.config, &options.swarm_key)?;
        let (relay_transport, relay) = if plan.traversal {
            let (transport, behaviour) = relay::client::new(own);
            (Some(transport), Some(behaviour))
        } else {
            (None, None)
        };
        let transport = transport::build(transport::Plan {
            keypair: &keypair,
            swarm_key: plan.swarm_key,
            near_only: plan.near_only,
            relay: relay_transport,
        })?;
        let (bitswap, client) = bitswap::new(own, options.bitswap, options.blocks, &tokio::runtime::Handle::current());
        let parts = Parts {
            bitswap,
            agent: options.agent,
            connections: options.config.max_connections,
            memory_bytes: options.memory_bytes,
            relay,
        };
        let behaviour = Behaviour::new(&keypair, &plan, parts);
        let config = swarm::Config::with_tokio_executor()
            // Every message of bitswap may come on a stream of its own.
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING_STREAMS)
            // Which connections go is decided by `trim`.
            .with_idle_connection_timeout(Duration::from_hours(24 * 365));
        let mut swarm = Swarm::new(transport, behaviour, own, config);
        let shared = Arc::new(Shared::default());
        shared.problems.lock().extend(listen::on(&mut swarm, &plan.listen));
        for address in &plan.announce {
            swarm.add_external_address(address.clone());
        }
        let (tasks, incoming) = mpsc::channel(NODE_TASKS);
        let (searches, wanted) = mpsc::channel(NODE_TASKS);
        let inner = Inner {
            tasks,
            own,
            profile: plan.profile,
            routes: plan.routes(),
            shared: shared.clone(),
            routers: options.routers,
            bitswap: client.clone(),
            providers_wanted: Mutex::new(Some(wanted)),
        };
        tracing::info!(peer = %own, profile = %plan.profile, "the node has started");
        let node = Node::new(swarm, plan, options.config.max_connections, shared, client, searches);
        tokio::spawn(node.run(incoming));
        Ok(Net { inner: Arc::new(inner) })
    }

    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.inner.own
    }

    /// Whom we talk to.
    pub fn profile(&self) -> NetworkProfile {
        self.inner.profile
    }

    /// The node in figures.
    pub fn figures(&self) -> NetworkFigures {
        let counters = self.counters();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetworkFigures {
            profile: self.inner.profile.to_string(),
            peers: read(&counters.peers),
            connections: read(&counters.connections),
            dials: read(&counters.dials),
            failed_dials: read(&counters.failed_dials),
            refused_connections: read(&counters.refused),
            trimmed_peers: read(&counters.trimmed),
            public_routing_peers: read(&counters.routing_wan),
            local_routing_peers: read(&counters.routing_lan),
            kept_keys: read(&counters.records),
            lookups: read(&counters.lookups),
            provider_searches: read(&counters.searches),
            providers_found: read(&counters.providers),
            announcements: read(&counters.announced),
        }
    }

    /// What is wrong, for people.
    pub fn problems(&self) -> Vec<String> {
        self.inner.shared.problems.lock().clone()
    }

    /// The figures.
    pub fn counters(&self) -> &Counters {
        &self.inner.shared.counters
    }

    /// Bitswap.
    pub fn bitswap(&self) -> &bitswap::Client {
        &self.inner.bitswap
    }

    /// Has `tell` called whenever a peer is connected that was not, before whoever asked for the connection hears of it. It runs
    /// on the node's task: it must be quick. The first one given stays.
    pub fn when_connected(&self, tell: impl Fn() + Send + Sync + 'static) {
        // There is one who wants to know.
        let _ = self.inner.shared.when_connected.set(Box::new(tell));
    }

    /// Sessions of bitswap that know nobody who has a block, as it comes to that. For one who takes it: `None` later.
    pub fn providers_wanted(&self) -> Option<mpsc::Receiver<(SessionId, Cid)>> {
        self.inner.providers_wanted.lock().take()
    }

    /// Remembers where a provider is, for those who dial it by its name.
    pub async fn learn(&self, provider: &Provider) {
        let Provider { peer, addresses } = provider.clone();
        // A node that has ended needs to learn nothing.
        let _ = self.get(move |node| node.swarm.behaviour_mut().book.enter(peer, addresses)).await;
    }

    /// Asks the node's task something: `question` gets the node, and where to put the answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Node, oneshot::Sender<T>) + Send + 'static,
    ) -> Result<T, NetError> {
        let (reply, answer) = oneshot::channel();
        let task: Task = Box::new(move |node| question(node, reply));
        self.inner.tasks.send(task).await.map_err(|_| NetError::Ended)?;
        answer.await.map_err(|_| NetError::Ended)
    }

    /// Like [`Net::ask`], for what the node answers at once.
    async fn get<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Node) -> T + Send + 'static,
    ) -> Result<T, NetError> {
        self.ask(move |node, reply| lookups::answer(reply, question(node))).await
    }

    /// Connects to the peer at `address`, which may be no more than `/p2p/PEER`: then its addresses are looked up. A peer
    /// that was connected by hand is kept when others are let go.
    pub async fn connect(&self, address: &Multiaddr) -> Result<PeerId, NetError> {
        let (peer, plain) = address::split(address);
        let mut addresses = vec![plain];
        addresses.retain(|address| !address.is_empty());
        if let Some(peer) = peer.filter(|_| addresses.is_empty())
            && !self.get(move |node| node.knows(peer)).await?
        {
            addresses = self.find_peer(peer).await?.addresses;
        }
        let name = address.to_string();
        let dial = self.ask(move |node, reply| node.connect(peer, addresses, reply));
        let Ok(result) = tokio::time::timeout(CONNECT_TIMEOUT, dial).await else {
            let why = format!("nothing within {} s", CONNECT_TIMEOUT.as_secs());
            return Err(NetError::Dial { peer: name, why });
        };
        result?
    }

    /// Closes every connection to a peer.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), NetError> {
        if self.get(move |node| node.disconnect(peer)).await? { Ok(()) } else { Err(NetError::NotConnected { peer }) }
    }

    /// Every connection.
    pub async fn connections(&self) -> Result<Vec<Connection>, NetError> {
        self.get(|node| node.connections()).await
    }

    /// Every peer whose addresses are known, with these.
    pub async fn addresses(&self) -> Result<BTreeMap<PeerId, Vec<Multiaddr>>, NetError> {
        self.get(|node| node.addresses()).await
    }

    /// What we listen on.
    pub async fn listening(&self) -> Result<Vec<Multiaddr>, NetError> {
        self.get(|node| node.swarm.listeners().cloned().collect()).await
    }

    /// What we tell others about ourselves.
    pub async fn own(&self) -> Result<Own, NetError> {
        self.get(|node| Own { addresses: node.own_addresses(), protocols: node.protocols() }).await
    }

    /// What a peer tells of itself; it is connected to for that where it is not yet.
    pub async fn identify(&self, peer: PeerId) -> Result<Identified, NetError> {
        self.connect(&Multiaddr::empty().with(libp2p::multiaddr::Protocol::P2p(peer))).await?;
        let until = tokio::time::Instant::now() + CONNECT_TIMEOUT;
        while tokio::time::Instant::now() < until {
            if let Some(identified) = self.get(move |node| node.identified(&peer)).await? {
                return Ok(identified);
            }
            // It tells within a round trip of connecting.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(NetError::NoAnswer { peer, why: "it does not tell who it is".into() })
    }

    /// How long a connected peer takes to answer.
    pub async fn ping(&self, peer: PeerId) -> Result<Duration, NetError> {
        let probe = self.ask(move |node, reply| {
            if node.swarm.is_connected(&peer) {
                node.swarm.behaviour_mut().probe.ask(peer, reply);
            }
        });
        match tokio::time::timeout(PING_TIMEOUT * 2, probe).await {
            Ok(Ok(result)) => result.map_err(|why| NetError::NoAnswer { peer, why }),
            Ok(Err(_)) => Err(NetError::NotConnected { peer }),
            Err(_) => Err(NetError::TimedOut { what: format!("the ping of {peer}") }),
        }
    }

    /// Those who provide `cid`, as they are found, each once: every source is asked at the same time. The stream ends when
    /// all have answered, or had their time.
    pub fn find_providers(&self, cid: &Cid) -> impl Stream<Item = Provider> + Send + Unpin + 'static {
        let mut sources: Vec<BoxStream<'static, Provider>> =
            self.inner.routers.iter().map(|router| router.find_providers(cid)).collect();
        if self.inner.routes {
            let (found, providers) = mpsc::channel(MAX_FOUND_PROVIDERS);
            let key = RecordKey::new(&cid.multihash());
            let tasks = self.inner.tasks.clone();
            let asking = async move {
                let task: Task = Box::new(move |node| node.find_providers(&key, &found));
                // Where the node has ended, so has the stream.
                let _ = tasks.send(task).await;
            };
            let start = futures::stream::once(asking).filter_map(|()| std::future::ready(None));
            let found = futures::stream::unfold(providers, async |mut providers| {
                providers.recv().await.map(|provider| (provider, providers))
            });
            // The lookup starts with the first poll; what it finds comes through the channel.
            sources.push(start.chain(found).boxed());
        }
        let own = self.inner.own;
        let mut told = HashSet::new();
        futures::stream::select_all(sources).filter(move |provider| {
            let is_new = provider.peer != own && told.len() < MAX_FOUND_PROVIDERS && told.insert(provider.peer);
            std::future::ready(is_new)
        })
    }

    /// The addresses of a peer.
    pub async fn find_peer(&self, peer: PeerId) -> Result<Provider, NetError> {
        let (found, mut peers) = mpsc::channel(2);
        self.get(move |node| node.find_peer(peer, &found)).await?;
        let tried = if self.inner.routes { ": the DHT does not find it" } else { ", and the profile looks nothing up" };
        peers.recv().await.ok_or(NetError::NoAddresses { peer, tried })
    }

    /// Announces that we have `cid`, and returns when that is done.
    pub async fn provide(&self, cid: &Cid) -> Result<(), NetError> {
        if !self.inner.routes {
            return Err(NetError::NoRouting { profile: self.inner.profile.to_string() });
        }
        let (done, mut made) = mpsc::channel(2);
        let key = RecordKey::new(&cid.multihash());
        self.get(move |node| node.provide(&key, &done)).await?;
        // One for each DHT; none where neither knows anybody.
        let mut count = 0;
        while made.recv().await.is_some() {
            count += 1;
        }
        if count == 0 { Err(NetError::Alone) } else { Ok(()) }
    }

    /// Whether the profile looks up and announces.
    pub fn routes(&self) -> bool {
        self.inner.routes
    }

    /// Stays connected to the peer at `address`, until the node ends.
    pub async fn peering_add(&self, address: &Multiaddr) -> Result<PeerId, NetError> {
        let (Some(peer), plain) = address::split(address) else {
            return Err(NetError::NoPeer { address: address.clone() });
        };
        let plain = Some(plain).filter(|plain| !plain.is_empty());
        self.get(move |node| node.peering.add(peer, plain, std::time::Instant::now())).await?;
        Ok(peer)
    }

    /// Stays connected to a peer no longer; false where it was none of those.
    pub async fn peering_remove(&self, peer: PeerId) -> Result<bool, NetError> {
        self.get(move |node| node.peering.remove(&peer)).await
    }

    /// The peers that we stay connected to.
    pub async fn peering(&self) -> Result<Vec<Provider>, NetError> {
        self.get(|node| {
            let all = node.peering.iter();
            all.map(|(peer, addresses)| Provider { peer: *peer, addresses: addresses.to_vec() }).collect()
        })
        .await
    }

    /// Ends the node: peers are told, and every socket is closed on return.
    pub async fn shutdown(&self) {
        let ended = self.ask(Node::stop);
        // It bounds itself; this is for a task that is stuck.
        if tokio::time::timeout(SHUTDOWN_NODE * 2, ended).await.is_err() {
            tracing::warn!("the node did not end in time");
        }
    }
}

fn read_plan(config: &NetworkConfig, key: &Path) -> Result<Plan, NetError> {
    let path = key.display().to_string();
    match std::fs::read(key) {
        Ok(file) => Plan::new(config, Some((&path, &file)), &path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Plan::new(config, None, &path),
        Err(error) => Err(NetError::BadSwarmKey { path, why: error.to_string() }),
    }
}
