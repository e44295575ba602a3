//! Putting bytes and names into the kernel's caches before anybody asks.
//!
//! Bytes go with `FUSE_NOTIFY_STORE`, which takes them for any inode that the kernel knows. It waits for the lock of a page that
//! somebody is reading, so it is never called from a thread that answers requests.
//!
//! Names cannot be given to the kernel: it asks for them. So a directory is listed through the mount itself, as any program
//! would, and the kernel asks READDIRPLUS of us. A process that waits for its own filesystem could not be killed: the wait ends
//! when the connection's descriptor is closed, and that stays open while the thread that waits shares it. So the listing is
//! done on a thread that has given up this process's descriptors.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fuser::{INodeNo, Notifier};

use crate::prefetch::Push;

/// The memory for one answer of getdents, in bytes: some thousand names.
const NAMES_BYTES: usize = 256 << 10;
/// Where the name begins in an entry of getdents, after its inode, position, length and type.
const NAME_OFFSET: usize = 19;
const LENGTH_OFFSET: usize = 16;

/// The kernel's caches of one mount.
pub(super) struct KernelCaches {
    mountpoint: PathBuf,
    /// There once the connection is.
    notifier: OnceLock<Notifier>,
}

impl KernelCaches {
    pub fn new(mountpoint: PathBuf) -> KernelCaches {
        KernelCaches { mountpoint, notifier: OnceLock::new() }
    }

    /// The connection is there.
    pub fn connect(&self, notifier: Notifier) {
        // Connected once.
        let _ = self.notifier.set(notifier);
    }
}

impl Push for KernelCaches {
    fn store(&self, inode: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.notifier.get() {
            Some(notifier) => notifier.store(INodeNo(inode), offset, data),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn introduce(&self, directory: &Path) -> io::Result<()> {
        let path = self.mountpoint.join(directory);
        let listing = std::thread::Builder::new().name("cidfs-names".into()).spawn(move || {
            give_up_descriptors()?;
            list(&path)
        })?;
        listing.join().map_err(|_| io::Error::other("the thread that lists has panicked"))?
    }
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but the standard ones.
fn give_up_descriptors() -> io::Result<()> {
    // SAFETY: the call takes a number only. This thread owns nothing yet that a descriptor of the shared table stands for.
    if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only; the table is this thread's own, so no other thread loses a descriptor.
    if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lists a directory, so that the kernel asks for all of its names with their attributes.
fn list(path: &Path) -> io::Result<()> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = File::options().read(true).custom_flags(flags).open(path)?;
    let mut entries = vec![0_u8; NAMES_BYTES];
    loop {
        // SAFETY: the buffer is ours and as long as is said.
        let read =
            unsafe { libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), entries.as_mut_ptr(), entries.len()) };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        if read == 0 {
            return Ok(());
        }
        // The kernel goes on asking for attributes with the names where somebody looks at one of them.
        if let Some(name) = names(&entries[..read]).find(|name| *name != c"." && *name != c"..") {
            let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
            // SAFETY: the name is a C string, and the result is written to memory of its size; it is not looked at.
            unsafe {
                libc::fstatat(directory.as_raw_fd(), name.as_ptr(), stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW)
            };
        }
    }
}

/// The names in an answer of getdents.
fn names(mut entries: &[u8]) -> impl Iterator<Item = &CStr> {
    std::iter::from_fn(move || {
        let length = entries.get(LENGTH_OFFSET..LENGTH_OFFSET + 2)?;
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let (entry, rest) = entries.split_at_checked(length)?;
        entries = rest;
        CStr::from_bytes_until_nul(entry.get(NAME_OFFSET..)?).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_lists_leaves_the_others_their_files() {
        let directory = tempfile::tempdir().unwrap();
        for name in 0..5000 {
            File::create(directory.path().join(format!("a rather long name, number {name}"))).unwrap();
        }
        let kept = File::open(directory.path()).unwrap();
        let caches = KernelCaches::new(directory.path().to_owned());
        caches.introduce(Path::new("")).unwrap();
        assert!(kept.metadata().is_ok(), "its descriptor is still open");
        assert!(caches.introduce(Path::new("none")).is_err());
        assert_eq!(caches.store(1, 0, b"").unwrap_err().kind(), io::ErrorKind::NotConnected);
    }
}
