//! Writing: blocks into segments, segments to the disk.
//!
//! A writer has a growing segment to itself for as long as it lives, so the blocks of one root lie together in the order
//! in which they were put, whoever else writes. Segments that are not full go back when a writer ends, for the next one.
//! Sealing is the background thread's work, unless writers are faster than it: then they do it themselves.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::evict::For;
use super::holds::Hold;
use super::index::{Candidates, Location};
use super::keeper::{Job, Kept};
use super::roots::Root;
use super::segment::{Growing, Room, Segment, SyncError};
use super::uses;
use super::{Core, StoreError};
use crate::block::{Block, Cid, codec};
use crate::limits::{MAX_BLOCK_BYTES, MAX_UNSEALED_SEGMENTS};

/// Growing segments that no writer has.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// With room.
    pub idle: Vec<Arc<Segment>>,
    /// Full, to be sealed.
    pub full: VecDeque<Arc<Segment>>,
    /// The number of the next segment.
    pub next_id: u32,
}

/// Takes in blocks that belong together, in the order in which they will be read. See [`Store::writer`](super::Store::writer).
pub struct Writer {
    store: Arc<Kept>,
    hold: Hold,
    root: Option<Arc<Root>>,
    segment: Option<Arc<Segment>>,
}

impl Writer {
    pub(super) fn new(store: Arc<Kept>, root: Option<&Cid>) -> Writer {
        let hold = store.core().holds.begin();
        let root = root.map(|root| store.core().root(root));
        Writer { store, hold, root, segment: None }
    }

    /// Keeps a block; one that is here already costs nothing. It can be read at once. Not durable before
    /// [`Store::sync`](super::Store::sync) or a pin. A put that fails has changed nothing, and may be tried again.
    pub fn put(&mut self, block: &Block) -> Result<(), StoreError> {
        if block.cid().identity_data().is_some() {
            return Ok(());
        }
        let len = block.data().len();
        if len > MAX_BLOCK_BYTES {
            return Err(StoreError::TooLarge { cid: block.cid().clone(), len });
        }
        let store = self.store.clone();
        let core = store.core();
        core.health.check()?;
        let multihash = block.cid().multihash();
        let key = core.index.key(multihash);
        let mut seen = match self.look_up(core, multihash)? {
            Known::Here => return Ok(()),
            Known::Not(seen) => seen,
        };
        let (segment, at, ordinal) = self.append(core, block)?;
        segment.runs.lock().push(ordinal, self.root.as_ref());
        segment.count(len as u32);
        // Held before it can be found, so no sweep sees it unheld.
        self.hold.add(at.segment, ordinal);
        while !core.index.insert(key, &seen, at) {
            // Another writer was faster with a block of the same fingerprint. If it is this block, ours is a twin.
            match self.look_up(core, multihash)? {
                Known::Here => {
                    segment.discount(len as u32);
                    segment.dead.lock().insert(ordinal);
                    return Ok(());
                }
                Known::Not(now) => seen = now,
            }
        }
        if block.cid().codec() != codec::RAW {
            // The nodes are read again soon. Copied: the block may be a slice of something larger.
            let data = Bytes::copy_from_slice(block.data());
            core.ram.insert_of(block.cid(), data, len, Some(segment.owner(ordinal)), uses::now());
        }
        core.watch.arrived(block);
        Ok(())
    }

    /// Holds a block that is here against gc and eviction until the writer is dropped; false where it is not here.
    pub fn keep(&mut self, cid: &Cid) -> Result<bool, StoreError> {
        if cid.identity_data().is_some() {
            return Ok(true);
        }
        let store = self.store.clone();
        Ok(matches!(self.look_up(store.core(), cid.multihash())?, Known::Here))
    }

    /// Looks a block up, and holds it where it is here.
    fn look_up(&self, core: &Core, multihash: &[u8]) -> Result<Known, StoreError> {
        let key = core.index.key(multihash);
        loop {
            let seen = core.index.candidates(key);
            if seen.is_empty() {
                return Ok(Known::Not(seen));
            }
            let Some(found) = core.find(multihash)? else {
                // Only what was looked at may be ruled out.
                if core.index.candidates(key) == seen {
                    return Ok(Known::Not(seen));
                }
                continue;
            };
            let Some(entry) = found.entry.entry() else { continue };
            let ordinal = entry.ordinal;
            if core.index.with(key, found.at, || self.hold.add(found.at.segment, ordinal)) {
                return Ok(Known::Here);
            }
        }
    }

    /// Appends to the writer's segment, or to a new one where that is full.
    fn append(&mut self, core: &Core, block: &Block) -> Result<(Arc<Segment>, Location, u32), StoreError> {
        loop {
            let segment = if let Some(segment) = &self.segment {
                segment.clone()
            } else {
                let wanted = self.root.as_ref().map_or(For::Own, For::Cache);
                self.segment.insert(core.take_segment(wanted)?).clone()
            };
            let appended = match segment.growing() {
                Some(growing) => growing.append(&segment, block, core.segment_bytes()),
                None => Ok(Room::Full),
            };
            match appended {
                Ok(Room::Placed(placed)) => {
                    core.health.write_succeeded();
                    let at = Location { segment: segment.id, position: placed.position };
                    return Ok((segment, at, placed.ordinal));
                }
                Ok(Room::Full) => {
                    self.segment = None;
                    core.retire_segment(segment);
                }
                Err(error) => {
                    core.health.write_failed(&error);
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.store.core().growth.lock().idle.push(segment);
        }
    }
}

/// What is known of a block that is put.
enum Known {
    /// It is here, and held.
    Here,
    /// It is none of these.
    Not(Candidates),
}

impl Core {
    /// A growing segment for one writer, within the budgets.
    fn take_segment(&self, wanted: For<'_>) -> Result<Arc<Segment>, StoreError> {
        if let Some(segment) = self.growth.lock().idle.pop() {
            return Ok(segment);
        }
        self.reserve_segment(wanted)?;
        self.any_segment()
    }

    /// A growing segment for one writer, whatever the budgets say.
    pub(super) fn any_segment(&self) -> Result<Arc<Segment>, StoreError> {
        let id = {
            let mut growth = self.growth.lock();
            if let Some(segment) = growth.idle.pop() {
                return Ok(segment);
            }
            growth.next_id += 1;
            growth.next_id - 1
        };
        let growing = Growing::create(&self.shelf, id).inspect_err(|error| self.health.write_failed(error))?;
        let segment = Arc::new(Segment::new(self.shelf.clone(), id, Some(Arc::new(growing))));
        segment.uses.note(uses::now());
        self.new_names.store(true, Ordering::SeqCst);
        self.unsealed.lock().insert(id, segment.clone());
        self.segments.write().insert(id, segment.clone());
        Ok(segment)
    }

    /// Hands a full segment to the background thread, or seals one where that has too many.
    pub(super) fn retire_segment(&self, segment: Arc<Segment>) {
        let too_many = {
            let mut growth = self.growth.lock();
            growth.full.push_back(segment);
            growth.full.len() > MAX_UNSEALED_SEGMENTS
        };
        if too_many {
            self.seal_one();
        } else {
            // Nobody listens only while the store is being closed, and then what is full is sealed at the next start.
            let _ = self.jobs.send(Job::Seal);
        }
    }

    /// Seals one full segment; false where there is none, or it could not be sealed now.
    pub(super) fn seal_one(&self) -> bool {
        let Some(segment) = self.growth.lock().full.pop_front() else { return false };
        let Some(growing) = segment.growing() else { return true };
        if self.health.check().is_err() {
            return false;
        }
        match growing.seal(&segment) {
            Ok(()) => {
                self.unsealed.lock().remove(&segment.id);
                true
            }
            Err(error) => {
                self.sync_failed(error);
                self.growth.lock().full.push_front(segment);
                false
            }
        }
    }

    /// See [`Store::sync`](super::Store::sync).
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.flush.submit((), |wishes| {
            self.flush_all()?;
            Ok(vec![true; wishes.len()])
        })?;
        let _ = self.jobs.send(Job::Settle);
        Ok(())
    }

    fn flush_all(&self) -> Result<(), StoreError> {
        self.health.check()?;
        let unsealed: Vec<Arc<Segment>> = self.unsealed.lock().values().cloned().collect();
        for segment in unsealed {
            if let Some(growing) = segment.growing() {
                growing.sync(&segment).map_err(|error| self.sync_failed(error))?;
            }
        }
        if self.new_names.swap(false, Ordering::SeqCst) {
            let dir = &self.shelf.dir;
            let synced = self.shelf.disk.sync_dir(dir).map_err(StoreError::io("flush", dir));
            synced.map_err(|error| self.sync_failed(SyncError::Flush(error)))?;
        }
        // A flush that failed meanwhile, in another thread, may have been of these very bytes.
        self.health.check()?;
        self.health.write_succeeded();
        Ok(())
    }

    pub(super) fn sync_failed(&self, error: SyncError) -> StoreError {
        match error {
            SyncError::Write(error) => {
                self.health.write_failed(&error);
                error
            }
            SyncError::Flush(error) => {
                self.health.flush_failed(&error);
                error
            }
        }
    }
}
