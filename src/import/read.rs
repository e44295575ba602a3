//! Reading files: opened once, read by offset, and checked at the end to be what they were at the start.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ImportError;
use super::walk::{Stat, special};

/// A file that is being read.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    path: PathBuf,
    stamp: Stamp,
    pub stat: Stat,
}

/// What of a file's metadata changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp {
            bytes: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl OpenFile {
    /// Opens the regular file at `path`. A symbolic link is followed only if `follow`; what took the file's place since
    /// it was listed (a link, a pipe) is an error.
    pub fn open(path: PathBuf, follow: bool) -> Result<OpenFile, ImportError> {
        let flags = if follow { libc::O_NONBLOCK } else { libc::O_NONBLOCK | libc::O_NOFOLLOW };
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
        let file = match opened {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) && !follow => {
                return Err(ImportError::Changed { path, how: "it became a symbolic link".into() });
            }
            opened => opened.map_err(|error| ImportError::io("read", &path, error))?,
        };
        let metadata = file.metadata().map_err(|error| ImportError::io("read", &path, error))?;
        if !metadata.is_file() {
            return Err(ImportError::Special { path, kind: special(metadata.file_type()) });
        }
        Ok(OpenFile { stamp: Stamp::of(&metadata), stat: Stat::of(&metadata), file, path })
    }

    /// The size when the file was opened.
    pub fn bytes(&self) -> u64 {
        self.stamp.bytes
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `buffer` from `offset`, or up to the end of the file; says how much it read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, ImportError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ImportError::io("read", &self.path, error)),
            }
        }
        Ok(filled)
    }

    /// Fills `buffer` from `offset`; a file that ends before was cut short since it was opened.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), ImportError> {
        let read = self.read_at(buffer, offset)?;
        if read == buffer.len() {
            return Ok(());
        }
        let how = format!("it ended after {} of {} bytes", offset + read as u64, self.bytes());
        Err(ImportError::Changed { path: self.path.clone(), how })
    }

    /// Reads the file from its start.
    pub fn reader(&self) -> impl io::Read {
        &self.file
    }

    /// Fails unless the file is still what it was when it was opened.
    pub fn check_unchanged(&self) -> Result<(), ImportError> {
        let metadata = self.file.metadata().map_err(|error| ImportError::io("read", &self.path, error))?;
        let now = Stamp::of(&metadata);
        if now == self.stamp {
            return Ok(());
        }
        let how = if now.bytes == self.stamp.bytes {
            "its times did".to_owned()
        } else {
            format!("it had {} bytes and then {}", self.stamp.bytes, now.bytes)
        };
        Err(ImportError::Changed { path: self.path.clone(), how })
    }
}
