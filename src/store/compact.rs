//! Compaction: the live records of a segment that is mostly dead move to another, and the segment is dropped.
//!
//! They are copied in their order, flushed, and only then does the index point to the copies; the old segment goes last.
//! A crash leaves a block twice at worst, and the next start counts one of them as dead. What a writer holds stays where
//! it is, and its segment with it, until a later compaction.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::index::{Key, Location};
use super::segment::{Room, Segment};
use super::table::{self, Entry};
use super::{Core, StoreError};
use crate::block::{Block, Cid};

/// A segment whose live records take less than this share of it is worth moving.
const SPARSE: f64 = 0.5;

/// A record and its copy.
struct Moved {
    key: Key,
    from: Location,
    from_ordinal: u32,
    target: Arc<Segment>,
    to: Location,
    to_ordinal: u32,
    data_len: u32,
}

impl Core {
    /// Compacts all segments that are mostly dead or damaged.
    pub(super) fn compact_sparse(&self) -> Result<(), StoreError> {
        for (segment, _) in self.snapshot() {
            if segment.is_damaged.load(Ordering::Relaxed) || segment.live_share() < SPARSE {
                self.compact(&segment)?;
            }
        }
        self.flush_dead()
    }

    /// Moves a segment's live records elsewhere and drops it. False where a writer has it, or holds some of it.
    pub(super) fn compact(&self, segment: &Arc<Segment>) -> Result<bool, StoreError> {
        if !self.take_from_writers(segment) {
            return Ok(false);
        }
        let mut target = None;
        let mut moved = Vec::new();
        let copied = self.copy_live(segment, &mut target, &mut moved).and_then(|()| self.sync());
        if let Some(target) = target {
            self.growth.lock().idle.push(target);
        }
        for moved in moved {
            let is_held = || self.holds.contains(segment.id, moved.from_ordinal);
            moved.target.count(moved.data_len);
            // Only what is durable may be pointed to.
            if copied.is_ok() && self.index.replace(moved.key, moved.from, moved.to, is_held) {
                segment.discount(moved.data_len);
                segment.dead.lock().insert(moved.from_ordinal);
            } else {
                moved.target.discount(moved.data_len);
                moved.target.dead.lock().insert(moved.to_ordinal);
                self.newly_dead.lock().insert(moved.target.id);
            }
        }
        let is_empty = copied.is_ok() && segment.live_blocks.load(Ordering::Relaxed) == 0;
        if is_empty {
            self.drop_segment(segment);
        } else {
            self.newly_dead.lock().insert(segment.id);
            if segment.growing().is_some() {
                self.growth.lock().idle.push(segment.clone());
            }
        }
        copied.map(|()| is_empty)
    }

    fn copy_live(
        &self,
        segment: &Arc<Segment>,
        target: &mut Option<Arc<Segment>>,
        moved: &mut Vec<Moved>,
    ) -> Result<(), StoreError> {
        let table = segment.whole_table()?;
        for (position, entry) in table::entries(&table) {
            let from = Location { segment: segment.id, position };
            let key = self.index.key(entry.multihash());
            if !self.index.with(key, from, || ()) {
                continue;
            }
            let Ok(cid) = Cid::from_bytes(entry.cid) else { continue };
            let Some(data) = self.sound_bytes(segment, position, &entry, &cid)? else { continue };
            let block = Block::from_checked_record(cid, data);
            let (placed, into) = self.append_to(target, &block)?;
            into.runs.lock().push(placed.ordinal, segment.runs.lock().of(entry.ordinal));
            let to = Location { segment: into.id, position: placed.position };
            let (from_ordinal, to_ordinal, data_len) = (entry.ordinal, placed.ordinal, entry.data_len);
            moved.push(Moved { key, from, from_ordinal, target: into, to, to_ordinal, data_len });
        }
        Ok(())
    }

    /// A record's block, if it is sound. A segment with damage is not trusted to its checksums.
    fn sound_bytes(
        &self,
        segment: &Arc<Segment>,
        position: u32,
        entry: &Entry<'_>,
        cid: &Cid,
    ) -> Result<Option<Bytes>, StoreError> {
        match segment.block(entry, 0, entry.data_len as usize)? {
            Some((data, _)) if segment.is_damaged.load(Ordering::Relaxed) => match Block::verify(cid.clone(), data) {
                Ok(block) => Ok(Some(block.into_parts().1)),
                Err(_) => self.get_damaged(cid, segment, position, entry),
            },
            Some((data, _)) => Ok(Some(data)),
            None => self.get_damaged(cid, segment, position, entry),
        }
    }

    fn append_to(
        &self,
        target: &mut Option<Arc<Segment>>,
        block: &Block,
    ) -> Result<(super::segment::Placed, Arc<Segment>), StoreError> {
        loop {
            let segment = match target {
                Some(segment) => segment.clone(),
                // Not through the budget: what is moved gives back more than it takes.
                None => target.insert(self.any_segment()?).clone(),
            };
            let appended = match segment.growing() {
                Some(growing) => growing.append(&segment, block, self.segment_bytes()),
                None => Ok(Room::Full),
            };
            match appended.inspect_err(|error| self.health.write_failed(error))? {
                Room::Placed(placed) => return Ok((placed, segment)),
                Room::Full => {
                    *target = None;
                    self.retire_segment(segment);
                }
            }
        }
    }
}
