//! A segment that still grows: appending records, making them durable, and sealing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{PAYLOAD_START, RECORDS_START, Segment, Shelf, prefix};
use crate::block::Block;
use crate::dag::car;
use crate::limits::{CHECKSUM_PIECE_BYTES, MAX_RECORD_CID_BYTES, MAX_SEGMENT_RECORDS, SEGMENT_TAIL_BYTES};
use crate::store::StoreError;
use crate::store::append::AppendFile;
use crate::store::disk::{Access, DiskFile};
use crate::store::table::{self, FOOTER_BYTES, Footer, MAX_ENTRY_BYTES};

/// Written bytes after which the disk is told to begin.
const WRITEBACK_STEP_BYTES: u64 = 8 << 20;

/// What sealing adds for a record of a digest of 32 bytes, and beside, in bytes: so that budgets are kept by what segments will
/// take, and nothing is evicted for what was not foreseen.
const INDEX_RECORD_BYTES: u64 = 40;
const INDEX_HEAD_BYTES: u64 = 64;

/// What appends to a segment.
#[derive(Debug)]
pub(in crate::store) struct Growing {
    /// The segment file.
    pub data: AppendFile,
    /// Its table.
    pub table: AppendFile,
    appender: Mutex<Appender>,
    synced: AtomicU64,
    settled: AtomicU64,
}

#[derive(Debug)]
struct Appender {
    ordinal: u32,
    /// The checksum of the table so far.
    sum: u32,
    /// Up to where the disk was told to begin to write.
    begun: u64,
    /// Nothing more is appended.
    is_full: bool,
    entry: Vec<u8>,
}

/// Where a record was put.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Placed {
    /// Its entry in the table.
    pub position: u32,
    /// Its number in the segment.
    pub ordinal: u32,
}

/// What came of appending.
pub(in crate::store) enum Room {
    /// The record is in.
    Placed(Placed),
    /// The segment is full, and takes nothing more.
    Full,
}

impl Growing {
    /// Makes the files of a new segment.
    pub fn create(shelf: &Shelf, id: u32) -> Result<Growing, StoreError> {
        let create = |path: PathBuf| shelf.disk.open(&path, Access::Create).map_err(StoreError::io("create", &path));
        let data = create(shelf.data_path(id))?;
        let table = create(shelf.table_path(id))?;
        let growing = Growing::resume(data, 0, table, 0, 0, crc32c::crc32c(&table::header(id)));
        growing.data.append(&[&prefix()]);
        growing.table.append(&[&table::header(id)]);
        Ok(growing)
    }

    /// Goes on with the files of a segment, whose records end at `data_end` and whose table's entries, of the checksum
    /// `sum`, end at `table_end`.
    pub fn resume(
        data: Arc<dyn DiskFile>,
        data_end: u64,
        table: Arc<dyn DiskFile>,
        table_end: u64,
        ordinal: u32,
        sum: u32,
    ) -> Growing {
        Growing {
            data: AppendFile::new(data, data_end),
            table: AppendFile::new(table, table_end),
            appender: Mutex::new(Appender { ordinal, sum, begun: data_end, is_full: false, entry: Vec::new() }),
            // What was there when the store was opened may have been written and not flushed.
            synced: AtomicU64::new(0),
            settled: AtomicU64::new(0),
        }
    }

    /// Up to where the file is on the disk and out of the page cache.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    /// Appends a block if the segment stays within `limit` bytes, its table and its index counted, or is empty. On failure the
    /// block is not in it, and what was put before still is.
    pub fn append(&self, segment: &Segment, block: &Block, limit: u64) -> Result<Room, StoreError> {
        let mut appender = self.appender.lock();
        let (cid, data) = (block.cid(), block.data());
        let mut head = SmallVec::<[u8; MAX_RECORD_CID_BYTES + 10]>::new();
        crate::block::write_varint(&mut head, (cid.as_bytes().len() + data.len()) as u64);
        head.extend_from_slice(cid.as_bytes());
        let offset = self.data.end();
        let end = offset + (head.len() + data.len()) as u64;
        let is_full = appender.is_full || appender.ordinal >= MAX_SEGMENT_RECORDS;
        let index = (u64::from(appender.ordinal) + 1) * INDEX_RECORD_BYTES + INDEX_HEAD_BYTES;
        let table = self.table.end() + (MAX_ENTRY_BYTES + FOOTER_BYTES) as u64;
        if is_full || (end + table + index > limit && offset > RECORDS_START) {
            appender.is_full = true;
            return Ok(Room::Full);
        }
        let failed = |path: PathBuf| move |error| StoreError::io("write", &path)(error);
        let sums = table::checksums(data);
        // The table first: after the block is in, nothing may fail.
        if self.table.waiting() >= SEGMENT_TAIL_BYTES / 4 {
            self.table.flush().map_err(failed(segment.shelf.table_path(segment.id)))?;
        }
        if data.len() >= CHECKSUM_PIECE_BYTES {
            self.data.append_written(&head, data).map_err(failed(segment.path()))?;
        } else {
            if self.data.waiting() + head.len() + data.len() > SEGMENT_TAIL_BYTES {
                self.data.flush().map_err(failed(segment.path()))?;
            }
            self.data.append(&[&head, data]);
        }
        let placed = Placed { position: self.table.end() as u32, ordinal: appender.ordinal };
        let mut entry = std::mem::take(&mut appender.entry);
        entry.clear();
        let (head_len, data_len) = (head.len() as u16, data.len() as u32);
        table::write_entry(&mut entry, offset as u32, placed.ordinal, cid, head_len, data_len, &sums);
        self.table.append(&[&entry]);
        appender.sum = crc32c::crc32c_append(appender.sum, &entry);
        appender.entry = entry;
        appender.ordinal += 1;
        segment.records.store(appender.ordinal, Ordering::Release);
        segment.records_end.store(end, Ordering::Release);
        segment.file_bytes.store(end, Ordering::Release);
        segment.table_bytes.store(self.table.end(), Ordering::Release);
        let written = self.data.written();
        if written - appender.begun >= WRITEBACK_STEP_BYTES {
            self.data.file().start_writeback(appender.begun, written - appender.begun);
            appender.begun = written;
        }
        Ok(Room::Placed(placed))
    }

    /// Makes everything that was appended before the call durable, but for the file's name.
    pub fn sync(&self, segment: &Segment) -> Result<(), SyncError> {
        let path = segment.path();
        let end = {
            let _appender = self.appender.lock();
            self.data.flush().map_err(StoreError::io("write", &path)).map_err(SyncError::Write)?;
            self.data.written()
        };
        if self.synced.load(Ordering::Acquire) < end {
            self.data.file().sync().map_err(StoreError::io("flush", &path)).map_err(SyncError::Flush)?;
            self.synced.fetch_max(end, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Drops what is on the disk from the page cache: reads of it go to the disk from now on.
    pub fn settle(&self) {
        let synced = self.synced.load(Ordering::Acquire);
        let settled = self.settled.load(Ordering::Acquire);
        if synced > settled {
            self.data.file().forget(settled, synced - settled);
            self.settled.store(synced, Ordering::Release);
        }
    }

    /// The header and all entries of the table.
    pub fn whole_table(&self) -> io::Result<Vec<u8>> {
        let mut table = vec![0; self.table.end() as usize];
        let mut done = 0;
        while done < table.len() {
            match self.table.read_at(done as u64, &mut table[done..])? {
                0 => break,
                read => done += read,
            }
        }
        table.truncate(done);
        Ok(table)
    }

    /// Ends the table with a footer, once the records are durable. The next start believes it without hashing.
    pub fn finish_table(&self, segment: &Segment) -> Result<(), SyncError> {
        self.sync(segment)?;
        let path = segment.shelf.table_path(segment.id);
        let appender = self.appender.lock();
        // What came in since the flush is not durable, and must not be vouched for.
        if self.data.end() != self.synced.load(Ordering::Acquire) {
            return Ok(());
        }
        self.table.flush().map_err(StoreError::io("write", &path)).map_err(SyncError::Write)?;
        let footer = Footer {
            entries_end: self.table.written(),
            records_end: self.data.written(),
            records: appender.ordinal,
            sum: appender.sum,
        };
        let file = self.table.file();
        let written = file.write_at(footer.entries_end, &[&footer.encode()]);
        written.map_err(StoreError::io("write", &path)).map_err(SyncError::Write)?;
        file.sync().map_err(StoreError::io("flush", &path)).map_err(SyncError::Flush)
    }

    /// Makes a full segment a CARv2 file. Every step can be cut off: until the header is there the segment is an open one
    /// with something behind its records, which the next start cuts off.
    pub fn seal(&self, segment: &Segment) -> Result<(), SyncError> {
        self.appender.lock().is_full = true;
        self.finish_table(segment)?;
        let path = segment.path();
        let write = |offset, bytes: &[u8]| {
            let file = self.data.file();
            file.write_at(offset, &[bytes]).map_err(StoreError::io("write", &path)).map_err(SyncError::Write)?;
            file.sync().map_err(StoreError::io("flush", &path)).map_err(SyncError::Flush)
        };
        let table = self.whole_table().map_err(StoreError::io("read", &segment.shelf.table_path(segment.id)));
        let table = table.map_err(SyncError::Write)?;
        let records_end = self.data.written();
        let offsets =
            table::entries(&table).map(|(_, entry)| (entry.multihash(), u64::from(entry.offset) - PAYLOAD_START));
        let mut index = Vec::new();
        car::index::write_multihash_index_sorted(offsets, &mut index)
            .map_err(StoreError::io("index", &path))
            .map_err(SyncError::Write)?;
        write(records_end, &index)?;
        let header = car::V2Header { fully_indexed: true, ..car::V2Header::contiguous(records_end - PAYLOAD_START) };
        write(0, &header.encode())?;
        self.data.file().forget(0, records_end + index.len() as u64);
        segment.file_bytes.store(records_end + index.len() as u64, Ordering::Release);
        segment.stop_growing();
        Ok(())
    }
}

/// Why records could not be made durable.
#[derive(Debug)]
pub(in crate::store) enum SyncError {
    /// They could not be written: nothing is lost, and the next attempt may succeed.
    Write(StoreError),
    /// They were written and could not be flushed: what reached the disk is unknown.
    Flush(StoreError),
}
