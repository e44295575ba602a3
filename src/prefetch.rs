//! Prefetch: what will be read next, brought into the RAM tier before it is asked for.
//!
//! Within a file: a reader whose requests follow each other is read ahead of, by a window that doubles from
//! [`MIN_WINDOW_BYTES`] to [`MAX_WINDOW_BYTES`] while it keeps following; a reader that jumps is left alone. Several readers
//! of one file, and one that maps it, are told apart by where they are. Requests of one reader may arrive a little out of
//! order, for the kernel asks ahead on several threads.
//!
//! A reader is never waited for and never made to wait: [`Prefetch::note`] takes a short lock and at most queues a job.
//! At most [`MAX_JOBS`] jobs run, on threads of the runtime that may block; what does not find a free one is not prefetched.

pub mod plan;
pub mod warmup;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::fetch::Priority;
use crate::limits::MAX_PREFETCHED_FILES;
use crate::tree::{Location, Tree};

/// The first window, in bytes: one request of the kernel.
const MIN_WINDOW_BYTES: u64 = 1 << 20;
/// The largest window, in bytes: more would only push out of the RAM tier what was read ahead elsewhere.
const MAX_WINDOW_BYTES: u64 = 8 << 20;
/// How far out of order requests of one reader may come, in bytes: what the kernel has in flight.
const DISORDER_BYTES: u64 = 2 << 20;
/// Readers of one file that are told apart.
const STREAMS: usize = 4;
/// Requests in a row that make a reader sequential.
const RUN: u32 = 2;
/// Jobs at a time: enough to keep a disk busy, and a core free for readers.
const MAX_JOBS: usize = 2;
/// How much a job reads at a time, in bytes.
const PIECE_BYTES: u64 = 1 << 20;

/// Watches reads, and reads ahead.
pub struct Prefetch {
    tree: Tree,
    runtime: Handle,
    files: Mutex<LruCache<Location, File>>,
    jobs: Arc<AtomicUsize>,
}

#[derive(Default)]
struct File {
    streams: Vec<Stream>,
}

/// A reader of a file.
struct Stream {
    /// The end of what it has read.
    end: u64,
    /// How many requests have followed each other.
    run: u32,
    window: u64,
    /// The end of what is read ahead, or asked for.
    ahead: u64,
}

impl Prefetch {
    /// Reads ahead in files of `tree`, on blocking threads of `runtime`.
    pub fn new(tree: Tree, runtime: Handle) -> Prefetch {
        Prefetch { tree, runtime, files: Mutex::new(LruCache::new(MAX_PREFETCHED_FILES)), jobs: Arc::default() }
    }

    /// Takes note of a read of `len` bytes at `offset` of `file`, which has `size`.
    pub fn note(&self, file: &Location, size: u64, offset: u64, len: u64) {
        // What one request holds needs no reading ahead.
        if size <= len {
            return;
        }
        let range = {
            let mut files = self.files.lock();
            if !files.contains(file) {
                files.put(file.clone(), File::default());
            }
            files.get_mut(file).and_then(|streams| streams.note(size, offset, offset.saturating_add(len).min(size)))
        };
        let Some((from, to)) = range else { return };
        if self.jobs.fetch_add(1, Ordering::Relaxed) >= MAX_JOBS {
            self.jobs.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (tree, runtime, jobs, file) = (self.tree.clone(), self.runtime.clone(), self.jobs.clone(), file.clone());
        self.runtime.spawn_blocking(move || {
            let mut at = from;
            while at < to {
                let len = PIECE_BYTES.min(to - at);
                // The bytes stay in the RAM tier. What fails here fails again for the reader, who is told.
                if runtime.block_on(tree.read(&file, at, len as usize, Priority::ReadAhead)).is_err() {
                    break;
                }
                at += len;
            }
            jobs.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl File {
    /// What to read ahead after a request for `offset..end`.
    fn note(&mut self, size: u64, offset: u64, end: u64) -> Option<(u64, u64)> {
        let follows = |stream: &Stream| offset <= stream.end + DISORDER_BYTES && end + DISORDER_BYTES >= stream.end;
        let index = self.streams.iter().position(follows);
        // The stream that moved last is at the back.
        let Some(index) = index else {
            if self.streams.len() == STREAMS {
                self.streams.remove(0);
            }
            self.streams.push(Stream { end, run: 0, window: MIN_WINDOW_BYTES, ahead: end });
            return None;
        };
        let mut stream = self.streams.remove(index);
        let moved = end > stream.end;
        stream.end = stream.end.max(end);
        stream.ahead = stream.ahead.max(stream.end);
        let mut range = None;
        if moved {
            stream.run += 1;
            let wanted = stream.end.saturating_add(stream.window).min(size);
            // Half a window at a time, so that jobs are worth their start.
            if stream.run >= RUN
                && stream.ahead < wanted
                && wanted - stream.ahead >= (stream.window / 2).min(size - stream.ahead)
            {
                range = Some((stream.ahead, wanted));
                stream.ahead = wanted;
                stream.window = (stream.window * 2).min(MAX_WINDOW_BYTES);
            }
        }
        self.streams.push(stream);
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn read(file: &mut File, offset: u64, len: u64) -> Option<(u64, u64)> {
        file.note(1000 * MIB, offset, offset + len)
    }

    #[test]
    fn a_reader_that_goes_on_is_read_ahead_of_by_a_growing_window() {
        let mut file = File::default();
        assert_eq!(read(&mut file, 0, MIB), None);
        let mut ahead = 0;
        let mut largest = 0;
        for request in 1..100 {
            if let Some((from, to)) = read(&mut file, request * MIB, MIB) {
                assert!(
                    from >= (request + 1) * MIB && from >= ahead,
                    "nothing is read twice, and nothing behind the reader"
                );
                ahead = to;
                largest = largest.max(to - (request + 1) * MIB);
            }
        }
        assert_eq!(largest, MAX_WINDOW_BYTES);
        assert!(ahead > 100 * MIB);
    }

    #[test]
    fn a_reader_that_jumps_is_left_alone() {
        let mut file = File::default();
        for request in 1..200_u64 {
            assert_eq!(read(&mut file, request * 7919 % 997 * MIB, 4096), None, "request {request}");
        }
    }

    #[test]
    fn interleaved_readers_and_disordered_requests_are_followed() {
        let mut file = File::default();
        let mut jobs = [0; 3];
        for step in 0..50 {
            // Pairs of requests change places.
            let at = (step ^ 1) * MIB;
            for (reader, base) in [0, 300 * MIB, 600 * MIB].into_iter().enumerate() {
                jobs[reader] += usize::from(read(&mut file, base + at, MIB).is_some());
            }
        }
        assert!(jobs.iter().all(|jobs| *jobs >= 5), "{jobs:?}");
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut file = File::default();
        let size = 10 * MIB + 5;
        for request in 0..11 {
            if let Some((from, to)) = file.note(size, request * MIB, ((request + 1) * MIB).min(size)) {
                assert!(from < to && to <= size);
            }
        }
    }
}
