//! What prefetch has done and expects, for people and programs.

use std::time::Instant;

use lru::LruCache;
use serde::{Deserialize, Serialize};

use super::follower::Tally;
use crate::block::Cid;
use crate::limits::MAX_WATCHED_ROOTS;
use crate::metrics::PrefetchFigures;

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
    /// What was done for it.
    #[serde(flatten)]
    pub figures: PrefetchFigures,
    /// For how long readers will wait within the window, as things go, in milliseconds.
    pub predicted_stall_milliseconds: u64,
}

impl RootReport {
    /// Adds the sums of another report of the same root, from another mount.
    pub fn add(&mut self, other: &RootReport) {
        self.window_bytes += other.window_bytes;
        self.ahead_bytes += other.ahead_bytes;
        self.figures += other.figures;
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

impl From<Tally> for PrefetchFigures {
    fn from(tally: Tally) -> PrefetchFigures {
        PrefetchFigures {
            pushed_bytes: tally.pushed,
            useful_bytes: tally.useful,
            wasted_bytes: tally.wasted,
            late_files: tally.late,
            ..PrefetchFigures::default()
        }
    }
}

/// What was done for roots. Those that were not read for long are told together.
#[derive(Debug)]
pub(super) struct Sums {
    roots: LruCache<Cid, PrefetchFigures>,
    others: PrefetchFigures,
}

impl Sums {
    pub fn new() -> Sums {
        Sums { roots: LruCache::new(MAX_WATCHED_ROOTS), others: PrefetchFigures::default() }
    }

    /// The sums of a root.
    pub fn of(&mut self, root: &Cid) -> &mut PrefetchFigures {
        if !self.roots.contains(root)
            && let Some((_, forgotten)) = self.roots.push(root.clone(), PrefetchFigures::default())
        {
            self.others += forgotten;
        }
        self.roots.get_or_insert_mut(root.clone(), PrefetchFigures::default)
    }

    /// Those of each root that is remembered.
    pub fn reports(&self) -> impl Iterator<Item = (&Cid, RootReport)> {
        self.roots.iter().map(|(root, figures)| (root, RootReport { figures: *figures, ..RootReport::default() }))
    }

    /// Those of all the others.
    pub fn others(&self) -> PrefetchFigures {
        self.others
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
