//! Blocks that came from a peer and are wanted by others too.
//!
//! A walk puts a block into the store when it comes to it, and until then it may wait for another that is late. Whoever fetches
//! the same must not wait with it: such a block is passed on from here, as it came, without a look into the store.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::wants::Key;
use crate::block::{Block, Cid};
use crate::limits::MAX_HELD_BYTES;

/// How long a block is held: who fetches the same at once asks for it within that time.
const HELD_FOR: Duration = Duration::from_secs(10);

/// The blocks, bounded in bytes and in time.
#[derive(Default)]
pub struct Held {
    blocks: HashMap<Key, Block>,
    /// The oldest first.
    order: VecDeque<(Instant, Key)>,
    bytes: u64,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Holds a block. The oldest give way.
    pub fn insert(&mut self, now: Instant, key: &Key, block: &Block) {
        if self.blocks.insert(key.clone(), block.clone()).is_some() {
            return;
        }
        self.bytes += block.data().len() as u64;
        self.order.push_back((now + HELD_FOR, key.clone()));
        while self.bytes > MAX_HELD_BYTES {
            self.let_go();
        }
    }

    /// The size of a block that is held.
    pub fn block_bytes(&self, key: &Key) -> Option<u32> {
        self.blocks.get(key).map(|block| block.data().len() as u32)
    }

    /// A block that is held, under this name.
    pub fn get(&self, cid: &Cid) -> Option<Block> {
        let block = self.blocks.get(&Key::of(cid))?;
        if block.cid() == cid { Some(block.clone()) } else { block.renamed(cid) }
    }

    /// Lets go of those whose time is up.
    pub fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        if let Some(block) = self.order.pop_front().and_then(|(_, key)| self.blocks.remove(&key)) {
            self.bytes -= block.data().len() as u64;
        }
        if self.order.is_empty() {
            // Their memory goes with them.
            *self = Held::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    #[test]
    fn what_is_held_is_bounded_in_bytes_and_in_time() {
        let now = Instant::now();
        let mut held = Held::default();
        let block = |seed: u8| Block::new(codec::RAW, HashFunction::Sha2_256, vec![seed; 1 << 20].into());
        let all: Vec<Block> = (0..=MAX_HELD_BYTES >> 20).map(|seed| block(seed as u8)).collect();
        for block in &all {
            held.insert(now, &Key::of(block.cid()), block);
            held.insert(now, &Key::of(block.cid()), block);
        }
        assert_eq!(held.bytes, MAX_HELD_BYTES);
        assert_eq!(held.get(all[0].cid()), None);
        assert_eq!(held.block_bytes(&Key::of(all[1].cid())), Some(1 << 20));
        let other_name = all[1].cid().with_codec(codec::DAG_PB);
        assert_eq!(held.get(&other_name).unwrap().cid(), &other_name);
        held.expire(now + HELD_FOR / 2);
        assert!(!held.is_empty());
        held.expire(now + HELD_FOR);
        assert!(held.is_empty() && held.bytes == 0 && held.blocks.is_empty());
    }
}
