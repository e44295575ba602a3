//! Taking up a segment when the store is opened.
//!
//! A sealed segment with a sound table is taken as the table says. Where the table is missing or damaged it is made again
//! by hashing the segment. A segment that still grew is hashed from where its table's footer ends (or from its first
//! record, after an unclean end): what was torn at its end is cut off, and it grows on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Growing, PAYLOAD_START, PRAGMA, RECORDS_START, Segment, Shelf, prefix};
use crate::block::{Block, Cid, read_varint};
use crate::limits::{MAX_BLOCK_BYTES, MAX_RECORD_CID_BYTES};
use crate::store::StoreError;
use crate::store::disk::{Access, DiskFile};
use crate::store::table::{self, Footer};

/// What is read at once of a segment that is hashed: two records of the largest size.
const WINDOW_BYTES: usize = 2 * (MAX_BLOCK_BYTES + MAX_RECORD_CID_BYTES + 10);

/// A segment as it was found.
pub(in crate::store) struct Loaded {
    /// The segment, its counts of live blocks not yet set.
    pub segment: Arc<Segment>,
    /// The header and entries of its table.
    pub table: Vec<u8>,
}

/// Takes up a segment. `None` where the file is none of ours, which is left alone, or has no record, and is removed.
pub(in crate::store) fn load(shelf: &Arc<Shelf>, id: u32) -> Result<Option<Loaded>, StoreError> {
    let (data_path, table_path) = (shelf.data_path(id), shelf.table_path(id));
    let open = |path, access| shelf.disk.open(path, access).map_err(StoreError::io("open", path));
    let reading = |path| StoreError::io("read", path);
    let table_file = match shelf.disk.open(&table_path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        file => Some(file.map_err(StoreError::io("open", &table_path))?),
    };
    let mut table = table_file.map_or(Ok(Vec::new()), |file| read_all(&*file)).map_err(reading(&table_path))?;
    let footer = Footer::check(&table, id);
    let data = open(&data_path, Access::Read)?;
    let file_bytes = data.len().map_err(reading(&data_path))?;
    let mut head = [0; RECORDS_START as usize];
    let head_len = data.read_at(0, &mut head).map_err(reading(&data_path))?;
    let sealed_end = sealed_end(&head[..head_len], file_bytes);
    let footer = footer.filter(|footer| footer.records_end <= sealed_end.unwrap_or(file_bytes));
    table.truncate(footer.map_or(0, |footer| footer.entries_end as usize));

    let segment = |growing, records, records_end, file_bytes, table: &[u8]| {
        let segment = Segment::new(shelf.clone(), id, growing);
        segment.table_bytes.store(table.len() as u64, Ordering::Relaxed);
        segment.records.store(records, Ordering::Relaxed);
        segment.records_end.store(records_end, Ordering::Relaxed);
        segment.file_bytes.store(file_bytes, Ordering::Relaxed);
        segment
    };
    // The usual case: nothing but the table is read.
    if let (Some(footer), Some(end)) = (footer, sealed_end)
        && footer.records_end == end
    {
        let segment = segment(None, footer.records, end, file_bytes, &table);
        return Ok(Some(Loaded { segment: Arc::new(segment), table }));
    }

    let mut scan = Scan {
        table: if table.is_empty() { table::header(id).to_vec() } else { table },
        records: footer.map_or(0, |footer| footer.records),
        records_end: footer.map_or(RECORDS_START, |footer| footer.records_end),
        damaged: 0,
    };
    scan.run(&*data, sealed_end.unwrap_or(file_bytes)).map_err(reading(&data_path))?;
    if scan.records == 0 {
        let is_ours = head_len < head.len() || head.starts_with(&PRAGMA) || head == [0; RECORDS_START as usize];
        if !is_ours || scan.damaged > 0 || sealed_end.is_some() {
            tracing::warn!("{} has no sound record and is left alone", data_path.display());
            return Ok(None);
        }
        for path in [&table_path, &data_path] {
            match shelf.disk.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(error));
                }
                _ => {}
            }
        }
        return Ok(None);
    }
    if scan.damaged > 0 {
        tracing::warn!("{}: {} damaged records are dropped", data_path.display(), scan.damaged);
    }
    let loaded = if let Some(end) = sealed_end {
        rewrite_table(shelf, id, &scan, end)?;
        segment(None, scan.records, end, file_bytes, &scan.table)
    } else {
        let growing = resume(shelf, id, &scan, footer.is_some(), &head, file_bytes)?;
        segment(Some(Arc::new(growing)), scan.records, scan.records_end, scan.records_end, &scan.table)
    };
    let is_whole = scan.damaged == 0 && sealed_end.is_none_or(|end| end == scan.records_end);
    loaded.is_damaged.store(!is_whole, Ordering::Relaxed);
    Ok(Some(Loaded { segment: Arc::new(loaded), table: scan.table }))
}

/// Where the records of a sealed segment end, as its header says. `None` where it is not sealed.
fn sealed_end(head: &[u8], file_bytes: u64) -> Option<u64> {
    let field = |at: usize| head.get(at..at + 8)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if !head.starts_with(&PRAGMA) {
        return None;
    }
    let (start, len, index) = (field(27)?, field(35)?, field(43)?);
    let end = start.checked_add(len)?;
    (start == PAYLOAD_START && end == index && end >= RECORDS_START && end <= file_bytes).then_some(end)
}

fn read_all(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    // The longest table that a writer makes; a longer file is no table.
    let len = file.len()?.min(256 << 20) as usize;
    let mut bytes = vec![0; len];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a sealed segment's table anew.
fn rewrite_table(shelf: &Shelf, id: u32, scan: &Scan, records_end: u64) -> Result<(), StoreError> {
    let path = shelf.table_path(id);
    let file = shelf.disk.open(&path, Access::Create).map_err(StoreError::io("open", &path))?;
    let footer = Footer {
        entries_end: scan.table.len() as u64,
        records_end,
        records: scan.records,
        sum: crc32c::crc32c(&scan.table),
    };
    let written = file.set_len(0).and_then(|()| file.write_at(0, &[&scan.table, &footer.encode()]));
    written.and_then(|()| file.sync()).map_err(StoreError::io("write", &path))
}

/// Cuts off what is torn, and goes on.
fn resume(
    shelf: &Shelf,
    id: u32,
    scan: &Scan,
    table_stands: bool,
    head: &[u8],
    file_bytes: u64,
) -> Result<Growing, StoreError> {
    let (data_path, table_path) = (shelf.data_path(id), shelf.table_path(id));
    let open = |path, access| shelf.disk.open(path, access).map_err(StoreError::io("open", path));
    let writing = |path| StoreError::io("write", path);
    let data = open(&data_path, Access::Write)?;
    if file_bytes > scan.records_end {
        data.set_len(scan.records_end).map_err(writing(&data_path))?;
    }
    if head != prefix() {
        data.write_at(0, &[&prefix()]).map_err(writing(&data_path))?;
    }
    let table = open(&table_path, Access::Create)?;
    if !table_stands {
        table.set_len(0).map_err(writing(&table_path))?;
    }
    // A table that stands keeps its entries; its footer is overwritten by those that follow, or cut off here.
    let end = scan.table.len() as u64;
    table.write_at(0, &[&scan.table]).map_err(writing(&table_path))?;
    table.set_len(end).map_err(writing(&table_path))?;
    Ok(Growing::resume(data, scan.records_end, table, end, scan.records, crc32c::crc32c(&scan.table)))
}

/// Reads records one after the other and hashes each.
struct Scan {
    /// The header and entries of the sound records.
    pub table: Vec<u8>,
    /// How many there are, damaged ones between them counted.
    pub records: u32,
    /// Where the last sound record ends.
    pub records_end: u64,
    /// Records between them that are not sound.
    pub damaged: u32,
}

impl Scan {
    /// Reads from where the known records end up to `end`, or to where there is no record.
    fn run(&mut self, data: &dyn DiskFile, end: u64) -> io::Result<()> {
        let mut at = self.records_end;
        let mut pending_damage = 0;
        loop {
            let mut window = vec![0; WINDOW_BYTES.min(end.saturating_sub(at) as usize)];
            let read = data.read_at(at, &mut window)?;
            window.truncate(read);
            let window = Bytes::from(window);
            let mut used = 0;
            while let Some(record) = Record::parse(&window, used) {
                let offset = at + used as u64;
                used += record.head_len + record.data.len();
                let (head_len, data_len) = (record.head_len as u16, record.data.len() as u32);
                let sums = table::checksums(&record.data);
                // A damaged record keeps its number: what the database says of records goes by it.
                let ordinal = self.records + pending_damage;
                if let Ok(block) = Block::verify(record.cid, record.data) {
                    let offset = offset as u32;
                    table::write_entry(&mut self.table, offset, ordinal, block.cid(), head_len, data_len, &sums);
                    self.records = ordinal + 1;
                    self.records_end = at + used as u64;
                    self.damaged += pending_damage;
                    pending_damage = 0;
                } else {
                    pending_damage += 1;
                }
            }
            if used == 0 {
                return Ok(());
            }
            at += used as u64;
        }
    }
}

struct Record {
    head_len: usize,
    cid: Cid,
    data: Bytes,
}

impl Record {
    /// The record that lies whole at `at`.
    fn parse(window: &Bytes, at: usize) -> Option<Record> {
        let bytes = window.get(at..)?;
        let (len, varint_len) = read_varint(bytes).ok()?;
        if len > (MAX_BLOCK_BYTES + MAX_RECORD_CID_BYTES) as u64 {
            return None;
        }
        let record = bytes.get(varint_len..varint_len + len as usize)?;
        let (cid, cid_len) = Cid::read(record).ok()?;
        let head_len = varint_len + cid_len;
        Some(Record { head_len, cid, data: window.slice(at + head_len..at + varint_len + len as usize) })
    }
}
