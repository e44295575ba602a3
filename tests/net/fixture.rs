//! What the tests of the network share: nodes in this process that listen on loopback alone.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cidfs::block::{Block, Cid};
use cidfs::config::{NetworkConfig, NetworkProfile, Watermarks};
use cidfs::net::{Multiaddr, Net, NetError, Options, PeerId, address, bitswap};
use libp2p::identity::Keypair;

/// Listens on TCP and on QUIC, on loopback, on ports that the system chooses.
pub const LOOPBACK: [&str; 2] = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];

/// Settings of a node that talks to this machine alone.
pub fn settings(profile: NetworkProfile) -> NetworkConfig {
    NetworkConfig {
        profile,
        listen: LOOPBACK.map(str::to_owned).to_vec(),
        bootstrap: Vec::new(),
        mdns: false,
        max_connections: Watermarks { low: 8, high: 16 },
        ..NetworkConfig::default()
    }
}

pub fn start_with(keypair: &Keypair, config: NetworkConfig, swarm_key: &Path) -> Result<Net, NetError> {
    Net::start(Options {
        private_key: keypair.to_protobuf_encoding().unwrap(),
        config,
        swarm_key: swarm_key.to_owned(),
        agent: "test".into(),
        memory_bytes: 8 << 30,
        routers: Vec::new(),
        blocks: Arc::new(Nothing),
        bitswap: bitswap::Config::default(),
    })
}

/// A node that has no blocks.
struct Nothing;

impl bitswap::Blocks for Nothing {
    fn block_bytes(&self, _: &Cid) -> Option<usize> {
        None
    }

    fn get(&self, _: &Cid) -> Option<Block> {
        None
    }
}

pub fn start(config: NetworkConfig) -> Net {
    start_with(&Keypair::generate_ed25519(), config, Path::new("/nonexistent/swarm.key")).unwrap()
}

/// Awaits what becomes true soon, and fails where it does not.
pub async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let give_up = tokio::time::Instant::now() + Duration::from_mins(1);
    while !check().await {
        assert!(tokio::time::Instant::now() < give_up, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The addresses of a node, with its name, as soon as it has `count` of them.
pub async fn addresses(net: &Net, count: usize) -> Vec<Multiaddr> {
    until("listening", || async { net.listening().await.unwrap().len() >= count }).await;
    net.listening().await.unwrap().iter().map(|it| address::join(it, net.peer_id())).collect()
}

pub async fn tcp(net: &Net) -> Multiaddr {
    let all = addresses(net, 1).await;
    all.into_iter().find(|it| it.to_string().contains("/tcp/")).expect("it listens on TCP")
}

pub async fn is_connected(net: &Net, peer: PeerId) -> bool {
    net.connections().await.unwrap().iter().any(|connection| connection.peer == peer)
}
