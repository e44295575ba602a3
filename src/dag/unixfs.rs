//! UnixFS 1.5: what the data of a dag-pb node says of a file, a directory or a symbolic link
//! (<https://github.com/ipfs/specs/blob/main/UNIXFS.md>).
//!
//! [`UnixFs`] holds the message as it is in the block. Sizes in it are claims: readers seek by them and check them
//! against what arrives.

use bytes::Bytes;

use super::DagError;
use super::protobuf::{Fields, Value, put_bytes_field, put_varint, put_varint_field};

const FORMAT: &str = "UnixFS";

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes of a file, in the old form of a leaf.
    Raw,
    /// A directory in one node.
    Directory,
    /// A file, or a part of one.
    File,
    /// Metadata: defined once, never used.
    Metadata,
    /// A symbolic link; its target is the data.
    Symlink,
    /// A shard of a directory that is a hash array mapped trie.
    HamtShard,
}

impl Kind {
    fn from_number(number: u64) -> Option<Kind> {
        Some(match number {
            0 => Kind::Raw,
            1 => Kind::Directory,
            2 => Kind::File,
            3 => Kind::Metadata,
            4 => Kind::Symlink,
            5 => Kind::HamtShard,
            _ => return None,
        })
    }
}

/// A point in time: seconds from 1970 (they may be negative) and nanoseconds that count forward from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// A UnixFS message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixFs {
    /// What the node is.
    pub kind: Kind,
    /// A file's bytes that come before those of its links; a symbolic link's target; a shard's bitfield.
    pub data: Option<Bytes>,
    /// The claimed size of the file, in bytes.
    pub filesize: Option<u64>,
    /// The claimed size of each link's part of the file, in bytes.
    pub blocksizes: Vec<u64>,
    /// The multihash code of a shard's hash function.
    pub hash_type: Option<u64>,
    /// The number of slots of a shard.
    pub fanout: Option<u64>,
    /// Permission bits; see [`UnixFs::permissions`].
    pub mode: Option<u32>,
    /// The time of the last change.
    pub mtime: Option<Mtime>,
}

impl UnixFs {
    /// A message of this kind and nothing else.
    pub fn new(kind: Kind) -> UnixFs {
        UnixFs {
            kind,
            data: None,
            filesize: None,
            blocksizes: Vec::new(),
            hash_type: None,
            fanout: None,
            mode: None,
            mtime: None,
        }
    }

    /// Reads a message; [`UnixFs::data`] shares the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<UnixFs, DagError> {
        let mut fields = Fields::new(bytes, 0..bytes.len(), FORMAT);
        let mut kind = None;
        let mut node = UnixFs::new(Kind::Raw);
        while let Some((field, value)) = fields.next()? {
            match (field, value) {
                (1, Value::Varint(number)) => {
                    kind = Some(Kind::from_number(number).ok_or_else(|| fields.malformed(format!("type {number}")))?);
                }
                (2, Value::Bytes(range)) => node.data = Some(bytes.slice(range)),
                (3, Value::Varint(size)) => node.filesize = Some(size),
                (4, Value::Varint(size)) => node.blocksizes.push(size),
                (4, Value::Bytes(range)) => {
                    let end = range.end;
                    let mut packed = Fields::new(bytes, range, FORMAT);
                    while packed.position() < end {
                        node.blocksizes.push(packed.varint()?);
                    }
                }
                (5, Value::Varint(code)) => node.hash_type = Some(code),
                (6, Value::Varint(fanout)) => node.fanout = Some(fanout),
                (7, Value::Varint(mode)) => node.mode = Some(mode as u32),
                (8, Value::Bytes(range)) => node.mtime = decode_mtime(bytes, range)?,
                (1..=8, _) => return Err(fields.malformed(format!("field {field} of a wrong type"))),
                // Unknown fields are for later versions of the format, as in every protobuf message.
                _ => {}
            }
        }
        node.kind = kind.ok_or_else(|| fields.malformed("no type"))?;
        Ok(node)
    }

    /// Writes the message with its fields in the order of their numbers, as kubo does.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.data.as_ref().map_or(0, Bytes::len) + 6 * self.blocksizes.len());
        put_varint_field(&mut out, 1, self.kind as u64);
        if let Some(data) = &self.data {
            put_bytes_field(&mut out, 2, data);
        }
        if let Some(size) = self.filesize {
            put_varint_field(&mut out, 3, size);
        }
        for size in &self.blocksizes {
            put_varint_field(&mut out, 4, *size);
        }
        if let Some(code) = self.hash_type {
            put_varint_field(&mut out, 5, code);
        }
        if let Some(fanout) = self.fanout {
            put_varint_field(&mut out, 6, fanout);
        }
        if let Some(mode) = self.mode {
            put_varint_field(&mut out, 7, u64::from(mode));
        }
        if let Some(mtime) = self.mtime {
            let mut body = Vec::new();
            put_varint_field(&mut body, 1, mtime.seconds as u64);
            if mtime.nanoseconds != 0 {
                put_varint(&mut body, 2 << 3 | 5);
                body.extend_from_slice(&mtime.nanoseconds.to_le_bytes());
            }
            put_bytes_field(&mut out, 8, &body);
        }
        out
    }

    /// The permission bits that a reader sees: the mode's lower 12 bits, or the kind's default.
    pub fn permissions(&self) -> u16 {
        match (self.mode, self.kind) {
            (Some(mode), _) => (mode & 0o7777) as u16,
            (None, Kind::Directory | Kind::HamtShard) => 0o555,
            (None, Kind::Symlink) => 0o777,
            (None, _) => 0o444,
        }
    }
}

/// What stands before and after `len` bytes of data (at least one) in the block of a leaf: a dag-pb node whose message is
/// of `kind` and holds the data, its length, and the metadata. For writers that have room around the data.
pub fn leaf_frame(kind: Kind, len: usize, mode: Option<u32>, mtime: Option<Mtime>) -> (Vec<u8>, Vec<u8>) {
    let without_data = UnixFs { filesize: Some(len as u64), mode, mtime, ..UnixFs::new(kind) }.encode();
    // The type comes first, a tag and a number of one byte each; the data comes next.
    let (kind, tail) = without_data.split_at(2);
    let mut message_head = kind.to_vec();
    put_varint(&mut message_head, 2 << 3 | 2);
    put_varint(&mut message_head, len as u64);
    let mut head = Vec::with_capacity(24);
    put_varint(&mut head, 1 << 3 | 2);
    put_varint(&mut head, (message_head.len() + len + tail.len()) as u64);
    head.extend_from_slice(&message_head);
    (head, tail.to_vec())
}

/// Reads a time; one whose nanoseconds are out of range is none, as kubo has it.
fn decode_mtime(bytes: &[u8], range: std::ops::Range<usize>) -> Result<Option<Mtime>, DagError> {
    let mut fields = Fields::new(bytes, range, FORMAT);
    let mut seconds = None;
    let mut nanoseconds = None;
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Varint(value)) => seconds = Some(value as i64),
            (2, Value::Fixed32(value)) => nanoseconds = Some(value),
            (1 | 2, _) => return Err(fields.malformed("an mtime field of a wrong type")),
            _ => {}
        }
    }
    let seconds = seconds.ok_or_else(|| fields.malformed("an mtime without seconds"))?;
    Ok(match nanoseconds {
        None => Some(Mtime { seconds, nanoseconds: 0 }),
        Some(nanoseconds @ 1..=999_999_999) => Some(Mtime { seconds, nanoseconds }),
        // The bytes of the file are good whatever its time is.
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_goes_both_ways() {
        let node = UnixFs {
            kind: Kind::File,
            data: Some(Bytes::from_static(b"inline")),
            filesize: Some(u64::MAX),
            blocksizes: vec![0, 1, 300, 1 << 40],
            hash_type: Some(0x22),
            fanout: Some(1024),
            mode: Some(0o4755),
            mtime: Some(Mtime { seconds: -86_400, nanoseconds: 500_000_000 }),
        };
        assert_eq!(UnixFs::decode(&Bytes::from(node.encode())).unwrap(), node);
        assert_eq!(node.permissions(), 0o4755);
    }

    #[test]
    fn a_leaf_in_its_frame_is_the_leaf_that_is_encoded_whole() {
        for len in [1, 127, 128, 300_000] {
            for mtime in [None, Some(Mtime { seconds: -1, nanoseconds: 5 })] {
                let data = Bytes::from(vec![7; len]);
                let (head, tail) = leaf_frame(Kind::File, len, Some(0o644), mtime);
                let message = UnixFs {
                    data: Some(data.clone()),
                    filesize: Some(len as u64),
                    mode: Some(0o644),
                    mtime,
                    ..UnixFs::new(Kind::File)
                };
                let whole = crate::dag::pb::encode([], Some(&message.encode()));
                assert_eq!([&head[..], &data, &tail].concat(), whole);
            }
        }
    }

    #[test]
    fn absent_modes_have_defaults_by_kind() {
        assert_eq!(UnixFs::new(Kind::File).permissions(), 0o444);
        assert_eq!(UnixFs::new(Kind::HamtShard).permissions(), 0o555);
    }

    #[test]
    fn packed_blocksizes_are_read() {
        let node = UnixFs::decode(&Bytes::from_static(&[8, 2, 0x22, 3, 1, 0x80, 1])).unwrap();
        assert_eq!(node.blocksizes, [1, 128]);
    }

    #[test]
    fn an_empty_directory_is_two_bytes() {
        assert_eq!(UnixFs::new(Kind::Directory).encode(), [8, 1]);
    }

    #[test]
    fn a_message_without_a_type_or_with_a_time_without_seconds_is_refused() {
        assert!(UnixFs::decode(&Bytes::new()).is_err());
        assert!(UnixFs::decode(&Bytes::from_static(&[8, 9])).is_err());
        assert!(UnixFs::decode(&Bytes::from_static(&[8, 2, 0x42, 0])).is_err());
    }

    #[test]
    fn a_time_with_nanoseconds_out_of_range_is_none_and_the_rest_is_read() {
        let decode = |nanoseconds: u32| {
            let bytes = [&[8, 2, 0x42, 7, 8, 1, 0x15][..], &nanoseconds.to_le_bytes()].concat();
            UnixFs::decode(&Bytes::from(bytes)).unwrap().mtime
        };
        assert_eq!(decode(999_999_999), Some(Mtime { seconds: 1, nanoseconds: 999_999_999 }));
        assert_eq!((decode(0), decode(1_000_000_000), decode(u32::MAX)), (None, None, None));
    }
}
