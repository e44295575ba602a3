//! Removing blocks: garbage collection, single blocks, and the files that hold nothing any more.
//!
//! One maintenance at a time, beside any number of readers and writers. What is removed is first taken out of the index,
//! then noted in the database, and its space is given back by dropping whole segments and by
//! [compaction](super::compact). A crash in between brings removed blocks back at worst.
//!
//! Nothing is removed while a pin lacks a node: what hangs below that node could not be told from what nobody needs.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::live::{Live, Walk, has_links};
use super::segment::Segment;
use super::table;
use super::{Core, Pin, PinKind, Store, StoreError};
use crate::block::Cid;

/// What a gc did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// The blocks that pins keep.
    pub kept_blocks: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The blocks that were removed.
    pub removed_blocks: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// How much less the segments take on the disk, in bytes.
    pub freed_bytes: u64,
}

/// How far a gc is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GcProgress {
    /// So many blocks were found to be kept.
    Marked(u64),
    /// This block was removed.
    Removed(Cid),
    /// What is left is being moved together.
    Compacting,
}

/// Told how far a gc is; ends it by answering `Break`.
pub type GcSink<'a> = &'a mut dyn FnMut(GcProgress) -> ControlFlow<()>;

/// Marked blocks between two reports.
const REPORT_EVERY: u64 = 1_000;

/// A walk that must be complete, or nothing may be removed.
struct Marking<'a, 'b> {
    sink: GcSink<'a>,
    pin: &'b Pin,
    missing: Option<Cid>,
}

impl Walk for Marking<'_, '_> {
    fn reached(&mut self, live: &Live, _cid: &Cid) -> ControlFlow<()> {
        let report = live.blocks.is_multiple_of(REPORT_EVERY);
        if report { (self.sink)(GcProgress::Marked(live.blocks)) } else { ControlFlow::Continue(()) }
    }

    fn missing(&mut self, cid: &Cid) -> ControlFlow<()> {
        // A leaf that is missing has nothing below it.
        if self.pin.kind == PinKind::Direct || !has_links(cid.codec()) {
            return ControlFlow::Continue(());
        }
        self.missing = Some(cid.clone());
        ControlFlow::Break(())
    }
}

impl Store {
    /// Removes every block that no pin needs and no [writer](Store::writer) holds, and gives its space back. Reads and adds
    /// go on meanwhile. A pin that lacks a node stops it before anything is removed.
    pub fn gc(&self, sink: GcSink<'_>) -> Result<GcReport, StoreError> {
        let core = self.core();
        let _maintenance = core.maintenance.lock();
        let before = core.file_bytes();
        let _sweep = core.holds.sweep();
        // In this order: what is put from now on is left alone, and what was put before is pinned or held by now.
        let segments = core.snapshot();
        let mut live = Live::default();
        for pin in self.pins()? {
            core.mark_whole(&pin, &mut live, sink)?;
        }
        let mut report = GcReport { kept_blocks: live.blocks, kept_bytes: live.bytes, ..GcReport::default() };
        let mut swept = Ok(());
        for (segment, records) in segments {
            let is_kept = |ordinal| ordinal >= records || live.contains(segment.id, ordinal);
            swept = core.sweep_segment(&segment, is_kept, &mut |cid, len| {
                report.removed_blocks += 1;
                report.removed_bytes += u64::from(len);
                sink(GcProgress::Removed(cid))
            });
            if swept.is_err() {
                break;
            }
        }
        core.drop_empty_segments();
        core.flush_dead()?;
        swept?;
        if sink(GcProgress::Compacting).is_break() {
            return Err(StoreError::Stopped);
        }
        core.compact_sparse()?;
        report.freed_bytes = before.saturating_sub(core.file_bytes());
        core.counts.collected(&report);
        Ok(report)
    }

    /// Gives back the space of blocks that were removed, by moving together what is left.
    pub fn compact(&self) -> Result<(), StoreError> {
        let _maintenance = self.core().maintenance.lock();
        self.core().compact_sparse()
    }

    /// Removes blocks, each unless a pin needs it or a writer holds it: true where it was here. Durable on return. Their
    /// space is given back by the next [gc](Store::gc).
    pub fn remove(&self, cids: &[Cid]) -> Result<Vec<Result<bool, StoreError>>, StoreError> {
        let core = self.core();
        let _maintenance = core.maintenance.lock();
        let _sweep = core.holds.sweep();
        let mut wanted = Vec::new();
        for cid in cids {
            wanted.push(core.find(cid.multihash())?);
        }
        let mut needed_by: Vec<Option<Cid>> = vec![None; cids.len()];
        let mut live = Live::default();
        for pin in self.pins()? {
            core.mark_whole(&pin, &mut live, &mut |_| ControlFlow::Continue(()))?;
            for (wanted, needed_by) in wanted.iter().zip(&mut needed_by) {
                let is_live = wanted.as_ref().is_some_and(|found| live.contains(found.at.segment, found.ordinal()));
                if is_live {
                    needed_by.get_or_insert_with(|| pin.cid.clone());
                }
            }
        }
        let mut results = Vec::new();
        for ((cid, found), needed_by) in cids.iter().zip(wanted).zip(needed_by) {
            let cid = || Box::new(cid.clone());
            results.push(match (found, needed_by) {
                (_, Some(pin)) => Err(StoreError::Pinned { cid: cid(), pin: Box::new(pin) }),
                (None, None) => Ok(false),
                (Some(found), None) => {
                    if core.drop_unheld(&found) {
                        Ok(true)
                    } else {
                        Err(StoreError::Held { cid: cid() })
                    }
                }
            });
        }
        core.drop_empty_segments();
        core.flush_dead()?;
        Ok(results)
    }
}

impl Core {
    /// Marks what a pin keeps; fails where what it keeps cannot be known whole.
    pub(super) fn mark_whole(&self, pin: &Pin, live: &mut Live, sink: GcSink<'_>) -> Result<(), StoreError> {
        let mut walk = Marking { sink, pin, missing: None };
        let ended = self.mark(pin, live, &mut walk)?.is_break();
        match walk.missing {
            Some(missing) => {
                Err(StoreError::IncompletePin { pin: Box::new(pin.cid.clone()), missing: Box::new(missing) })
            }
            None if ended => Err(StoreError::Stopped),
            None => Ok(()),
        }
    }

    /// All segments, and how many records each has.
    pub(super) fn snapshot(&self) -> Vec<(Arc<Segment>, u32)> {
        let segments = self.segments.read();
        let mut all: Vec<_> =
            segments.values().map(|segment| (segment.clone(), segment.records.load(Ordering::Acquire))).collect();
        all.sort_unstable_by_key(|(segment, _)| segment.id);
        all
    }

    /// Removes the records of a segment that are neither kept nor held. `removed` hears of each, and may end it.
    pub(super) fn sweep_segment(
        &self,
        segment: &Arc<Segment>,
        is_kept: impl Fn(u32) -> bool,
        removed: &mut dyn FnMut(Cid, u32) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        if segment.live_blocks.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let table = segment.whole_table()?;
        for (position, entry) in table::entries(&table) {
            let is_held = || self.holds.contains(segment.id, entry.ordinal);
            if !is_kept(entry.ordinal)
                && self.drop_record(segment, position, &entry, is_held)
                && let Ok(cid) = Cid::from_bytes(entry.cid)
                && removed(cid, entry.data_len).is_break()
            {
                return Err(StoreError::Stopped);
            }
        }
        Ok(())
    }

    /// Drops the segments that hold no block of the store and that no writer has.
    pub(super) fn drop_empty_segments(&self) {
        for (segment, records) in self.snapshot() {
            let is_empty = || segment.live_blocks.load(Ordering::Relaxed) == 0;
            if records > 0 && is_empty() && self.take_from_writers(&segment) {
                // Nobody can append to it any more, so what is empty now stays empty.
                if is_empty() { self.drop_segment(&segment) } else { self.growth.lock().idle.push(segment) }
            }
        }
    }

    /// Makes sure that no writer gets the segment; false where one has it.
    pub(super) fn take_from_writers(&self, segment: &Arc<Segment>) -> bool {
        let mut growth = self.growth.lock();
        if segment.growing().is_none() {
            return true;
        }
        let place = growth.idle.iter().position(|idle| idle.id == segment.id);
        place.map(|place| growth.idle.swap_remove(place)).is_some()
    }

    /// Drops a segment; its files go when its last reader is done.
    pub(super) fn drop_segment(&self, segment: &Arc<Segment>) {
        self.unsealed.lock().remove(&segment.id);
        self.segments.write().remove(&segment.id);
        segment.doom();
        // The database forgets it.
        self.newly_dead.lock().insert(segment.id);
    }

    /// What the segments and their tables take on the disk, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.disk_bytes()).sum()
    }
}
