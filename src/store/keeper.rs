//! The background thread of a store, and the store's beginning and end.
//!
//! The thread seals full segments, drops from the page cache what was written, and writes lazily what may be lost. When
//! the last clone of the store is dropped, it is stopped, and everything is flushed and finished so that the next start
//! need not hash anything.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::db::Change;
use super::disk::Disk;
use super::segment::Segment;
use super::{Core, StoreError};
use crate::config::StoreConfig;

/// How long what may be lost waits to be written.
const LAZY: Duration = Duration::from_secs(5);

/// What the thread is asked to do.
pub(super) enum Job {
    /// Seal a full segment.
    Seal,
    /// Drop what is on the disk from the page cache.
    Settle,
    /// End.
    Stop,
}

/// A store and its thread.
pub(super) struct Kept {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    /// Opens a store and starts its thread.
    pub fn start(disk: Arc<dyn Disk>, dir: &Path, config: &StoreConfig) -> Result<Arc<Kept>, StoreError> {
        let (jobs, incoming) = channel();
        let core = Arc::new(Core::open(disk, dir, config, jobs)?);
        let thread = {
            let core = core.clone();
            std::thread::Builder::new().name("cidfs-store".into()).spawn(move || core.keep(&incoming))
        };
        let thread = thread.map_err(StoreError::io("start a thread for", dir))?;
        Ok(Arc::new(Kept { core, thread: Some(thread) }))
    }

    /// The store.
    pub fn core(&self) -> &Core {
        &self.core
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.core.jobs.send(Job::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
        self.core.close();
    }
}

impl Core {
    /// The thread.
    fn keep(&self, jobs: &Receiver<Job>) {
        loop {
            match jobs.recv_timeout(LAZY) {
                Ok(Job::Seal) => {
                    self.seal_one();
                }
                Ok(Job::Settle) => self.settle(),
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    while self.seal_one() {}
                    self.write_lazy();
                    self.keep_budgets();
                }
            }
        }
    }

    fn settle(&self) {
        let unsealed: Vec<_> = self.unsealed.lock().values().cloned().collect();
        for growing in unsealed.iter().filter_map(|segment| segment.growing()) {
            growing.settle();
        }
    }

    /// Writes what may be lost.
    fn write_lazy(&self) {
        for result in [self.flush_facts(), self.flush_dead()] {
            if let Err(error) = result {
                tracing::warn!("{error}; it is tried again");
            }
        }
    }

    /// Writes which records are dead, so that the next start does not take them up again.
    pub(super) fn flush_dead(&self) -> Result<(), StoreError> {
        let ids: Vec<u32> = self.newly_dead.lock().drain().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let (mut dead, mut gone) = (Vec::new(), Vec::new());
        {
            let segments = self.segments.read();
            for id in &ids {
                let bits = segments.get(id).map(|segment| segment.dead.lock().to_bytes());
                gone.extend(bits.is_none().then_some((*id, None)));
                dead.push((*id, bits));
            }
        }
        let written = self.change(Change::Dead(dead)).and_then(|_| self.change(Change::Runs(gone)));
        written.map(drop).inspect_err(|_| self.newly_dead.lock().extend(ids))
    }

    /// Writes whose the blocks are and when they were used last, for the next start.
    fn write_uses(&self) -> Result<(), StoreError> {
        let row = |segment: &Arc<Segment>| (segment.id, Some(segment.runs.lock().to_bytes(segment.uses.last())));
        let runs = self.segments.read().values().map(row).collect();
        // A root that has no segment any more is of no use to eviction.
        let segments = self.snapshot();
        for root in self.roots.all() {
            if !segments.iter().any(|(segment, _)| segment.runs.lock().has(&root)) && self.roots.forget(&root) {
                self.change(Change::ForgetRoots(vec![root.cid.as_bytes().to_vec()]))?;
            }
        }
        self.change(Change::Runs(runs))?;
        self.change(Change::Used(self.roots.rows())).map(drop)
    }

    /// Makes a change in the database.
    pub(super) fn change(&self, change: Change) -> Result<bool, StoreError> {
        let is_of_roots = matches!(change, Change::Pin(_) | Change::Unpin(_) | Change::Name(..) | Change::Unname(_));
        let result = self.db.change(change).inspect_err(|error| self.health.write_failed(error));
        if is_of_roots {
            // Once the change can be seen, and not before: whoever reads in between asks again.
            self.roots_generation.fetch_add(1, Ordering::Release);
        }
        result
    }

    /// See [`Store::finish`](super::Store::finish).
    pub(super) fn finish(&self) -> Result<(), StoreError> {
        self.health.check()?;
        self.sync()?;
        let unsealed: Vec<_> = self.unsealed.lock().values().cloned().collect();
        for segment in unsealed {
            if let Some(growing) = segment.growing() {
                growing.finish_table(&segment).map_err(|error| self.sync_failed(error))?;
            }
        }
        self.flush_facts()?;
        self.flush_dead()?;
        self.write_uses()
    }

    /// The end: what was acknowledged is durable already, and what cannot be finished is hashed at the next start.
    fn close(&self) {
        if let Err(error) = self.finish() {
            tracing::warn!("{error}; the next start looks at what is there");
        }
    }
}
