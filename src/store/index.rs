//! Where each block lies: the store's index, in RAM whole.
//!
//! A block costs 12 bytes: a 32-bit fingerprint of its multihash and the place of its entry in a segment's table. With
//! the hash table's own byte and its emptiest load that is less than 30 bytes a block. Fingerprints are made with a key
//! that is drawn when the store is opened, so nobody can make blocks whose fingerprints collide; those that collide by
//! chance are told apart by the multihash in the table. So a lookup gives *candidates*, of which there is nearly always
//! one or none, and nothing here does I/O.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use parking_lot::RwLock;
use smallvec::SmallVec;

/// Shards: enough that threads seldom meet, and that the growth of one is short.
const SHARDS: usize = 256;

/// Where a record's entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Location {
    /// The segment.
    pub segment: u32,
    /// The entry's position in the segment's table.
    pub position: u32,
}

/// What the index knows of a multihash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    shard: u8,
    fingerprint: u32,
}

/// The entries that may be a block's.
pub(super) type Candidates = SmallVec<[Location; 2]>;

#[derive(Clone, Copy)]
struct Slot {
    fingerprint: u32,
    at: Location,
}

/// The index. Shared by all threads.
pub(super) struct Index {
    random: RandomState,
    shards: Box<[RwLock<HashTable<Slot>>]>,
}

impl Index {
    /// An empty index with a key of its own.
    pub fn new() -> Index {
        Index { random: RandomState::new(), shards: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect() }
    }

    /// The key of a multihash.
    pub fn key(&self, multihash: &[u8]) -> Key {
        let mut hasher = self.random.build_hasher();
        hasher.write(multihash);
        let hash = hasher.finish();
        Key { shard: hash as u8, fingerprint: (hash >> 32) as u32 }
    }

    /// The entries that may be the block's.
    pub fn candidates(&self, key: Key) -> Candidates {
        collect(&self.shard(key).read(), key.fingerprint)
    }

    /// Adds an entry if the candidates of its key are still `seen`; says whether it did.
    pub fn insert(&self, key: Key, seen: &Candidates, at: Location) -> bool {
        let mut shard = self.shard(key).write();
        let unchanged = collect(&shard, key.fingerprint) == *seen;
        if unchanged {
            add(&mut shard, key.fingerprint, at);
        }
        unchanged
    }

    /// Removes an entry, unless `keep` says under the shard's lock that it must stay; says whether it did.
    pub fn remove(&self, key: Key, at: Location, keep: impl FnOnce() -> bool) -> bool {
        let mut shard = self.shard(key).write();
        match shard.find_entry(spread(key.fingerprint), |slot| slot.at == at) {
            Ok(entry) if !keep() => {
                entry.remove();
                true
            }
            _ => false,
        }
    }

    /// Points an entry elsewhere, unless `keep` says under the shard's lock that it must stay; says whether it did.
    pub fn replace(&self, key: Key, old: Location, new: Location, keep: impl FnOnce() -> bool) -> bool {
        let mut shard = self.shard(key).write();
        match shard.find_mut(spread(key.fingerprint), |slot| slot.at == old) {
            Some(slot) if !keep() => {
                slot.at = new;
                true
            }
            _ => false,
        }
    }

    /// Runs `then` under the shard's lock if the entry is in the index; says whether it is.
    pub fn with(&self, key: Key, at: Location, then: impl FnOnce()) -> bool {
        let shard = self.shard(key).read();
        let found = shard.find(spread(key.fingerprint), |slot| slot.at == at).is_some();
        if found {
            then();
        }
        found
    }

    /// Adds many entries of one shard at once. `same` decides whether two entries of one fingerprint are of one block: the
    /// second is then left out, and given to `twin`.
    pub fn fill(
        &self,
        shard: u8,
        entries: &[(u32, Location)],
        same: impl Fn(Location, Location) -> bool,
        mut twin: impl FnMut(Location),
    ) {
        let mut suspects: Vec<(u32, Location)> = Vec::new();
        {
            let mut shard = self.shards[usize::from(shard)].write();
            for &(fingerprint, at) in entries {
                let taken = shard.find(spread(fingerprint), |slot| slot.fingerprint == fingerprint).is_some();
                if taken {
                    suspects.push((fingerprint, at));
                } else {
                    add(&mut shard, fingerprint, at);
                }
            }
        }
        // Telling two apart reads their tables: not under the lock.
        for (fingerprint, at) in suspects {
            let key = Key { shard, fingerprint };
            loop {
                let seen = self.candidates(key);
                if seen.iter().any(|other| same(*other, at)) {
                    twin(at);
                    break;
                }
                if self.insert(key, &seen, at) {
                    break;
                }
            }
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().len() as u64).sum()
    }

    /// What the index takes of memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().allocation_size() as u64).sum()
    }

    fn shard(&self, key: Key) -> &RwLock<HashTable<Slot>> {
        &self.shards[usize::from(key.shard)]
    }
}

impl Key {
    /// The shard, for [`Index::fill`].
    pub fn shard(self) -> u8 {
        self.shard
    }

    /// The fingerprint, for [`Index::fill`].
    pub fn fingerprint(self) -> u32 {
        self.fingerprint
    }
}

/// The hash table wants 64 bits with good ones at both ends.
fn spread(fingerprint: u32) -> u64 {
    u64::from(fingerprint).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn add(shard: &mut HashTable<Slot>, fingerprint: u32, at: Location) {
    shard.insert_unique(spread(fingerprint), Slot { fingerprint, at }, |slot| spread(slot.fingerprint));
}

fn collect(shard: &HashTable<Slot>, fingerprint: u32) -> Candidates {
    let same = shard.iter_hash(spread(fingerprint)).filter(|slot| slot.fingerprint == fingerprint);
    let mut candidates: Candidates = same.map(|slot| slot.at).collect();
    candidates.sort_unstable();
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(position: u32) -> Location {
        Location { segment: 1, position }
    }

    #[test]
    fn blocks_of_one_fingerprint_are_kept_apart() {
        let index = Index::new();
        let key = Key { shard: 3, fingerprint: 9 };
        assert!(index.insert(key, &Candidates::new(), at(16)));
        assert!(!index.insert(key, &Candidates::new(), at(32)), "the candidates have changed");
        assert!(index.insert(key, &index.candidates(key), at(32)));
        assert_eq!(index.candidates(key).as_slice(), [at(16), at(32)]);
        assert!(index.replace(key, at(16), at(48), || false));
        assert!(!index.remove(key, at(16), || false));
        assert!(!index.remove(key, at(32), || true), "it is kept");
        assert!(index.remove(key, at(32), || false));
        assert_eq!(index.candidates(key).as_slice(), [at(48)]);
    }

    #[test]
    fn a_twin_is_left_out_and_a_stranger_of_the_same_fingerprint_is_not() {
        let index = Index::new();
        let mut twins = Vec::new();
        let entries = [(5, at(16)), (5, at(32)), (5, at(48)), (6, at(64))];
        index.fill(0, &entries, |a, b| (a.position, b.position) == (16, 48), |at| twins.push(at));
        assert_eq!((index.len(), twins), (3, vec![at(48)]));
    }

    #[test]
    fn a_block_costs_at_most_32_bytes_of_ram_at_any_size() {
        let index = Index::new();
        let mut worst = 0.0_f64;
        for number in 0..600_000_u64 {
            let key = index.key(&number.to_le_bytes());
            index.insert(key, &index.candidates(key), at(number as u32));
            if number > 100_000 && number % 5_000 == 0 {
                worst = worst.max(index.memory_bytes() as f64 / index.len() as f64);
            }
        }
        assert!(worst <= 32.0, "{worst}");
    }
}
