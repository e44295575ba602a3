//! The RAM tier: blocks that were read or written lately, least recently used dropped first.
//!
//! It is weighed in bytes and split into shards. Blocks that link to others (directories and the inner nodes of files)
//! have a quarter of the budget to themselves, so that a pass over a dataset's leaves cannot push out the nodes that
//! every such pass begins with. It is small by default: RAM belongs to the kernel's page cache of the mount, which holds
//! the same bytes once more.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::block::{Cid, codec};

const SHARDS: usize = 16;
/// What a block costs beside its bytes: its key, its links in the list, its place in the table.
const OVERHEAD_BYTES: u64 = 224;

type Hash = SmallVec<[u8; 40]>;

/// The RAM tier.
pub(super) struct Ram {
    random: RandomState,
    nodes: Box<[Mutex<Shard>]>,
    leaves: Box<[Mutex<Shard>]>,
}

struct Shard {
    blocks: LruCache<Hash, (Bytes, u64)>,
    bytes: u64,
    budget: u64,
}

impl Ram {
    /// A tier of at most `budget` bytes.
    pub fn new(budget: u64) -> Ram {
        let shards = |budget: u64| (0..SHARDS).map(|_| Mutex::new(Shard::new(budget / SHARDS as u64))).collect();
        Ram { random: RandomState::new(), nodes: shards(budget / 4), leaves: shards(budget - budget / 4) }
    }

    /// The block's bytes.
    pub fn get(&self, cid: &Cid) -> Option<Bytes> {
        let hash = Hash::from_slice(cid.multihash());
        let shard = self.shard(&hash);
        let (first, second) = if is_leaf(cid) { (&self.leaves, &self.nodes) } else { (&self.nodes, &self.leaves) };
        // A block that was put under another codec lies with the other kind.
        first[shard].lock().get(&hash).or_else(|| second[shard].lock().get(&hash))
    }

    /// Keeps a block that takes `memory` bytes, where it fits.
    pub fn insert(&self, cid: &Cid, data: Bytes, memory: usize) {
        let hash = Hash::from_slice(cid.multihash());
        let shard = self.shard(&hash);
        let kind = if is_leaf(cid) { &self.leaves } else { &self.nodes };
        kind[shard].lock().insert(hash, data, memory as u64 + OVERHEAD_BYTES);
    }

    /// Keeps a copy of a block where there is room without dropping another.
    pub fn insert_spare(&self, cid: &Cid, data: &Bytes) {
        let hash = Hash::from_slice(cid.multihash());
        let shard = self.shard(&hash);
        let kind = if is_leaf(cid) { &self.leaves } else { &self.nodes };
        let weight = data.len() as u64 + OVERHEAD_BYTES;
        let mut shard = kind[shard].lock();
        if shard.bytes + weight <= shard.budget {
            // Copied: it is a slice of many that were read together.
            shard.insert(hash, Bytes::copy_from_slice(data), weight);
        }
    }

    /// Forgets a block.
    pub fn remove(&self, multihash: &[u8]) {
        let hash = Hash::from_slice(multihash);
        let shard = self.shard(&hash);
        for kind in [&self.nodes, &self.leaves] {
            kind[shard].lock().remove(&hash);
        }
    }

    /// The blocks held, and the bytes that they take.
    pub fn used(&self) -> (u64, u64) {
        let shards = self.nodes.iter().chain(&self.leaves);
        shards.fold((0, 0), |(blocks, bytes), shard| {
            let shard = shard.lock();
            (blocks + shard.blocks.len() as u64, bytes + shard.bytes)
        })
    }

    fn shard(&self, hash: &Hash) -> usize {
        self.random.hash_one(hash) as usize % SHARDS
    }
}

fn is_leaf(cid: &Cid) -> bool {
    cid.codec() == codec::RAW
}

impl Shard {
    fn new(budget: u64) -> Shard {
        Shard { blocks: LruCache::unbounded(), bytes: 0, budget }
    }

    fn get(&mut self, hash: &Hash) -> Option<Bytes> {
        self.blocks.get(hash).map(|(data, _)| data.clone())
    }

    fn insert(&mut self, hash: Hash, data: Bytes, weight: u64) {
        if weight > self.budget {
            return;
        }
        self.bytes += weight;
        if let Some((_, replaced)) = self.blocks.put(hash, (data, weight)) {
            self.bytes -= replaced;
        }
        while self.bytes > self.budget {
            let Some((_, (_, weight))) = self.blocks.pop_lru() else { break };
            self.bytes -= weight;
        }
    }

    fn remove(&mut self, hash: &Hash) {
        if let Some((_, weight)) = self.blocks.pop(hash) {
            self.bytes -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, HashFunction};

    fn block(codec: u64, number: u32, len: usize) -> Block {
        let mut data = vec![0; len];
        data[..4].copy_from_slice(&number.to_le_bytes());
        Block::new(codec, HashFunction::Sha2_256, data.into())
    }

    fn insert(ram: &Ram, block: &Block) {
        ram.insert(block.cid(), block.data().clone(), block.data().len());
    }

    #[test]
    fn the_budget_holds_whatever_is_inserted() {
        let budget = 4 << 20;
        let ram = Ram::new(budget);
        for number in 0..5_000 {
            let len = if number % 100 == 0 { 400_000 } else { 1_000 + number as usize };
            insert(&ram, &block(codec::RAW, number, len));
            assert!(ram.used().1 <= budget);
        }
        assert!(ram.used().1 > budget / 4, "it is used");
    }

    #[test]
    fn a_pass_over_leaves_leaves_the_nodes_where_they_are() {
        let ram = Ram::new(4 << 20);
        let node = block(codec::DAG_PB, 1, 1_000);
        insert(&ram, &node);
        for number in 0..10_000 {
            insert(&ram, &block(codec::RAW, number, 5_000));
        }
        assert_eq!(ram.get(node.cid()).as_ref(), Some(node.data()));
        assert_eq!(ram.get(&node.cid().with_codec(codec::RAW)).as_ref(), Some(node.data()), "under another codec");
        ram.remove(node.cid().multihash());
        assert_eq!(ram.get(node.cid()), None);
    }
}
