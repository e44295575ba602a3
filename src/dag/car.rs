//! CAR: blocks one after the other in a file or a stream, with their CIDs (<https://ipld.io/specs/transport/car/>).
//!
//! - [`V2Header`]: the fixed beginning of a CARv2, which says where its CARv1 payload and its index lie.
//! - [`index`]: the index at the end of a CARv2, read in place and written sorted.

pub mod index;

use super::DagError;

const FORMAT: &str = "CAR";

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
mod tests {
    use super::*;

    #[test]
    fn a_v2_header_goes_both_ways() {
        // The first bytes of `sample-wrapped-v2.car` of go-car.
        let mut bytes = *b"\x0a\xa1\x67version\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
            \x33\0\0\0\0\0\0\0\xa3\x52\x07\0\0\0\0\0\xd6\x52\x07\0\0\0\0\0";
        let header = V2Header::decode(&bytes).unwrap();
        assert_eq!(header, V2Header::contiguous(479_907));
        assert_eq!(header.encode(), bytes);
        bytes[11] = 0x80;
        assert_eq!(V2Header::decode(&bytes).unwrap(), V2Header { fully_indexed: true, ..header });
    }

    #[test]
    fn a_v2_header_that_overlaps_or_overflows_is_refused() {
        let good = V2Header::contiguous(100);
        for bad in [
            V2Header { data_offset: 50, ..good },
            V2Header { data_size: 0, ..good },
            V2Header { data_size: u64::MAX, ..good },
            V2Header { data_size: i64::MAX as u64, ..good },
            V2Header { index_offset: 150, ..good },
        ] {
            assert!(V2Header::decode(&bad.encode()).is_err(), "{bad:?}");
        }
        assert!(V2Header::decode(&V2Header { index_offset: 0, ..good }.encode()).is_ok());
        assert!(V2Header::decode(&[0; 51]).is_err());
    }
}
