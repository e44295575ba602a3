//! Nodes with bitswap on loopback, and a peer that is none: it writes and reads what a test tells it to.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cidfs::block::{Block, Cid};
use cidfs::net::bitswap::{self, Behaviour, Blocks, Client, Config, Event};
use cidfs::net::caps::Caps;
use futures::StreamExt;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm, SwarmBuilder, noise, tcp, yamux};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    blocks: Mutex<HashMap<Vec<u8>, Block>>,
    pub reads: AtomicUsize,
}

impl Memory {
    pub fn put(&self, block: &Block) {
        self.blocks.lock().insert(block.cid().multihash().to_vec(), block.clone());
    }

    pub fn len(&self) -> usize {
        self.blocks.lock().len()
    }
}

impl Blocks for Memory {
    fn block_bytes(&self, cid: &Cid) -> Option<usize> {
        self.blocks.lock().get(cid.multihash()).map(|block| block.data().len())
    }

    fn get(&self, cid: &Cid) -> Option<Block> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.blocks.lock().get(cid.multihash()).cloned()
    }
}

enum Act {
    Dial(Multiaddr),
    Disconnect(PeerId),
}

/// A node. It ends when it is dropped.
pub struct Node {
    pub peer: PeerId,
    pub store: Arc<Memory>,
    pub client: Client,
    /// Where it listens on TCP, and on QUIC.
    pub tcp: Multiaddr,
    pub quic: Multiaddr,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    pub caps: Arc<Caps>,
    acts: mpsc::UnboundedSender<Act>,
    _stop: oneshot::Sender<()>,
}

pub fn swarm<B: libp2p::swarm::NetworkBehaviour>(behaviour: impl FnOnce(PeerId) -> B, idle: Duration) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("noise is there")
        .with_quic()
        .with_behaviour(|key| behaviour(key.public().to_peer_id()))
        .expect("it cannot fail")
        .with_swarm_config(|config| config.with_idle_connection_timeout(idle).with_max_negotiating_inbound_streams(128))
        .build()
}

/// Where a swarm listens, once it does.
pub async fn listen<B: libp2p::swarm::NetworkBehaviour>(swarm: &mut Swarm<B>, address: &str) -> Multiaddr {
    swarm.listen_on(address.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address;
        }
    }
}

impl Node {
    pub async fn start(config: Config) -> Node {
        let store = Arc::new(Memory::default());
        let caps = config.caps.clone();
        let mut client = None;
        let blocks = store.clone();
        let mut swarm: Swarm<Behaviour> = swarm(
            |own| {
                let (behaviour, made) = bitswap::new(own, config, blocks, &tokio::runtime::Handle::current());
                client = Some(made);
                behaviour
            },
            Duration::from_secs(30),
        );
        let tcp = listen(&mut swarm, "/ip4/127.0.0.1/tcp/0").await;
        let quic = listen(&mut swarm, "/ip4/127.0.0.1/udp/0/quic-v1").await;
        let peer = *swarm.local_peer_id();
        let (acts, mut acting) = mpsc::unbounded_channel();
        let (told, events) = mpsc::unbounded_channel();
        let (stop, mut stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    Some(act) = acting.recv() => match act {
                        Act::Dial(address) => swarm.dial(address).unwrap(),
                        Act::Disconnect(peer) => drop(swarm.disconnect_peer_id(peer)),
                    },
                    event = swarm.select_next_some() => if let SwarmEvent::Behaviour(event) = event {
                        drop(told.send(event));
                    },
                }
            }
        });
        let events = tokio::sync::Mutex::new(events);
        Node { peer, store, client: client.unwrap(), tcp, quic, events, caps, acts, _stop: stop }
    }

    pub fn dial(&self, address: &Multiaddr) {
        drop(self.acts.send(Act::Dial(address.clone())));
    }

    pub fn disconnect(&self, peer: PeerId) {
        drop(self.acts.send(Act::Disconnect(peer)));
    }

    /// The next event of the behaviour.
    pub async fn event(&self) -> Event {
        self.events.lock().await.recv().await.expect("the node runs")
    }

    pub fn hold(&self, blocks: &[Block]) {
        for block in blocks {
            self.store.put(block);
        }
    }

    pub async fn connected(&self, peers: usize) {
        soon("peers are connected", || self.client.stat().peers.len() >= peers).await;
    }
}

/// Something that has to be true soon.
pub async fn soon(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_mins(1), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
