//! Blocks that could not be had a moment ago: asked for again, they fail at once, so that a missing block that many readers
//! ask for makes no storm. What changes the answer (a new source, peer or provider) clears the memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::block::Cid;
use crate::limits::{FAILURE_MEMORY, MAX_REMEMBERED_FAILURES};

/// What failed lately, and why.
pub(super) struct Failures(Mutex<LruCache<Cid, (Instant, Arc<str>)>>);

impl Failures {
    pub fn new() -> Failures {
        Failures(Mutex::new(LruCache::new(MAX_REMEMBERED_FAILURES)))
    }

    /// Remembers that `cid` cannot be had now.
    pub fn remember(&self, cid: &Cid, tried: Arc<str>) {
        self.0.lock().put(cid.clone(), (Instant::now(), tried));
    }

    /// How long ago `cid` could not be had, and what was tried.
    pub fn get(&self, cid: &Cid) -> Option<(Duration, Arc<str>)> {
        let mut failures = self.0.lock();
        let (at, tried) = failures.get(cid)?;
        let ago = at.elapsed();
        if ago < FAILURE_MEMORY {
            return Some((ago, tried.clone()));
        }
        failures.pop(cid);
        None
    }

    /// Forgets one.
    pub fn forget(&self, cid: &Cid) {
        self.0.lock().pop(cid);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}
