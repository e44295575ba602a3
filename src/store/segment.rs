//! Segments: the files that hold the blocks.
//!
//! A segment file is a CARv1 payload with room for a CARv2 header before it. While it grows, that header is zeros and
//! records are appended. When it is full it is *sealed*: an index is appended, the header is written, and from then on
//! the file never changes and is a CARv2 file that any IPFS tool reads.
//!
//! ```text
//! 0    CARv2 pragma (11 bytes) and header (40 bytes: zeros until sealed)
//! 51   CARv1 header: version 1, no roots (18 bytes)
//! 69   records: varint length, CID, block
//!      once sealed: the index, MultihashIndexSorted
//! ```
//!
//! Beside it lies its [`table`]. Reads go past the page cache where the filesystem can: what is read is
//! about to be in the mount's page cache, and one copy there is enough. Files are opened when they are first read, and the
//! number of open ones is bounded. A segment that is dropped from the store is *doomed*: its files go when its last
//! reader is done.

mod bitmap;
mod growing;
mod recover;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub(super) use self::bitmap::Bitmap;
pub(super) use self::growing::{Growing, Placed, Room, SyncError};
pub(super) use self::recover::{Loaded, load};
use super::StoreError;
use super::buffer::Buffer;
use super::disk::{ALIGNMENT, Access, Disk, DiskFile};
use super::roots::Runs;
use super::table::{self, Entry, MAX_ENTRY_BYTES};
use super::uses::Uses;
use crate::limits::{CHECKSUM_PIECE_BYTES, MAX_OPEN_SEGMENT_FILES};

/// What a CARv2 file begins with.
pub(super) use crate::dag::car::V2_PRAGMA as PRAGMA;
/// Where the CARv1 payload begins.
pub(super) const PAYLOAD_START: u64 = 51;
/// The CARv1 header: dag-cbor of `{"roots": [], "version": 1}` behind its length.
const PAYLOAD_HEADER: [u8; 18] = *b"\x11\xa2\x65roots\x80\x67version\x01";
/// Where the first record begins.
pub(super) const RECORDS_START: u64 = PAYLOAD_START + PAYLOAD_HEADER.len() as u64;

/// What lies before the usual block in its record: a varint of two bytes and a CID of 36.
const USUAL_HEAD_BYTES: u64 = 38;

/// What every segment file begins with until it is sealed.
pub(super) fn prefix() -> [u8; RECORDS_START as usize] {
    let mut prefix = [0; RECORDS_START as usize];
    prefix[..PRAGMA.len()].copy_from_slice(&PRAGMA);
    prefix[PAYLOAD_START as usize..].copy_from_slice(&PAYLOAD_HEADER);
    prefix
}

/// Where segments live, and which of their files are open.
#[derive(Debug)]
pub(super) struct Shelf {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    open: Mutex<VecDeque<Weak<Segment>>>,
}

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number: never used again, even after it is gone.
    pub id: u32,
    shelf: Arc<Shelf>,
    growing: RwLock<Option<Arc<Growing>>>,
    handles: Mutex<Option<Arc<Handles>>>,
    /// How many records it has, dead ones counted.
    pub records: AtomicU32,
    /// Where its records end.
    pub records_end: AtomicU64,
    /// The length of its file.
    pub file_bytes: AtomicU64,
    /// The length of its table.
    pub table_bytes: AtomicU64,
    /// The blocks of the store that lie in it.
    pub live_blocks: AtomicU32,
    /// Their bytes.
    pub live_bytes: AtomicU64,
    /// The records that are no block of the store any more.
    pub dead: Mutex<Bitmap>,
    /// Whose its records are.
    pub runs: Mutex<Runs>,
    /// When it was read.
    pub uses: Arc<Uses>,
    /// Whether it holds damage that keeps it from being a sound CAR file.
    pub is_damaged: AtomicBool,
    doomed: AtomicBool,
}

#[derive(Debug)]
struct Handles {
    data: Arc<dyn DiskFile>,
    table: Arc<dyn DiskFile>,
}

/// An entry as it was read from a table.
pub(super) struct FoundEntry {
    bytes: [u8; MAX_ENTRY_BYTES],
    len: usize,
}

impl FoundEntry {
    /// The entry.
    pub fn entry(&self) -> Option<Entry<'_>> {
        Entry::parse(&self.bytes[..self.len])
    }
}

impl Shelf {
    /// The shelf in `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Shelf {
        Shelf { disk, dir, open: Mutex::default() }
    }

    /// The file of a segment.
    pub fn data_path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id:08}.car"))
    }

    /// The file of a segment's table.
    pub fn table_path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id:08}.table"))
    }

    /// Counts a segment's files as open, and closes those of the one that was opened first where there are too many.
    fn opened(&self, segment: &Arc<Segment>) {
        let closed = {
            let mut open = self.open.lock();
            open.push_back(Arc::downgrade(segment));
            if open.len() > MAX_OPEN_SEGMENT_FILES { open.pop_front() } else { None }
        };
        if let Some(segment) = closed.and_then(|closed| closed.upgrade()) {
            drop(segment.handles.lock().take());
        }
    }
}

impl Segment {
    /// A segment whose files are there.
    pub fn new(shelf: Arc<Shelf>, id: u32, growing: Option<Arc<Growing>>) -> Segment {
        Segment {
            id,
            shelf,
            growing: RwLock::new(growing),
            handles: Mutex::new(None),
            records: AtomicU32::new(0),
            records_end: AtomicU64::new(RECORDS_START),
            file_bytes: AtomicU64::new(RECORDS_START),
            table_bytes: AtomicU64::new(0),
            live_blocks: AtomicU32::new(0),
            live_bytes: AtomicU64::new(0),
            dead: Mutex::default(),
            runs: Mutex::default(),
            uses: Arc::default(),
            is_damaged: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
        }
    }

    /// Where it lies, for people.
    pub fn path(&self) -> PathBuf {
        self.shelf.data_path(self.id)
    }

    /// What a record is used with: its root, or the segment where it has none.
    pub fn owner(&self, ordinal: u32) -> Arc<Uses> {
        self.runs.lock().of(ordinal).map_or_else(|| self.uses.clone(), |root| root.uses.clone())
    }

    /// What appends to it, while it grows.
    pub fn growing(&self) -> Option<Arc<Growing>> {
        self.growing.read().clone()
    }

    /// It is sealed: from now on it is read like any other.
    pub fn stop_growing(&self) {
        *self.growing.write() = None;
    }

    /// Its files are removed when nobody reads it any more.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    /// Counts a block as one of the store's.
    pub fn count(&self, data_len: u32) {
        self.live_blocks.fetch_add(1, Ordering::Relaxed);
        self.live_bytes.fetch_add(u64::from(data_len), Ordering::Relaxed);
    }

    /// Counts a block as gone.
    pub fn discount(&self, data_len: u32) {
        self.live_blocks.fetch_sub(1, Ordering::Relaxed);
        self.live_bytes.fetch_sub(u64::from(data_len), Ordering::Relaxed);
    }

    /// What it takes on the disk, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed) + self.table_bytes.load(Ordering::Relaxed)
    }

    /// The share of its records that are blocks of the store.
    pub fn live_share(&self) -> f64 {
        let all = self.records_end.load(Ordering::Relaxed).saturating_sub(RECORDS_START);
        if all == 0 { 1.0 } else { (self.live_record_bytes() as f64 / all as f64).min(1.0) }
    }

    /// What its records that are no block of the store take, in bytes.
    pub fn dead_bytes(&self) -> u64 {
        self.records_end.load(Ordering::Relaxed).saturating_sub(RECORDS_START + self.live_record_bytes())
    }

    fn live_record_bytes(&self) -> u64 {
        let blocks = u64::from(self.live_blocks.load(Ordering::Relaxed));
        self.live_bytes.load(Ordering::Relaxed) + blocks * USUAL_HEAD_BYTES
    }

    /// Reads an entry of the table.
    pub fn entry(self: &Arc<Self>, position: u32) -> Result<FoundEntry, StoreError> {
        let mut found = FoundEntry { bytes: [0; MAX_ENTRY_BYTES], len: 0 };
        let read = match self.growing() {
            Some(growing) => growing.table.read_at(u64::from(position), &mut found.bytes),
            None => self.handles()?.table.read_at(u64::from(position), &mut found.bytes),
        };
        found.len = read.map_err(StoreError::io("read", &self.shelf.table_path(self.id)))?;
        Ok(found)
    }

    /// The whole table up to its last entry, and where that ends.
    pub fn whole_table(self: &Arc<Self>) -> Result<Vec<u8>, StoreError> {
        let path = self.shelf.table_path(self.id);
        let read = |file: &dyn DiskFile, len: u64| {
            let mut bytes = vec![0; len as usize];
            let read = file.read_at(0, &mut bytes)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        let bytes: io::Result<Vec<u8>> = if let Some(growing) = self.growing() {
            growing.whole_table()
        } else {
            let table = self.handles()?.table.clone();
            table.len().and_then(|len| read(&*table, len.saturating_sub(table::FOOTER_BYTES as u64)))
        };
        bytes.map_err(StoreError::io("read", &path))
    }

    /// The bytes `from..to` of an entry's block, read from the disk and checked. `None` where they are damaged.
    pub fn block(
        self: &Arc<Self>,
        entry: &Entry<'_>,
        from: usize,
        to: usize,
    ) -> Result<Option<(Bytes, usize)>, StoreError> {
        let sums = entry.sums();
        let first = from / CHECKSUM_PIECE_BYTES;
        let last = to.div_ceil(CHECKSUM_PIECE_BYTES);
        let start = first * CHECKSUM_PIECE_BYTES;
        let end = (last * CHECKSUM_PIECE_BYTES).min(entry.data_len as usize);
        let data_at = u64::from(entry.offset) + u64::from(entry.head_len);
        let Some((data, memory)) = self.read(data_at + start as u64, end - start)? else { return Ok(None) };
        let sound = data.chunks(CHECKSUM_PIECE_BYTES).map(crc32c::crc32c).eq(sums[first..last].iter().copied());
        Ok(sound.then(|| (data.slice(from - start..to - start), memory)))
    }

    /// Bytes of the segment file, and the memory that holds them. `None` where the file ends before they do.
    pub fn read(self: &Arc<Self>, offset: u64, len: usize) -> Result<Option<(Bytes, usize)>, StoreError> {
        let mut buffer = Buffer::new(len);
        let growing = self.growing().filter(|growing| offset + len as u64 > growing.settled());
        let handles;
        let (skip, read) = if let Some(growing) = growing {
            (0, growing.data.read_at(offset, buffer.aligned(len)))
        } else {
            handles = self.handles()?;
            if handles.data.is_direct() {
                let skip = (offset % ALIGNMENT as u64) as usize;
                let span = (skip + len).next_multiple_of(ALIGNMENT);
                (skip, handles.data.read_at(offset - skip as u64, buffer.aligned(span)))
            } else {
                let read = handles.data.read_at(offset, buffer.aligned(len));
                handles.data.forget(offset, len as u64);
                (0, read)
            }
        };
        let read = read.map_err(StoreError::io("read", &self.path()))?;
        let memory = buffer.capacity();
        Ok((read >= skip + len).then(|| (buffer.into_bytes(skip, len), memory)))
    }

    fn handles(self: &Arc<Self>) -> Result<Arc<Handles>, StoreError> {
        if let Some(handles) = &*self.handles.lock() {
            return Ok(handles.clone());
        }
        let open = |path: &Path, access| self.shelf.disk.open(path, access).map_err(StoreError::io("open", path));
        let data = open(&self.path(), Access::Direct)?;
        let table = open(&self.shelf.table_path(self.id), Access::Read)?;
        let handles = Arc::new(Handles { data, table });
        // Two threads may open at once: the second one's handles stay.
        *self.handles.lock() = Some(handles.clone());
        self.shelf.opened(self);
        Ok(handles)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Relaxed) {
            return;
        }
        // The table goes first: a segment without one can be read, a table without a segment is rubbish.
        for path in [self.shelf.table_path(self.id), self.path()] {
            if let Err(error) = self.shelf.disk.remove(&path) {
                tracing::warn!("cannot remove {}: {error}; it is found again at the next start", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_a_carv2_pragma_and_a_carv1_header() {
        let prefix = prefix();
        assert_eq!(prefix[0] as usize, PRAGMA.len() - 1);
        assert_eq!(prefix[PAYLOAD_START as usize] as usize, PAYLOAD_HEADER.len() - 1);
        let header: std::collections::BTreeMap<String, ipld_core::ipld::Ipld> =
            serde_ipld_dagcbor::from_slice(&PAYLOAD_HEADER[1..]).unwrap();
        assert_eq!(header["version"], ipld_core::ipld::Ipld::Integer(1));
        assert_eq!(header["roots"], ipld_core::ipld::Ipld::List(Vec::new()));
    }
}
