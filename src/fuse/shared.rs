//! What the requests of one mount share, and what goes into their replies.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use tokio::runtime::Handle;

use super::errno::{errno, is_ordinary};
use super::flight::Flights;
use super::options::MountOptions;
use super::requests::RequestCounts;
use super::serving::Copies;
use crate::block::Cid;
use crate::dag::unixfs::Mtime;
use crate::limits::FETCH_PATIENCE;
use crate::prefetch::Prefetch;
use crate::tree::{Attr, Entry, FIRST_CURSOR, FileKind, Inode, Inodes, Listed, Location, ROOT_INODE, Tree, TreeError};

/// How long the kernel may keep what never changes.
pub(super) const FOR_EVER: Duration = Duration::from_hours(365 * 24);
/// Nothing may be kept: the root's listing, and children that could not be had.
pub(super) const NOT_AT_ALL: Duration = Duration::ZERO;
/// Names of the repository may be given to other roots.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Every object has one life only.
pub(super) const GENERATION: Generation = Generation(0);
/// The inode that stands for every child whose block cannot be had: it is listed, and any question about it fails.
const MISSING_INODE: u64 = ROOT_INODE + 1;
/// How many entries are made ready for one reply: what the buffer of `getdents` in the C library holds.
const LISTING_BATCH: usize = 200;
/// What is said of an entry that is not there.
pub(super) const NOTHING: Attr =
    Attr { size: 0, mtime: Mtime { seconds: 0, nanoseconds: 0 }, permissions: 0, kind: FileKind::File };
/// The unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// What requests that outlive their thread hold on to.
pub(super) struct Shared {
    pub tree: Tree,
    pub inodes: Arc<Inodes>,
    pub options: MountOptions,
    pub counts: Arc<RequestCounts>,
    pub flights: Arc<Flights>,
    pub copies: Copies,
    pub prefetch: Prefetch,
    pub runtime: Handle,
    pub owner: (u32, u32),
}

/// An object that a request is about.
pub(super) enum Object {
    Root,
    Inode(Inode),
}

/// An entry of a listing on its way into a reply.
pub(super) struct Row {
    cursor: u64,
    name: Bytes,
    /// `None` for a child that could not be had.
    entry: Option<Entry>,
}

impl Shared {
    /// Runs `op` at once if it can finish at once, else on the runtime, and replies. Where the mount is ending, nothing is
    /// begun. Each fetch in it has its own deadline, from its last progress; all of them together have [`FETCH_PATIENCE`]
    /// times as long, so that no reader waits for ever.
    pub fn answer<T, F>(&self, op: F, reply: impl FnOnce(Result<T, TreeError>) + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, TreeError>> + Send + 'static,
    {
        let Some(flight) = self.flights.begin() else { return reply(Err(TreeError::Stopping)) };
        let mut op = Box::pin(op);
        match op.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => reply(result),
            Poll::Pending => {
                let timeout = self.options.timeout * FETCH_PATIENCE;
                self.runtime.spawn(async move {
                    let late = |_| Err(TreeError::Deadline { seconds: timeout.as_secs() });
                    reply(tokio::time::timeout(timeout, op).await.unwrap_or_else(late));
                    drop(flight);
                });
            }
        }
    }

    pub fn object(&self, number: INodeNo) -> Result<Object, Errno> {
        match number.0 {
            ROOT_INODE => Ok(Object::Root),
            MISSING_INODE => Err(Errno::EIO),
            number => self.inodes.get(number).map(Object::Inode).ok_or(Errno::ESTALE),
        }
    }

    pub fn location(&self, number: INodeNo) -> Result<Location, Errno> {
        match self.object(number)? {
            Object::Root => Err(Errno::EISDIR),
            Object::Inode(inode) => Ok(inode.location),
        }
    }

    pub fn stat(&self, number: u64, attr: &Attr) -> FileAttr {
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

    /// The attributes of the root, whose times say when its listing last changed.
    pub fn root_stat(&self) -> Result<FileAttr, TreeError> {
        let changed = self.tree.root_changed()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mtime = Mtime { seconds: changed.as_secs() as i64, nanoseconds: changed.subsec_nanos() };
        Ok(self.stat(ROOT_INODE, &Attr { size: 0, mtime, permissions: 0o555, kind: FileKind::Directory }))
    }

    pub async fn look_up(&self, directory: &Object, name: &[u8]) -> Result<Entry, TreeError> {
        match directory {
            Object::Root => self.tree.root_lookup(name).await,
            Object::Inode(inode) => self.tree.lookup(&inode.location, name).await,
        }
    }

    /// The next rows of a directory after `cursor`, with what is known of each.
    pub async fn rows(&self, directory: &Object, cursor: u64) -> Result<Vec<Row>, TreeError> {
        let listed = match directory {
            Object::Root => self.tree.root_list(cursor, LISTING_BATCH)?,
            Object::Inode(inode) => self.tree.list(&inode.location, cursor, LISTING_BATCH).await?,
        };
        let attrs = self.tree.attrs(&listed).await;
        let row = |(listed, attr): (Listed, Result<Attr, TreeError>)| {
            let entry = match attr {
                Ok(attr) => Some(Entry { location: listed.location, attr }),
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

/// How long the kernel may keep what `name` in the directory `number` leads to.
pub(super) fn entry_ttl(number: u64, name: &[u8]) -> Duration {
    let may_change = number == ROOT_INODE && std::str::from_utf8(name).is_ok_and(|name| name.parse::<Cid>().is_err());
    if may_change { A_MOMENT } else { FOR_EVER }
}

/// The errno for `error`, which is logged where it is not the plain answer to a question.
pub(super) fn fail(what: &str, error: &TreeError) -> Errno {
    if !is_ordinary(error) {
        let source = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(error = %error, source, "cannot {what}");
    }
    errno(error)
}

impl Object {
    /// How many directories are above.
    pub fn depth(&self) -> u16 {
        match self {
            Object::Root => 0,
            Object::Inode(inode) => inode.depth,
        }
    }
}

/// A reply to READDIR or READDIRPLUS, as far as they differ.
pub(super) trait Listing {
    /// Adds `.` or `..`; true where the reply is full, and the name is not in it.
    fn add_dot(&mut self, shared: &Shared, directory: u64, cursor: u64, name: &str) -> bool;
    /// Adds a row of `directory`, which has `depth` directories above it; true where the reply is full, and the row is
    /// not in it.
    fn add_row(&mut self, shared: &Shared, directory: u64, depth: u16, row: &Row) -> bool;
}

impl Listing for ReplyDirectory {
    fn add_dot(&mut self, _: &Shared, directory: u64, cursor: u64, name: &str) -> bool {
        self.add(INodeNo(directory), cursor, FileType::Directory, name)
    }

    fn add_row(&mut self, _: &Shared, directory: u64, _: u16, row: &Row) -> bool {
        let (number, kind) = match &row.entry {
            Some(entry) => (Inodes::number(directory, &row.name, entry), file_type(entry.attr.kind)),
            None => (MISSING_INODE, FileType::RegularFile),
        };
        self.add(INodeNo(number), row.cursor, kind, OsStr::from_bytes(&row.name))
    }
}

impl Listing for ReplyDirectoryPlus {
    fn add_dot(&mut self, shared: &Shared, directory: u64, cursor: u64, name: &str) -> bool {
        // The kernel takes no more of these two than their names and that they are directories.
        let dot = Attr { size: 0, mtime: Mtime::default(), permissions: 0o555, kind: FileKind::Directory };
        self.add(INodeNo(directory), cursor, name, &NOT_AT_ALL, &shared.stat(directory, &dot), GENERATION)
    }

    fn add_row(&mut self, shared: &Shared, directory: u64, depth: u16, row: &Row) -> bool {
        let name = OsStr::from_bytes(&row.name);
        let numbered = row.entry.as_ref().and_then(|entry| {
            // Too deep a directory is listed like a missing child, and cannot be entered.
            Some((shared.inodes.look_up(directory, depth, &row.name, entry).ok()?, entry.attr))
        });
        let Some((number, attr)) = numbered else {
            let stat = shared.stat(MISSING_INODE, &NOTHING);
            return self.add(INodeNo(MISSING_INODE), row.cursor, name, &NOT_AT_ALL, &stat, GENERATION);
        };
        let stat = shared.stat(number, &attr);
        let ttl = entry_ttl(directory, &row.name);
        let full = self.add(INodeNo(number), row.cursor, name, &ttl, &stat, GENERATION);
        if full {
            // The kernel does not learn of this one, and will not forget it.
            shared.inodes.forget(number, 1);
        }
        full
    }
}

/// Fills a reply with `.`, `..` and `rows`, as far as they come after `cursor` and fit.
pub(super) fn fill(reply: &mut impl Listing, shared: &Shared, directory: u64, depth: u16, cursor: u64, rows: &[Row]) {
    const { assert!(FIRST_CURSOR > 2) };
    for (at, name) in [(1, "."), (2, "..")] {
        if at > cursor && reply.add_dot(shared, directory, at, name) {
            return;
        }
    }
    for row in rows {
        if reply.add_row(shared, directory, depth, row) {
            return;
        }
    }
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
