//! What the node tells about itself: its peers, and its figures.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Who is at its other end.
    pub peer: PeerId,
    /// Where that is, without the peer's name.
    pub address: Multiaddr,
    /// Whether the peer dialed us.
    pub is_inbound: bool,
    /// How long the peer took to answer last.
    pub latency: Option<Duration>,
    /// What it told of itself.
    pub identified: Option<Identified>,
}

/// What a peer told of itself.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Its public key, in libp2p's encoding.
    pub public_key: Vec<u8>,
    /// How it calls its program.
    pub agent: String,
    /// The protocols that it speaks.
    pub protocols: Vec<String>,
    /// Where it can be reached, as far as it knows.
    pub addresses: Vec<Multiaddr>,
}

/// This node, as it tells others.
#[derive(Clone, Debug)]
pub struct Own {
    /// Where it can be reached, as far as it knows.
    pub addresses: Vec<Multiaddr>,
    /// The protocols that it speaks.
    pub protocols: Vec<String>,
}

/// What the task and its handles share.
#[derive(Default)]
pub(super) struct Shared {
    pub counters: Counters,
    /// Called when a peer is connected that was not.
    pub when_connected: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What is wrong, for people.
    pub problems: Mutex<Vec<String>>,
}

/// The figures of the node. Those that are no running totals are of the last second.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connected peers.
    pub peers: AtomicU64,
    /// Connections to them.
    pub connections: AtomicU64,
    /// Dials.
    pub dials: AtomicU64,
    /// Dials that failed.
    pub failed_dials: AtomicU64,
    /// Connections to us that failed or were refused.
    pub refused: AtomicU64,
    /// Peers let go because there were too many.
    pub trimmed: AtomicU64,
    /// Peers in the routing table of the public DHT.
    pub routing_wan: AtomicU64,
    /// Peers in the routing table of the local network's DHT.
    pub routing_lan: AtomicU64,
    /// Keys kept for others as a member of the DHTs.
    pub records: AtomicU64,
    /// Lookups and announcements under way.
    pub lookups: AtomicU64,
    /// Searches for providers.
    pub searches: AtomicU64,
    /// Providers found.
    pub providers: AtomicU64,
    /// Announcements begun.
    pub announced: AtomicU64,
}
