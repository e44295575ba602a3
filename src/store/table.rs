//! The table beside a segment: where each record lies, whose it is, and its checksums.
//!
//! A table is a file of entries in the order of the records, so that a block's place in the index is one number, the
//! position of its entry, and one short read gives everything that reading and checking the block needs. It is made as
//! the segment is written, holds nothing that the segment does not (it is made again by hashing the segment where it is
//! lost or damaged), and all of it is little-endian:
//!
//! ```text
//! header   "cidfstab" | version u32 | segment u32
//! entry    record's offset u32 | ordinal u32 | data's length u32 | record's head u16 | CID's length u8 | multihash in CID u8
//!          crc32c of each 64 KiB of the data, u32 | CID | zeros up to a multiple of 4
//! footer   "cidfsend" | end of entries u64 | end of records u64 | records u32 | crc32c of header and entries u32
//!          crc32c of the footer so far u32 | zeros u32
//! ```
//!
//! A footer is written when the segment is sealed and when the store is closed; a table without a valid one is not
//! believed. The segment's records up to "end of records" were durable before the footer was written.

use smallvec::SmallVec;

use crate::block::Cid;
use crate::limits::{CHECKSUM_PIECE_BYTES, MAX_BLOCK_BYTES, MAX_RECORD_CID_BYTES};

const MAGIC: &[u8; 8] = b"cidfstab";
const END_MAGIC: &[u8; 8] = b"cidfsend";
const VERSION: u32 = 1;
/// Where the first entry begins.
pub(super) const HEADER_BYTES: usize = 16;
/// The length of a footer.
pub(super) const FOOTER_BYTES: usize = 40;
/// An entry without its checksums and CID.
const FIXED_BYTES: usize = 16;
/// The longest entry.
pub(super) const MAX_ENTRY_BYTES: usize =
    FIXED_BYTES + 4 * MAX_BLOCK_BYTES.div_ceil(CHECKSUM_PIECE_BYTES) + MAX_RECORD_CID_BYTES;

/// The checksums of one block, a 64 KiB piece each.
pub(super) type Sums = SmallVec<[u32; 16]>;

/// What a table says of one record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Where the record begins in the segment file.
    pub offset: u32,
    /// The record's number in its segment.
    pub ordinal: u32,
    /// The length of the block.
    pub data_len: u32,
    /// The length of what lies before the block in its record: the record's length and the CID.
    pub head_len: u16,
    hash_start: u8,
    sums: &'a [u8],
    /// The CID under which the block was put first.
    pub cid: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads the entry that `bytes` begins with. `None` where there is none, or one that no writer makes.
    pub fn parse(bytes: &'a [u8]) -> Option<Entry<'a>> {
        let (fixed, rest) = bytes.split_at_checked(FIXED_BYTES)?;
        let data_len = u32_at(fixed, 8);
        let head_len = u16::from_le_bytes([fixed[12], fixed[13]]);
        let (cid_len, hash_start) = (fixed[14], fixed[15]);
        if data_len as usize > MAX_BLOCK_BYTES || hash_start >= cid_len || u16::from(cid_len) >= head_len {
            return None;
        }
        let (sums, rest) = rest.split_at_checked(4 * (data_len as usize).div_ceil(CHECKSUM_PIECE_BYTES))?;
        let cid = rest.get(..usize::from(cid_len))?;
        Some(Entry { offset: u32_at(fixed, 0), ordinal: u32_at(fixed, 4), data_len, head_len, hash_start, sums, cid })
    }

    /// The length of the entry in the table.
    pub fn len(&self) -> usize {
        (FIXED_BYTES + self.sums.len() + self.cid.len()).next_multiple_of(4)
    }

    /// The multihash that the block is found by.
    pub fn multihash(&self) -> &'a [u8] {
        &self.cid[usize::from(self.hash_start)..]
    }

    /// The checksums of the block's pieces.
    pub fn sums(&self) -> Sums {
        self.sums.chunks_exact(4).map(|sum| u32_at(sum, 0)).collect()
    }

    /// Where the record ends in the segment file.
    pub fn record_end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.head_len) + u64::from(self.data_len)
    }
}

/// The checksums of a block.
pub(super) fn checksums(data: &[u8]) -> Sums {
    data.chunks(CHECKSUM_PIECE_BYTES).map(crc32c::crc32c).collect()
}

/// Appends the entry of a record: `head_len` bytes, then a block of `data_len` bytes with these checksums.
pub(super) fn write_entry(
    table: &mut Vec<u8>,
    offset: u32,
    ordinal: u32,
    cid: &Cid,
    head_len: u16,
    data_len: u32,
    sums: &Sums,
) {
    let hash_start = cid.as_bytes().len() - cid.multihash().len();
    for word in [offset, ordinal, data_len] {
        table.extend_from_slice(&word.to_le_bytes());
    }
    table.extend_from_slice(&head_len.to_le_bytes());
    table.extend_from_slice(&[cid.as_bytes().len() as u8, hash_start as u8]);
    for sum in sums {
        table.extend_from_slice(&sum.to_le_bytes());
    }
    table.extend_from_slice(cid.as_bytes());
    table.resize(table.len().next_multiple_of(4), 0);
}

/// What a table begins with.
pub(super) fn header(segment: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..].copy_from_slice(&segment.to_le_bytes());
    header
}

/// What a finished table ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Where the entries end in the table.
    pub entries_end: u64,
    /// Where the records end in the segment file.
    pub records_end: u64,
    /// How many records there are.
    pub records: u32,
    /// The checksum of header and entries.
    pub sum: u32,
}

impl Footer {
    /// The footer's bytes.
    pub fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(END_MAGIC);
        bytes[8..16].copy_from_slice(&self.entries_end.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.records_end.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.records.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.sum.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks a whole table: `None` where it is not finished, damaged, or of another segment.
    pub fn check(table: &[u8], segment: u32) -> Option<Footer> {
        let (entries, footer) = table.split_last_chunk::<FOOTER_BYTES>()?;
        let sound = footer.starts_with(END_MAGIC) && crc32c::crc32c(&footer[..32]) == u32_at(footer, 32);
        let sound = sound && entries.starts_with(&header(segment));
        let footer = Footer {
            entries_end: u64_at(footer, 8),
            records_end: u64_at(footer, 16),
            records: u32_at(footer, 24),
            sum: u32_at(footer, 28),
        };
        let sound = sound && footer.entries_end == entries.len() as u64 && crc32c::crc32c(entries) == footer.sum;
        sound.then_some(footer)
    }
}

/// The entries of a table, each with its position. Ends at the first that is none.
pub(super) fn entries(table: &[u8]) -> impl Iterator<Item = (u32, Entry<'_>)> {
    let mut position = HEADER_BYTES;
    std::iter::from_fn(move || {
        let entry = Entry::parse(table.get(position..)?)?;
        let at = position as u32;
        position += entry.len();
        Some((at, entry))
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    fn table(blocks: &[&[u8]]) -> Vec<u8> {
        let mut table = header(7).to_vec();
        let mut offset = 60;
        for (ordinal, data) in blocks.iter().enumerate() {
            let cid = Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(data));
            write_entry(&mut table, offset, ordinal as u32, &cid, 38, data.len() as u32, &checksums(data));
            offset += 38 + data.len() as u32;
        }
        let footer = Footer {
            entries_end: table.len() as u64,
            records_end: u64::from(offset),
            records: blocks.len() as u32,
            sum: crc32c::crc32c(&table),
        };
        table.extend_from_slice(&footer.encode());
        table
    }

    #[test]
    fn entries_come_back_as_they_were_written() {
        let large = vec![3; 200_000];
        let blocks: [&[u8]; 3] = [b"", b"abc", &large];
        let table = table(&blocks);
        let footer = Footer::check(&table, 7).unwrap();
        let read: Vec<_> = entries(&table[..footer.entries_end as usize]).collect();
        assert_eq!(read.len(), 3);
        for ((_, entry), data) in read.iter().zip(blocks) {
            assert_eq!(entry.data_len as usize, data.len());
            assert_eq!(entry.sums(), checksums(data));
            assert_eq!(entry.multihash(), HashFunction::Sha2_256.digest(data).as_bytes());
        }
        assert_eq!(read[2].1.sums().len(), 4);
        assert_eq!(read[2].1.record_end(), footer.records_end);
    }

    #[test]
    fn a_table_with_one_wrong_bit_is_not_believed() {
        let table = table(&[b"one", b"two"]);
        for at in 0..table.len() - 4 {
            let mut damaged = table.clone();
            damaged[at] ^= 4;
            assert_eq!(Footer::check(&damaged, 7), None, "byte {at}");
        }
        assert_eq!(Footer::check(&table, 8), None, "of another segment");
        assert_eq!(Footer::check(&table[..table.len() - 1], 7), None, "cut");
    }

    #[test]
    fn bytes_that_are_no_entry_are_refused() {
        assert!(Entry::parse(&[0xff; 512]).is_none());
        assert!(Entry::parse(&[0; 512]).is_none());
        assert!(Entry::parse(&[0; 3]).is_none());
    }
}
