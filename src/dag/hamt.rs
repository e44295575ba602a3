//! HAMT shards: directories too large for one node, as a trie over the hashes of their names
//! (<https://specs.ipfs.tech/unixfs/#dag-pb-hamtdirectory>).
//!
//! A shard is a dag-pb node whose UnixFS message holds a bitfield of the slots in use; each slot has one link, in the
//! order of the slots, named with the slot's number in upper-case hex. What follows the number is an entry's name; where
//! nothing follows, the link is a child shard that takes the next bits of the hash.
//!
//! - [`hash_name`] hashes a name; [`Shard::find`] follows it down, one shard a step.
//! - [`Shard::slots`] lists a shard in the order of its slots. Listed depth first, the whole trie is in the order of the
//!   hashes' bits, so a [`Position`] is a hash: it is the same whoever lists, and a listing can begin at any of them
//!   without having seen what comes before.
//! - [`encode`] writes one shard, byte for byte as kubo does.
//!
//! A [`Shard`] is decoded for its [`Place`]: the bits of the hash that lead to it. That bounds the depth of any trie by
//! the 64 bits of the hash, whatever links its shards have. An entry in a slot that its name does not hash to cannot be
//! found by its name; it is listed as a [`Slot::Stray`], so names in the listing of a whole trie are distinct.

pub mod build;

use std::io::Cursor;

use bytes::Bytes;

use super::DagError;
use super::pb::{self, PbLink, PbNode};
use super::unixfs::{Kind, Mtime, UnixFs};
use crate::block::Cid;
use crate::limits::{HAMT_FANOUT_MAX, HAMT_FANOUT_MIN, HAMT_HASH_BITS};

const FORMAT: &str = "HAMT";

/// The multicodec code of the one hash function in use: murmur3-x64-64.
pub const HASH_MURMUR3_X64_64: u64 = 0x22;

const BITFIELD_WORDS: usize = HAMT_FANOUT_MAX / 64;

/// The hash of an entry's name: the first 8 bytes of murmur3 x64-128, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameHash(u64);

/// Hashes an entry's name.
pub fn hash_name(name: &[u8]) -> NameHash {
    // Reading from memory does not fail.
    NameHash(murmur3::murmur3_x64_128(&mut Cursor::new(name), 0).map_or(0, |hash| hash as u64))
}

impl NameHash {
    /// The slot at a depth of `consumed` bits, in a shard that takes `width` bits; `None` past the end of the hash.
    pub fn slot(self, consumed: u32, width: u32) -> Option<usize> {
        (width > 0 && consumed + width <= HAMT_HASH_BITS)
            .then(|| ((self.0 << consumed) >> (HAMT_HASH_BITS - width)) as usize)
    }
}

/// Where in its trie a shard or an entry is: the bits of the hash that lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The bits, from the top; zeros below.
    path: u64,
    consumed: u32,
}

impl Place {
    /// The place of a trie's first shard.
    pub const ROOT: Place = Place { path: 0, consumed: 0 };

    /// How many bits of the hash lead here.
    pub fn consumed_bits(self) -> u32 {
        self.consumed
    }

    /// The position at which a listing of what is here begins.
    pub fn position(self) -> Position {
        Position(self.path >> 1)
    }

    /// Whether a listing from `position` on has anything from here.
    pub fn reaches(self, position: Position) -> bool {
        let last = self.path | u64::MAX.checked_shr(self.consumed).unwrap_or(0);
        position.0 <= last >> 1
    }

    /// The place of a slot; [`Shard`] has made sure that the bits suffice.
    fn slot(self, slot: usize, width: u32) -> Place {
        let consumed = self.consumed + width;
        Place { path: self.path | (slot as u64) << (HAMT_HASH_BITS - consumed), consumed }
    }

    fn leads(self, hash: NameHash) -> bool {
        self.consumed == 0 || (hash.0 ^ self.path) >> (HAMT_HASH_BITS - self.consumed) == 0
    }
}

/// A point in the listing of a whole trie. It fits the signed 64 bits of a directory offset, and stays below `i64::MAX`
/// for any directory whose names were not made to collide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u64);

impl Position {
    /// Where every listing begins.
    pub const START: Position = Position(0);

    /// The position after this one: where a listing goes on after the entry at `self`.
    #[must_use]
    pub fn next(self) -> Position {
        Position((self.0 + 1).min(i64::MAX as u64))
    }

    /// The position as a number: at most `i64::MAX`, and in the order of the listing.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The position of a number. Any number is one; it need not be that of an entry.
    pub fn from_u64(number: u64) -> Position {
        Position(number.min(i64::MAX as u64))
    }
}

/// One shard of a directory, over the bytes of its block.
#[derive(Clone, Debug)]
pub struct Shard {
    node: PbNode,
    place: Place,
    width: u32,
    prefix_len: usize,
    /// Bit `n % 64` of word `n / 64` says that slot `n` is in use.
    bitfield: [u64; BITFIELD_WORDS],
    /// Where each link begins: at most as many as the fanout, however large the node.
    starts: Box<[u32]>,
    mode: Option<u32>,
    mtime: Option<Mtime>,
}

/// What a name's slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The entry; [`PbLink::name`] is its own, without the slot's number.
    Entry(PbLink<'a>),
    /// The child shard that has the entry if any does: decode it for this place and ask again.
    Shard(Cid, Place),
    /// No such name in the directory.
    Nothing,
}

/// What a slot in use holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot<'a> {
    /// An entry; [`PbLink::name`] is its own, without the slot's number.
    Entry(PbLink<'a>, Position),
    /// A child shard, to be decoded for this place.
    Shard(Cid, Place),
    /// An entry whose name does not hash to this slot, so that no lookup finds it.
    Stray(PbLink<'a>),
}

impl Shard {
    /// Reads a block as the shard at `place`.
    pub fn decode(bytes: Bytes, place: Place) -> Result<Shard, DagError> {
        let node = PbNode::decode(bytes)?;
        let data = node.data().ok_or_else(|| DagError::malformed(FORMAT, "a node without data"))?;
        Shard::from_node(node, &UnixFs::decode(&data)?, place)
    }

    /// Reads a node, whose data holds `unixfs`, as the shard at `place`.
    pub fn from_node(node: PbNode, unixfs: &UnixFs, place: Place) -> Result<Shard, DagError> {
        let malformed = |why: String| DagError::malformed(FORMAT, why);
        if unixfs.kind != Kind::HamtShard {
            return Err(malformed(format!("a shard of type {:?}", unixfs.kind)));
        }
        match unixfs.hash_type {
            Some(HASH_MURMUR3_X64_64) => {}
            Some(code) => return Err(malformed(format!("hash function {code:#x}"))),
            None => return Err(malformed("no hash function".into())),
        }
        let width = width_of(unixfs.fanout.unwrap_or(0))?;
        if place.consumed + width > HAMT_HASH_BITS {
            return Err(DagError::Limit { what: "bits of the hash in a HAMT".into(), limit: HAMT_HASH_BITS.into() });
        }
        let bitfield = read_bitfield(unixfs.data.as_deref().unwrap_or_default(), width)?;
        let in_use: usize = bitfield.iter().map(|word| word.count_ones() as usize).sum();
        if in_use != node.link_count() {
            return Err(malformed(format!("{in_use} slots in use and {} links", node.link_count())));
        }
        let prefix_len = prefix_len(width);
        let mut starts = Vec::with_capacity(in_use);
        let mut links = node.links();
        for slot in slots_in_use(&bitfield, 0) {
            starts.push(links.position() as u32);
            let Some(link) = links.next() else { break };
            if link.name.get(..prefix_len).and_then(read_prefix) != Some(slot) {
                let name = String::from_utf8_lossy(link.name);
                return Err(malformed(format!("the link {name:?} in slot {slot:0prefix_len$X}")));
            }
        }
        Ok(Shard {
            place,
            width,
            prefix_len,
            bitfield,
            starts: starts.into(),
            mode: unixfs.mode,
            mtime: unixfs.mtime,
            node,
        })
    }

    /// Where in its trie the shard is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The whole block, which the names of its links borrow from.
    pub fn bytes(&self) -> &Bytes {
        self.node.bytes()
    }

    /// The number of slots.
    pub fn fanout(&self) -> usize {
        1 << self.width
    }

    /// The number of slots in use.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The directory's mode, where the first shard of a trie has one.
    pub fn mode(&self) -> Option<u32> {
        self.mode
    }

    /// The directory's time of last change, where the first shard of a trie has one.
    pub fn mtime(&self) -> Option<Mtime> {
        self.mtime
    }

    /// Looks for the entry `name`, whose hash is `hash`, in this shard.
    pub fn find(&self, name: &[u8], hash: NameHash) -> Found<'_> {
        let Some(slot) = hash.slot(self.place.consumed, self.width).filter(|slot| self.uses(*slot)) else {
            return Found::Nothing;
        };
        if !self.place.leads(hash) {
            return Found::Nothing;
        }
        match self.link(slot) {
            Some(link) if link.name.is_empty() => Found::Shard(link.cid, self.place.slot(slot, self.width)),
            Some(link) if link.name == name => Found::Entry(link),
            _ => Found::Nothing,
        }
    }

    /// What the shard holds from `from` on, in the order of its slots. Pass [`Position::START`] for all of it.
    pub fn slots(&self, from: Position) -> Slots<'_> {
        let from = from.0 << 1;
        let first = if from <= self.place.path {
            0
        } else if self.place.leads(NameHash(from)) {
            NameHash(from).slot(self.place.consumed, self.width).unwrap_or(0)
        } else {
            self.fanout()
        };
        Slots { shard: self, next: first }
    }

    fn uses(&self, slot: usize) -> bool {
        self.bitfield[slot / 64] >> (slot % 64) & 1 == 1
    }

    /// The link of a slot in use, with the slot's number taken off its name.
    fn link(&self, slot: usize) -> Option<PbLink<'_>> {
        let below: u32 = self.bitfield[..slot / 64].iter().map(|word| word.count_ones()).sum();
        let beside = (self.bitfield[slot / 64] & ((1 << (slot % 64)) - 1)).count_ones();
        let start = *self.starts.get((below + beside) as usize)?;
        let (mut link, _) = self.node.link_at(start as usize)?;
        link.name = &link.name[self.prefix_len..];
        Some(link)
    }
}

/// The slots in use of a [`Shard`].
#[derive(Clone, Debug)]
pub struct Slots<'a> {
    shard: &'a Shard,
    next: usize,
}

impl<'a> Iterator for Slots<'a> {
    type Item = Slot<'a>;

    fn next(&mut self) -> Option<Slot<'a>> {
        let slot = slots_in_use(&self.shard.bitfield, self.next).next()?;
        self.next = slot + 1;
        let place = self.shard.place.slot(slot, self.shard.width);
        let link = self.shard.link(slot)?;
        Some(if link.name.is_empty() {
            Slot::Shard(link.cid, place)
        } else if place.leads(hash_name(link.name)) {
            Slot::Entry(link, place.position())
        } else {
            Slot::Stray(link)
        })
    }
}

/// Encodes one shard as kubo does. `slots` are those in use, in ascending order: each with its link, whose name is the
/// entry's, or empty for a child shard. Mode and mtime belong to the first shard of a trie.
pub fn encode<'a>(
    fanout: usize,
    slots: impl IntoIterator<Item = (usize, PbLink<'a>)>,
    mode: Option<u32>,
    mtime: Option<Mtime>,
) -> Result<Vec<u8>, DagError> {
    let width = width_of(fanout as u64)?;
    let prefix_len = prefix_len(width);
    let mut bitfield = vec![0_u8; fanout / 8];
    let mut next = 0;
    let mut links = Vec::new();
    for (slot, link) in slots {
        if slot < next || slot >= fanout {
            return Err(DagError::malformed(FORMAT, format!("slot {slot} after slot {next} of {fanout}")));
        }
        next = slot + 1;
        bitfield[fanout / 8 - 1 - slot / 8] |= 1 << (slot % 8);
        let mut name = format!("{slot:0prefix_len$X}").into_bytes();
        name.extend_from_slice(link.name);
        links.push((name, link));
    }
    let unused = bitfield.iter().take_while(|byte| **byte == 0).count();
    bitfield.drain(..unused);
    let unixfs = UnixFs {
        data: (!bitfield.is_empty()).then(|| Bytes::from(bitfield)),
        hash_type: Some(HASH_MURMUR3_X64_64),
        fanout: Some(fanout as u64),
        mode,
        mtime,
        ..UnixFs::new(Kind::HamtShard)
    };
    let links = links.iter().map(|(name, link)| PbLink { cid: link.cid.clone(), name, tsize: link.tsize });
    Ok(pb::encode(links, Some(&unixfs.encode())))
}

/// How many bits of the hash a shard with this many slots takes.
fn width_of(fanout: u64) -> Result<u32, DagError> {
    if fanout.is_power_of_two() && (HAMT_FANOUT_MIN as u64..=HAMT_FANOUT_MAX as u64).contains(&fanout) {
        Ok(fanout.trailing_zeros())
    } else {
        let why = format!("a fanout of {fanout}, not a power of two from {HAMT_FANOUT_MIN} to {HAMT_FANOUT_MAX}");
        Err(DagError::malformed(FORMAT, why))
    }
}

/// How many hex digits number the slots.
fn prefix_len(width: u32) -> usize {
    width.div_ceil(4) as usize
}

/// Reads a slot's number: upper-case hex, nothing else.
fn read_prefix(prefix: &[u8]) -> Option<usize> {
    prefix.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        Some(number << 4 | usize::from(value))
    })
}

/// Reads a bitfield: big-endian, and as many leading zeros cut off as the writer liked.
fn read_bitfield(bytes: &[u8], width: u32) -> Result<[u64; BITFIELD_WORDS], DagError> {
    let fanout = 1_usize << width;
    if bytes.len() > fanout / 8 {
        return Err(DagError::malformed(FORMAT, format!("a bitfield of {} bytes for {fanout} slots", bytes.len())));
    }
    let mut words = [0; BITFIELD_WORDS];
    for (index, byte) in bytes.iter().rev().enumerate() {
        words[index / 8] |= u64::from(*byte) << (index % 8 * 8);
    }
    Ok(words)
}

/// The slots in use from `from` on, ascending.
fn slots_in_use(bitfield: &[u64; BITFIELD_WORDS], from: usize) -> impl Iterator<Item = usize> {
    let first = (from / 64).min(BITFIELD_WORDS);
    (first..BITFIELD_WORDS).flat_map(move |index| {
        let mut word = bitfield[index];
        if index == from / 64 {
            word &= u64::MAX << (from % 64);
        }
        std::iter::from_fn(move || {
            let bit = word.trailing_zeros();
            word &= word.wrapping_sub(1);
            (bit < 64).then_some(index * 64 + bit as usize)
        })
    })
}

#[cfg(test)]
mod tests;
