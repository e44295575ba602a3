//! Reads that are under way: no block is read from the disk twice at a time, and whoever waits for the disk goes first.
//!
//! Who reads blocks from the disk says so before; who wants one of them meanwhile waits for that reading, which takes no
//! longer than one of its own would that came behind it in the disk's queue. Blocks that were read together on their way to
//! somewhere else are had from here until they have got there.
//!
//! Reading that nobody waits for yet takes [turns](Reads::turn). While somebody waits for a reading of its own, one such
//! turn at a time goes on, so that nobody's read is delayed by more than one of them; and one whose blocks somebody has come
//! to wait for ([`Reads::wait`]) waits for no turn any more. Nobody who holds a turn waits for
//! anybody, and nobody waits for a reading before having done its own, so there is no circle.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use crate::block::Cid;
use crate::limits::MAX_READS_AHEAD;

type Hash = SmallVec<[u8; 40]>;

/// The reads that are under way in a store.
#[derive(Default)]
pub(super) struct Reads {
    readings: Mutex<HashMap<Hash, Place>>,
    turns: Mutex<Turns>,
    /// A reading ahead may begin.
    free: Condvar,
}

/// One of the blocks of a reading.
#[derive(Clone)]
pub(super) struct Place {
    reading: Arc<Reading>,
    index: usize,
}

#[derive(Default)]
struct Reading {
    /// The blocks, once they are read; what could not be had is `None`.
    done: Mutex<Option<Box<[Option<Bytes>]>>>,
    is_done: Condvar,
    /// Whether somebody waits for one of the blocks.
    is_wanted: AtomicBool,
}

/// What we read: others have it from us until this is dropped.
pub(super) struct Underway {
    reads: Arc<Reads>,
    reading: Arc<Reading>,
    hashes: Vec<Hash>,
}

#[derive(Default)]
struct Turns {
    /// Readings that somebody waits for.
    demanded: usize,
    /// Readings that nobody waits for.
    ahead: usize,
    /// Those who would begin one.
    sleepers: usize,
}

/// Whether anybody waits for what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Demand,
    Ahead,
}

/// A reading of the disk that goes on until this is dropped.
pub(super) struct Turn<'a>(&'a Reads, Urgency);

impl Reads {
    /// Says that we read the block, unless somebody does: then, where to have it from.
    pub fn begin(self: &Arc<Reads>, cid: &Cid) -> Result<Underway, Place> {
        let hash = Hash::from_slice(cid.multihash());
        match self.readings.lock().entry(hash) {
            Entry::Occupied(place) => Err(place.get().clone()),
            Entry::Vacant(entry) => {
                let reading = Arc::<Reading>::default();
                let hashes = vec![entry.key().clone()];
                entry.insert(Place { reading: reading.clone(), index: 0 });
                Ok(Underway { reads: self.clone(), reading, hashes })
            }
        }
    }

    /// Says that we read those of the blocks together that nobody reads: their order is that of what was read, at
    /// [`Underway::finish`]. For each of the others, where to have it from.
    pub fn begin_many<'a>(
        self: &Arc<Reads>,
        cids: impl Iterator<Item = &'a Cid>,
    ) -> (Underway, Vec<Result<usize, Place>>) {
        let reading = Arc::<Reading>::default();
        let mut hashes = Vec::new();
        let mut readings = self.readings.lock();
        let places = cids.map(|cid| match readings.entry(Hash::from_slice(cid.multihash())) {
            // A block that is asked for twice at once comes twice from one reading.
            Entry::Occupied(place) if Arc::ptr_eq(&place.get().reading, &reading) => Ok(place.get().index),
            Entry::Occupied(place) => Err(place.get().clone()),
            Entry::Vacant(entry) => {
                let index = hashes.len();
                hashes.push(entry.key().clone());
                entry.insert(Place { reading: reading.clone(), index });
                Ok(index)
            }
        });
        let places = places.collect();
        drop(readings);
        (Underway { reads: self.clone(), reading, hashes }, places)
    }

    /// Where to have the block from, where somebody reads it.
    pub fn find(&self, cid: &Cid) -> Option<Place> {
        self.readings.lock().get(cid.multihash()).cloned()
    }

    /// A block from whoever reads it. Where it is wanted now, that reading begins at once, if it has not begun.
    pub fn wait(&self, place: &Place, urgency: Urgency) -> Option<Bytes> {
        if urgency == Urgency::Demand {
            place.reading.is_wanted.store(true, Ordering::Relaxed);
            // Under the lock it is seen by those who are about to sleep.
            if self.turns.lock().sleepers > 0 {
                self.free.notify_all();
            }
        }
        place.wait()
    }

    /// Begins a reading of the disk. Whoever waits for one begins at once; what nobody waits for waits until it delays
    /// nobody, or somebody [waits](Reads::wait) for it.
    pub fn turn(&self, urgency: Urgency, underway: Option<&Underway>) -> Turn<'_> {
        let is_wanted = || underway.is_some_and(|underway| underway.reading.is_wanted.load(Ordering::Relaxed));
        let mut turns = self.turns.lock();
        match urgency {
            Urgency::Demand => turns.demanded += 1,
            Urgency::Ahead => {
                turns.sleepers += 1;
                self.free.wait_while(&mut turns, |turns| {
                    !is_wanted() && turns.ahead >= if turns.demanded > 0 { 1 } else { MAX_READS_AHEAD }
                });
                turns.sleepers -= 1;
                turns.ahead += 1;
            }
        }
        Turn(self, urgency)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock();
        match self.1 {
            Urgency::Demand => turns.demanded -= 1,
            Urgency::Ahead => turns.ahead -= 1,
        }
        if turns.sleepers > 0 && (turns.demanded == 0 || turns.ahead == 0) {
            self.0.free.notify_all();
        }
    }
}

impl Place {
    /// The block, once it is read. `None` where it could not be had.
    pub fn wait(&self) -> Option<Bytes> {
        let mut done = self.reading.done.lock();
        self.reading.is_done.wait_while(&mut done, |done| done.is_none());
        done.as_ref()?.get(self.index)?.clone()
    }
}

impl Underway {
    /// The blocks are read: whoever waits for one has it. What could not be had is `None`.
    pub fn finish(&self, blocks: impl IntoIterator<Item = Option<Bytes>>) {
        *self.reading.done.lock() = Some(blocks.into_iter().collect());
        self.reading.is_done.notify_all();
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        {
            let mut readings = self.reads.readings.lock();
            for hash in &self.hashes {
                readings.remove(hash);
            }
        }
        // A reading that failed half way: whoever waits looks for itself.
        let mut done = self.reading.done.lock();
        if done.is_none() {
            *done = Some(Box::default());
            self.reading.is_done.notify_all();
        }
    }
}
