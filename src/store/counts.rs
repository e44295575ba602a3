//! What the store counts of its own work, from its opening on: for `cidfs status` and the metrics page.
//!
//! A count is one relaxed addition on the way, and nothing more: figures that are read while others work may be a moment
//! apart from each other.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::GcReport;
use crate::metrics::StoreFigures;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    ram_hits: AtomicU64,
    disk_hits: AtomicU64,
    misses: AtomicU64,
    disk_read_bytes: AtomicU64,
    evicted_blocks: AtomicU64,
    evicted_bytes: AtomicU64,
    collections: AtomicU64,
    collected_blocks: AtomicU64,
    collected_bytes: AtomicU64,
}

impl Counts {
    /// A read was answered from RAM.
    pub fn ram_hit(&self) {
        add(&self.ram_hits, 1);
    }

    /// A read was answered from NVMe, with these bytes.
    pub fn disk_hit(&self, data: &Bytes) {
        add(&self.disk_hits, 1);
        add(&self.disk_read_bytes, data.len() as u64);
    }

    /// A read was for a block that is not here.
    pub fn miss(&self) {
        add(&self.misses, 1);
    }

    /// A block of so many bytes was evicted.
    pub fn evicted(&self, bytes: u64) {
        add(&self.evicted_blocks, 1);
        add(&self.evicted_bytes, bytes);
    }

    /// Garbage was collected.
    pub fn collected(&self, report: &GcReport) {
        add(&self.collections, 1);
        add(&self.collected_blocks, report.removed_blocks);
        add(&self.collected_bytes, report.removed_bytes);
    }

    /// The figures of the moment.
    pub fn now(&self) -> StoreFigures {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StoreFigures {
            ram_hits: of(&self.ram_hits),
            disk_hits: of(&self.disk_hits),
            misses: of(&self.misses),
            disk_read_bytes: of(&self.disk_read_bytes),
            evicted_blocks: of(&self.evicted_blocks),
            evicted_bytes: of(&self.evicted_bytes),
            collections: of(&self.collections),
            collected_blocks: of(&self.collected_blocks),
            collected_bytes: of(&self.collected_bytes),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}
