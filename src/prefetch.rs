//! Prefetch: what will be read next, brought where reading it costs least before it is asked for.
//!
//! It watches three things. *Within a file* ([`streams`]): a reader whose requests follow each other, forward, backward or at
//! equal distances, is read ahead of into the RAM tier. *Among files* ([`siblings`]): files that are taken in an order of their
//! directory, and of the directories after it, are pushed into the kernel's page cache before they are opened, so that
//! reading them costs no request. *Over a tree* ([`epoch`]): where its files are read once each in no order, the rest is
//! brought in the order of the disk. Whoever knows the order better hands it over as a *plan* ([`Prefetch::follow`]).
//!
//! A file that was pushed is read without a word to us, so now and then one is pushed without its first page; the request for
//! that page is a *tripwire* that tells how far the reader is ([`follower`]). What is pushed ahead of it is bounded by a window
//! that grows as it proves right, by what the machine's memory can spare ([`budget`]), and by `prefetch.memory_bytes`.
//!
//! A reader is never waited for and never made to wait: what the threads of the mount call takes a short lock and at most queues
//! a task. Tasks run on threads that answer no reader ([`worker`]). While a reader waits for the disk, the store lets one piece
//! at a time be under way for us, so nobody's request is delayed by more than that one; a reader who comes to a piece that is
//! under way has it from there. Prefetch does not know the kernel: it pushes through [`Push`].

mod budget;
mod directories;
mod engine;
mod epoch;
mod follower;
mod pattern;
mod pieces;
mod push;
mod report;
mod siblings;
mod streams;
mod upcoming;
mod worker;

pub mod plan;
pub mod warmup;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use self::push::{PAGE_BYTES, Push};
pub use self::report::RootReport;
pub use self::upcoming::{Fate, Progress, Upcoming};

use self::budget::Memory;
use self::directories::Directories;
use self::engine::{Begun, State};
use self::pieces::Pieces;
use self::report::Sums;
use self::streams::File;
use self::worker::Turns;
use crate::block::Cid;
use crate::config::PrefetchConfig;
use crate::limits::MAX_PREFETCHED_FILES;
use crate::metrics::PrefetchFigures;
use crate::tree::{Inode, Inodes, Location, ROOT_INODE, Tree};

/// The largest window within a file whose blocks are on this machine, in bytes: more would only push out of the RAM tier what
/// was read ahead elsewhere.
const LOCAL_WINDOW_BYTES: u64 = 8 << 20;

/// First pages of files that were pushed without them, as many as are kept: those of the tripwires of some dozen readers.
const FIRST_PAGES: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// What of prefetch is on, and what it may take.
#[allow(clippy::struct_excessive_bools, reason = "each mechanism is turned off by itself, to see what it is worth")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether to read ahead within files.
    pub files: bool,
    /// Whether to recognise orders of files.
    pub siblings: bool,
    /// Whether to recognise epochs.
    pub epochs: bool,
    /// Whether to push into the kernel's page cache.
    pub push: bool,
    /// Whether to make the kernel learn names ahead.
    pub names: bool,
    /// The most bytes that are pushed and not known to be read.
    pub memory_bytes: u64,
    /// The most bytes that are asked of other machines at a time.
    pub flight_bytes: u64,
    /// Where the kernel tells what memory the machine can spare: `/proc`.
    pub machine: PathBuf,
}

impl From<&PrefetchConfig> for Settings {
    fn from(config: &PrefetchConfig) -> Settings {
        let PrefetchConfig { files, siblings, epochs, push, names, memory_bytes, flight_bytes } = *config;
        let machine = PathBuf::from("/proc");
        Settings { files, siblings, epochs, push, names, memory_bytes, flight_bytes, machine }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::from(&PrefetchConfig::default())
    }
}

/// Watches the reads of one mount, and brings what comes next. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Prefetch {
    inner: Arc<Inner>,
}

/// What the threads at work share.
pub(in crate::prefetch) struct Inner {
    tree: Tree,
    inodes: Arc<Inodes>,
    push: Option<Arc<dyn Push>>,
    settings: Settings,
    ram_bytes: u64,
    runtime: Handle,
    directories: Arc<Directories>,
    state: Mutex<State>,
    files: Mutex<Files>,
    memory: Memory,
    path: Mutex<worker::Path>,
    pieces: Mutex<Pieces>,
    pushed: AtomicU64,
    pushing: Turns,
    /// The pages that tripwires are without: whoever comes upon one does not wait for the disk.
    first_pages: Mutex<LruCache<u64, Bytes>>,
    introducing: Mutex<()>,
    stop: CancellationToken,
}

/// Files that are read in more than one request, and what was done for them by root.
struct Files {
    watched: LruCache<Location, (Cid, File)>,
    sums: Sums,
}

impl Prefetch {
    /// Watches reads of files of `tree` by their `inodes`, and pushes through `push` where that is given. Work is done on
    /// blocking threads of `runtime`.
    pub fn new(
        tree: Tree,
        inodes: Arc<Inodes>,
        push: Option<Arc<dyn Push>>,
        settings: Settings,
        runtime: Handle,
    ) -> Prefetch {
        let directories = Arc::new(Directories::new(tree.clone(), inodes.clone(), runtime.clone()));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
        let files = Files { watched: LruCache::new(MAX_PREFETCHED_FILES), sums: Sums::new() };
        let inner = Inner {
            ram_bytes: tree.fetch().store().ram_budget(),
            tree,
            inodes,
            push,
            state: Mutex::new(State::new(settings.clone(), directories.clone())),
            memory: Memory::of(settings.machine.clone()),
            settings,
            runtime,
            directories,
            files: Mutex::new(files),
            path: Mutex::default(),
            pieces: Mutex::default(),
            pushed: AtomicU64::new(0),
            // On two cores readers keep one.
            pushing: Turns::new((cores / 2).max(1)),
            first_pages: Mutex::new(LruCache::new(FIRST_PAGES)),
            introducing: Mutex::new(()),
            stop: CancellationToken::new(),
        };
        Prefetch { inner: Arc::new(inner) }
    }

    /// Takes note of a read of `len` bytes at `offset` of the file `number`, before it is answered. Where it comes upon a
    /// tripwire, this is its answer.
    pub fn note(&self, number: u64, inode: &Inode, offset: u64, len: u64) -> Option<Bytes> {
        self.watch(number, inode, offset, len);
        if offset > 0 || len > PAGE_BYTES {
            return None;
        }
        let mut first_pages = self.inner.first_pages.lock();
        first_pages.pop(&number).filter(|page| page.len() as u64 == len.min(inode.attr.size))
    }

    fn watch(&self, number: u64, inode: &Inode, offset: u64, len: u64) {
        let inner = &self.inner;
        let size = inode.attr.size;
        let is_whole = offset == 0 && len >= size;
        let watches_files = inner.settings.siblings || inner.settings.epochs;
        let now = Instant::now();
        let mut begun = None;
        if offset == 0 && watches_files {
            begun = Some(self.begun(number, inode));
        }
        let finished = is_whole || self.note_within(number, inode, offset, len);
        if !watches_files || (begun.is_none() && !finished) {
            return;
        }
        let file = begun.clone().unwrap_or_else(|| self.begun(number, inode));
        {
            let mut state = inner.state.lock();
            if begun.is_some() {
                state.begun(&file, now);
            }
            if finished {
                state.finished(&file, now);
            }
            if state.workers > 0 || !state.has_work() {
                return;
            }
        }
        inner.wake();
    }

    fn begun(&self, number: u64, inode: &Inode) -> Begun {
        let inodes = &self.inner.inodes;
        let mut above = smallvec::SmallVec::new();
        if inode.parent != ROOT_INODE {
            above.push(inode.parent);
            above.extend(inodes.ancestors(inode.parent));
        }
        let top = above.last().and_then(|top| inodes.get(*top));
        let root = top.map_or_else(|| inode.location.cid.clone(), |top| top.location.cid);
        Begun { number, size: inode.attr.size, root, above }
    }

    /// Takes note of a request within a file that is read in several; says whether it was read from beginning to end.
    fn note_within(&self, number: u64, inode: &Inode, offset: u64, len: u64) -> bool {
        let inner = &self.inner;
        let size = inode.attr.size;
        let end = offset.saturating_add(len).min(size);
        if end <= offset {
            return false;
        }
        let limit = inner.path.lock().holds(inner.settings.flight_bytes, Instant::now()).max(LOCAL_WINDOW_BYTES);
        let said = {
            let mut files = inner.files.lock();
            let files = &mut *files;
            if !files.watched.contains(&inode.location) {
                let root = self.begun(number, inode).root;
                if let Some((_, (root, file))) = files.watched.push(inode.location.clone(), (root, File::default())) {
                    files.sums.of(&root).wasted_bytes += file.unread();
                }
            }
            let Some((root, file)) = files.watched.get_mut(&inode.location) else { return false };
            let limit = if file.is_remote { limit } else { LOCAL_WINDOW_BYTES };
            let said = file.note(size, offset, end, limit);
            if said.useful > 0 || !said.ahead.is_empty() {
                let ahead: u64 = said.ahead.iter().map(|(from, to)| to - from).sum();
                let sums = files.sums.of(root);
                sums.useful_bytes += said.useful;
                sums.read_ahead_bytes += if inner.settings.files { ahead } else { 0 };
            }
            said
        };
        if inner.settings.files && !said.ahead.is_empty() {
            inner.pieces.lock().add(&inode.location, &said.ahead);
            inner.wake_file_reader();
        }
        said.finished
    }

    /// Follows a plan: the files of `order` are brought ahead of readers, a window of them at a time, and the window moves as
    /// readers come to them. `root` is the root that the files are below; it has one plan at a time, and another replaces it.
    ///
    /// The iterator is pulled some hundred files ahead, on a thread that may block on the disk; it may be endless, as where one
    /// epoch follows another. It is dropped when it has come to its end, when readers read other files than it says, or with
    /// [`Prefetch::unfollow`]; the [`Progress`] tells which.
    pub fn follow(&self, root: &Cid, order: impl Iterator<Item = Upcoming> + Send + 'static) -> Arc<Progress> {
        let progress = self.inner.state.lock().follow(root.clone(), Box::new(order), Instant::now());
        self.inner.wake();
        progress
    }

    /// [`Prefetch::follow`], of an order that is for the directory with this inode: what is read elsewhere says nothing about
    /// it.
    pub fn follow_below(
        &self,
        root: &Cid,
        directory: u64,
        order: impl Iterator<Item = Upcoming> + Send + 'static,
    ) -> Arc<Progress> {
        let mut state = self.inner.state.lock();
        let progress = state.follow_below(root.clone(), Some(directory), Box::new(order), Instant::now());
        drop(state);
        self.inner.wake();
        progress
    }

    /// Follows the plan for `root` no more.
    pub fn unfollow(&self, root: &Cid) {
        self.inner.state.lock().unfollow(root);
    }

    /// What was done for each root whose files were read, and goes on.
    pub fn report(&self) -> Vec<RootReport> {
        let mut reports = self.inner.state.lock().report(Instant::now());
        let files = self.inner.files.lock();
        let mut add = |root: &Cid, report: RootReport| match reports.iter_mut().find(|(other, _)| other == root) {
            Some((_, sum)) => sum.add(&report),
            None => reports.push((root.clone(), report)),
        };
        for (root, report) in files.sums.reports() {
            add(root, report);
        }
        for (_, (root, file)) in files.watched.iter().rev() {
            if let Some((pattern, window_bytes)) = file.pattern() {
                let pattern = format!("{pattern} within files");
                let figures = PrefetchFigures { wasted_bytes: file.wasted, ..PrefetchFigures::default() };
                add(root, RootReport { pattern, window_bytes, figures, ..RootReport::default() });
            }
        }
        reports.sort_by(|(a, _), (b, _)| a.cmp(b));
        reports.into_iter().map(|(root, report)| RootReport { root: root.to_string(), ..report }).collect()
    }

    /// The sums over all roots, with those that were not read for long.
    pub fn total(&self) -> PrefetchFigures {
        let mut total = self.inner.state.lock().others();
        total += self.inner.files.lock().sums.others();
        for report in self.report() {
            total += report.figures;
        }
        total
    }

    /// The bytes that were pushed into the kernel's page cache.
    pub fn pushed_bytes(&self) -> u64 {
        self.inner.pushed.load(Ordering::Relaxed)
    }

    /// Begins nothing more. What is under way ends by itself.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }
}
