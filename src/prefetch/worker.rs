//! Doing what there is to do, on threads that may block.
//!
//! A thread takes tasks from [`State`](super::engine::State) until there are none; more are started while there is more to do, up
//! to [`MAX_WORKERS`]. A piece is read from the disk in one request where its files lie together, and pushed from the
//! memory that it was read into. Pushes take turns, so that on a small machine readers keep a core. What is on other machines
//! is fetched by one more thread, as much at a time as the path to them holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};

use super::Inner;
use super::directories::Wait;
use super::engine::{Load, Owner, Task, Want};
use super::epoch::Survey;
use super::follower::{Bring, MAX_WHOLE_BYTES, Outcome, Timing};
use super::pieces::Piece;
use super::push::PAGE_BYTES;
use super::siblings::Siblings;
use super::upcoming::{Order, Upcoming};
use crate::block::{Cid, codec};
use crate::fetch::Priority;
use crate::tree::{Attr, Entry, FileKind, Inodes};

/// Threads at work for one mount, beside the one that fetches.
const MAX_WORKERS: usize = 3;
/// The most bytes that are pushed in one call: as many as the kernel reads at once.
const PUSH_BYTES: usize = 1 << 20;
/// Trees of more files are not looked at whole.
const MAX_SURVEYED_FILES: u64 = 1 << 22;
/// One file of so many is asked for, to see whether the kernel knows a tree, and whether it is here.
const SAMPLED: u64 = 16;
/// What is fetched of a file at a time, in bytes.
const FLIGHT_PIECE_BYTES: u64 = 4 << 20;
/// The least that is asked of other machines at a time, in bytes, where the settings allow as much.
const MIN_FLIGHT_BYTES: u64 = 4 << 20;

/// What is known of the path to other machines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    rate: super::report::Rate,
    /// The shortest time that anything took.
    delay: Option<Duration>,
}

impl Path {
    /// Something of `bytes` bytes has come, and took so long.
    pub fn add(&mut self, bytes: u64, took: Duration, now: Instant) {
        self.rate.add(bytes, now);
        // It creeps up, so that a path that has become longer is noticed.
        let delay = self.delay.map_or(took, |delay| delay + delay / 64);
        self.delay = Some(delay.min(took));
    }

    /// Twice what the path holds: what is in flight limits what is measured, so this doubles until the path does.
    pub fn holds(&self, most: u64, now: Instant) -> u64 {
        let delay = self.delay.unwrap_or_default().as_secs_f64();
        let bytes = (2.0 * self.rate.per_second(now) * delay) as u64;
        bytes.clamp(MIN_FLIGHT_BYTES.min(most), most)
    }
}

impl Inner {
    /// Starts a thread where there is something to do.
    pub fn wake(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            if state.workers >= MAX_WORKERS || self.stop.is_cancelled() {
                return;
            }
            state.workers += 1;
        }
        let inner = self.clone();
        self.runtime.spawn_blocking(move || inner.work());
    }

    fn work(self: Arc<Self>) {
        loop {
            let load = self.load();
            let task = {
                let mut state = self.state.lock();
                let task = if self.stop.is_cancelled() { None } else { state.next(&load) };
                if task.is_none() {
                    state.workers -= 1;
                    return;
                }
                task
            };
            if let Some(task) = task {
                match task {
                    // Another piece can be read while this one is pushed.
                    Task::Bring { .. } => {
                        self.wake();
                        self.run(task);
                    }
                    // It takes long, and is not counted among those that serve readers.
                    Task::Survey(..) => {
                        self.state.lock().workers -= 1;
                        self.wake();
                        self.run(task);
                        self.state.lock().workers += 1;
                    }
                    _ => self.run(task),
                }
            }
        }
    }

    fn load(&self) -> Load {
        let room = match self.pushes() {
            Some(_) => self.push_room(),
            // What is not pushed waits in the RAM tier, and leaves room for what is there already.
            None => self.ram_bytes / 4,
        };
        Load { room, now: Instant::now() }
    }

    /// What pushes may fill of the page cache.
    fn push_room(&self) -> u64 {
        self.memory.room().min(self.settings.memory_bytes)
    }

    fn pushes(&self) -> Option<&dyn super::Push> {
        self.push.as_deref().filter(|_| self.settings.push)
    }

    fn run(self: &Arc<Self>, task: Task) {
        match task {
            Task::Watch(number) => {
                let directory = self.directories.known(number, Wait::Long);
                let root = self.root_of(number);
                self.state.lock().watch(number, directory, root, Instant::now());
            }
            Task::Introduce(directory) => self.introduce(&directory),
            Task::Pull(owner, order, count) => self.pull(&owner, order, count),
            Task::Bring { owner, batch } => {
                let outcomes = match &owner {
                    Owner::Follower(_) => self.bring(&owner, batch),
                    Owner::Pass(root) => self.remote(root, batch),
                };
                self.state.lock().brought(&owner, outcomes, Instant::now());
                self.fetch();
            }
            Task::Survey(root, scope) => {
                let survey = self.survey(scope);
                self.state.lock().surveyed(&root, survey);
            }
            Task::Sweep(root, survey) => {
                let Some(directory) = self.directories.known(survey.scope, Wait::Never) else { return };
                let order = Box::new(Siblings::below(self.directories.clone(), directory));
                self.state.lock().sweep(&root, &survey, order);
            }
        }
    }

    /// The root that a directory is below, or is.
    fn root_of(&self, number: u64) -> Option<Cid> {
        let top = self.inodes.ancestors(number).last().copied().unwrap_or(number);
        self.inodes.get(top).map(|inode| inode.location.cid)
    }

    fn introduce(&self, directory: &Arc<std::path::Path>) {
        let Some(push) = self.pushes().filter(|_| self.settings.names) else { return };
        // One at a time, so that whoever needs the same names waits until they are known.
        let _turn = self.introducing.lock();
        if !self.state.lock().may_introduce(directory, Instant::now()) {
            return;
        }
        if let Err(error) = push.introduce(directory) {
            tracing::debug!(directory = %directory.display(), %error, "the kernel cannot be told the names of a directory ahead");
        }
    }

    fn pull(&self, owner: &Owner, mut order: Order, count: usize) {
        let mut files = Vec::with_capacity(count);
        let mut unknown: Vec<Arc<std::path::Path>> = Vec::new();
        let mut last = None;
        while files.len() < count
            && !self.stop.is_cancelled()
            && let Some(file) = order.next()
        {
            let number = number(&file);
            if let Some(directory) = &file.directory
                && last.as_ref() != Some(directory)
            {
                last = Some(directory.clone());
                if self.inodes.get(number).is_none() && !unknown.contains(directory) {
                    unknown.push(directory.clone());
                }
            }
            files.push((number, file));
        }
        // The rest of an epoch is not pushed.
        if matches!(owner, Owner::Pass(_)) {
            unknown.clear();
        }
        self.state.lock().pulled(owner, order, files, unknown);
    }

    /// Reads files, and pushes them where that is possible. Readers who come to one of them meanwhile have it from the same
    /// reading, and those that they are about to come to are pushed last.
    fn bring(&self, owner: &Owner, batch: Vec<Bring>) -> Vec<(Bring, Outcome)> {
        let store = self.tree.fetch().store();
        let targets: Vec<bool> = batch.iter().map(|bring| self.can_push(bring)).collect();
        let leaves: Vec<Cid> = batch
            .iter()
            .zip(&targets)
            .filter(|(bring, target)| **target && is_leaf(bring))
            .map(|(bring, _)| bring.file.location.cid.clone())
            .collect();
        let together = store.get_many(&leaves);
        let mut blocks = together.blocks.iter();
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut later = Vec::new();
        for (bring, target) in batch.into_iter().zip(targets) {
            let data = if target && is_leaf(&bring) {
                blocks.next().and_then(Option::as_ref).map(|block| block.data().clone()).ok_or(Outcome::Remote)
            } else {
                self.read(&bring)
            };
            let outcome = match data {
                Ok(data) if data.len() as u64 != bring.wanted => Outcome::Left,
                Ok(data) if target => match self.timing(owner, &bring) {
                    Timing::Now => self.push(&bring, &data),
                    Timing::TooLate => Outcome::Warmed(bring.wanted),
                    Timing::Later => {
                        later.push((bring, data));
                        continue;
                    }
                },
                Ok(data) => Outcome::Warmed(data.len() as u64),
                Err(outcome) => outcome,
            };
            outcomes.push((bring, outcome));
        }
        for (bring, data) in later {
            let is_read = self.timing(owner, &bring) == Timing::TooLate;
            let outcome = if is_read { Outcome::Warmed(bring.wanted) } else { self.push(&bring, &data) };
            outcomes.push((bring, outcome));
        }
        outcomes
    }

    /// Which files of an epoch's rest are to be fetched: those that are not here, as long as they can be kept.
    fn remote(&self, root: &Cid, batch: Vec<Bring>) -> Vec<(Bring, Outcome)> {
        let wanted: u64 = batch.iter().map(|bring| bring.wanted).sum();
        let coming = self.state.lock().coming_bytes(root);
        let has_room = self.tree.fetch().store().room_for(root) >= wanted + coming;
        if !has_room {
            self.state.lock().stop_full(root);
        }
        let outcome =
            |bring: &Bring| if has_room && !self.is_here(&bring.file) { Outcome::Remote } else { Outcome::Left };
        let outcomes: Vec<Outcome> = batch.iter().map(outcome).collect();
        batch.into_iter().zip(outcomes).collect()
    }

    fn timing(&self, owner: &Owner, bring: &Bring) -> Timing {
        self.state.lock().timing(owner, bring.at)
    }

    /// Whether the kernel takes this file now. One whose name it does not know is introduced.
    fn can_push(&self, bring: &Bring) -> bool {
        // The beginning of a large file is for its own read-ahead.
        if self.pushes().is_none() || bring.wanted < bring.file.size || bring.wanted > MAX_WHOLE_BYTES {
            return false;
        }
        let is_known = || {
            let inode = self.inodes.get(bring.number);
            inode.is_some_and(|inode| inode.location == bring.file.location && inode.attr.size == bring.file.size)
        };
        if is_known() {
            return true;
        }
        if let Some(directory) = &bring.file.directory {
            self.introduce(directory);
        }
        is_known()
    }

    /// Whether all of a file is on this machine.
    fn is_here(&self, file: &Upcoming) -> bool {
        let cid = &file.location.cid;
        if cid.codec() == codec::RAW {
            return self.tree.fetch().store().has(cid);
        }
        self.tree.coverage(&file.location).is_ok_and(|coverage| coverage.cached_bytes >= file.size)
    }

    /// The file's bytes, as far as they are wanted, where they are on this machine.
    fn read(&self, bring: &Bring) -> Result<Bytes, Outcome> {
        let location = &bring.file.location;
        if bring.wanted > MAX_WHOLE_BYTES {
            // Too much to hold at once, and its reader is read ahead of soon enough.
            return Err(if self.is_here(&bring.file) { Outcome::Left } else { Outcome::Remote });
        }
        if !self.tree.fetch().store().has(&location.cid) {
            return Err(Outcome::Remote);
        }
        let read = self.tree.read(location, 0, bring.wanted as usize, Priority::ReadAhead);
        match read.now_or_never() {
            None => Err(Outcome::Remote),
            Some(Ok(data)) => Ok(data),
            // Whoever reads it learns why it cannot be had.
            Some(Err(_)) => Err(Outcome::Left),
        }
    }

    /// Pushes a whole file, but for the page that is a tripwire.
    fn push(&self, bring: &Bring, data: &Bytes) -> Outcome {
        let Some(push) = self.pushes() else { return Outcome::Left };
        let first = if bring.tripwire { (PAGE_BYTES as usize).min(data.len()) } else { 0 };
        if first > 0 {
            self.first_pages.lock().put(bring.number, Bytes::copy_from_slice(&data[..first]));
        }
        let _turn = self.pushing.take();
        for (piece, offset) in data[first..].chunks(PUSH_BYTES).zip((first..).step_by(PUSH_BYTES)) {
            if let Err(error) = push.store(bring.number, offset as u64, piece) {
                tracing::debug!(file = %bring.file.location, %error, "a push has failed");
                self.state.lock().pause(Instant::now());
                return Outcome::Left;
            }
        }
        self.pushed.fetch_add((data.len() - first) as u64, Ordering::Relaxed);
        Outcome::Pushed(data.len() as u64)
    }

    fn survey(&self, scope: u64) -> Option<Survey> {
        let directory = self.directories.known(scope, Wait::Never)?;
        let (mut files, mut bytes, mut asked, mut known) = (0, 0, 0, 0);
        let mut is_remote = false;
        for file in Siblings::below(self.directories.clone(), directory) {
            files += 1;
            bytes += file.size;
            if files % SAMPLED == 0 {
                asked += 1;
                known += u64::from(self.inodes.get(number(&file)).is_some());
                is_remote |= !self.is_here(&file);
            }
            if files > MAX_SURVEYED_FILES || self.stop.is_cancelled() {
                return None;
            }
        }
        Some(Survey { scope, files, bytes, is_listed: known * 4 >= asked * 3, is_remote })
    }

    /// Starts a thread that fetches, where there is something to fetch and none does.
    fn fetch(self: &Arc<Self>) {
        let want = {
            let mut state = self.state.lock();
            if state.is_fetching || self.stop.is_cancelled() {
                return;
            }
            let want = state.next_want();
            state.is_fetching = want.is_some();
            want
        };
        let Some(want) = want else { return };
        let inner = self.clone();
        self.runtime.spawn_blocking(move || {
            let stop = inner.stop.clone();
            let fetching = std::pin::pin!(inner.fetch_all(want));
            let stopped = std::pin::pin!(stop.cancelled());
            inner.runtime.block_on(future::select(fetching, stopped));
        });
    }

    async fn fetch_all(self: &Arc<Self>, first: Want) {
        let mut flights = FuturesUnordered::new();
        let (mut in_flight, mut next) = (0, Some(first));
        loop {
            while let Some(want) = next {
                in_flight += want.bytes.min(FLIGHT_PIECE_BYTES);
                flights.push(self.fetch_one(want));
                let holds = self.path.lock().holds(self.settings.flight_bytes, Instant::now());
                next = if in_flight < holds { self.state.lock().next_want() } else { None };
            }
            let Some((want, fetched, took)) = flights.next().await else {
                // Under the lock nothing more can come unseen.
                let mut state = self.state.lock();
                next = state.next_want();
                if next.is_none() {
                    state.is_fetching = false;
                    return;
                }
                continue;
            };
            in_flight -= want.bytes.min(FLIGHT_PIECE_BYTES);
            let now = Instant::now();
            if fetched {
                self.path.lock().add(want.bytes, took, now);
            }
            {
                let mut state = self.state.lock();
                state.arrived(&want, fetched, now);
                next = state.next_want();
            }
            self.wake();
        }
    }

    async fn fetch_one(&self, want: Want) -> (Want, bool, Duration) {
        let began = Instant::now();
        let mut at = 0;
        loop {
            let len = FLIGHT_PIECE_BYTES.min(want.bytes - at);
            let read = self.tree.read(&want.file.location, at, len as usize, want.priority).await;
            at += len;
            if read.is_err() || at >= want.bytes {
                return (want, read.is_ok(), began.elapsed());
            }
        }
    }

    /// Starts a thread that reads ahead within files, where there is something to read.
    pub fn wake_file_reader(self: &Arc<Self>) {
        if !self.pieces.lock().begin_thread() {
            return;
        }
        let inner = self.clone();
        self.runtime.spawn_blocking(move || inner.read_pieces());
    }

    /// Reads pieces of files into RAM until none waits. What is not on this machine is fetched together, as much at a time as
    /// the path holds.
    fn read_pieces(self: Arc<Self>) {
        let mut remote = FuturesUnordered::new();
        let mut in_flight = 0;
        loop {
            let next = self.pieces.lock().take();
            let is_last = next.is_none();
            if let Some(piece) = next {
                // Another piece can be read while this one is.
                self.wake_file_reader();
                if let Some((bytes, fetch)) = self.read_piece(&piece) {
                    in_flight += bytes;
                    remote.push(fetch);
                }
            } else if remote.is_empty() && self.pieces.lock().end_thread() {
                return;
            }
            let holds = || self.path.lock().holds(self.settings.flight_bytes, Instant::now());
            if !remote.is_empty() && (is_last || in_flight >= holds()) {
                self.runtime.block_on(async { while remote.next().await.is_some() {} });
                in_flight = 0;
            }
        }
    }

    /// Reads a piece that its reader has not come to. Where something of it has to be fetched, its length, and what fetches it.
    fn read_piece(&self, piece: &Piece) -> Option<(u64, BoxFuture<'_, ()>)> {
        let is_awaited = {
            let files = self.files.lock();
            files.watched.peek(&piece.file).is_some_and(|(_, file)| file.awaits(piece.from, piece.to))
        };
        if !is_awaited || self.stop.is_cancelled() {
            return None;
        }
        let (began, from, len) = (Instant::now(), piece.from, piece.to - piece.from);
        let file = piece.file.clone();
        let read = async move { self.tree.read(&file, from, len as usize, Priority::ReadAhead).await };
        let mut read = read.boxed();
        // What fails here fails again for the reader, who is told.
        if (&mut read).now_or_never().is_some() {
            return None;
        }
        if let Some((_, watched)) = self.files.lock().watched.peek_mut(&piece.file) {
            watched.is_remote = true;
        }
        let fetch = async move {
            if read.await.is_ok() {
                self.path.lock().add(len, began.elapsed(), Instant::now());
            }
        };
        Some((len, fetch.boxed()))
    }
}

/// Whether the file is one raw block.
fn is_leaf(bring: &Bring) -> bool {
    bring.file.location.cid.codec() == codec::RAW && bring.file.location.within.is_none()
}

/// The inode number of a file: it depends on nothing but what the file is.
pub(super) fn number(file: &Upcoming) -> u64 {
    let attr =
        Attr { size: file.size, mtime: crate::dag::unixfs::Mtime::default(), permissions: 0, kind: FileKind::File };
    Inodes::number(0, b"", &Entry { location: file.location.clone(), attr })
}

/// Turns at something of which only so many may go on at a time.
pub(super) struct Turns {
    free: parking_lot::Mutex<usize>,
    freed: parking_lot::Condvar,
}

/// One turn; its drop ends it.
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// `most` at a time.
    pub fn new(most: usize) -> Turns {
        Turns { free: parking_lot::Mutex::new(most), freed: parking_lot::Condvar::new() }
    }

    /// Waits for a turn.
    pub fn take(&self) -> Turn<'_> {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.freed.notify_one();
    }
}
