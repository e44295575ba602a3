//! What one peer wants of us, and what is queued for it.
//!
//! Everything in here is bounded: a peer has at most [`MAX_WANTLIST_ENTRIES`] wants, and blocks are read only when they are
//! about to be sent, so a queue holds names and no data.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::wants::Key;
use crate::block::{Block, Cid};
use crate::limits::{
    ANSWER_MESSAGE_BYTES, ANSWER_STREAMS, MAX_BLOCK_BYTES, MAX_QUEUED_ANSWER_BYTES, MAX_WANTLIST_ENTRIES,
    MIN_ANSWER_MESSAGE_BYTES,
};

/// A block that a peer wants.
#[derive(Debug)]
pub struct TheirWant {
    pub cid: Cid,
    pub priority: i32,
    pub wants_block: bool,
    pub send_dont_have: bool,
    pub state: TheirState,
}

/// Where a peer's want stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TheirState {
    /// Whether the block is here is being looked up.
    Looking,
    /// The block is here and will be sent.
    Queued { order: Order, bytes: u32 },
    /// The block is not here: it is sent when it comes.
    Standing {
        /// `DONT_HAVE` was not said yet, since the block is on its way here.
        owes_dont_have: bool,
    },
}

/// What is sent first: the higher priority, then the earlier want.
pub type Order = (Reverse<i32>, u64);

/// The account of one peer.
#[derive(Default)]
pub struct Ledger {
    pub wants: HashMap<Key, TheirWant>,
    pub lookups: VecDeque<Key>,
    pub is_looking: bool,
    answers: BTreeMap<Order, Key>,
    queued_bytes: u64,
    pub presences: VecDeque<(Cid, bool)>,
    /// What is being read or sent.
    pub loaded_bytes: u64,
    /// Bytes a second that went out.
    rate: f64,
    /// Whether it has its turn in the queue of peers.
    pub is_ready: bool,
    pub sent_bytes: u64,
    pub sent_blocks: u64,
    pub received_bytes: u64,
    pub received_blocks: u64,
    pub exchanged: u64,
}

/// The most that a peer's account takes, beside the blocks that are loaded for it.
const ACCOUNT_BYTES: usize = MAX_WANTLIST_ENTRIES
    * (3 * size_of::<Key>() + size_of::<TheirWant>() + size_of::<Order>() + size_of::<(Cid, bool)>());
const _: () = assert!(
    2 * ACCOUNT_BYTES + (LOADED_MESSAGES * ANSWER_MESSAGE_BYTES) as usize + MAX_BLOCK_BYTES <= MAX_QUEUED_ANSWER_BYTES,
    "a full wantlist is within the bound"
);

/// Messages that are loaded for a peer at once: one on each stream, and the next one.
const LOADED_MESSAGES: u64 = ANSWER_STREAMS as u64 + 1;
/// Blocks in one message, however small they are.
const MAX_BLOCKS_IN_MESSAGE: usize = 1024;
/// Presences in one message: they take 50 bytes each.
const MAX_PRESENCES_IN_MESSAGE: usize = 4096;
/// What a presence counts for among the bytes that are being sent.
const PRESENCE_BYTES: u64 = 64;

/// What one message to the peer holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Blocks that are to be read.
    pub blocks: Vec<Cid>,
    /// Blocks that are in RAM.
    pub held: Vec<Block>,
    pub presences: Vec<(Cid, bool)>,
    /// What it counts for until it was sent.
    pub loaded_bytes: u64,
    pub pending_bytes: i32,
}

impl Ledger {
    /// Whether nothing is queued.
    pub fn is_idle(&self) -> bool {
        self.answers.is_empty() && self.presences.is_empty()
    }

    /// Whether another message may be made while the last ones are on their way.
    pub fn has_room(&self) -> bool {
        self.loaded_bytes < LOADED_MESSAGES * self.message_bytes()
    }

    /// The size of a message: what goes out in 20 ms.
    fn message_bytes(&self) -> u64 {
        if self.rate <= 0.0 {
            return ANSWER_MESSAGE_BYTES / 4;
        }
        ((self.rate * 0.02) as u64).clamp(MIN_ANSWER_MESSAGE_BYTES, ANSWER_MESSAGE_BYTES)
    }

    /// Queues the block of a want of this peer.
    pub fn queue_block(&mut self, key: &Key, order: u64, bytes: u32) {
        let Some(want) = self.wants.get_mut(key) else { return };
        if let TheirState::Queued { order, bytes } = want.state {
            self.answers.remove(&order);
            self.queued_bytes -= u64::from(bytes);
        }
        let order = (Reverse(want.priority), order);
        want.state = TheirState::Queued { order, bytes };
        self.answers.insert(order, key.clone());
        self.queued_bytes += u64::from(bytes);
    }

    /// Queues a presence; says whether there was room for it.
    pub fn queue_presence(&mut self, cid: Cid, is_here: bool) -> bool {
        let has_room = self.presences.len() < MAX_WANTLIST_ENTRIES;
        if has_room {
            self.presences.push_back((cid, is_here));
        }
        has_room
    }

    /// Ends a want.
    pub fn remove(&mut self, key: &Key) -> Option<TheirWant> {
        let want = self.wants.remove(key)?;
        if let TheirState::Queued { order, bytes } = want.state {
            self.answers.remove(&order);
            self.queued_bytes -= u64::from(bytes);
        }
        Some(want)
    }

    /// The next message, out of what is queued.
    pub fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        let target = self.message_bytes();
        while batch.loaded_bytes < target && batch.blocks.len() < MAX_BLOCKS_IN_MESSAGE {
            let Some((_, key)) = self.answers.pop_first() else { break };
            let Some(want) = self.wants.remove(&key) else { continue };
            if let TheirState::Queued { bytes, .. } = want.state {
                self.queued_bytes -= u64::from(bytes);
                batch.loaded_bytes += u64::from(bytes) + PRESENCE_BYTES;
            }
            batch.blocks.push(want.cid);
        }
        let presences = self.presences.len().min(MAX_PRESENCES_IN_MESSAGE);
        batch.presences.extend(self.presences.drain(..presences));
        batch.loaded_bytes += presences as u64 * PRESENCE_BYTES;
        batch.pending_bytes = i32::try_from(self.queued_bytes).unwrap_or(i32::MAX);
        self.loaded_bytes += batch.loaded_bytes;
        batch
    }

    /// A message has gone out, in so long a time.
    pub fn sent(&mut self, loaded_bytes: u64, bytes: u64, blocks: u64, took: Duration) {
        self.loaded_bytes = self.loaded_bytes.saturating_sub(loaded_bytes);
        self.sent_bytes += bytes;
        self.sent_blocks += blocks;
        if blocks > 0 && bytes > 0 {
            let rate = bytes as f64 / took.as_secs_f64().max(0.000_1);
            self.rate = if self.rate <= 0.0 { rate } else { self.rate * 0.75 + rate * 0.25 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    fn want(ledger: &mut Ledger, seed: u32, priority: i32, bytes: u32) -> Cid {
        let cid = Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&seed.to_le_bytes()));
        let state = TheirState::Looking;
        let want = TheirWant { cid: cid.clone(), priority, wants_block: true, send_dont_have: true, state };
        ledger.wants.insert(Key::of(&cid), want);
        ledger.queue_block(&Key::of(&cid), u64::from(seed), bytes);
        cid
    }

    #[test]
    fn urgent_wants_are_answered_before_earlier_ones_and_messages_stay_small() {
        let mut ledger = Ledger::default();
        let low: Vec<Cid> = (0..20).map(|seed| want(&mut ledger, seed, 1, 200_000)).collect();
        let high = want(&mut ledger, 99, 2, 200_000);
        let batch = ledger.take_batch();
        assert_eq!(batch.blocks, [high, low[0].clone()], "a quarter of a MiB at first");
        assert_eq!(batch.pending_bytes, 19 * 200_000);
        ledger.sent(batch.loaded_bytes, 400_000, 2, Duration::from_millis(1));
        assert_eq!(ledger.loaded_bytes, 0);
        assert_eq!(ledger.take_batch().blocks.len(), 6, "a MiB for a fast peer");
    }

    #[test]
    fn a_want_that_is_queued_twice_is_sent_once_and_a_cancelled_one_never() {
        let mut ledger = Ledger::default();
        let first = want(&mut ledger, 1, 1, 10);
        let second = want(&mut ledger, 2, 1, 10);
        ledger.queue_block(&Key::of(&first), 7, 10);
        ledger.remove(&Key::of(&second));
        let batch = ledger.take_batch();
        assert_eq!((batch.blocks, batch.pending_bytes), (vec![first], 0));
        assert!(ledger.is_idle() && ledger.wants.is_empty());
    }
}
