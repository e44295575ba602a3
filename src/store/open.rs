//! Opening a store: its lock, its database, and all segments into the index, in parallel.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::{Mutex, RwLock};

use super::db::{Change, Db};
use super::disk::{Disk, Lock};
use super::group::Group;
use super::index::{Index, Location};
use super::keeper::Job;
use super::ram::Ram;
use super::roots::{Roots, Runs};
use super::segment::{self, Bitmap, Loaded, Segment, Shelf};
use super::table;
use super::writer::Growth;
use super::{Core, StoreError};
use crate::config::StoreConfig;
use crate::limits::MAX_SEGMENT_RECORDS;

/// Entries of one shard that are gathered before they are put into the index: its memory is then in the cache.
const BATCH: usize = 512;

impl Core {
    /// Opens the store in `dir`.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: &StoreConfig,
        jobs: Sender<Job>,
    ) -> Result<Core, StoreError> {
        let segments_dir = dir.join("segments");
        disk.create_dir(&segments_dir).map_err(StoreError::io("make", &segments_dir))?;
        let lock_path = dir.join("store.lock");
        let lock = match disk.lock(&lock_path).map_err(StoreError::io("lock", &lock_path))? {
            Lock::Taken(guard) => guard,
            Lock::Busy { pid } => return Err(StoreError::InUse { dir: dir.to_owned(), pid }),
        };
        // The names of the directories themselves must outlive a power loss.
        for dir in [Some(dir), dir.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty()) {
            disk.sync_dir(dir).map_err(StoreError::io("flush", dir))?;
        }
        let db = Db::open(disk.clone(), &dir.join("store.redb"))?;
        let names = disk.list(&segments_dir).map_err(StoreError::io("list", &segments_dir))?;
        let ids = numbers(&names, ".car");
        for orphan in numbers(&names, ".table").into_iter().filter(|id| ids.binary_search(id).is_err()) {
            let path = segments_dir.join(format!("{orphan:08}.table"));
            disk.remove(&path).map_err(StoreError::io("remove", &path))?;
        }
        let dead = db.dead()?;
        let runs = db.runs()?;
        let roots = Roots::from_rows(&db.used()?);
        let known = dead.iter().chain(&runs).map(|(id, _)| *id);
        let next_id = known.chain(ids.iter().copied()).max().map_or(1, |last| last + 1);

        let core = Core {
            config: config.clone(),
            shelf: Arc::new(Shelf::new(disk, segments_dir)),
            index: Index::new(),
            segments: RwLock::new(HashMap::new()),
            growth: Mutex::new(Growth { next_id, ..Growth::default() }),
            unsealed: Mutex::new(BTreeMap::new()),
            // A file may have been made just before power was lost, and be found by luck.
            new_names: AtomicBool::new(true),
            flush: Group::new(),
            holds: Arc::default(),
            ram: Ram::new(config.ram_bytes),
            reads: Arc::default(),
            db,
            facts: super::facts::Facts::default(),
            roots,
            maintenance: Mutex::default(),
            futile_evictions: Mutex::default(),
            newly_dead: Mutex::default(),
            health: super::health::Health::default(),
            damaged: AtomicU64::new(0),
            counts: super::counts::Counts::default(),
            roots_generation: AtomicU64::new(0),
            watch: super::watch::Watch::default(),
            jobs,
            _lock: lock,
        };
        core.load(&ids, dead)?;
        core.take_up_runs(runs)?;
        Ok(core)
    }

    /// Takes up all segments.
    fn load(&self, ids: &[u32], dead: Vec<(u32, Vec<u8>)>) -> Result<(), StoreError> {
        let gone = dead.iter().filter(|(id, _)| ids.binary_search(id).is_err());
        let gone: Vec<(u32, Option<Vec<u8>>)> = gone.map(|(id, _)| (*id, None)).collect();
        let dead: HashMap<u32, Bitmap> = dead.into_iter().map(|(id, bits)| (id, Bitmap::from_bytes(&bits))).collect();
        let next = AtomicUsize::new(0);
        let cut = Mutex::new(gone);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(ids.len().max(1));
        std::thread::scope(|scope| {
            let worker = || {
                let mut batches = Batches::new(self);
                while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match segment::load(&self.shelf, *id) {
                        Ok(Some(loaded)) => {
                            let mut dead = dead.get(id).cloned().unwrap_or_default();
                            // The numbers of records that were cut off are given to others.
                            if dead.truncate(loaded.segment.records.load(Ordering::Relaxed)) {
                                cut.lock().push((*id, Some(dead.to_bytes())));
                            }
                            self.take_up(loaded, &dead, &mut batches);
                        }
                        Ok(None) => {}
                        // The blocks of the others are worth having.
                        Err(error) => drop(self.read_failed(error)),
                    }
                }
                batches.fill_all();
            };
            for _ in 0..threads {
                scope.spawn(worker);
            }
        });
        let cut = cut.into_inner();
        if !cut.is_empty() {
            self.change(Change::Dead(cut))?;
        }
        Ok(())
    }

    /// Tells the segments whose their records are.
    fn take_up_runs(&self, rows: Vec<(u32, Vec<u8>)>) -> Result<(), StoreError> {
        let mut gone = Vec::new();
        let segments = self.segments.read();
        for (id, row) in rows {
            let Some(segment) = segments.get(&id) else {
                gone.push((id, None));
                continue;
            };
            let (last_use, mut runs) = Runs::from_bytes(&row, &self.roots);
            runs.truncate(segment.records.load(Ordering::Relaxed));
            segment.uses.set_last(last_use);
            *segment.runs.lock() = runs;
        }
        drop(segments);
        if gone.is_empty() { Ok(()) } else { self.change(Change::Runs(gone)).map(drop) }
    }

    fn take_up(&self, loaded: Loaded, dead: &Bitmap, batches: &mut Batches<'_>) {
        let Loaded { segment, table } = loaded;
        let id = segment.id;
        if let Some(growing) = segment.growing() {
            self.unsealed.lock().insert(id, segment.clone());
            let mut growth = self.growth.lock();
            let is_full = segment.records.load(Ordering::Relaxed) >= MAX_SEGMENT_RECORDS
                || growing.data.end() >= self.config.segment_bytes;
            if is_full { growth.full.push_back(segment.clone()) } else { growth.idle.push(segment.clone()) }
        }
        *segment.dead.lock() = dead.clone();
        // Others may look into it from the moment its entries are in the index.
        self.segments.write().insert(id, segment.clone());
        let (mut blocks, mut bytes) = (0, 0);
        for (position, entry) in table::entries(&table) {
            if dead.contains(entry.ordinal) {
                continue;
            }
            blocks += 1;
            bytes += u64::from(entry.data_len);
            batches.add(entry.multihash(), Location { segment: id, position });
        }
        segment.live_blocks.fetch_add(blocks, Ordering::Relaxed);
        segment.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether two entries are of one block.
    fn same_block(&self, one: Location, other: Location) -> bool {
        let entry = |at: Location| {
            let segment: Arc<Segment> = self.segments.read().get(&at.segment).cloned()?;
            segment.entry(at.position).ok()
        };
        let (Some(one), Some(other)) = (entry(one), entry(other)) else { return false };
        let multihash = |found: &segment::FoundEntry| found.entry().map(|entry| entry.multihash().to_vec());
        multihash(&one).is_some_and(|hash| multihash(&other) == Some(hash))
    }

    /// A record whose block lies elsewhere too.
    fn drop_twin(&self, at: Location) {
        let Some(segment) = self.segments.read().get(&at.segment).cloned() else { return };
        let Ok(found) = segment.entry(at.position) else { return };
        if let Some(entry) = found.entry() {
            segment.discount(entry.data_len);
            segment.dead.lock().insert(entry.ordinal);
        }
    }
}

/// Entries on their way into the index, by shard.
struct Batches<'a> {
    core: &'a Core,
    shards: Vec<Vec<(u32, Location)>>,
}

impl Batches<'_> {
    fn new(core: &Core) -> Batches<'_> {
        Batches { core, shards: vec![Vec::new(); 256] }
    }

    fn add(&mut self, multihash: &[u8], at: Location) {
        let key = self.core.index.key(multihash);
        let shard = &mut self.shards[usize::from(key.shard())];
        shard.push((key.fingerprint(), at));
        if shard.len() >= BATCH {
            self.fill(key.shard());
        }
    }

    fn fill(&mut self, shard: u8) {
        let entries = &mut self.shards[usize::from(shard)];
        let core = self.core;
        core.index.fill(shard, entries, |one, other| core.same_block(one, other), |twin| core.drop_twin(twin));
        entries.clear();
    }

    fn fill_all(&mut self) {
        for shard in 0..=u8::MAX {
            self.fill(shard);
        }
    }
}

/// The numbers in file names of digits and `suffix`, in order.
fn numbers(names: &[String], suffix: &str) -> Vec<u32> {
    let number = |name: &String| {
        let digits = name.strip_suffix(suffix)?;
        (digits.len() == 8).then(|| digits.parse().ok()).flatten()
    };
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}
