//! Where bytes go so that a reader need not ask for them: the seam to the kernel's page cache.

use std::io;
use std::path::Path;

/// A cache in front of readers, which answers them without asking us.
///
/// It is a hint each time: what is pushed may be dropped before it is read, and a file that nobody knows any more takes
/// nothing. Calls block, and are made from threads that answer no reader.
pub trait Push: Send + Sync + 'static {
    /// Puts `data` into the cache as the bytes of the file `inode` from `offset` on. They must not go past the size that was
    /// told of the file, and must either end there or at a whole page.
    fn store(&self, inode: u64, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the names in `directory`, a path below the mountpoint, known in front of us, as listing it does: only files that
    /// are known can be pushed.
    fn introduce(&self, directory: &Path) -> io::Result<()>;
}

/// What pushed ranges begin at, where not with the file, in bytes: a page.
pub const PAGE_BYTES: u64 = 4096;
