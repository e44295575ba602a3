//! The blocks of this machine: a RAM tier over an NVMe tier, pins, names, and what was learned of blocks.
//!
//! A block is kept by its multihash. [`Writer::put`] appends it to a *segment*, an append-only file that ends as a CARv2
//! file; the *index* in RAM says where each block lies; a *table* beside each segment has the records' places and
//! checksums. Every byte that is read from a segment is checked, so a damaged record is never served: it is dropped and
//! counted, and [`Store::get`] says that the block is not here. Pins, names and facts are in one database.
//!
//! What is acknowledged survives power loss: [`Store::sync`] and [`Store::pin`] return once the blocks, the names of their
//! files and the pin's row are flushed. Those who ask at the same time share a flush. Everything but pins, names and facts
//! can be made again from the segments alone.
//!
//! The parts, from the ground up: `disk` (the seam to the filesystem), `buffer`, `append` and `table`; `segment`; `index`,
//! `ram`, `reads` and `db`; on them `open`, `read`, `writer` and `pins`; what removes and moves blocks (`live`, `gc`, `evict`, `compact`)
//! and what looks after them (`verify`, `stat`, and the background thread `keeper`).
//!
//! No lock is held while the disk works, except by those who append to one segment, and they are one writer and a flush.

mod append;
#[allow(unsafe_code)]
mod buffer;
mod compact;
mod counts;
mod db;
pub mod disk;
mod error;
mod evict;
mod extents;
mod facts;
mod gc;
mod group;
mod health;
#[allow(unsafe_code)]
mod heap;
mod holds;
mod index;
mod keeper;
mod live;
mod many;
mod open;
mod pins;
mod ram;
mod read;
mod reads;
mod roots;
mod segment;
mod stat;
mod table;
mod uses;
mod verify;
mod watch;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

pub use self::error::StoreError;
pub use self::gc::{GcProgress, GcReport, GcSink};
pub use self::heap::keep_some_memory;
pub use self::many::Together;
pub use self::pins::{Pin, PinKind};
pub use self::read::BlockPart;
pub use self::stat::{Blocks, Stat};
pub use self::verify::{Damaged, IncompletePin, VerifyProgress, VerifyReport, VerifySink};
pub use self::watch::Watcher;
pub use self::writer::Writer;
use crate::block::{Block, Cid};
use crate::config::StoreConfig;

/// The store of one repository. Cheap to clone: clones share everything. Every method may be called from any thread;
/// those that touch the disk block their thread while they do.
#[derive(Clone)]
pub struct Store {
    inner: Arc<keeper::Kept>,
}

/// What all clones, writers and the background thread share.
struct Core {
    config: StoreConfig,
    shelf: Arc<segment::Shelf>,
    index: index::Index,
    segments: RwLock<HashMap<u32, Arc<segment::Segment>>>,
    growth: Mutex<writer::Growth>,
    /// Segments that are not sealed: what a flush must flush.
    unsealed: Mutex<BTreeMap<u32, Arc<segment::Segment>>>,
    /// Whether files were made whose names are not flushed.
    new_names: AtomicBool,
    flush: group::Group<()>,
    holds: Arc<holds::Holds>,
    ram: ram::Ram,
    reads: Arc<reads::Reads>,
    db: db::Db,
    facts: facts::Facts,
    roots: roots::Roots,
    /// Held by the one who removes or moves records.
    maintenance: Mutex<()>,
    /// When eviction last found nothing to evict, by for whom.
    futile_evictions: Mutex<HashMap<Option<Cid>, Instant>>,
    /// Segments whose dead records are to be written to the database.
    newly_dead: Mutex<HashSet<u32>>,
    health: health::Health,
    /// Records that were found damaged since the store was opened.
    damaged: AtomicU64,
    counts: counts::Counts,
    /// Moves on with every change of a pin or a name.
    roots_generation: AtomicU64,
    /// Who is told of what enters.
    watch: watch::Watch,
    jobs: std::sync::mpsc::Sender<keeper::Job>,
    _lock: disk::LockGuard,
}

impl Store {
    /// Opens the store in the directory `dir`, making it where there is none.
    pub fn open(dir: &Path, config: &StoreConfig) -> Result<Store, StoreError> {
        Store::open_on(Arc::new(disk::RealDisk), dir, config)
    }

    /// Opens the store in the directory `dir` of a disk of the caller's.
    pub fn open_on(disk: Arc<dyn disk::Disk>, dir: &Path, config: &StoreConfig) -> Result<Store, StoreError> {
        Ok(Store { inner: keeper::Kept::start(disk, dir, config)? })
    }

    /// A writer for blocks that belong together (one root). Several may be open at once.
    ///
    /// What was put into a writer, or was found here already when it was put, is safe from [gc](Store::gc) and eviction
    /// until the writer is dropped: so pin the root before dropping its writer.
    pub fn writer(&self) -> Writer {
        Writer::new(self.inner.clone(), None)
    }

    /// A writer for blocks that are fetched for `root` and can be fetched again: they are evicted with it. Where nothing but
    /// this root's own blocks could make room, a put fails with [`StoreError::Full`], and the block is better not kept.
    pub fn writer_for(&self, root: &Cid) -> Writer {
        Writer::new(self.inner.clone(), Some(root))
    }

    /// Keeps one block. See [`Store::writer`] for many.
    pub fn put(&self, block: &Block) -> Result<(), StoreError> {
        self.writer().put(block)
    }

    /// Keeps a block in the RAM tier, whatever the disk does: it is about to be read.
    pub fn keep_in_ram(&self, block: &Block) {
        self.core().ram.insert(block.cid(), block.data().clone(), block.data().len());
    }

    /// Returns when every block that was put before the call is durable. Concurrent calls share one flush.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.inner.core().sync()
    }

    /// Makes everything durable, also what is otherwise written lazily, and finishes the tables, so that the next start need
    /// not hash what is here. Dropping the last clone does it too; this is for a process that ends without.
    pub fn finish(&self) -> Result<(), StoreError> {
        self.inner.core().finish()
    }

    /// Why the store does less than it should, in words for people: empty while all is well.
    pub fn health(&self) -> Vec<String> {
        self.inner.core().health.troubles()
    }

    fn core(&self) -> &Core {
        self.inner.core()
    }
}
