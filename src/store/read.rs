//! Finding and reading blocks.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::index::Location;
use super::reads::Urgency;
use super::segment::{FoundEntry, Segment};
use super::table::Entry;
use super::uses::{self, Uses};
use super::{Core, Store, StoreError};
use crate::block::{Block, Cid};
use crate::limits::CHECKSUM_PIECE_BYTES;

/// A part of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPart {
    /// The bytes of the part.
    pub data: Bytes,
    /// The size of the whole block, in bytes.
    pub block_bytes: u64,
}

/// A block's record.
pub(super) struct Found {
    pub segment: Arc<Segment>,
    pub at: Location,
    pub entry: FoundEntry,
}

impl Found {
    /// The record's number in its segment.
    pub fn ordinal(&self) -> u32 {
        self.entry.entry().map_or(u32::MAX, |entry| entry.ordinal)
    }

    /// It was read: its root is in use, and its segment.
    pub fn note_use(&self, entry: &Entry<'_>, now: u64) -> Arc<Uses> {
        let owner = self.segment.owner(entry.ordinal);
        owner.note(now);
        self.segment.uses.note(now);
        owner
    }
}

/// Lookups that meet a segment in the moment of its going begin again; more often than this it is no moment.
const RETRIES: usize = 100;

impl Store {
    /// Whether the block is here. Answered from the index and the segment's table, without reading the block.
    pub fn has(&self, cid: &Cid) -> bool {
        if cid.identity_data().is_some() {
            return true;
        }
        self.core().find(cid.multihash()).is_ok_and(|found| found.is_some())
    }

    /// The block's size in bytes, where it is here. Answered without reading the block.
    pub fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        if let Some(data) = cid.identity_data() {
            return Ok(Some(data.len() as u64));
        }
        let found = self.core().find(cid.multihash())?;
        Ok(found.and_then(|found| Some(u64::from(found.entry.entry()?.data_len))))
    }

    /// The block, from RAM or NVMe. `None` where it is not here, or its record was damaged (and is dropped). Where somebody is
    /// reading it, it comes from that reading.
    pub fn get(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.get_for(cid, Urgency::Demand)
    }

    /// [`Store::get`] of a block that nobody waits for yet: readers who wait for the disk go first, and are not delayed by
    /// more than one such reading.
    pub fn get_ahead(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.get_for(cid, Urgency::Ahead)
    }

    fn get_for(&self, cid: &Cid, urgency: Urgency) -> Result<Option<Block>, StoreError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        let core = self.core();
        let data = if let Some(data) = core.ram.get(cid) {
            core.counts.ram_hit();
            Some(data)
        } else if let Some(found) = core.find(cid.multihash())? {
            core.read_once(cid, &found, urgency)?
        } else {
            core.counts.miss();
            None
        };
        Ok(data.map(|data| Block::from_checked_record(cid.clone(), data)))
    }

    /// The bytes `range` of the block, cut where the block ends. Of a large block little more than that is read, and nothing
    /// of it is kept in RAM. `None` where the block is not here, or its record was damaged (and is dropped); that is counted
    /// as no miss, as [`Store::get`] is what is asked next.
    pub fn get_range(&self, cid: &Cid, range: Range<u64>) -> Result<Option<BlockPart>, StoreError> {
        let core = self.core();
        let part =
            |data: &Bytes| BlockPart { data: data.slice(cut(&range, data.len())), block_bytes: data.len() as u64 };
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(part(block.data())));
        }
        if let Some(data) = core.ram.get(cid) {
            core.counts.ram_hit();
            return Ok(Some(part(&data)));
        }
        let Some(found) = core.find(cid.multihash())? else { return Ok(None) };
        let Some(entry) = found.entry.entry() else { return Ok(None) };
        let block_bytes = entry.data_len as usize;
        let wanted = cut(&range, block_bytes);
        if block_bytes <= 2 * CHECKSUM_PIECE_BYTES {
            return Ok(core.read_once(cid, &found, Urgency::Demand)?.as_ref().map(part));
        }
        if let Some(data) = core.reads.find(cid).and_then(|place| core.reads.wait(&place, Urgency::Demand)) {
            core.counts.ram_hit();
            return Ok(Some(part(&data)));
        }
        let _turn = core.reads.turn(Urgency::Demand, None);
        let read = match found.segment.block(&entry, wanted.start, wanted.end) {
            Ok(Some((data, _))) => {
                found.note_use(&entry, uses::now());
                Some(BlockPart { data, block_bytes: block_bytes as u64 })
            }
            Ok(None) => core.get_damaged(cid, &found.segment, found.at.position, &entry)?.as_ref().map(part),
            Err(error) => return Err(core.read_failed(error)),
        };
        Ok(read.inspect(|part| core.counts.disk_hit(&part.data)))
    }
}

/// The part of `range` that lies in something of `len` bytes.
fn cut(range: &Range<u64>, len: usize) -> Range<usize> {
    let end = range.end.min(len as u64) as usize;
    (range.start.min(len as u64) as usize).min(end)..end
}

impl Core {
    /// A block's record.
    pub(super) fn find(&self, multihash: &[u8]) -> Result<Option<Found>, StoreError> {
        let key = self.index.key(multihash);
        for _ in 0..RETRIES {
            let mut moved = false;
            for at in self.index.candidates(key) {
                let Some(segment) = self.segments.read().get(&at.segment).cloned() else {
                    moved = true;
                    continue;
                };
                let entry = segment.entry(at.position).map_err(|error| self.read_failed(error))?;
                if entry.entry().is_some_and(|entry| entry.multihash() == multihash) {
                    return Ok(Some(Found { segment, at, entry }));
                }
            }
            if !moved {
                break;
            }
        }
        Ok(None)
    }

    /// The block's bytes, from RAM or NVMe.
    pub(super) fn get(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        if let Some(data) = self.ram.get(cid) {
            return Ok(Some(data));
        }
        self.read(cid)
    }

    /// The block's bytes, from NVMe.
    fn read(&self, cid: &Cid) -> Result<Option<Bytes>, StoreError> {
        match self.find(cid.multihash())? {
            Some(found) => self.get_found(cid, &found),
            None => Ok(None),
        }
    }

    /// The block's bytes from its record, or from whoever reads them already.
    fn read_once(&self, cid: &Cid, found: &Found, urgency: Urgency) -> Result<Option<Bytes>, StoreError> {
        let underway = match self.reads.begin(cid) {
            Ok(underway) => Some(underway),
            Err(place) => {
                if let Some(data) = self.reads.wait(&place, urgency) {
                    self.counts.ram_hit();
                    return Ok(Some(data));
                }
                // Whoever read it could not have it: we learn why.
                None
            }
        };
        let read = {
            let _turn = self.reads.turn(urgency, underway.as_ref());
            self.get_found(cid, found)?
        };
        match &read {
            Some(data) => self.counts.disk_hit(data),
            None => self.counts.miss(),
        }
        if let Some(underway) = underway {
            underway.finish([read.clone()]);
        }
        Ok(read)
    }

    fn get_found(&self, cid: &Cid, found: &Found) -> Result<Option<Bytes>, StoreError> {
        let Some(entry) = found.entry.entry() else { return Ok(None) };
        match found.segment.block(&entry, 0, entry.data_len as usize) {
            Ok(Some((data, memory))) => {
                // A small block would hold a large buffer: it is copied out.
                let (data, memory) =
                    if data.len() * 2 < memory { (Bytes::copy_from_slice(&data), data.len()) } else { (data, memory) };
                let now = uses::now();
                let owner = found.note_use(&entry, now);
                self.ram.insert_of(cid, data.clone(), memory, Some(owner), now);
                Ok(Some(data))
            }
            Ok(None) => self.get_damaged(cid, &found.segment, found.at.position, &entry),
            Err(error) => Err(self.read_failed(error)),
        }
    }

    /// A record whose checksum is wrong is read once more and hashed: then it is either good after all (what was damaged
    /// was the table, or the first reading), or dropped.
    pub(super) fn get_damaged(
        &self,
        cid: &Cid,
        segment: &Arc<Segment>,
        position: u32,
        entry: &Entry<'_>,
    ) -> Result<Option<Bytes>, StoreError> {
        segment.is_damaged.store(true, Ordering::Relaxed);
        let data_at = u64::from(entry.offset) + u64::from(entry.head_len);
        let read = segment.read(data_at, entry.data_len as usize).map_err(|error| self.read_failed(error))?;
        if let Some((data, _)) = read
            && let Ok(block) = Block::verify(cid.clone(), data)
        {
            return Ok(Some(block.into_parts().1));
        }
        tracing::warn!("block {cid} is damaged in {} and is dropped", segment.path().display());
        if self.drop_record(segment, position, entry, || false) {
            self.damaged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(None)
    }

    /// Takes a record out of the index, unless `keep` says under the lock that it must stay; says whether it did. The
    /// database learns of it later.
    pub(super) fn drop_record(
        &self,
        segment: &Arc<Segment>,
        position: u32,
        entry: &Entry<'_>,
        keep: impl FnOnce() -> bool,
    ) -> bool {
        let at = Location { segment: segment.id, position };
        let removed = self.index.remove(self.index.key(entry.multihash()), at, keep);
        if removed {
            segment.discount(entry.data_len);
            segment.dead.lock().insert(entry.ordinal);
            self.newly_dead.lock().insert(segment.id);
            self.ram.remove(entry.multihash());
        }
        removed
    }

    /// Takes a record out of the index, unless a writer holds it; says whether it did.
    pub(super) fn drop_unheld(&self, found: &Found) -> bool {
        let Some(entry) = found.entry.entry() else { return false };
        let is_held = || self.holds.contains(found.at.segment, entry.ordinal);
        self.drop_record(&found.segment, found.at.position, &entry, is_held)
    }

    pub(super) fn read_failed(&self, error: StoreError) -> StoreError {
        self.health.read_failed(&error);
        error
    }
}
