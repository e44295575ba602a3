//! What this node wants: one [`Want`] for each multihash, whoever waits for it and whoever was asked.

use std::time::Instant;

use smallvec::SmallVec;

use super::{PeerNumber, SessionId, Ticket, Urgency};
use crate::block::Cid;

/// What wants and blocks go by: the multihash. A block is the same under any codec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(SmallVec<[u8; 36]>);

impl Key {
    pub fn of(cid: &Cid) -> Key {
        Key(SmallVec::from_slice(cid.multihash()))
    }

    /// How well a node suits as the home of this block: each node computes the same for all of them, and the best one
    /// fetches the block from outside.
    pub fn score(&self, identity: u64) -> u64 {
        let mut tail = [0; 8];
        for (to, from) in tail.iter_mut().zip(self.0.iter().rev()) {
            *to = *from;
        }
        // The finaliser of splitmix64: every bit of both changes every bit of the score.
        let mut mixed = u64::from_le_bytes(tail) ^ identity;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Who waits for a block.
#[derive(Debug)]
pub struct Waiter {
    pub ticket: Ticket,
    pub session: SessionId,
    pub urgency: Urgency,
    pub cid: Cid,
}

/// Where a want stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the queue of its session.
    Queued,
    /// Behind others that the same fellow is to be asked for.
    Backlog(PeerNumber),
    /// Asked of somebody.
    Asked,
    /// Nobody is known who has it.
    Seeking,
}

/// What one peer was asked, and what it said.
#[derive(Clone, Debug)]
pub struct PeerAsk {
    pub peer: PeerNumber,
    /// The block itself, or only whether the peer has it.
    pub wants_block: bool,
    pub at: Instant,
    pub answer: Answer,
    /// What is counted as in flight from the peer: `None` where nothing is.
    pub charged: Option<u64>,
}

/// What a peer said when it was asked for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing yet.
    None,
    /// It has the block.
    Have,
    /// It has not.
    DontHave,
    /// Nothing for too long.
    GaveUp,
}

/// A block that somebody waits for.
#[derive(Debug)]
pub struct Want {
    pub cid: Cid,
    pub waiters: SmallVec<[Waiter; 1]>,
    /// That of its most urgent waiter.
    pub urgency: Urgency,
    /// The session that looks after it: that of its most urgent waiter.
    pub session: SessionId,
    /// Earlier wants go first.
    pub sequence: u64,
    pub place: Place,
    pub asks: SmallVec<[PeerAsk; 2]>,
    /// Whether waiting for a fellow has taken too long.
    pub is_impatient: bool,
}

impl Want {
    pub fn ask(&self, peer: PeerNumber) -> Option<&PeerAsk> {
        self.asks.iter().find(|ask| ask.peer == peer)
    }

    pub fn ask_mut(&mut self, peer: PeerNumber) -> Option<&mut PeerAsk> {
        self.asks.iter_mut().find(|ask| ask.peer == peer)
    }

    /// Whether the block itself is awaited from somebody.
    pub fn is_in_flight(&self) -> bool {
        self.asks.iter().any(|ask| ask.charged.is_some())
    }

    /// Its priority in a wantlist: by urgency, then the earlier the higher.
    pub fn priority(&self) -> i32 {
        let class = match self.urgency {
            Urgency::Demand => 0x7000_0000,
            Urgency::ReadAhead => 0x4000_0000,
            Urgency::Background => 0x1000_0000,
        };
        class - (self.sequence % (1 << 26)) as i32
    }
}
