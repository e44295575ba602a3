//! Bitswap messages: what goes over a stream, and what it means
//! (<https://specs.ipfs.tech/bitswap-protocol/>).
//!
//! [`Message::decode`] takes one frame without its length. Blocks are slices of the frame, and are not hashed: see
//! [`RawBlock::into_block`]. An item whose CID is none is skipped and counted; a message with more than
//! [`MAX_BITSWAP_MESSAGE_ITEMS`] is refused before anything is allocated for them. [`encode`] makes a frame with its length,
//! as pieces: the bytes of the blocks are not copied.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_varint, encoded_len_varint, skip_field,
};

use crate::block::{Block, BlockError, Cid, HashFunction, Multihash, codec};
use crate::limits::{MAX_BITSWAP_MESSAGE_ITEMS, MAX_BLOCK_BYTES};

/// A version of the protocol. Later ones are supersets of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// `/ipfs/bitswap/1.0.0`: wants and blocks, which are CIDv0.
    V1_0,
    /// `/ipfs/bitswap/1.1.0`: blocks of any CID.
    V1_1,
    /// `/ipfs/bitswap/1.2.0`: `HAVE` and `DONT_HAVE` too.
    V1_2,
}

impl Version {
    /// All versions, the best first.
    pub const ALL: [Version; 3] = [Version::V1_2, Version::V1_1, Version::V1_0];

    /// The protocol's name on the network.
    pub const fn protocol(self) -> &'static str {
        match self {
            Version::V1_0 => "/ipfs/bitswap/1.0.0",
            Version::V1_1 => "/ipfs/bitswap/1.1.0",
            Version::V1_2 => "/ipfs/bitswap/1.2.0",
        }
    }
}

/// Why bytes are no bitswap message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The bytes are not the protobuf of the protocol.
    #[error("not a bitswap message: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// More wants, blocks and presences than anybody has a use for.
    #[error("a bitswap message of more than {MAX_BITSWAP_MESSAGE_ITEMS} items")]
    TooManyItems,
}

/// What an entry of a wantlist asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// The block is wanted no more.
    Cancel,
    /// Whether it is there.
    Have,
    /// The block itself.
    Block,
}

/// An entry of a wantlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block.
    pub cid: Cid,
    /// What is wanted more has a higher one.
    pub priority: i32,
    /// What is asked.
    pub ask: Ask,
    /// Whether `DONT_HAVE` is to be said.
    pub send_dont_have: bool,
}

/// A block as it came: nobody has hashed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBlock {
    prefix: Prefix,
    data: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    V0,
    V1 { codec: u64, hash: HashFunction, digest_bytes: usize },
}

impl RawBlock {
    /// The length of the block in bytes.
    pub fn data_bytes(&self) -> usize {
        self.data.len()
    }

    /// Hashes the block, which gives it its CID.
    pub fn into_block(self) -> Result<Block, BlockError> {
        Ok(match self.prefix {
            Prefix::V0 => Block::new_v0(self.data),
            Prefix::V1 { codec, hash, digest_bytes } if digest_bytes == hash.digest_bytes() => {
                Block::new(codec, hash, self.data)
            }
            Prefix::V1 { codec, hash, digest_bytes } => {
                let full = Block::new(codec, hash, self.data);
                let short = Multihash::wrap(hash.code(), &full.cid().digest()[..digest_bytes]);
                let cid = Cid::new_v1(codec, &short.map_err(|_| BlockError::Mismatch { cid: full.cid().clone() })?);
                Block::verify(cid, full.into_parts().1)?
            }
        })
    }

    fn read(prefix: &[u8], data: Bytes) -> Option<RawBlock> {
        if data.len() > MAX_BLOCK_BYTES {
            return None;
        }
        let mut rest = prefix;
        let mut next = || decode_varint(&mut rest).ok();
        let (version, codec, code, len) = (next()?, next()?, next()?, next()?);
        let hash = HashFunction::from_code(code)?;
        let digest_bytes = usize::try_from(len).ok().filter(|len| *len <= hash.digest_bytes());
        let prefix = match version {
            0 if codec == codec::DAG_PB && hash == HashFunction::Sha2_256 => Prefix::V0,
            // Nobody has a use for the block of an identity CID: the CID is the block.
            1 if hash != HashFunction::Identity && i64::try_from(codec).is_ok() => {
                // Some write no length for a whole digest.
                Prefix::V1 { codec, hash, digest_bytes: digest_bytes.unwrap_or(hash.digest_bytes()) }
            }
            _ => return None,
        };
        Some(RawBlock { prefix, data })
    }
}

/// A message of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Whether the entries are all that the peer wants, and what it wanted before is over.
    pub full: bool,
    /// The wantlist, or what changed in it.
    pub entries: Vec<Entry>,
    /// Blocks.
    pub blocks: Vec<RawBlock>,
    /// Blocks that the peer has, or not.
    pub presences: Vec<(Cid, bool)>,
    /// What the peer has queued for us.
    pub pending_bytes: i32,
    /// Items that were no CID, no known hash function, or too large.
    pub skipped: usize,
}

impl Message {
    /// Reads a message that fills `frame` exactly.
    pub fn decode(frame: Bytes) -> Result<Message, MessageError> {
        check_items(&frame)?;
        let wire = wire::Message::decode(frame)?;
        let mut message = Message { pending_bytes: wire.pending_bytes, ..Message::default() };
        let mut skipped = 0;
        let mut cid = |bytes: &[u8]| {
            let cid = Cid::from_bytes(bytes).ok();
            skipped += usize::from(cid.is_none());
            cid
        };
        if let Some(wantlist) = wire.wantlist {
            message.full = wantlist.full;
            message.entries.reserve(wantlist.entries.len());
            for entry in wantlist.entries {
                let Some(cid) = cid(&entry.block) else { continue };
                let ask = match (entry.cancel, entry.want_type) {
                    (true, _) => Ask::Cancel,
                    (false, wire::WANT_HAVE) => Ask::Have,
                    (false, _) => Ask::Block,
                };
                message.entries.push(Entry {
                    cid,
                    priority: entry.priority,
                    ask,
                    send_dont_have: entry.send_dont_have,
                });
            }
        }
        for presence in wire.presences {
            let Some(cid) = cid(&presence.cid) else { continue };
            message.presences.push((cid, presence.kind == wire::HAVE));
        }
        for block in wire.payload {
            match RawBlock::read(&block.prefix, block.data) {
                Some(block) => message.blocks.push(block),
                None => skipped += 1,
            }
        }
        for data in wire.blocks {
            if data.len() <= MAX_BLOCK_BYTES {
                message.blocks.push(RawBlock { prefix: Prefix::V0, data });
            } else {
                skipped += 1;
            }
        }
        message.skipped = skipped;
        Ok(message)
    }
}

/// Refuses a message of too many items by a look at its fields.
fn check_items(frame: &Bytes) -> Result<(), MessageError> {
    let mut items = 0;
    let mut wantlists = Vec::new();
    check_fields(frame.clone(), &mut items, |tag, field| {
        if tag == wire::WANTLIST_TAG {
            wantlists.push(field);
        }
    })?;
    for wantlist in wantlists {
        check_fields(wantlist, &mut items, |_, _| ())?;
    }
    Ok(())
}

/// Counts the fields of one message, and shows each that may be a message itself.
fn check_fields(mut bytes: Bytes, items: &mut usize, mut show: impl FnMut(u32, Bytes)) -> Result<(), MessageError> {
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        *items += 1;
        if *items > MAX_BITSWAP_MESSAGE_ITEMS {
            return Err(MessageError::TooManyItems);
        }
        let field = bytes.clone();
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
        if wire_type == WireType::LengthDelimited {
            let mut field = field.slice(..field.len() - bytes.len());
            decode_varint(&mut field)?;
            show(tag, field);
        }
    }
    Ok(())
}

/// A message to a peer.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// Whether `entries` are all that we want of the peer.
    pub full: bool,
    /// What changed in what we want.
    pub entries: Vec<Entry>,
    /// Blocks that the peer wanted.
    pub blocks: Vec<Block>,
    /// Blocks that we have, or not.
    pub presences: Vec<(Cid, bool)>,
    /// Bytes of blocks that are queued for the peer behind these.
    pub pending_bytes: i32,
}

/// A frame with its length, in pieces to be sent one after the other. What a version cannot say is left out: presences, and
/// in 1.0.0 blocks that have no CIDv0.
pub fn encode(message: &Outgoing, version: Version) -> Vec<Bytes> {
    let has_presences = version >= Version::V1_2;
    let mut head = wire::Message { pending_bytes: message.pending_bytes, ..wire::Message::default() };
    if message.full || !message.entries.is_empty() {
        let entries = message.entries.iter().map(|entry| wire::Entry {
            block: Bytes::copy_from_slice(entry.cid.as_bytes()),
            priority: entry.priority,
            cancel: entry.ask == Ask::Cancel,
            want_type: if has_presences && entry.ask == Ask::Have { wire::WANT_HAVE } else { wire::WANT_BLOCK },
            send_dont_have: has_presences && entry.send_dont_have,
        });
        head.wantlist = Some(wire::Wantlist { entries: entries.collect(), full: message.full });
    }
    if has_presences {
        let presences = message.presences.iter().map(|(cid, is_here)| wire::Presence {
            cid: Bytes::copy_from_slice(cid.as_bytes()),
            kind: if *is_here { wire::HAVE } else { wire::DONT_HAVE },
        });
        head.presences = presences.collect();
    } else {
        head.pending_bytes = 0;
    }

    let mut pieces = vec![Bytes::new()];
    let mut blocks_len = 0;
    for block in &message.blocks {
        let Some(start) = block_start(block, version) else { continue };
        blocks_len += start.len() + block.data().len();
        pieces.push(start);
        pieces.push(block.data().clone());
    }
    let head_len = head.encoded_len();
    let mut first = BytesMut::with_capacity(head_len + 10);
    encode_varint((head_len + blocks_len) as u64, &mut first);
    head.encode(&mut first).expect("a BytesMut grows");
    pieces[0] = first.freeze();
    pieces
}

/// What goes before the bytes of a block.
fn block_start(block: &Block, version: Version) -> Option<Bytes> {
    let cid = block.cid();
    let data_len = block.data().len();
    let mut out = BytesMut::with_capacity(64);
    if version == Version::V1_0 {
        (cid.hash_code() == HashFunction::Sha2_256.code()).then_some(())?;
        encode_varint(2 << 3 | 2, &mut out);
        encode_varint(data_len as u64, &mut out);
        return Some(out.freeze());
    }
    let mut prefix = BytesMut::with_capacity(16);
    for number in [u64::from(cid.version()), cid.codec(), cid.hash_code(), cid.digest().len() as u64] {
        encode_varint(number, &mut prefix);
    }
    let prefix_field_len = 1 + encoded_len_varint(prefix.len() as u64) + prefix.len();
    let data_field_len = 1 + encoded_len_varint(data_len as u64) + data_len;
    encode_varint(3 << 3 | 2, &mut out);
    encode_varint((prefix_field_len + data_field_len) as u64, &mut out);
    encode_varint(1 << 3 | 2, &mut out);
    encode_varint(prefix.len() as u64, &mut out);
    out.extend_from_slice(&prefix);
    encode_varint(2 << 3 | 2, &mut out);
    encode_varint(data_len as u64, &mut out);
    Some(out.freeze())
}

/// The protobuf messages of the specification.
mod wire {
    use bytes::Bytes;

    pub const WANTLIST_TAG: u32 = 1;
    pub const WANT_BLOCK: i32 = 0;
    pub const WANT_HAVE: i32 = 1;
    pub const HAVE: i32 = 0;
    pub const DONT_HAVE: i32 = 1;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Message {
        #[prost(message, optional, tag = "1")]
        pub wantlist: Option<Wantlist>,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        pub blocks: Vec<Bytes>,
        #[prost(message, repeated, tag = "3")]
        pub payload: Vec<Block>,
        #[prost(message, repeated, tag = "4")]
        pub presences: Vec<Presence>,
        #[prost(int32, tag = "5")]
        pub pending_bytes: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Wantlist {
        #[prost(message, repeated, tag = "1")]
        pub entries: Vec<Entry>,
        #[prost(bool, tag = "2")]
        pub full: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(bytes = "bytes", tag = "1")]
        pub block: Bytes,
        #[prost(int32, tag = "2")]
        pub priority: i32,
        #[prost(bool, tag = "3")]
        pub cancel: bool,
        #[prost(int32, tag = "4")]
        pub want_type: i32,
        #[prost(bool, tag = "5")]
        pub send_dont_have: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Block {
        #[prost(bytes = "bytes", tag = "1")]
        pub prefix: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub data: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Presence {
        #[prost(bytes = "bytes", tag = "1")]
        pub cid: Bytes,
        #[prost(int32, tag = "2")]
        pub kind: i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(pieces: &[Bytes]) -> Bytes {
        let mut all = Bytes::from(pieces.concat());
        let len = decode_varint(&mut all).unwrap();
        assert_eq!(len, all.len() as u64);
        all
    }

    fn blocks() -> Vec<Block> {
        let data = Bytes::from_static(b"some bytes");
        let full = HashFunction::Sha2_512.digest(&data);
        let short = Multihash::wrap(0x13, &full.as_bytes()[2..34]).unwrap();
        vec![
            Block::new_v0(data.clone()),
            Block::new(codec::RAW, HashFunction::Sha2_256, data.clone()),
            Block::new(codec::DAG_CBOR, HashFunction::Blake3, Bytes::new()),
            Block::verify(Cid::new_v1(codec::RAW, &short), data).unwrap(),
        ]
    }

    #[test]
    fn blocks_of_every_kind_arrive_as_they_were_sent() {
        let message = Outgoing { blocks: blocks(), ..Outgoing::default() };
        for version in [Version::V1_1, Version::V1_2] {
            let got = Message::decode(frame(&encode(&message, version))).unwrap();
            let got: Vec<Block> = got.blocks.into_iter().map(|block| block.into_block().unwrap()).collect();
            assert_eq!(got, message.blocks);
        }
    }

    #[test]
    fn version_1_0_carries_sha2_256_only_and_names_it_v0() {
        let message =
            Outgoing { blocks: blocks(), presences: vec![(blocks()[0].cid().clone(), true)], ..Outgoing::default() };
        let got = Message::decode(frame(&encode(&message, Version::V1_0))).unwrap();
        assert!(got.presences.is_empty());
        let got: Vec<Block> = got.blocks.into_iter().map(|block| block.into_block().unwrap()).collect();
        assert_eq!(got, [message.blocks[0].clone(), message.blocks[0].clone()]);
    }

    #[test]
    fn a_message_is_what_the_specification_says_byte_for_byte() {
        let cid = Cid::new_v0(&HashFunction::Sha2_256.digest(b"x"));
        let entry = Entry { cid: cid.clone(), priority: 1, ask: Ask::Have, send_dont_have: true };
        let message = Outgoing { entries: vec![entry], full: true, ..Outgoing::default() };
        let mut expected = vec![48, 0x0a, 46, 0x0a, 42, 0x0a, 34];
        expected.extend_from_slice(cid.as_bytes());
        expected.extend_from_slice(&[0x10, 1, 0x20, 1, 0x28, 1, 0x10, 1]);
        assert_eq!(encode(&message, Version::V1_2).concat(), expected);
    }

    #[test]
    fn a_message_of_too_many_items_is_refused_before_they_are_allocated() {
        let mut wantlist = Vec::new();
        for _ in 0..=MAX_BITSWAP_MESSAGE_ITEMS {
            wantlist.extend_from_slice(&[0x0a, 0]);
        }
        let mut bytes = BytesMut::new();
        encode_varint(0x0a, &mut bytes);
        encode_varint(wantlist.len() as u64, &mut bytes);
        bytes.extend_from_slice(&wantlist);
        assert!(matches!(Message::decode(bytes.freeze()), Err(MessageError::TooManyItems)));
        let blocks = [0x12, 0].repeat(MAX_BITSWAP_MESSAGE_ITEMS + 1);
        assert!(matches!(Message::decode(blocks.into()), Err(MessageError::TooManyItems)));
    }

    #[test]
    fn a_block_over_the_limit_is_skipped_unhashed() {
        let wire =
            wire::Message { blocks: vec![Bytes::from(vec![0; MAX_BLOCK_BYTES + 1])], ..wire::Message::default() };
        let got = Message::decode(wire.encode_to_vec().into()).unwrap();
        assert_eq!((got.blocks.len(), got.skipped), (0, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Message::decode(bytes.into());
        }

        #[test]
        fn what_is_said_is_understood(
            wants in proptest::collection::vec((any::<u8>(), any::<i32>(), 0..3_usize, any::<bool>()), 0..40),
            presences in proptest::collection::vec((any::<u8>(), any::<bool>()), 0..40),
            full: bool,
        ) {
            let cid = |seed: u8| Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&[seed]));
            let entries: Vec<Entry> = wants.into_iter().map(|(seed, priority, ask, send_dont_have)| Entry {
                cid: cid(seed), priority, ask: [Ask::Cancel, Ask::Have, Ask::Block][ask], send_dont_have,
            }).collect();
            let presences: Vec<(Cid, bool)> = presences.into_iter().map(|(seed, here)| (cid(seed), here)).collect();
            let message = Outgoing { full, entries, presences, pending_bytes: 7, ..Outgoing::default() };
            let got = Message::decode(frame(&encode(&message, Version::V1_2))).unwrap();
            prop_assert_eq!(
                (got.full, got.entries, got.presences, got.pending_bytes, got.skipped),
                (message.full, message.entries, message.presences, 7, 0)
            );
        }
    }
}
