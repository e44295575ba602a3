//! What prefetch has done and expects, for people and programs.

use std::time::Instant;

use lru::LruCache;
use serde::{Deserialize, Serialize};

use crate::block::Cid;
use crate::limits::MAX_WATCHED_ROOTS;

/// What is brought ahead of the readers of one root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootReport {
    /// The root's CID.
    pub root: String,
    /// How its files are being read, as far as that was recognised.
    pub pattern: String,
    /// How many bytes are kept ahead of its readers at most.
    pub window_bytes: u64,
    /// How many are ahead of them now.
    pub ahead_bytes: u64,
    /// Bytes that were pushed into the kernel's page cache, or read into RAM for files to come.
    pub pushed_bytes: u64,
    /// Bytes that were read ahead within files.
    pub read_ahead_bytes: u64,
    /// Bytes that were fetched from other machines for it.
    pub fetched_bytes: u64,
    /// Of all these, what readers came to.
    pub useful_bytes: u64,
    /// And what they turned away from.
    pub wasted_bytes: u64,
    /// Files that a reader wanted while they were on their way.
    pub late_files: u64,
    /// Plans that readers contradicted.
    pub contradicted_plans: u64,
    /// For how long readers will wait within the window, as things go, in milliseconds.
    pub predicted_stall_milliseconds: u64,
}

impl RootReport {
    /// Adds the sums of another report of the same root, from another mount.
    pub fn add(&mut self, other: &RootReport) {
        let numbers = [
            (&mut self.window_bytes, other.window_bytes),
            (&mut self.ahead_bytes, other.ahead_bytes),
            (&mut self.pushed_bytes, other.pushed_bytes),
            (&mut self.read_ahead_bytes, other.read_ahead_bytes),
            (&mut self.fetched_bytes, other.fetched_bytes),
            (&mut self.useful_bytes, other.useful_bytes),
            (&mut self.wasted_bytes, other.wasted_bytes),
            (&mut self.late_files, other.late_files),
            (&mut self.contradicted_plans, other.contradicted_plans),
        ];
        for (sum, number) in numbers {
            *sum += number;
        }
        let stall = self.predicted_stall_milliseconds.max(other.predicted_stall_milliseconds);
        self.predicted_stall_milliseconds = stall;
        if !other.pattern.is_empty() && other.pattern != self.pattern {
            self.pattern = if self.pattern.is_empty() {
                other.pattern.clone()
            } else {
                format!("{}; {}", self.pattern, other.pattern)
            };
        }
    }
}

/// What was done for roots. Those that were not read for long are told together.
#[derive(Debug)]
pub(super) struct Sums {
    roots: LruCache<Cid, RootReport>,
    others: RootReport,
}

impl Sums {
    pub fn new() -> Sums {
        Sums { roots: LruCache::new(MAX_WATCHED_ROOTS), others: RootReport::default() }
    }

    /// The sums of a root.
    pub fn of(&mut self, root: &Cid) -> &mut RootReport {
        if !self.roots.contains(root)
            && let Some((_, forgotten)) = self.roots.push(root.clone(), RootReport::default())
        {
            self.others.add(&forgotten);
        }
        self.roots.get_or_insert_mut(root.clone(), RootReport::default)
    }

    /// Those of each root that is remembered.
    pub fn iter(&self) -> impl Iterator<Item = (&Cid, &RootReport)> {
        self.roots.iter()
    }

    /// Those of all the others.
    pub fn others(&self) -> &RootReport {
        &self.others
    }
}

/// How long a rate remembers, in seconds.
const MEMORY_SECONDS: f64 = 2.0;

/// Bytes a second, of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    bytes: f64,
    since: Option<Instant>,
    seconds: f64,
}

impl Rate {
    /// Adds bytes that have just gone by.
    pub fn add(&mut self, bytes: u64, now: Instant) {
        self.fade(now);
        self.bytes += bytes as f64;
    }

    /// The rate; 0 where nothing has gone by yet.
    pub fn per_second(mut self, now: Instant) -> f64 {
        self.fade(now);
        // Shorter than this is no time to speak of a rate.
        if self.seconds < 0.001 { 0.0 } else { self.bytes / self.seconds }
    }

    fn fade(&mut self, now: Instant) {
        let passed = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        self.since = Some(now);
        let kept = (-passed / MEMORY_SECONDS).exp();
        self.bytes *= kept;
        self.seconds = self.seconds * kept + MEMORY_SECONDS * (1.0 - kept);
    }
}
