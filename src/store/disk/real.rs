//! The machine's own filesystem.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{Access, Disk, DiskFile, Lock, LockGuard, Space};

/// The machine's own filesystem.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    file: File,
    direct: bool,
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match access {
            Access::Read => {}
            Access::Direct => {
                let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
                match direct {
                    Ok(file) => return Ok(Arc::new(RealFile { file, direct: true })),
                    // A filesystem that has no direct I/O says so here.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                    Err(error) => return Err(error),
                }
            }
            Access::Write => {
                options.write(true);
            }
            Access::Create => {
                options.write(true).create(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)?, direct: false }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = nix::sys::statvfs::statvfs(dir)?;
        let unit = stat.fragment_size();
        Ok(Space { total: stat.blocks() * unit, available: stat.blocks_available() * unit })
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Lock::Taken(LockGuard(Box::new(file))))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Lock::Busy { pid: text.trim().parse().ok() })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            // A direct read that ends off a sector has reached the file's end.
            if self.direct && !done.is_multiple_of(512) {
                break;
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = &mut slices[..];
        // Empty parts at the front would read as a write of nothing.
        IoSlice::advance_slices(&mut rest, 0);
        let mut offset = offset as i64;
        while !rest.is_empty() {
            match nix::sys::uio::pwritev(&self.file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    offset += len as i64;
                    IoSlice::advance_slices(&mut rest, len);
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_direct(&self) -> bool {
        self.direct
    }

    fn start_writeback(&self, offset: u64, len: u64) {
        sync_range(&self.file, offset, len, libc::SYNC_FILE_RANGE_WRITE);
    }

    fn forget(&self, offset: u64, len: u64) {
        let wait = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        sync_range(&self.file, offset, len, wait);
        // A hint: where it is not taken, the pages stay until the kernel wants the memory.
        let _ = posix_fadvise(&self.file, offset as i64, len as i64, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

/// A hint to the kernel's writeback: its failure is found by the flush that matters, [`DiskFile::sync`].
#[allow(unsafe_code)]
fn sync_range(file: &File, offset: u64, len: u64, flags: libc::c_uint) {
    // SAFETY: the call takes numbers only, and the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset as i64, len as i64, flags) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_parts_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = RealDisk.open(&path, Access::Create).unwrap();
        file.write_at(3, &[b"", b"abc", b"", b"def"]).unwrap();
        assert_eq!(file.len().unwrap(), 9);
        let mut buffer = [0; 16];
        assert_eq!(file.read_at(2, &mut buffer).unwrap(), 7);
        assert_eq!(&buffer[..7], b"\0abcdef");
    }

    #[test]
    fn a_lock_is_one_process_s_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Lock::Taken(guard) = RealDisk.lock(&path).unwrap() else { panic!("the lock is free") };
        let Lock::Busy { pid } = RealDisk.lock(&path).unwrap() else { panic!("the lock is taken") };
        assert_eq!(pid, Some(std::process::id()));
        drop(guard);
        assert!(matches!(RealDisk.lock(&path).unwrap(), Lock::Taken(_)));
    }
}
