//! What is in the store, in numbers and one by one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::index::Location;
use super::segment::Segment;
use super::table;
use super::{Core, Store, StoreError};
use crate::block::Cid;
use crate::metrics::StoreFigures;

/// The store in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Blocks on the NVMe tier.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// What segments and tables take on the disk, in bytes.
    pub disk_bytes: u64,
    /// What they may take, in bytes; `u64::MAX` where that is not limited.
    pub disk_budget_bytes: u64,
    /// What of it is dead records, which compaction can give back, in bytes.
    pub dead_bytes: u64,
    /// What the filesystem has left for us, in bytes.
    pub available_bytes: u64,
    /// Blocks in the RAM tier.
    pub ram_blocks: u64,
    /// The memory that they take, in bytes.
    pub ram_bytes: u64,
    /// What the RAM tier may take, in bytes.
    pub ram_budget_bytes: u64,
    /// The memory that the index takes, in bytes.
    pub index_bytes: u64,
    /// Records that were found damaged, and dropped, since the store was opened.
    pub damaged: u64,
    /// What else was counted since then.
    pub counted: StoreFigures,
}

/// All blocks of a store, one after the other. See [`Store::blocks`].
pub struct Blocks {
    store: Store,
    segments: std::vec::IntoIter<Arc<Segment>>,
    batch: std::vec::IntoIter<(Cid, u64)>,
}

impl Store {
    /// What the RAM tier may take, in bytes.
    pub fn ram_budget(&self) -> u64 {
        self.core().config.ram_bytes
    }

    /// The store in numbers.
    pub fn stat(&self) -> Result<Stat, StoreError> {
        let core = self.core();
        let (ram_blocks, ram_bytes) = core.ram.used();
        let place = &core.shelf.dir;
        let space = core.shelf.disk.space(place).map_err(StoreError::io("ask for the space of", place))?;
        let mut stat = Stat {
            blocks: core.index.len(),
            disk_budget_bytes: core.config.disk_bytes,
            available_bytes: space.available,
            ram_blocks,
            ram_bytes,
            ram_budget_bytes: core.config.ram_bytes,
            index_bytes: core.index.memory_bytes(),
            damaged: core.damaged.load(Ordering::Relaxed),
            counted: core.counts.now(),
            ..Stat::default()
        };
        for (segment, _) in core.snapshot() {
            stat.bytes += segment.live_bytes.load(Ordering::Relaxed);
            stat.segments += 1;
            stat.disk_bytes += segment.disk_bytes();
            stat.dead_bytes += segment.dead_bytes();
        }
        Ok(stat)
    }

    /// The CID and the size of every block, each under the CID it was put under first. Blocks that come or go meanwhile may
    /// be left out.
    pub fn blocks(&self) -> Blocks {
        let segments: Vec<_> = self.core().snapshot().into_iter().map(|(segment, _)| segment).collect();
        Blocks { store: self.clone(), segments: segments.into_iter(), batch: Vec::new().into_iter() }
    }
}

impl Iterator for Blocks {
    type Item = Result<(Cid, u64), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(block) = self.batch.next() {
                return Some(Ok(block));
            }
            match self.store.core().blocks_of(&self.segments.next()?) {
                Ok(blocks) => self.batch = blocks.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Core {
    fn blocks_of(&self, segment: &Arc<Segment>) -> Result<Vec<(Cid, u64)>, StoreError> {
        let table = segment.whole_table()?;
        let mut blocks = Vec::new();
        for (position, entry) in table::entries(&table) {
            let at = Location { segment: segment.id, position };
            if self.index.with(self.index.key(entry.multihash()), at, || ())
                && let Ok(cid) = Cid::from_bytes(entry.cid)
            {
                blocks.push((cid, u64::from(entry.data_len)));
            }
        }
        Ok(blocks)
    }
}
