//! Bitswap: blocks from peers, and ours to them (<https://specs.ipfs.tech/bitswap-protocol/>).
//!
//! Protocols 1.2.0, 1.1.0 and 1.0.0, client and server. What happens is decided by an [`engine`] that knows neither sockets
//! nor clocks; around it lie
//!
//! - [`message`]: what goes over a stream,
//! - [`streams`]: tasks that read and write streams, and hash what came on threads for that,
//! - [`driver`]: one task that carries out what the engine decides,
//! - [`behaviour`]: what libp2p sees: a [`Behaviour`] that knows who is connected, and a handler that opens and accepts
//!   streams. Neither touches a message, so the swarm's task is free for others.
//!
//! [`new`] gives the behaviour for the swarm and a [`Client`] for everybody else. A swarm with this behaviour should be built
//! with `with_max_negotiating_inbound_streams(128)` or more: implementations in Go open a stream for each message.
//!
//! Promises: a block that a [`Want`] gives was hashed. A want asks nobody twice without need: duplicates stay below 2% of
//! the bytes. Memory is bounded by [`crate::limits`], whatever peers send. A peer that sends garbage, or is silent, costs a
//! second of time and is asked no more for a while.

mod behaviour;
mod client;
mod driver;
mod engine;
mod message;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;

pub use self::behaviour::{Behaviour, Event};
pub use self::client::{Asked, AskedPeer, Client, PeerAnswer, Session, Want, WantError};

use crate::block::{Block, Cid};
use crate::limits::{MAX_BITSWAP_STREAMS, MAX_WANTS_IN_FLIGHT};
use crate::net::caps::Caps;

/// What the server answers from. Both functions are called on threads that may block.
pub trait Blocks: Send + Sync + 'static {
    /// The size of a block, or `None` where it is not here. Cheap.
    fn block_bytes(&self, cid: &Cid) -> Option<usize>;

    /// A block. May read the disk.
    fn get(&self, cid: &Cid) -> Option<Block>;
}

/// How bitswap is to behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// Wants in flight with one peer, at most [`MAX_WANTS_IN_FLIGHT`].
    pub wants_in_flight: usize,
    /// How long a peer that was asked may be silent before it is put aside.
    pub answer_timeout: Duration,
    /// Streams that a peer may have open to us on one connection.
    pub inbound_streams: usize,
    /// Threads that hash what came.
    pub hash_threads: usize,
    /// How fast blocks may come and go. Shared with whatever else moves blocks, and changed at any time.
    pub caps: Arc<Caps>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            wants_in_flight: MAX_WANTS_IN_FLIGHT,
            answer_timeout: Duration::from_secs(10),
            inbound_streams: MAX_BITSWAP_STREAMS,
            hash_threads: std::thread::available_parallelism().map_or(2, std::num::NonZero::get),
            caps: Arc::new(Caps::default()),
        }
    }
}

/// Who waits for a block: what is wanted more goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// Nobody yet. Nodes that want the same at once share out who asks for what.
    Background,
    /// A reader will, soon. Shared out too.
    ReadAhead,
    /// A reader does: whoever has the block is asked directly.
    Demand,
}

/// A session, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

/// What bitswap has done since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Peers that are connected.
    pub peers: Vec<PeerId>,
    /// Blocks that we wait for.
    pub wantlist: Vec<Cid>,
    /// Sessions that are open.
    pub sessions: usize,
    /// Messages that came.
    pub received_messages: u64,
    /// Blocks that came.
    pub received_blocks: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Blocks that came twice.
    pub duplicate_blocks: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Blocks that came and that nobody had asked for.
    pub unrequested_blocks: u64,
    /// Their bytes.
    pub unrequested_bytes: u64,
    /// Blocks that went out.
    pub sent_blocks: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Wants that were asked of a second peer because the first one took long.
    pub hedges: u64,
    /// Blocks that were left to another node that fetches the same, and were then fetched by us since it had too many to
    /// fetch.
    pub taken_over: u64,
    /// Times that a peer was silent while it was awaited, and others were asked.
    pub stalls: u64,
    /// Times that a peer was put aside for its silence.
    pub timeouts: u64,
    /// Things that peers sent and should not have.
    pub faults: u64,
    /// Wants of peers that were over the bounds.
    pub refused_wants: u64,
}

/// What went to and fro between us and one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The peer.
    pub peer: PeerId,
    /// Bytes of blocks that it got.
    pub sent_bytes: u64,
    /// Blocks that it got.
    pub sent_blocks: u64,
    /// Bytes of blocks that it gave.
    pub received_bytes: u64,
    /// Blocks that it gave.
    pub received_blocks: u64,
    /// Messages with answers that it got.
    pub exchanged: u64,
    /// What it wants and has not got.
    pub wantlist: Vec<Cid>,
}

/// Bitswap over the blocks of this node: the behaviour for its swarm, whose name is `own`, and the client for everybody
/// else. Its tasks run on `runtime` until the behaviour is dropped.
pub fn new(
    own: PeerId,
    config: Config,
    blocks: Arc<dyn Blocks>,
    runtime: &tokio::runtime::Handle,
) -> (Behaviour, Client) {
    driver::start(own, config, blocks, runtime)
}
