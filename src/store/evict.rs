//! Keeping to the budgets: what was fetched and is not pinned makes room for what comes.
//!
//! The root that was used longest ago goes first, segment by segment; blocks without a root go with their segment. The root
//! that room is made for is left alone: where one dataset is larger than the budget, each pass over it hits what was kept
//! of it first, while a cache that drops the oldest hits nearly nothing. Nor do roots that are in use drive each other out
//! and fetch everything again and again: each gives up what it has over its share of the budget, as long as another one
//! has less. Pinned blocks, and what writers hold, are never evicted.
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
use super::uses::{self, Uses};
use super::{Core, Store, StoreError};
use crate::block::Cid;
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
    /// By its number, and its uses: who holds a segment keeps its files.
    Segment(u32, Arc<Uses>),
}

impl Store {
    /// Evicts until the budgets are kept, as far as pins allow. The store does so by itself; this is for whoever wants
    /// it now.
    pub fn evict(&self) -> Result<(), StoreError> {
        self.core().make_room(0, For::Nobody, true)
    }

    /// How many bytes more could be kept of what is fetched for `root`, beyond what growing segments have room for: what is free
    /// within the budgets, and what others might have to give up. Pins are not looked at before something is to be evicted,
    /// so it may be less.
    pub fn room_for(&self, root: &Cid) -> u64 {
        self.core().room_for(root)
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
        let futile = self.futile_evictions.lock().get(&filled).is_some_and(|at| at.elapsed() < FUTILE);
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
        let is_enough = || self.fill().map(|fill| fill.lacks(needed, For::Nobody) <= self.dead_bytes());
        for unit in self.units(wanted) {
            let spare = self.spare(&unit, wanted, fill.budget.min(fill.free_budget));
            let before = evicted;
            for (id, records) in &segments {
                let Some(segment) = self.segments.read().get(id).cloned() else { continue };
                if !unit.is_in(&segment) {
                    continue;
                }
                if evicted - before >= spare || is_enough()? {
                    break;
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
            if is_enough()? {
                break;
            }
        }
        self.flush_dead()?;
        self.squeeze(needed)?;
        {
            let mut futile = self.futile_evictions.lock();
            futile.retain(|whom, at| *whom != filled && at.elapsed() < FUTILE);
            if evicted == 0 && self.fill()?.lacks(needed, For::Nobody) > 0 {
                futile.insert(filled, Instant::now());
            }
        }
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
        let roots = self.roots.all().into_iter().filter(|root| !wanted.is_for(root)).map(Unit::Root);
        let segments = self.snapshot().into_iter().map(|(segment, _)| Unit::Segment(segment.id, segment.uses.clone()));
        let mut units: Vec<Unit> = roots.chain(segments).collect();
        units.sort_by_cached_key(|unit| unit.uses().last());
        units
    }

    /// How many bytes of a unit may go.
    fn spare(&self, unit: &Unit, wanted: For<'_>, budget: u64) -> u64 {
        let now = uses::now();
        let For::Cache(filled) = wanted else { return u64::MAX };
        match unit {
            unit if !unit.uses().is_busy(now) => u64::MAX,
            // A user's own data that is in use, and that nobody else may have.
            Unit::Segment(..) => 0,
            Unit::Root(root) => {
                let busy =
                    self.roots.all().iter().filter(|other| !wanted.is_for(other) && other.uses.is_busy(now)).count();
                let share = budget / (busy as u64 + 1);
                if self.held_bytes(filled) < share { self.held_bytes(root).saturating_sub(share) } else { 0 }
            }
        }
    }

    /// The bytes of a root's blocks that are here, as far as its records are like those of others.
    fn held_bytes(&self, root: &Arc<Root>) -> u64 {
        let held = |(segment, records): (Arc<Segment>, u32)| {
            let own = u64::from(segment.runs.lock().count(root, records));
            own * segment.live_bytes.load(Ordering::Relaxed) / u64::from(records.max(1))
        };
        self.snapshot().into_iter().map(held).sum()
    }

    /// See [`Store::room_for`].
    fn room_for(&self, root: &Cid) -> u64 {
        let Ok(fill) = self.fill() else { return 0 };
        let free = fill.budget.min(fill.free_budget).saturating_sub(fill.used);
        let is_futile = |at: &Instant| at.elapsed() < FUTILE;
        if self.futile_evictions.lock().get(&Some(root.clone())).is_some_and(is_futile) {
            return free;
        }
        let all: u64 = self.segments.read().values().map(|segment| segment.live_bytes.load(Ordering::Relaxed)).sum();
        let own = self.roots.get(root).map_or(0, |root| self.held_bytes(&root));
        free + all.saturating_sub(own) + self.dead_bytes()
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

impl For<'_> {
    fn is_for(self, root: &Arc<Root>) -> bool {
        matches!(self, For::Cache(filled) if Arc::ptr_eq(filled, root))
    }
}

impl Unit {
    fn uses(&self) -> &Arc<Uses> {
        match self {
            Unit::Root(root) => &root.uses,
            Unit::Segment(_, uses) => uses,
        }
    }

    fn is_in(&self, segment: &Arc<Segment>) -> bool {
        match self {
            Unit::Root(root) => segment.runs.lock().has(root),
            Unit::Segment(own, _) => *own == segment.id,
        }
    }

    fn is_of(&self, root: Option<&Arc<Root>>) -> bool {
        match (self, root) {
            (Unit::Root(own), Some(root)) => Arc::ptr_eq(own, root),
            (Unit::Segment(..), None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, HashFunction, codec};
    use crate::config::StoreConfig;

    const MIB: u64 = 1 << 20;

    /// A root, and blocks of 20 KB that are fetched for it.
    struct Dataset {
        root: crate::block::Cid,
        blocks: Vec<Block>,
    }

    impl Dataset {
        fn new(seed: u64, mib: u64) -> Dataset {
            let block = |number: u64| {
                let mut data = vec![0; 20_000];
                for (place, word) in data.chunks_exact_mut(8).zip(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)..) {
                    place.copy_from_slice(&word.to_le_bytes());
                }
                Block::new(codec::RAW, HashFunction::Sha2_256, data.into())
            };
            let root = block(u64::MAX - seed).cid().clone();
            Dataset { root, blocks: (0..mib * MIB / 20_000).map(|number| block(seed << 32 | number)).collect() }
        }

        /// Reads it as a mount does: what is not here is fetched, and kept where it may be. The hits.
        fn read(&self, store: &Store) -> usize {
            let mut hits = 0;
            for blocks in self.blocks.chunks(50) {
                let mut writer = store.writer_for(&self.root);
                for block in blocks {
                    if store.get(block.cid()).unwrap().is_some() {
                        hits += 1;
                    } else {
                        match writer.put(block) {
                            Ok(()) | Err(StoreError::Full { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            }
            hits
        }

        fn share_here(&self, store: &Store) -> f64 {
            let here = self.blocks.iter().filter(|block| store.has(block.cid())).count();
            here as f64 / self.blocks.len() as f64
        }

        /// As if it had been read for the last minute.
        fn has_been_read(&self, store: &Store) {
            let uses = &store.core().root(&self.root).uses;
            let now = uses::now();
            uses.set_last(now - 60);
            (now - 60..=now).for_each(|second| uses.note(second));
        }
    }

    fn store(dir: &std::path::Path) -> Store {
        let config = StoreConfig { segment_bytes: MIB, ram_bytes: 0, disk_bytes: 32 * MIB, free_ratio: 0.0 };
        Store::open(dir, &config).unwrap()
    }

    #[test]
    fn roots_in_use_share_the_budget_and_do_not_drive_each_other_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (one, other) = (Dataset::new(1, 40), Dataset::new(2, 40));
        one.read(&store);
        let alone = one.share_here(&store);
        assert!(alone > 0.6, "{alone}");
        for _ in 0..3 {
            for dataset in [&one, &other] {
                dataset.has_been_read(&store);
                store.core().futile_evictions.lock().clear();
                dataset.read(&store);
            }
        }
        let (first, second) = (one.share_here(&store), other.share_here(&store));
        assert!((0.25..0.5).contains(&first) && (0.25..0.5).contains(&second), "{first} {second}");
        // Now nothing moves: what is here of each is found by each pass.
        for _ in 0..2 {
            for (dataset, share) in [(&one, first), (&other, second)] {
                dataset.has_been_read(&store);
                let rate = dataset.read(&store) as f64 / dataset.blocks.len() as f64;
                assert!((rate - share).abs() < 0.02, "{rate} {share}");
            }
        }
        // Nobody reads the one any more: the other one gets its place.
        store.core().root(&one.root).uses.set_last(uses::now() - 100);
        store.core().futile_evictions.lock().clear();
        other.read(&store);
        assert!(other.share_here(&store) > 0.6, "{}", other.share_here(&store));
    }
}
