//! Keeping to the budgets: what was fetched and is not pinned makes room for what comes.
//!
//! Roots go whole, the one that was used longest ago first; blocks without a root go with their segment. The root that
//! room is made for is left alone: where one dataset is larger than the budget, each pass over it hits what was kept of
//! it first, while a cache that drops the oldest hits nearly nothing. Pinned blocks, and what writers hold, are never
//! evicted.
//!
//! Two budgets hold. `store.disk_bytes` is never exceeded, whoever writes. `store.free_ratio` of the filesystem is kept
//! free of what can be had again: for a user's own data eviction makes what room it can, and the rest is the user's to
//! decide.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::live::Live;
use super::roots::Root;
use super::segment::Segment;
use super::{Core, Store, StoreError};
use crate::limits::MAX_SEGMENT_BYTES;

/// Eviction makes more room than was asked for, by this part of the budget: the walk over all pins that it begins with
/// then serves several segments.
const AHEAD: u64 = 32;
/// Segments are at most this part of the budget, so that there are several to choose from.
const SEGMENTS_IN_BUDGET: u64 = 8;
/// The smallest segment that a small budget leads to.
const SMALLEST_SEGMENT_BYTES: u64 = 1 << 20;
/// How long after an eviction that found nothing the next is not tried.
const FUTILE: Duration = Duration::from_mins(1);

/// Who wants room.
#[derive(Clone, Copy, Debug)]
pub(super) enum For<'a> {
    /// A user, who adds data of their own.
    Own,
    /// What is fetched for a root, and can be fetched again.
    Cache(&'a Arc<Root>),
    /// Nobody: the budgets are to be kept.
    Nobody,
}

/// How full the store is.
#[derive(Clone, Copy, Debug)]
struct Fill {
    /// What the segments take or have been promised, in bytes.
    used: u64,
    /// What they may take by `store.disk_bytes`.
    budget: u64,
    /// What they may take by `store.free_ratio`.
    free_budget: u64,
}

/// What is evicted as one.
enum Unit {
    Root(Arc<Root>),
    /// By its number: who holds a segment keeps its files.
    Segment(u32),
}

impl Store {
    /// Evicts until the budgets are kept, as far as pins allow. The store does so by itself; this is for whoever wants
    /// it now.
    pub fn evict(&self) -> Result<(), StoreError> {
        self.core().make_room(0, For::Nobody, true)
    }
}

impl Core {
    /// The size at which segments are full.
    pub(super) fn segment_bytes(&self) -> u64 {
        let of_budget = (self.config.disk_bytes / SEGMENTS_IN_BUDGET).max(SMALLEST_SEGMENT_BYTES);
        self.config.segment_bytes.min(MAX_SEGMENT_BYTES).min(of_budget)
    }

    /// Makes sure that one more segment may be made.
    pub(super) fn reserve_segment(&self, wanted: For<'_>) -> Result<(), StoreError> {
        let needed = self.segment_bytes();
        if self.fill()?.lacks(needed, For::Nobody) == 0 {
            return Ok(());
        }
        let made = self.make_room(needed, wanted, false);
        let fill = self.fill()?;
        if fill.lacks(needed, wanted) == 0 {
            return Ok(());
        }
        made?;
        let (budget, why) = if fill.used + needed > fill.budget {
            (fill.budget, "store.disk_bytes")
        } else {
            (fill.free_budget, "store.free_ratio of the filesystem is to stay free")
        };
        Err(StoreError::Full { used: fill.used, budget, why })
    }

    /// Evicts if the budgets are not kept. For the background thread.
    pub(super) fn keep_budgets(&self) {
        let over = self.fill().is_ok_and(|fill| fill.lacks(0, For::Nobody) > 0);
        if over && let Err(error) = self.make_room(0, For::Nobody, false) {
            tracing::warn!("cannot evict: {error}");
        }
    }

    /// Evicts until `needed` bytes more would keep to the budgets, as far as pins allow.
    fn make_room(&self, needed: u64, wanted: For<'_>, insist: bool) -> Result<(), StoreError> {
        let _maintenance = self.maintenance.lock();
        let fill = self.fill()?;
        // Another thread may have made room meanwhile, or found that there is none to be made.
        let filled = match wanted {
            For::Cache(root) => Some(root.cid.clone()),
            For::Own | For::Nobody => None,
        };
        let last_futile = self.futile_eviction.lock().clone();
        let futile = last_futile.is_some_and(|(at, whom)| at.elapsed() < FUTILE && whom == filled);
        if fill.lacks(needed, For::Nobody) == 0 || (futile && !insist) {
            return Ok(());
        }
        let needed = needed + fill.budget.min(fill.free_budget) / AHEAD;
        let _sweep = self.holds.sweep();
        let segments: Vec<(u32, u32)> =
            self.snapshot().into_iter().map(|(segment, records)| (segment.id, records)).collect();
        let mut live = Live::default();
        for pin in self.db.pins()? {
            self.mark_whole(&pin, &mut live, &mut |_| ControlFlow::Continue(()))?;
        }
        let mut evicted = 0_u64;
        for unit in self.units(wanted) {
            if self.fill()?.lacks(needed, For::Nobody) <= self.dead_bytes() {
                break;
            }
            for (id, records) in &segments {
                let Some(segment) = self.segments.read().get(id).cloned() else { continue };
                if !unit.is_in(&segment) {
                    continue;
                }
                let runs = segment.runs.lock().clone();
                let is_kept =
                    |ordinal| ordinal >= *records || live.contains(*id, ordinal) || !unit.is_of(runs.of(ordinal));
                self.sweep_segment(&segment, is_kept, &mut |_, len| {
                    evicted += u64::from(len);
                    self.counts.evicted(u64::from(len));
                    ControlFlow::Continue(())
                })?;
            }
            self.drop_empty_segments();
        }
        self.flush_dead()?;
        self.squeeze(needed)?;
        let futile = evicted == 0 && self.fill()?.lacks(needed, For::Nobody) > 0;
        *self.futile_eviction.lock() = futile.then(|| (Instant::now(), filled));
        if evicted > 0 {
            tracing::info!("evicted {evicted} bytes of blocks that no pin needs");
        }
        Ok(())
    }

    /// Compacts, the deadest segments first, until `needed` bytes more fit.
    fn squeeze(&self, needed: u64) -> Result<(), StoreError> {
        let mut segments: Vec<_> = self.snapshot().into_iter().map(|(segment, _)| segment).collect();
        segments.sort_by(|one, other| one.live_share().total_cmp(&other.live_share()));
        for segment in segments {
            if segment.live_share() > 0.9 || self.fill()?.lacks(needed, For::Nobody) == 0 {
                break;
            }
            self.compact(&segment)?;
        }
        self.flush_dead()
    }

    /// What may be evicted, in the order in which it goes.
    fn units(&self, wanted: For<'_>) -> Vec<Unit> {
        let filled = |root: &Arc<Root>| matches!(wanted, For::Cache(filled) if Arc::ptr_eq(filled, root));
        let roots = self.roots.all().into_iter().filter(|root| !filled(root));
        let roots = roots.map(|root| (root.last_use.load(Ordering::Relaxed), Unit::Root(root)));
        let segments = self.snapshot().into_iter();
        let segments =
            segments.map(|(segment, _)| (segment.last_use.load(Ordering::Relaxed), Unit::Segment(segment.id)));
        let mut units: Vec<(u64, Unit)> = roots.chain(segments).collect();
        units.sort_by_key(|(last_use, _)| *last_use);
        units.into_iter().map(|(_, unit)| unit).collect()
    }

    /// What compaction could give back, in bytes.
    fn dead_bytes(&self) -> u64 {
        self.segments.read().values().map(|segment| segment.dead_bytes()).sum()
    }

    fn fill(&self) -> Result<Fill, StoreError> {
        let segment_bytes = self.segment_bytes();
        let used = self.file_bytes();
        let growing: Vec<_> = self.unsealed.lock().values().cloned().collect();
        let promised: u64 = growing.iter().map(|segment| segment_bytes.saturating_sub(segment.disk_bytes())).sum();
        let space =
            self.shelf.disk.space(&self.shelf.dir).map_err(StoreError::io("ask for the space of", &self.shelf.dir))?;
        let kept_free = (space.total as f64 * self.config.free_ratio) as u64;
        Ok(Fill {
            used: used + promised,
            budget: self.config.disk_bytes,
            free_budget: (used + space.available).saturating_sub(kept_free),
        })
    }
}

impl Fill {
    /// How many bytes are too many if `needed` more come.
    fn lacks(&self, needed: u64, wanted: For<'_>) -> u64 {
        let budget = match wanted {
            For::Own => self.budget,
            For::Cache(_) | For::Nobody => self.budget.min(self.free_budget),
        };
        (self.used + needed).saturating_sub(budget)
    }
}

impl Unit {
    fn is_in(&self, segment: &Arc<Segment>) -> bool {
        match self {
            Unit::Root(root) => segment.runs.lock().has(root),
            Unit::Segment(own) => *own == segment.id,
        }
    }

    fn is_of(&self, root: Option<&Arc<Root>>) -> bool {
        match (self, root) {
            (Unit::Root(own), Some(root)) => Arc::ptr_eq(own, root),
            (Unit::Segment(_), None) => true,
            _ => false,
        }
    }
}
