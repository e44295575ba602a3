//! Files in the order in which they will be read, and how far readers have come in it.
//!
//! Whoever knows an order (a plan, the names of a directory, the rest of an epoch) hands it over as an iterator of
//! [`Upcoming`]. It is pulled a few hundred files ahead of the readers, on a thread that may block on the disk but should not
//! wait for the network, and never as a whole: an order may be endless. What a plan's owner learns of its fate is in
//! [`Progress`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::tree::Location;

/// A file that will be read.
#[derive(Clone, Debug)]
pub struct Upcoming {
    /// The file.
    pub location: Location,
    /// Its size in bytes, as the mount shows it.
    pub size: u64,
    /// The directory that it will be opened in, as a path below the mountpoint: `bafy…/train/cats`. Where it is given, the
    /// kernel can be made to learn the file's name ahead of the reader too.
    pub directory: Option<Arc<Path>>,
}

/// An order of files.
pub(super) type Order = Box<dyn Iterator<Item = Upcoming> + Send>;

/// What has become of an order that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Files are brought ahead of the readers.
    Followed,
    /// The order has come to its end, and readers have reached its last files.
    Finished,
    /// Readers read other files than the order says: it was dropped.
    Contradicted,
    /// It was replaced by another, or stopped.
    Stopped,
}

/// How far readers have come in an order. Shared with whoever handed it over.
#[derive(Debug, Default)]
pub struct Progress {
    reached: AtomicU64,
    pushed: AtomicU64,
    fate: AtomicU8,
}

impl Progress {
    /// The files that readers have reached, counted from the beginning of the order.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Relaxed)
    }

    /// The bytes that were brought ahead of readers.
    pub fn pushed_bytes(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// What has become of the order.
    pub fn fate(&self) -> Fate {
        match self.fate.load(Ordering::Relaxed) {
            0 => Fate::Followed,
            1 => Fate::Finished,
            2 => Fate::Contradicted,
            _ => Fate::Stopped,
        }
    }

    pub(super) fn set_reached(&self, files: u64) {
        self.reached.store(files, Ordering::Relaxed);
    }

    pub(super) fn add_pushed(&self, bytes: u64) {
        self.pushed.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn end(&self, fate: Fate) {
        // The first end is the one that counts.
        let _ = self.fate.compare_exchange(0, fate as u8, Ordering::Relaxed, Ordering::Relaxed);
    }
}
