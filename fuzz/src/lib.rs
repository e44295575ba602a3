//! What must hold of every decoder for any bytes: it ends, it neither panics nor runs out of memory, and what it accepts
//! goes back to bytes that mean the same. One function for each target in `fuzz_targets`.
//!
//! The decoders are compiled here from the sources of their floors alone (the links beside this file), not as the library:
//! it would bring with it the servers and databases of the floors above, and minutes of building.

// Of these floors only the decoders are used here.
#![allow(dead_code, unused_imports)]

pub mod block;
pub mod dag;
pub mod limits;
pub mod message;

use std::io::Read;

use crate::block::{Cid, Multihash, codec};
use crate::dag::car::index::{Index, write_index_sorted, write_multihash_index_sorted};
use crate::dag::car::{CarReader, V2Header};
use crate::dag::directory::Directory;
use crate::dag::hamt::{self, Found, Place, Position, Shard, Slot};
use crate::dag::ipld::{Node, Value};
use crate::dag::pb::{self, PbNode};
use crate::dag::unixfs::{Kind, UnixFs};
use crate::dag::{Links, can_link};
use crate::message::{Message, Outgoing, Version};
use bytes::Bytes;

/// CIDs and multihashes, as bytes and as text.
pub fn cid(data: &[u8]) {
    if let Ok(cid) = Cid::from_bytes(data) {
        assert_eq!(cid.as_bytes(), data);
        assert_eq!(cid.to_string().parse::<Cid>().as_ref(), Ok(&cid));
        assert_eq!(Cid::read(data), Ok((cid.clone(), data.len())));
        assert_eq!(
            Multihash::from_bytes(cid.multihash()).map(|hash| hash.as_bytes().to_vec()),
            Ok(cid.multihash().to_vec())
        );
        assert!(cid.multihash().ends_with(cid.digest()));
        assert_eq!(cid.to_v1().multihash(), cid.multihash());
        assert_eq!(cid.to_v1().codec(), cid.codec());
    }
    if let Ok(hash) = Multihash::from_bytes(data) {
        assert_eq!(hash.as_bytes(), data);
        assert_eq!(Cid::new_v1(codec::RAW, &hash).multihash(), data);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cid) = text.parse::<Cid>()
    {
        assert_eq!(Cid::from_bytes(cid.as_bytes()), Ok(cid));
    }
}

/// dag-pb nodes, and the directories that they may be.
pub fn dag_pb(data: &[u8]) {
    let Ok(node) = PbNode::decode(Bytes::copy_from_slice(data)) else { return };
    assert_eq!(node.links().count(), node.link_count());
    let again = pb::encode(node.links(), node.data().as_deref());
    let again = PbNode::decode(again.into()).expect("what is encoded is a node");
    assert_eq!(again.data(), node.data());
    assert!(again.links().eq(node.links()));
    for entry in Directory::from_node(&node).entries() {
        let name = entry.name.clone();
        assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0) && name.len() <= 255);
    }
}

/// UnixFS messages.
pub fn unixfs(data: &[u8]) {
    let Ok(node) = UnixFs::decode(&Bytes::copy_from_slice(data)) else { return };
    assert_eq!(UnixFs::decode(&node.encode().into()).as_ref(), Ok(&node));
    assert!(node.permissions() <= 0o7777);
}

/// HAMT shards.
pub fn hamt(data: &[u8]) {
    let Ok(shard) = Shard::decode(Bytes::copy_from_slice(data), Place::ROOT) else { return };
    let mut last = None;
    let mut count = 0;
    for slot in shard.slots(Position::START) {
        count += 1;
        match slot {
            Slot::Entry(link, position) => {
                assert!(last < Some(position));
                last = Some(position);
                assert_eq!(shard.find(link.name, hamt::hash_name(link.name)), Found::Entry(link.clone()));
                assert!(shard.slots(position).any(|slot| slot == Slot::Entry(link.clone(), position)));
            }
            // The name may be in its own slot too: then that entry is found, and never the stray one.
            Slot::Stray(link) => {
                if let Found::Entry(found) = shard.find(link.name, hamt::hash_name(link.name)) {
                    let is_listed = |slot| matches!(slot, Slot::Entry(entry, _) if entry == found);
                    assert!(shard.slots(Position::START).any(is_listed));
                }
            }
            Slot::Shard(_, place) => {
                assert!(last < Some(place.position()));
                last = Some(place.position());
            }
        }
    }
    assert_eq!(count, shard.len());
    assert!(count <= shard.fanout() && shard.fanout() <= 1024);
}

/// dag-cbor: what is accepted is in its one form, so it is written back byte for byte.
pub fn dag_cbor(data: &[u8]) {
    let Ok(node) = Node::decode(codec::DAG_CBOR, &Bytes::copy_from_slice(data)) else { return };
    assert_eq!(node.encode(codec::DAG_CBOR).as_deref(), Ok(data));
    walk(&node);
    let _ = node.encode(codec::DAG_PB);
}

/// dag-json, and what it becomes in dag-cbor.
pub fn dag_json(data: &[u8]) {
    let Ok(node) = Node::decode(codec::DAG_JSON, &Bytes::copy_from_slice(data)) else { return };
    walk(&node);
    let cbor = node.encode(codec::DAG_CBOR).expect("dag-cbor holds every node");
    let again = Node::decode(codec::DAG_CBOR, &cbor.into()).expect("what is encoded is dag-cbor");
    let json = again.encode(codec::DAG_JSON).expect("dag-json holds every node");
    assert_eq!(node.encode(codec::DAG_JSON).as_ref(), Ok(&json));
    if let Ok(third) = Node::decode(codec::DAG_JSON, &json.clone().into()) {
        assert_eq!(third.encode(codec::DAG_JSON), Ok(json));
    }
}

/// Looks at every child of a node, and of its children as deep as a test may.
fn walk(node: &Node) {
    let mut open = vec![(node.clone(), 0)];
    while let Some((node, depth)) = open.pop() {
        let len = match node.value() {
            Value::List(len) | Value::Map(len) => len,
            _ => 0,
        };
        assert_eq!(node.children().count() as u64, len);
        assert_eq!(node.contents().is_none(), matches!(node.value(), Value::List(_) | Value::Map(_) | Value::Link(_)));
        if depth < 8 {
            open.extend(node.children().take(20).map(|(_, child)| (child, depth + 1)));
        }
    }
    assert!(node.links().count() <= 1 << 20);
}

/// The links of a block of any codec: the first byte says which.
pub fn links(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let kinds = [codec::RAW, codec::DAG_PB, codec::DAG_CBOR, codec::DAG_JSON, 0x9999];
    let codec = kinds[usize::from(*kind) % kinds.len()];
    let cid = Cid::new_v1(codec, &crate::block::HashFunction::Identity.digest(b""));
    let data = Bytes::copy_from_slice(data);
    let Ok(all) = crate::dag::links(&cid, &data) else { return };
    assert!(all.is_empty() || can_link(codec));
    let mut one_by_one = Links::decode(&cid, &data).expect("it was read before");
    for link in all {
        let again = Links::decode(&cid, &data).expect("it was read before").from_position(one_by_one.position()).next();
        let next = one_by_one.next();
        assert_eq!(next, again);
        assert_eq!(next.map(|found| found.cid), Some(link));
        assert!(one_by_one.position() <= 8 * data.len() + 16);
    }
    // Any position at all must do no harm.
    let _ = Links::decode(&cid, &data).expect("it was read before").from_position(usize::from(*kind)).take(10).count();
}

/// CARs of both versions, whole and a byte at a time.
pub fn car(data: &[u8]) {
    struct Trickle<'a>(&'a [u8]);
    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let len = out.len().min(1);
            self.0.read(&mut out[..len])
        }
    }
    let read = |source: &mut dyn Read| {
        let mut reader = CarReader::new(source).ok()?;
        let mut sections = Vec::new();
        while let Ok(Some(section)) = reader.next_section() {
            sections.push(section);
        }
        Some((reader.version(), reader.roots().to_vec(), sections))
    };
    let mut whole = data;
    let found = read(&mut whole);
    assert_eq!(found, read(&mut Trickle(data)));
    if let Some((_, _, sections)) = found {
        assert!(sections.iter().map(|section| section.data.len()).sum::<usize>() <= data.len());
    }
    if let Some(Ok(header)) = data.first_chunk().map(|bytes: &[u8; V2Header::LEN]| V2Header::decode(bytes)) {
        assert_eq!(V2Header::decode(&header.encode()), Ok(header));
    }
}

/// Indexes of CARs.
pub fn car_index(data: &[u8]) {
    let Ok(index) = Index::decode(data) else { return };
    assert_eq!(index.entries().count(), index.len());
    let mut multihashes = Vec::new();
    for entry in index.entries().take(100) {
        let _ = index.find(entry.code.unwrap_or(0), entry.digest).count();
        if let Ok(hash) = Multihash::wrap(entry.code.unwrap_or(0x12), entry.digest) {
            multihashes.push((hash, entry.offset));
        }
    }
    let entries = || multihashes.iter().map(|(hash, offset)| (hash.as_bytes(), *offset));
    let (mut by_hash, mut by_digest) = (Vec::new(), Vec::new());
    write_multihash_index_sorted(entries(), &mut by_hash).expect("memory takes it");
    write_index_sorted(entries(), &mut by_digest).expect("memory takes it");
    for bytes in [by_hash, by_digest] {
        let again = Index::decode(&bytes).expect("what is written is an index");
        assert_eq!(again.len(), multihashes.len());
    }
}

/// Bitswap messages: what is understood is understood again when it is said again, and blocks hash to what they are named.
pub fn bitswap_message(data: &[u8]) {
    let Ok(message) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    let mut blocks = Vec::new();
    for raw in &message.blocks {
        assert!(raw.data_bytes() <= data.len());
        // A digest that is too short to be trusted names nothing.
        if let Ok(block) = raw.clone().into_block() {
            assert!(crate::block::Block::verify(block.cid().clone(), block.data().clone()).is_ok());
            blocks.push(block);
        }
    }
    let again = Outgoing {
        full: message.full,
        entries: message.entries.clone(),
        blocks: blocks.clone(),
        presences: message.presences.clone(),
        pending_bytes: message.pending_bytes,
    };
    for version in Version::ALL {
        let bytes = Bytes::from(message::encode(&again, version).concat());
        let mut len_bytes = 1;
        while bytes[len_bytes - 1] & 0x80 != 0 {
            len_bytes += 1;
        }
        let got = Message::decode(bytes.slice(len_bytes..)).expect("what is said is a message");
        assert_eq!(got.skipped, 0);
        assert_eq!(got.entries.len(), message.entries.len());
        if version == Version::V1_2 {
            assert_eq!((got.entries, got.presences), (message.entries.clone(), message.presences.clone()));
            let got: Vec<_> = got.blocks.into_iter().filter_map(|raw| raw.into_block().ok()).collect();
            assert_eq!(got, blocks);
        }
    }
}

/// A seed for [`unixfs`] that no vector has: every field at once.
pub fn every_unixfs_field() -> Vec<u8> {
    UnixFs { filesize: Some(3), blocksizes: vec![1, 2], mode: Some(0o755), ..UnixFs::new(Kind::File) }.encode()
}
