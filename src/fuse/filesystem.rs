//! Requests of the kernel, and their replies.
//!
//! What is on this machine is answered on the thread that received the request: the tree's future is polled once, and is
//! ready. Only a miss goes to the async runtime, with its reply and a deadline, so that no reader waits for ever and no FUSE
//! thread waits at all.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyOpen, ReplyStatfs,
    Request,
};
use tokio::runtime::Handle;

use super::errno::{errno, is_ordinary};
use super::options::{MountOptions, Profile};
use super::requests::{RequestCounts, RequestKind};
use crate::dag::unixfs::Mtime;
use crate::fetch::Priority;
use crate::limits::MAX_NAME_BYTES;
use crate::tree::{Attr, Entry, FIRST_CURSOR, FileKind, Inode, Inodes, Listed, Place, ROOT_INODE, Tree, TreeError};

/// How long the kernel may keep what never changes.
const FOR_EVER: Duration = Duration::from_hours(365 * 24);
/// Nothing may be kept: the root's listing, and children that could not be had.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// The inode that stands for every child whose block cannot be had: it is listed, and any question about it fails.
const MISSING_INODE: u64 = ROOT_INODE + 1;
/// Every object has one life only.
const GENERATION: Generation = Generation(0);
/// How many entries are made ready for one reply: what the buffer of `getdents` in the C library holds.
const LISTING_BATCH: usize = 200;
/// Requests that the kernel sends ahead of readers (read-ahead) before it waits for answers.
const MAX_BACKGROUND: u16 = 64;
/// The largest READ: `fs.fuse.max_pages_limit` pages, beyond which the kernel does not go.
const MAX_REQUEST_BYTES: u32 = 1 << 20;
/// The unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// The filesystem of one mount.
pub(super) struct CidFs {
    pub shared: Arc<Shared>,
}

/// What requests that outlive their thread hold on to.
pub(super) struct Shared {
    pub tree: Tree,
    pub inodes: Inodes,
    pub options: MountOptions,
    pub counts: Arc<RequestCounts>,
    pub runtime: Handle,
    pub owner: (u32, u32),
    pub mounted: SystemTime,
}

/// An object that a request is about.
enum Object {
    Root,
    Inode(Inode),
}

/// An entry of a listing on its way into a reply.
struct Row {
    cursor: u64,
    name: Bytes,
    /// `None` for a child that could not be had.
    entry: Option<Entry>,
}

impl Shared {
    /// Runs `op` at once if it can finish at once, else on the runtime, and replies.
    fn answer<T, F>(&self, op: F, reply: impl FnOnce(Result<T, TreeError>) + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TreeError>> + Send + 'static,
    {
        let mut op = Box::pin(op);
        match op.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => reply(result),
            Poll::Pending => {
                let timeout = self.options.timeout;
                self.runtime.spawn(async move {
                    let late = |_| Err(TreeError::Deadline { seconds: timeout.as_secs() });
                    reply(tokio::time::timeout(timeout, op).await.unwrap_or_else(late));
                });
            }
        }
    }

    fn object(&self, number: INodeNo) -> Result<Object, Errno> {
        match number.0 {
            ROOT_INODE => Ok(Object::Root),
            MISSING_INODE => Err(Errno::EIO),
            number => self.inodes.get(number).map(Object::Inode).ok_or(Errno::ESTALE),
        }
    }

    fn place(&self, number: INodeNo) -> Result<Place, Errno> {
        match self.object(number)? {
            Object::Root => Err(Errno::EISDIR),
            Object::Inode(inode) => Ok(inode.place),
        }
    }

    fn stat(&self, number: u64, attr: &Attr) -> FileAttr {
        let mtime = system_time(attr.mtime);
        FileAttr {
            ino: INodeNo(number),
            size: attr.size,
            blocks: attr.size.div_ceil(STAT_BLOCK_BYTES),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: mtime,
            kind: file_type(attr.kind),
            perm: attr.permissions,
            // One name is shown for each file: a tool must not look for others. A directory's one means "not counted".
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: if attr.kind == FileKind::File { 1 << 20 } else { 4096 },
            flags: 0,
        }
    }

    fn root_stat(&self) -> FileAttr {
        let changed = self.mounted.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mtime = Mtime { seconds: changed.as_secs() as i64, nanoseconds: changed.subsec_nanos() };
        self.stat(ROOT_INODE, &Attr { size: 0, mtime, permissions: 0o555, kind: FileKind::Directory })
    }

    async fn look_up(&self, directory: &Object, name: &[u8]) -> Result<Entry, TreeError> {
        match directory {
            Object::Root => self.tree.root_lookup(name).await,
            Object::Inode(inode) => self.tree.lookup(&inode.place, name).await,
        }
    }

    /// The next rows of a directory after `cursor`, with what is known of each.
    async fn rows(&self, directory: &Object, cursor: u64) -> Result<Vec<Row>, TreeError> {
        let listed = match directory {
            Object::Root => self.tree.root_list(cursor, LISTING_BATCH)?,
            Object::Inode(inode) => self.tree.list(&inode.place, cursor, LISTING_BATCH).await?,
        };
        let attrs = self.tree.attrs(&listed).await;
        let row = |(listed, attr): (Listed, Result<Attr, TreeError>)| {
            let entry = match attr {
                Ok(attr) => Some(Entry { place: listed.place, attr }),
                Err(error) => {
                    fail(&format!("stat {}", String::from_utf8_lossy(&listed.name)), &error);
                    None
                }
            };
            Row { cursor: listed.cursor, name: listed.name, entry }
        };
        Ok(listed.into_iter().zip(attrs).map(row).collect())
    }
}

impl Filesystem for CidFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_MAX_PAGES,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            // Only the root's times ever change, and with them its cached listing.
            InitFlags::FUSE_AUTO_INVAL_DATA,
        ] {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel cannot do it: the mount works, but slower");
            }
        }
        // Either refuses only 0.
        let _ = config.set_max_background(MAX_BACKGROUND);
        let _ = config.set_max_write(MAX_REQUEST_BYTES);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.shared.counts.add(RequestKind::Lookup);
        let directory = match self.shared.object(parent) {
            Ok(directory) => directory,
            Err(errno) => return reply.error(errno),
        };
        let (depth, is_root) = directory.depth();
        let name = Bytes::copy_from_slice(name.as_bytes());
        let shared = self.shared.clone();
        let op = {
            let (shared, name) = (shared.clone(), name.clone());
            async move { shared.look_up(&directory, &name).await }
        };
        self.shared.answer(op, move |found| {
            let entry = found.and_then(|entry| {
                let number = shared.inodes.look_up(parent.0, depth, &name, &entry)?;
                Ok(shared.stat(number, &entry.attr))
            });
            match entry {
                Ok(stat) => reply.entry(&FOR_EVER, &stat, GENERATION),
                // A directory that was read and has no such name never will; only the root changes.
                Err(TreeError::NoEntry { .. }) if !is_root => {
                    let nothing = Attr { size: 0, mtime: Mtime::default(), permissions: 0, kind: FileKind::File };
                    reply.entry(&FOR_EVER, &shared.stat(0, &nothing), GENERATION);
                }
                Err(error) => {
                    reply.error(fail(&format!("look up {}", String::from_utf8_lossy(&name)), &error));
                }
            }
        });
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.shared.counts.add(RequestKind::Forget);
        self.shared.inodes.forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.shared.counts.add(RequestKind::Getattr);
        match self.shared.object(number) {
            Ok(Object::Root) => reply.attr(&NOT_AT_ALL, &self.shared.root_stat()),
            Ok(Object::Inode(inode)) => reply.attr(&FOR_EVER, &self.shared.stat(number.0, &inode.attr)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        self.shared.counts.add(RequestKind::Readlink);
        let place = match self.shared.place(number) {
            Ok(place) => place,
            Err(errno) => return reply.error(errno),
        };
        let tree = self.shared.tree.clone();
        self.shared.answer(async move { tree.read_link(&place).await }, move |target| match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(fail("read a symbolic link", &error)),
        });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.shared.counts.add(RequestKind::Open);
        match self.shared.options.profile {
            // The kernel never asks again, and keeps every file's pages.
            Profile::Training => reply.error(Errno::ENOSYS),
            Profile::Serving => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.shared.counts.add(RequestKind::Read);
        let place = match self.shared.place(number) {
            Ok(place) => place,
            Err(errno) => return reply.error(errno),
        };
        let tree = self.shared.tree.clone();
        let op = async move { tree.read(&place, offset, size as usize, Priority::Demand).await };
        self.shared.answer(op, move |data| match data {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(fail(&format!("read {size} bytes at {offset}"), &error)),
        });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.shared.counts.add(RequestKind::Opendir);
        reply.error(Errno::ENOSYS);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, cursor: u64, mut reply: ReplyDirectory) {
        self.shared.counts.add(RequestKind::Readdir);
        let directory = match self.shared.object(number) {
            Ok(directory) => directory,
            Err(errno) => return reply.error(errno),
        };
        let shared = self.shared.clone();
        let op = {
            let shared = shared.clone();
            async move { shared.rows(&directory, cursor).await }
        };
        self.shared.answer(op, move |rows| match rows {
            Ok(rows) => {
                let mut full = dots(cursor).any(|(at, name)| reply.add(number, at, FileType::Directory, name));
                for row in rows {
                    full = full || {
                        let (inode, kind) = match &row.entry {
                            Some(entry) => (Inodes::number(number.0, &row.name, entry), file_type(entry.attr.kind)),
                            None => (MISSING_INODE, FileType::RegularFile),
                        };
                        reply.add(INodeNo(inode), row.cursor, kind, OsStr::from_bytes(&row.name))
                    };
                }
                reply.ok();
            }
            Err(error) => reply.error(fail("list a directory", &error)),
        });
    }

    fn readdirplus(&self, _: &Request, number: INodeNo, _: FileHandle, cursor: u64, mut reply: ReplyDirectoryPlus) {
        self.shared.counts.add(RequestKind::Readdirplus);
        let directory = match self.shared.object(number) {
            Ok(directory) => directory,
            Err(errno) => return reply.error(errno),
        };
        let (depth, _) = directory.depth();
        let shared = self.shared.clone();
        let op = {
            let shared = shared.clone();
            async move { shared.rows(&directory, cursor).await }
        };
        self.shared.answer(op, move |rows| match rows {
            Ok(rows) => {
                // The kernel takes no more of these two than their names and that they are directories.
                let dot = Attr { size: 0, mtime: Mtime::default(), permissions: 0o555, kind: FileKind::Directory };
                let dot = shared.stat(number.0, &dot);
                let mut full =
                    dots(cursor).any(|(at, name)| reply.add(number, at, name, &NOT_AT_ALL, &dot, GENERATION));
                for row in rows {
                    if full {
                        break;
                    }
                    full = shared.add_row(&mut reply, number.0, depth, &row);
                }
                reply.ok();
            }
            Err(error) => reply.error(fail("list a directory", &error)),
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.shared.counts.add(RequestKind::Statfs);
        reply.statfs(0, 0, 0, 0, 0, 4096, MAX_NAME_BYTES as u32, 4096);
    }
}

impl Shared {
    /// Adds a row to a READDIRPLUS reply; true where it is full, and the row is not in it.
    fn add_row(&self, reply: &mut ReplyDirectoryPlus, parent: u64, depth: u16, row: &Row) -> bool {
        let name = OsStr::from_bytes(&row.name);
        let numbered = row.entry.as_ref().and_then(|entry| {
            // Too deep a directory is listed like a missing one, and cannot be entered.
            Some((self.inodes.look_up(parent, depth, &row.name, entry).ok()?, entry.attr))
        });
        let Some((number, attr)) = numbered else {
            let unknown = Attr { size: 0, mtime: Mtime::default(), permissions: 0, kind: FileKind::File };
            let stat = self.stat(MISSING_INODE, &unknown);
            return reply.add(INodeNo(MISSING_INODE), row.cursor, name, &NOT_AT_ALL, &stat, GENERATION);
        };
        let stat = self.stat(number, &attr);
        let full = reply.add(INodeNo(number), row.cursor, name, &FOR_EVER, &stat, GENERATION);
        if full {
            self.inodes.forget(number, 1);
        }
        full
    }
}

/// The errno for `error`, which is logged where it is not the plain answer to a question.
fn fail(what: &str, error: &TreeError) -> Errno {
    if !is_ordinary(error) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(error = %error, source, "cannot {what}");
    }
    errno(error)
}

impl Object {
    /// How many directories are above, and whether this is the root.
    fn depth(&self) -> (u16, bool) {
        match self {
            Object::Root => (0, true),
            Object::Inode(inode) => (inode.depth, false),
        }
    }
}

/// `.` and `..`, as far as they come after `cursor`.
fn dots(cursor: u64) -> impl Iterator<Item = (u64, &'static str)> {
    const { assert!(FIRST_CURSOR > 2) };
    [(1, "."), (2, "..")].into_iter().filter(move |(at, _)| *at > cursor)
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Directory => FileType::Directory,
        FileKind::File => FileType::RegularFile,
        FileKind::Symlink => FileType::Symlink,
    }
}

/// A time as `SystemTime`. Before 1970 the fraction is dropped: on its way to the kernel it would change its meaning.
fn system_time(time: Mtime) -> SystemTime {
    if time.seconds >= 0 {
        let since = Duration::new(time.seconds as u64, time.nanoseconds);
        UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(time.seconds.unsigned_abs())).unwrap_or(UNIX_EPOCH)
    }
}
