//! The index of a CARv2: from a block's multihash to the offset of its section in the payload
//! (<https://ipld.io/specs/transport/car/carv2/#index-format>).
//!
//! Both formats in use are sorted tables of fixed width, so [`Index`] reads them in place, from a mapped file too: it
//! checks the tables' frames, holds a few words for each table, and finds a digest by binary search. An index is a claim
//! like any other number in a CAR: what lies at an offset is checked when it is read there.

use std::io::{self, Write};

use super::super::DagError;
use crate::block::read_varint;

const FORMAT: &str = "CAR index";

/// The multicodec code of `IndexSorted`: by digest, whatever the hash function.
pub const INDEX_SORTED: u64 = 0x0400;
/// The multicodec code of `MultihashIndexSorted`: by hash function, then by digest.
pub const MULTIHASH_INDEX_SORTED: u64 = 0x0401;

/// The bytes of an offset beside its digest.
const OFFSET_BYTES: usize = 8;

/// An index over its bytes.
#[derive(Clone, Debug)]
pub struct Index<'a> {
    tables: Vec<Table<'a>>,
}

/// The entries of one hash function and one length of digest.
#[derive(Clone, Copy, Debug)]
struct Table<'a> {
    /// `None` in an `IndexSorted`, which does not say.
    code: Option<u64>,
    /// Digest and offset.
    width: usize,
    entries: &'a [u8],
}

/// One entry of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The hash function's multicodec code, where the index says.
    pub code: Option<u64>,
    /// The digest, without the hash function and the length before it.
    pub digest: &'a [u8],
    /// Where the block's section begins, in bytes from the beginning of the payload.
    pub offset: u64,
}

impl<'a> Index<'a> {
    /// Reads an index that begins with its codec and fills `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Index<'a>, DagError> {
        let (codec, len) = read_varint(bytes).map_err(|_| DagError::malformed(FORMAT, "no codec"))?;
        let mut rest = Rest(&bytes[len..]);
        let mut tables = Vec::new();
        match codec {
            INDEX_SORTED => rest.tables(None, &mut tables)?,
            MULTIHASH_INDEX_SORTED => {
                for _ in 0..rest.count()? {
                    let code = u64::from_le_bytes(rest.array()?);
                    rest.tables(Some(code), &mut tables)?;
                }
            }
            _ => return Err(DagError::malformed(FORMAT, format!("unknown format {codec:#x}"))),
        }
        if !rest.0.is_empty() {
            return Err(DagError::malformed(FORMAT, "bytes follow its end"));
        }
        Ok(Index { tables })
    }

    /// Where the sections of a digest begin: several, where the payload has a block several times.
    pub fn find(&self, code: u64, digest: &[u8]) -> impl Iterator<Item = u64> {
        self.tables
            .iter()
            .filter(move |table| {
                table.width == digest.len() + OFFSET_BYTES && table.code.is_none_or(|known| known == code)
            })
            .flat_map(move |table| {
                let first = table.first_not_below(digest);
                (first..table.len()).map(|at| table.entry(at)).take_while(move |entry| entry.digest == digest)
            })
            .map(|entry| entry.offset)
    }

    /// Every entry, in the order of the index.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        self.tables.iter().flat_map(|table| (0..table.len()).map(|at| table.entry(at)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> Table<'a> {
    fn len(&self) -> usize {
        self.entries.len() / self.width
    }

    fn entry(&self, at: usize) -> Entry<'a> {
        let bytes = &self.entries[at * self.width..(at + 1) * self.width];
        let (digest, number) = bytes.split_at(self.width - OFFSET_BYTES);
        let mut offset = [0; OFFSET_BYTES];
        offset.copy_from_slice(number);
        Entry { code: self.code, digest, offset: u64::from_le_bytes(offset) }
    }

    fn first_not_below(&self, digest: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(middle).digest < digest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// What is still to be read of an index.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], DagError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(|| DagError::malformed(FORMAT, "cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DagError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn count(&mut self) -> Result<u32, DagError> {
        let count = i32::from_le_bytes(self.array()?);
        u32::try_from(count).map_err(|_| DagError::malformed(FORMAT, format!("a count of {count}")))
    }

    fn tables(&mut self, code: Option<u64>, tables: &mut Vec<Table<'a>>) -> Result<(), DagError> {
        // The count is a claim, but each table takes 12 bytes at least: a false one ends with the bytes.
        for _ in 0..self.count()? {
            let width = u32::from_le_bytes(self.array()?) as usize;
            let len = u64::from_le_bytes(self.array()?);
            let entries = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
            if width < OFFSET_BYTES || entries.len() % width != 0 {
                return Err(DagError::malformed(FORMAT, format!("{len} bytes of entries of {width} bytes")));
            }
            tables.push(Table { code, width, entries });
        }
        Ok(())
    }
}

/// Writes a `MultihashIndexSorted` of the blocks with these multihashes, whose sections begin at these offsets. The
/// entries may come in any order.
///
/// # Errors
/// Those of `out`; `InvalidInput` where bytes given are no multihash.
pub fn write_multihash_index_sorted<'a>(
    entries: impl IntoIterator<Item = (&'a [u8], u64)>,
    out: impl Write,
) -> io::Result<()> {
    write(MULTIHASH_INDEX_SORTED, entries, out)
}

/// Writes an `IndexSorted`; otherwise as [`write_multihash_index_sorted`].
pub fn write_index_sorted<'a>(entries: impl IntoIterator<Item = (&'a [u8], u64)>, out: impl Write) -> io::Result<()> {
    write(INDEX_SORTED, entries, out)
}

fn write<'a>(codec: u64, entries: impl IntoIterator<Item = (&'a [u8], u64)>, mut out: impl Write) -> io::Result<()> {
    let mut sorted = Vec::new();
    for (multihash, offset) in entries {
        let (code, digest) = split_multihash(multihash)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an index entry without a multihash"))?;
        // An `IndexSorted` has all hash functions in one table.
        let code = if codec == INDEX_SORTED { 0 } else { code };
        sorted.push((code, digest.len(), digest, offset));
    }
    sorted.sort_unstable();
    let functions: Vec<_> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
    let count = |len: usize| (len as u32).to_le_bytes();
    // Both codecs take two bytes as a varint.
    out.write_all(&[codec as u8 | 0x80, (codec >> 7) as u8])?;
    if codec == MULTIHASH_INDEX_SORTED {
        out.write_all(&count(functions.len()))?;
    } else if functions.is_empty() {
        out.write_all(&count(0))?;
    }
    for entries in functions {
        if codec == MULTIHASH_INDEX_SORTED {
            out.write_all(&entries[0].0.to_le_bytes())?;
        }
        let tables: Vec<_> = entries.chunk_by(|a, b| a.1 == b.1).collect();
        out.write_all(&count(tables.len()))?;
        for table in tables {
            let width = table[0].1 + OFFSET_BYTES;
            out.write_all(&count(width))?;
            out.write_all(&((table.len() * width) as u64).to_le_bytes())?;
            for (_, _, digest, offset) in table {
                out.write_all(digest)?;
                out.write_all(&offset.to_le_bytes())?;
            }
        }
    }
    Ok(())
}

/// The hash function's code and the digest of a multihash.
fn split_multihash(multihash: &[u8]) -> Option<(u64, &[u8])> {
    let (code, code_len) = read_varint(multihash).ok()?;
    let (len, len_len) = read_varint(&multihash[code_len..]).ok()?;
    let digest = &multihash[code_len + len_len..];
    (digest.len() as u64 == len).then_some((code, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::HashFunction;

    fn multihashes() -> Vec<(Vec<u8>, u64)> {
        let mut entries = Vec::new();
        for seed in 0..200_u64 {
            let hash = match seed % 4 {
                0 => HashFunction::Sha2_512,
                1 => HashFunction::Blake3,
                _ => HashFunction::Sha2_256,
            };
            entries.push((hash.digest(&seed.to_le_bytes()).as_bytes().to_vec(), seed * 100));
        }
        // A block that occurs twice.
        entries.push((entries[2].0.clone(), 1));
        entries
    }

    fn written(codec: u64, entries: &[(Vec<u8>, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        write(codec, entries.iter().map(|(hash, offset)| (hash.as_slice(), *offset)), &mut out).unwrap();
        out
    }

    #[test]
    fn every_entry_is_found_in_both_formats() {
        let entries = multihashes();
        for codec in [INDEX_SORTED, MULTIHASH_INDEX_SORTED] {
            let bytes = written(codec, &entries);
            let index = Index::decode(&bytes).unwrap();
            assert_eq!(index.len(), entries.len());
            for (hash, offset) in &entries {
                let (code, digest) = split_multihash(hash).unwrap();
                assert!(index.find(code, digest).any(|found| found == *offset));
                let other: Vec<_> = index.find(0x1234, digest).collect();
                assert_eq!(other.is_empty(), codec == MULTIHASH_INDEX_SORTED, "only one format knows hash functions");
            }
            let (code, digest) = split_multihash(&entries[2].0).unwrap();
            assert_eq!(index.find(code, digest).collect::<Vec<_>>(), [1, 200]);
            assert_eq!(index.find(code, &[0; 32]).count(), 0);
            let sum: u64 = index.entries().map(|entry| entry.offset).sum();
            assert_eq!(sum, entries.iter().map(|(_, offset)| offset).sum::<u64>());
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_go_implementation() {
        let hash = |first: u8| [&[0x12, 0x20, first][..], &[7; 31]].concat();
        let bytes = written(MULTIHASH_INDEX_SORTED, &[(hash(9), 0x55), (hash(3), 0x1_0000)]);
        let mut expected = vec![0x81, 0x08, 1, 0, 0, 0, 0x12, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0];
        expected.extend([80, 0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend([7; 31]);
        expected.extend([0, 0, 1, 0, 0, 0, 0, 0, 9]);
        expected.extend([7; 31]);
        expected.extend([0x55, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_empty_index_is_read_and_written() {
        for codec in [INDEX_SORTED, MULTIHASH_INDEX_SORTED] {
            let bytes = written(codec, &[]);
            assert_eq!(bytes.len(), 6);
            assert!(Index::decode(&bytes).unwrap().is_empty());
        }
    }

    #[test]
    fn every_cut_of_an_index_is_an_error() {
        for codec in [INDEX_SORTED, MULTIHASH_INDEX_SORTED] {
            let bytes = written(codec, &multihashes());
            for len in 0..bytes.len() {
                assert!(Index::decode(&bytes[..len]).is_err(), "{len}");
            }
            assert!(Index::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn claimed_counts_and_lengths_allocate_nothing() {
        let huge_count = [0x81, 0x08, 0xff, 0xff, 0xff, 0x7f];
        let negative_count = [0x81, 0x08, 0xff, 0xff, 0xff, 0xff];
        let huge_len = [&[0x80, 0x08, 1, 0, 0, 0, 40, 0, 0, 0][..], &[0xff; 8]].concat();
        let no_width = [&[0x80, 0x08, 1, 0, 0, 0, 7, 0, 0, 0][..], &[0; 8]].concat();
        for bytes in [&huge_count[..], &negative_count, &huge_len, &no_width, &[0x82, 0x08, 0, 0, 0, 0], &[]] {
            assert!(Index::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
