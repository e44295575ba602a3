//! CAR: blocks one after the other in a file or a stream, with their CIDs (<https://ipld.io/specs/transport/car/>).
//!
//! A CARv1 is a header, which names roots, and sections: each a length, a CID, and the block's bytes. A CARv2 wraps one
//! and adds an index.
//!
//! - [`CarReader`] reads both, from files and pipes, section by section, and hashes each block.
//! - [`CarWriter`] writes a CARv1 to anything. A CARv2 is one between a [`V2Header`] and an [`index`], as a segment of the
//!   store ends.
//! - [`V2Header`]: the fixed beginning of a CARv2, which says where its CARv1 payload and its index lie.
//! - [`index`]: the index at the end of a CARv2, read in place and written sorted.
//!
//! The one module of this floor that is given readers and writers: a CAR is longer than any block, and nothing here holds
//! more of it than a section. A length that is claimed is held against its limit before anything is read by it.

pub mod index;
mod read;
mod write;

pub use self::read::{CarReader, Section};
pub use self::write::{CarWriter, encode_header, section_head};

use std::io;

use super::DagError;
use crate::block::BlockError;

const FORMAT: &str = "CAR";

/// Why a CAR cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// What the CAR is read from failed.
    #[error("cannot read the CAR: {0}")]
    Io(#[from] io::Error),
    /// The CAR ends in the middle of something.
    #[error("the CAR is cut short at byte {at}")]
    Truncated {
        /// Where it ends, in bytes from its beginning.
        at: u64,
    },
    /// The bytes break the rules of the format, or cross a limit.
    #[error("{error} (at byte {at} of the CAR)")]
    Format {
        /// Where, in bytes from the beginning of the CAR.
        at: u64,
        /// Which rule.
        error: DagError,
    },
    /// A block is not what its CID says, or is too large.
    #[error("{error} (at byte {at} of the CAR)")]
    Block {
        /// Where its section begins, in bytes from the beginning of the CAR.
        at: u64,
        /// What is wrong with it.
        error: BlockError,
    },
}

/// What every CARv2 begins with: the length-prefixed dag-cbor map `{"version": 2}`.
pub const V2_PRAGMA: [u8; 11] = *b"\x0a\xa1\x67version\x02";

/// The beginning of a CARv2: pragma and header. The CARv1 payload follows, then the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V2Header {
    /// Whether the index has every block of the payload, those of identity CIDs included.
    pub fully_indexed: bool,
    /// Where the payload begins, in bytes from the beginning of the file.
    pub data_offset: u64,
    /// The payload's length in bytes.
    pub data_size: u64,
    /// Where the index begins, in bytes from the beginning of the file; 0 where there is none.
    pub index_offset: u64,
}

impl V2Header {
    /// The length in bytes of the pragma and the header: the least [`V2Header::data_offset`].
    pub const LEN: usize = V2_PRAGMA.len() + 40;

    /// The header of a file whose payload and index follow without gaps.
    pub fn contiguous(data_size: u64) -> V2Header {
        let data_offset = V2Header::LEN as u64;
        V2Header { fully_indexed: false, data_offset, data_size, index_offset: data_offset + data_size }
    }

    /// Writes pragma and header.
    pub fn encode(&self) -> [u8; V2Header::LEN] {
        let mut out = [0; V2Header::LEN];
        out[..11].copy_from_slice(&V2_PRAGMA);
        // The first of the 128 bits of characteristics.
        out[11] = u8::from(self.fully_indexed) << 7;
        out[27..35].copy_from_slice(&self.data_offset.to_le_bytes());
        out[35..43].copy_from_slice(&self.data_size.to_le_bytes());
        out[43..51].copy_from_slice(&self.index_offset.to_le_bytes());
        out
    }

    /// Reads pragma and header from the beginning of a file.
    pub fn decode(bytes: &[u8; V2Header::LEN]) -> Result<V2Header, DagError> {
        if bytes[..11] != V2_PRAGMA {
            return Err(DagError::malformed(FORMAT, "no CARv2 pragma"));
        }
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let header = V2Header {
            fully_indexed: bytes[11] & 0x80 != 0,
            data_offset: number(27),
            data_size: number(35),
            index_offset: number(43),
        };
        let data_end = header.data_offset.checked_add(header.data_size).filter(|end| i64::try_from(*end).is_ok());
        if header.data_offset < V2Header::LEN as u64 || header.data_size == 0 || data_end.is_none() {
            let why = format!("a payload of {} bytes at {}", header.data_size, header.data_offset);
            return Err(DagError::malformed(FORMAT, why));
        }
        if header.index_offset != 0 && data_end.is_some_and(|end| header.index_offset < end) {
            return Err(DagError::malformed(FORMAT, format!("an index at {}, in the payload", header.index_offset)));
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests;
