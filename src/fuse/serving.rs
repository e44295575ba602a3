//! The serving profile: large local files that the kernel reads without us.
//!
//! The kernel can be handed a file to read in place of asking us (passthrough), but only a whole one, and our blocks lie
//! among others in segments. So the first open of a large file that is wholly local copies it, checked block by block on
//! the way, into a file of its own, and whoever opens it from then on reads that at the speed of the disk. An open waits a
//! moment for a copy in the making; a longer copy goes on in the background, and until it is done the file is read as in
//! any mount.
//!
//! Copies have no names: their space is free again when the mount ends, however it ends, and no copy outlives the checks
//! that made it. They take at most half of the space that is free, and the least recently opened give way. The kernel does
//! not mix the two ways on one inode that is open, so how an inode is read changes only while nobody has it open.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackingId, FileHandle, FopenFlags, ReplyOpen};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::shared::Shared;
use crate::block::Cid;
use crate::fetch::Priority;
use crate::limits::MIN_COPIED_FILE_BYTES;
use crate::tree::{FileKind, Inode};

/// How long an open waits for the copy of its file: as long as copying half a gigabyte takes.
const OPEN_WAIT: Duration = Duration::from_secs(1);
/// How much is copied at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// The file handles of files that may be read through a copy, and of all others.
const TRACKED: FileHandle = FileHandle(1);
const UNTRACKED: FileHandle = FileHandle(0);

/// Copies of large files, and who reads them.
pub(super) struct Copies {
    /// Where copies are made; `None` where there is no place for them.
    dir: Option<PathBuf>,
    made: Mutex<HashMap<Cid, Copy>>,
    opens: Mutex<HashMap<u64, Open>>,
}

struct Copy {
    state: watch::Receiver<State>,
    bytes: u64,
    used: std::time::Instant,
}

/// What has become of a copy.
#[derive(Clone)]
enum State {
    Underway,
    Made(Arc<File>),
    Failed,
}

impl State {
    fn file(&self) -> Option<&File> {
        if let State::Made(file) = self { Some(file) } else { None }
    }
}

/// How an inode is read that somebody has open.
struct Open {
    count: u64,
    /// The kernel's name of the copy; `None` where the file is read through us.
    backing: Option<BackingId>,
}

impl Copies {
    pub fn new(dir: Option<PathBuf>) -> Copies {
        Copies { dir, made: Mutex::default(), opens: Mutex::default() }
    }

    /// Answers an OPEN of `inode`.
    pub fn open(shared: &Arc<Shared>, number: u64, inode: &Inode, reply: ReplyOpen) {
        let copies = &shared.copies;
        let is_large = inode.attr.kind == FileKind::File && inode.attr.size >= MIN_COPIED_FILE_BYTES;
        if copies.dir.is_none() || !is_large {
            return reply.opened(UNTRACKED, through_us());
        }
        let mut copy = copies.copy(shared, inode);
        let state = copy.borrow().clone();
        if !matches!(state, State::Underway) {
            return copies.answer(number, state.file(), reply);
        }
        let shared = shared.clone();
        let runtime = shared.runtime.clone();
        runtime.spawn(async move {
            let ended = copy.wait_for(|state| !matches!(state, State::Underway));
            let state = match tokio::time::timeout(OPEN_WAIT, ended).await {
                Ok(Ok(state)) => state.clone(),
                _ => State::Underway,
            };
            shared.copies.answer(number, state.file(), reply);
        });
    }

    /// Takes note of a RELEASE.
    pub fn release(&self, number: u64, handle: FileHandle) {
        if handle != TRACKED {
            return;
        }
        let mut opens = self.opens.lock();
        if let Some(open) = opens.get_mut(&number) {
            open.count -= 1;
            if open.count == 0 {
                opens.remove(&number);
            }
        }
    }

    /// Replies with the copy, unless the inode is open in the other way already.
    fn answer(&self, number: u64, file: Option<&File>, reply: ReplyOpen) {
        let mut opens = self.opens.lock();
        let open = opens.entry(number).or_insert_with(|| {
            let backing = file.and_then(|file| match reply.open_backing(file) {
                Ok(backing) => Some(backing),
                Err(error) => {
                    tracing::info!(%error, "the kernel does not read copies itself: that takes root and Linux 6.9");
                    None
                }
            });
            Open { count: 0, backing }
        });
        open.count += 1;
        match &open.backing {
            Some(backing) => reply.opened_passthrough(TRACKED, FopenFlags::empty(), backing),
            None => reply.opened(TRACKED, through_us()),
        }
    }

    /// The copy of a file, in the making or made. One that failed, because something of the file was not here or there was
    /// no room, is tried anew.
    fn copy(&self, shared: &Arc<Shared>, inode: &Inode) -> watch::Receiver<State> {
        let cid = &inode.location.cid;
        let mut copies = self.made.lock();
        if let Some(copy) = copies.get_mut(cid)
            && !matches!(&*copy.state.borrow(), State::Failed)
        {
            copy.used = std::time::Instant::now();
            return copy.state.clone();
        }
        let (tell, state) = watch::channel(State::Underway);
        let copy = Copy { state: state.clone(), bytes: inode.attr.size, used: std::time::Instant::now() };
        copies.insert(cid.clone(), copy);
        drop(copies);
        let (shared, inode) = (shared.clone(), inode.clone());
        let runtime = shared.runtime.clone();
        runtime.spawn_blocking(move || {
            tell.send_replace(match shared.copies.make(&shared, &inode) {
                Ok(file) => State::Made(Arc::new(file)),
                Err(error) => {
                    tracing::info!(cid = %inode.location.cid, %error, "no copy of the file is made");
                    State::Failed
                }
            });
        });
        state
    }

    /// Copies a file that is wholly here.
    fn make(&self, shared: &Shared, inode: &Inode) -> io::Result<File> {
        let (location, size) = (&inode.location, inode.attr.size);
        let coverage = shared.tree.coverage(location).map_err(io::Error::other)?;
        if coverage.cached_bytes < size {
            return Err(io::Error::other(format!("{} of its {size} bytes are here", coverage.cached_bytes)));
        }
        let dir = self.dir.as_ref().ok_or_else(|| io::Error::other("there is no place for it"))?;
        self.make_room(dir, &location.cid, size)?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(dir)?;
        nix::fcntl::posix_fallocate(&file, 0, size as libc::off_t)?;
        let mut offset = 0;
        while offset < size {
            let piece = PIECE_BYTES.min(size - offset) as usize;
            let read = shared.tree.read(location, offset, piece, Priority::Background);
            let data = shared.runtime.block_on(read).map_err(io::Error::other)?;
            if data.is_empty() {
                return Err(io::Error::other("it is shorter than it claims to be"));
            }
            file.write_all_at(&data, offset)?;
            offset += data.len() as u64;
        }
        Ok(file)
    }

    /// Drops copies, the least recently opened first, until another of `size` bytes leaves half of the free space free. Those
    /// that are open give their space back when they are closed.
    fn make_room(&self, dir: &PathBuf, cid: &Cid, size: u64) -> io::Result<()> {
        let space = nix::sys::statvfs::statvfs(dir)?;
        let mut free = space.blocks_available() as u64 * space.fragment_size() as u64;
        let mut copies = self.made.lock();
        while free / 2 < size {
            let is_made = |copy: &Copy| matches!(&*copy.state.borrow(), State::Made(_));
            let oldest = copies.iter().filter(|(other, copy)| *other != cid && is_made(copy));
            let Some(oldest) = oldest.min_by_key(|(_, copy)| copy.used).map(|(cid, _)| cid.clone()) else {
                return Err(io::Error::other(format!(
                    "a copy of {size} bytes would not leave half of {free} bytes free"
                )));
            };
            free += copies.remove(&oldest).map_or(0, |copy| copy.bytes);
        }
        Ok(())
    }
}

/// How a file is opened that is read through us: its pages stay, for its bytes never change.
fn through_us() -> FopenFlags {
    FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
}
