//! The RAM tier: blocks that were read or written lately.
//!
//! It is weighed in bytes and split into shards. Blocks that link to others (directories and the inner nodes of files)
//! have a quarter of the budget to themselves, so that a pass over a dataset's leaves cannot push out the nodes that
//! every such pass begins with. It is small by default: RAM belongs to the kernel's page cache of the mount, which holds
//! the same bytes once more.
//!
//! A training job reads everything once an epoch, in an order of its own each time. A cache that gives each block that is
//! read the place of the one that was read longest ago drops most blocks before they come again. So each shard has two
//! parts. What comes first fills the larger one and *stays* for as long as its owner (the root or the segment that it is
//! of) is read: where half of a dataset fits, half of each epoch is found here. What comes later passes through the other
//! part, the *window*, least recently used out first; it is as large as reading ahead needs. Owners that were idle for
//! [`IDLE_SECONDS`] give up their place to whoever wants it.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::uses::{self, Uses};
use crate::block::{Cid, codec};
use crate::limits::MAX_BLOCK_BYTES;

const SHARDS: usize = 16;
/// What a block costs beside its bytes: its key, its links in the list, its place in the table.
const OVERHEAD_BYTES: u64 = 240;
/// The least window of a shard, in bytes: the largest block passes through it.
const LEAST_WINDOW_BYTES: u64 = MAX_BLOCK_BYTES as u64 + OVERHEAD_BYTES;
/// The largest, in bytes: 64 MiB in all shards, more than is read ahead at a time.
const LARGEST_WINDOW_BYTES: u64 = 4 << 20;
/// For how long an owner that is not read keeps its place.
pub(super) const IDLE_SECONDS: u64 = 60;

type Hash = SmallVec<[u8; 40]>;

/// The RAM tier.
pub(super) struct Ram {
    random: RandomState,
    nodes: Box<[Mutex<Shard>]>,
    leaves: Box<[Mutex<Shard>]>,
}

struct Shard {
    /// What stays.
    kept: Part,
    /// What passes through.
    window: Part,
    /// When idle owners were last looked for.
    swept: u64,
}

/// Blocks up to a budget, least recently used first.
struct Part {
    blocks: LruCache<Hash, Held>,
    bytes: u64,
    budget: u64,
}

struct Held {
    data: Bytes,
    weight: u64,
    /// Whose it is, where that is known.
    owner: Option<Arc<Uses>>,
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
        // A block that was put under another codec lies with the other kind. One lock at a time: others take them the other
        // way round.
        let mut found = first[shard].lock().get(&hash);
        if found.is_none() {
            found = second[shard].lock().get(&hash);
        }
        let (data, owner) = found?;
        if let Some(owner) = owner {
            owner.note(uses::now());
        }
        Some(data)
    }

    /// Keeps a block that takes `memory` bytes, where it fits; nobody knows whose it is.
    pub fn insert(&self, cid: &Cid, data: Bytes, memory: usize) {
        self.insert_of(cid, data, memory, None, uses::now());
    }

    /// Keeps a block of `owner` that takes `memory` bytes, where it fits.
    pub fn insert_of(&self, cid: &Cid, data: Bytes, memory: usize, owner: Option<Arc<Uses>>, now: u64) {
        let hash = Hash::from_slice(cid.multihash());
        let shard = self.shard(&hash);
        let kind = if is_leaf(cid) { &self.leaves } else { &self.nodes };
        let held = Held { data, weight: memory as u64 + OVERHEAD_BYTES, owner };
        // What is dropped is freed after the lock.
        let dropped = kind[shard].lock().insert(hash, held, now);
        drop(dropped);
    }

    /// Keeps a copy of a block of `owner` where there is room without dropping another.
    pub fn insert_spare(&self, cid: &Cid, data: &Bytes, owner: Arc<Uses>) {
        let hash = Hash::from_slice(cid.multihash());
        let shard = self.shard(&hash);
        let kind = if is_leaf(cid) { &self.leaves } else { &self.nodes };
        let weight = data.len() as u64 + OVERHEAD_BYTES;
        let mut shard = kind[shard].lock();
        let Shard { kept, window, .. } = &mut *shard;
        let is_here = kept.blocks.contains(&hash) || window.blocks.contains(&hash);
        if !is_here && let Some(part) = [kept, window].into_iter().find(|part| part.has_room(weight)) {
            // Copied: it is a slice of many that were read together.
            part.put(hash, Held { data: Bytes::copy_from_slice(data), weight, owner: Some(owner) });
        }
    }

    /// Forgets a block.
    pub fn remove(&self, multihash: &[u8]) {
        let hash = Hash::from_slice(multihash);
        let shard = self.shard(&hash);
        for kind in [&self.nodes, &self.leaves] {
            let mut shard = kind[shard].lock();
            shard.kept.remove(&hash);
            shard.window.remove(&hash);
        }
    }

    /// The blocks held, and the bytes that they take.
    pub fn used(&self) -> (u64, u64) {
        let shards = self.nodes.iter().chain(&self.leaves);
        shards.fold((0, 0), |(blocks, bytes), shard| {
            let shard = shard.lock();
            let parts = [&shard.kept, &shard.window];
            let count: u64 = parts.iter().map(|part| part.blocks.len() as u64).sum();
            (blocks + count, bytes + parts.iter().map(|part| part.bytes).sum::<u64>())
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
        // Too small for two parts, it is all window.
        let window = if budget < 2 * LEAST_WINDOW_BYTES {
            budget
        } else {
            (budget / 4).clamp(LEAST_WINDOW_BYTES, LARGEST_WINDOW_BYTES)
        };
        Shard { kept: Part::new(budget - window), window: Part::new(window), swept: 0 }
    }

    fn get(&mut self, hash: &Hash) -> Option<(Bytes, Option<Arc<Uses>>)> {
        let held = self.kept.blocks.get(hash);
        let held = if held.is_some() { held } else { self.window.blocks.get(hash) }?;
        Some((held.data.clone(), held.owner.clone()))
    }

    /// Keeps a block, and gives back what had to go.
    fn insert(&mut self, hash: Hash, held: Held, now: u64) -> Vec<Held> {
        let mut dropped = Vec::new();
        dropped.extend(self.window.remove(&hash));
        dropped.extend(self.kept.remove(&hash));
        if !self.kept.has_room(held.weight) && self.kept.budget >= held.weight && self.swept != now {
            self.swept = now;
            self.kept.drop_idle(now, held.owner.as_ref(), &mut dropped);
        }
        if self.kept.has_room(held.weight) {
            self.kept.put(hash, held);
        } else if held.weight <= self.window.budget {
            while !self.window.has_room(held.weight) {
                dropped.extend(self.window.pop());
            }
            self.window.put(hash, held);
        }
        dropped
    }
}

impl Part {
    fn new(budget: u64) -> Part {
        Part { blocks: LruCache::unbounded(), bytes: 0, budget }
    }

    fn has_room(&self, weight: u64) -> bool {
        self.bytes + weight <= self.budget
    }

    fn put(&mut self, hash: Hash, held: Held) {
        self.bytes += held.weight;
        self.blocks.put(hash, held);
    }

    fn remove(&mut self, hash: &Hash) -> Option<Held> {
        let held = self.blocks.pop(hash)?;
        self.bytes -= held.weight;
        Some(held)
    }

    fn pop(&mut self) -> Option<Held> {
        let (_, held) = self.blocks.pop_lru()?;
        self.bytes -= held.weight;
        Some(held)
    }

    /// Drops the blocks of owners that are idle, and those that are nobody's. Looks at all, so not more than once a second.
    fn drop_idle(&mut self, now: u64, wanted: Option<&Arc<Uses>>, dropped: &mut Vec<Held>) {
        let is_idle = |held: &Held| match &held.owner {
            Some(owner) if wanted.is_some_and(|wanted| Arc::ptr_eq(wanted, owner)) => false,
            Some(owner) => owner.last() + IDLE_SECONDS <= now,
            None => true,
        };
        let idle: Vec<Hash> =
            self.blocks.iter().filter(|(_, held)| is_idle(held)).map(|(hash, _)| hash.clone()).collect();
        for hash in idle {
            dropped.extend(self.remove(&hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        for budget in [4 << 20, 100 << 20] {
            let ram = Ram::new(budget);
            let owner = Arc::new(Uses::default());
            for number in 0..5_000 {
                let len = if number % 100 == 0 { 400_000 } else { 1_000 + number as usize };
                let block = block(codec::RAW, number, 4);
                let owner = (number % 3 == 0).then(|| owner.clone());
                ram.insert_of(block.cid(), block.data().clone(), len * budget as usize / (4 << 20), owner, 0);
                assert!(ram.used().1 <= budget);
            }
            assert!(ram.used().1 > budget / 4, "it is used");
        }
    }

    #[test]
    fn lookups_of_leaves_and_of_nodes_do_not_wait_for_each_other_forever() {
        let ram = Arc::new(Ram::new(4 << 20));
        let (done, ends) = std::sync::mpsc::channel();
        for codec in [codec::RAW, codec::DAG_PB] {
            let (ram, done, absent) = (ram.clone(), done.clone(), block(codec, 1, 10));
            std::thread::spawn(move || {
                for _ in 0..200_000 {
                    assert_eq!(ram.get(absent.cid()), None);
                }
                done.send(()).unwrap();
            });
        }
        for _ in 0..2 {
            ends.recv_timeout(std::time::Duration::from_mins(1)).expect("both end");
        }
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

    /// A dataset of blocks that are said to take 1 MiB each, and whose they are.
    struct Dataset {
        blocks: Vec<Block>,
        owner: Arc<Uses>,
    }

    const MIB: usize = 1 << 20;

    impl Dataset {
        fn new(first: u32, count: u32) -> Dataset {
            let blocks = (first..first + count).map(|number| block(codec::RAW, number, 4)).collect();
            Dataset { blocks, owner: Arc::new(Uses::default()) }
        }

        /// Reads every block once, in an order drawn from `seed`, as the store does, at `now`. The hits.
        fn epoch(&self, ram: &Ram, seed: u64, now: u64) -> usize {
            let mut order: Vec<usize> = (0..self.blocks.len()).collect();
            let mut state = seed | 1;
            for place in (1..order.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(place, (state >> 33) as usize % (place + 1));
            }
            let mut hits = 0;
            for index in order {
                self.owner.note(now);
                let block = &self.blocks[index];
                if ram.peek(block.cid()) {
                    hits += 1;
                } else {
                    ram.insert_of(block.cid(), block.data().clone(), MIB, Some(self.owner.clone()), now);
                }
            }
            hits
        }
    }

    impl Ram {
        /// [`Ram::get`], without the clock.
        fn peek(&self, cid: &Cid) -> bool {
            let hash = Hash::from_slice(cid.multihash());
            let shard = self.shard(&hash);
            self.leaves[shard].lock().get(&hash).is_some()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        /// The share of the blocks that is here is the share of each epoch that is found here, within 2 %.
        #[test]
        fn epochs_in_random_order_hit_the_share_that_fits(seed in any::<u64>(), quarters in 1_u32..4) {
            // 8 GiB, of which 6 GiB are for leaves and less than 1 % of that is window.
            let ram = Ram::new(8 << 30);
            let fits = 6 * 1024;
            let dataset = Dataset::new(0, fits * 4 / quarters);
            let share = f64::from(quarters) / 4.0;
            dataset.epoch(&ram, seed, 1_000);
            for epoch in 1..6 {
                let hits = dataset.epoch(&ram, seed.wrapping_add(epoch), 1_000 + epoch) as f64;
                let rate = hits / dataset.blocks.len() as f64;
                prop_assert!((rate - share).abs() < 0.02, "{rate} of {share}");
                // The other way is far off: the least recently used out first.
                let of_lru = share + (1.0 - share) * (1.0 - share).ln();
                prop_assert!(rate > of_lru + 0.1);
            }
        }
    }

    #[test]
    fn a_dataset_that_is_read_keeps_its_place_and_one_that_is_idle_gives_it_up() {
        let ram = Ram::new(1 << 30);
        // 768 MiB for leaves, 64 MiB of it window.
        let (old, new) = (Dataset::new(0, 600), Dataset::new(10_000, 600));
        old.epoch(&ram, 1, 100);
        assert!(old.epoch(&ram, 2, 101) > 550);
        let hits = |dataset: &Dataset| dataset.blocks.iter().filter(|block| ram.peek(block.cid())).count();
        // Both are read: the first one stays, and the second one gets what is left.
        new.epoch(&ram, 3, 102);
        let beside = new.epoch(&ram, 4, 103);
        assert!(hits(&old) > 550 && beside < 200, "{} {beside}", hits(&old));
        // The first one ends.
        let later = 101 + IDLE_SECONDS;
        new.epoch(&ram, 5, later);
        assert!(new.epoch(&ram, 6, later + 1) > 550);
        assert!(hits(&old) < 150, "{}", hits(&old));
    }

    #[test]
    fn what_passes_through_is_here_for_a_while() {
        let ram = Ram::new(1 << 30);
        let dataset = Dataset::new(0, 2000);
        dataset.epoch(&ram, 1, 100);
        // The whole budget is held: read ahead goes through the window.
        let ahead = Dataset::new(5_000, 300);
        for block in &ahead.blocks {
            ram.insert_of(block.cid(), block.data().clone(), MIB / 16, Some(dataset.owner.clone()), 100);
        }
        assert!(ahead.blocks.iter().all(|block| ram.peek(block.cid())));
    }
}
