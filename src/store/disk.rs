//! The seam between the store and the filesystem.
//!
//! The store does all its I/O through [`Disk`] and [`DiskFile`], so that a test can put a disk below it that records,
//! fails, fills up or forgets what was not flushed. [`RealDisk`] is the machine's own.
//!
//! What the store relies on, as POSIX filesystems promise it: written bytes survive power loss once [`DiskFile::sync`]
//! returned; a new file's name once [`Disk::sync_dir`] returned for its directory; bytes that were written and not
//! flushed may be there, not there, or there in part. A file that was removed while it is open can still be read.

mod real;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use self::real::RealDisk;

/// A filesystem.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Makes a directory and those above it, readable by its owner alone.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in a directory, in any order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name in the same directory; a file of that name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// How full the filesystem of a directory is.
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Takes the lock file at `path` for this process, for as long as the guard lives, and writes the process's number
    /// into it.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// An open file. Reads and writes give their offset, so that threads share it freely.
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset`; fewer bytes only at the file's end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes the parts one after the other from `offset` on.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable, with the file's length.
    fn sync(&self) -> io::Result<()>;

    /// Whether reads bypass the page cache: offset, length and memory must then be multiples of [`ALIGNMENT`].
    fn is_direct(&self) -> bool {
        false
    }

    /// Begins to write a range to the disk without waiting: a hint.
    fn start_writeback(&self, _offset: u64, _len: u64) {}

    /// Waits until a range is written, and drops its pages from the page cache: a hint.
    fn forget(&self, _offset: u64, _len: u64) {}
}

/// What direct reads align to: the page size, and a multiple of every common sector size.
pub const ALIGNMENT: usize = 4096;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read through the page cache.
    Read,
    /// To read past the page cache where the filesystem can; [`DiskFile::is_direct`] says whether it does.
    Direct,
    /// To read and write.
    Write,
    /// To read and write a file that is made where there is none, readable by its owner alone.
    Create,
}

/// How full a filesystem is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still write.
    pub available: u64,
}

/// What came of taking a lock.
#[derive(Debug)]
pub enum Lock {
    /// It is ours until the guard is dropped.
    Taken(LockGuard),
    /// Another process has it.
    Busy {
        /// That process, where it wrote its number.
        pid: Option<u32>,
    },
}

/// Holds a lock until it is dropped.
pub struct LockGuard(pub Box<dyn Any + Send + Sync>);

impl Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}
