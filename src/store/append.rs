//! A file that grows at its end, and can be read up to its end at any time.
//!
//! What is appended waits in RAM until there is enough of it for one write. Readers find it there; they never wait for a
//! write, since the lock is not held across I/O. One appender at a time: the segment's own lock sees to that.
//!
//! A write that fails (a full disk) loses nothing: what waited waits on, can be read, and the next flush tries again.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::disk::DiskFile;

/// The file, and what it will hold soon.
#[derive(Debug)]
pub(super) struct AppendFile {
    file: Arc<dyn DiskFile>,
    tail: RwLock<Tail>,
}

#[derive(Debug)]
struct Tail {
    /// The bytes that are in the file.
    written: u64,
    /// What follows them and is being written.
    writing: Bytes,
    /// What follows that.
    waiting: Vec<u8>,
}

impl AppendFile {
    /// Appends to `file` from `end` on.
    pub fn new(file: Arc<dyn DiskFile>, end: u64) -> AppendFile {
        AppendFile { file, tail: RwLock::new(Tail { written: end, writing: Bytes::new(), waiting: Vec::new() }) }
    }

    /// The file below, for what is no appending.
    pub fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Where the next byte will be.
    pub fn end(&self) -> u64 {
        let tail = self.tail.read();
        tail.written + (tail.writing.len() + tail.waiting.len()) as u64
    }

    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        let tail = self.tail.read();
        tail.writing.len() + tail.waiting.len()
    }

    /// The bytes that are in the file.
    pub fn written(&self) -> u64 {
        self.tail.read().written
    }

    /// Appends `parts` as one: whoever reads a part of it finds it in one place.
    pub fn append(&self, parts: &[&[u8]]) {
        let mut tail = self.tail.write();
        for part in parts {
            tail.waiting.extend_from_slice(part);
        }
    }

    /// Appends `head` and `data` and writes them at once, without a copy of `data`, with what waited before them. On
    /// failure they are not appended. Only for one appender at a time.
    pub fn append_written(&self, head: &[u8], data: &[u8]) -> io::Result<()> {
        self.retire()?;
        let (at, waiting) = self.begin();
        let result = self.file.write_at(at, &[&waiting, head, data]);
        let mut tail = self.tail.write();
        if result.is_ok() {
            tail.written += (waiting.len() + head.len() + data.len()) as u64;
            tail.writing = Bytes::new();
        }
        result
    }

    /// Writes what waits. Only for one appender at a time.
    pub fn flush(&self) -> io::Result<()> {
        self.retire()?;
        self.begin();
        self.retire()
    }

    /// Makes what waits the part that is being written.
    fn begin(&self) -> (u64, Bytes) {
        let mut tail = self.tail.write();
        tail.writing = std::mem::take(&mut tail.waiting).into();
        (tail.written, tail.writing.clone())
    }

    /// Writes the part that is being written, or was when a write failed.
    fn retire(&self) -> io::Result<()> {
        let (at, writing) = {
            let tail = self.tail.read();
            (tail.written, tail.writing.clone())
        };
        if writing.is_empty() {
            return Ok(());
        }
        self.file.write_at(at, &[&writing])?;
        let mut tail = self.tail.write();
        tail.written += writing.len() as u64;
        tail.writing = Bytes::new();
        Ok(())
    }

    /// Reads from `offset`: fewer bytes than the buffer takes only where what was appended as one ends.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let available = {
            let tail = self.tail.read();
            let in_file = tail.written;
            let behind_that = in_file + tail.writing.len() as u64;
            if let Some(skip) = offset.checked_sub(behind_that) {
                return Ok(copy(&tail.waiting, skip, buffer));
            }
            if let Some(skip) = offset.checked_sub(in_file) {
                return Ok(copy(&tail.writing, skip, buffer));
            }
            buffer.len().min((in_file - offset) as usize)
        };
        self.file.read_at(offset, &mut buffer[..available])
    }
}

fn copy(from: &[u8], skip: u64, to: &mut [u8]) -> usize {
    let from = from.get(skip as usize..).unwrap_or_default();
    let len = from.len().min(to.len());
    to[..len].copy_from_slice(&from[..len]);
    len
}

#[cfg(test)]
mod tests {
    use super::super::disk::{Access, Disk, RealDisk};
    use super::*;

    #[test]
    fn what_is_appended_is_read_before_and_after_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = RealDisk.open(&dir.path().join("file"), Access::Create).unwrap();
        let file = AppendFile::new(file, 0);
        let read = |offset| {
            let mut buffer = [0; 8];
            let len = file.read_at(offset, &mut buffer).unwrap();
            String::from_utf8(buffer[..len].to_vec()).unwrap()
        };
        file.append(&[b"ab", b"cd"]);
        assert_eq!((read(0), read(3), read(4), file.written()), ("abcd".into(), "d".into(), String::new(), 0));
        file.flush().unwrap();
        file.append(&[b"ef"]);
        assert_eq!((read(1), read(4), file.written()), ("bcd".into(), "ef".into(), 4));
        file.append_written(b"g", b"h").unwrap();
        assert_eq!((read(4), file.waiting(), file.end()), ("efgh".into(), 0, 8));
    }
}
