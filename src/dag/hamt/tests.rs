use std::collections::HashMap;

use super::*;
use crate::block::{HashFunction, codec};

fn cid(seed: &[u8]) -> Cid {
    Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(seed))
}

fn link(name: &[u8]) -> PbLink<'_> {
    PbLink { cid: cid(name), name, tsize: Some(name.len() as u64) }
}

#[test]
fn the_hash_is_that_of_the_go_implementation() {
    // boxo's `unixfs/hamt`: murmur3.New64 and its big-endian sum.
    assert_eq!(hash_name(b"").0, 0);
    assert_eq!(hash_name(b"hello").0, 0xcbd8_a7b3_41bd_9b02);
    assert_eq!(hash_name(b"hello, world").0, 0x342f_ac62_3a5e_bc8e);
    assert_eq!(hash_name(b"The quick brown fox jumps over the lazy dog.").0, 0xcd99_481f_9ee9_02c9);
}

#[test]
fn a_hash_is_taken_apart_from_the_top() {
    let hash = NameHash(0xABCD_EF01_2345_6789);
    assert_eq!(
        (0..8).map(|level| hash.slot(level * 8, 8).unwrap()).collect::<Vec<_>>(),
        [0xAB, 0xCD, 0xEF, 0x01, 0x23, 0x45, 0x67, 0x89]
    );
    assert_eq!(hash.slot(0, 10), Some(0xABCD >> 6));
    assert_eq!(hash.slot(10, 10), Some(0xABCDE & 0x3FF));
    assert_eq!((hash.slot(60, 4), hash.slot(61, 4), hash.slot(64, 3)), (Some(9), None, None));
}

/// A trie over `names`: its root, and its blocks. Written without looking at the decoder.
fn build(fanout: usize, names: &[Vec<u8>]) -> (Cid, HashMap<Cid, Bytes>) {
    fn shard(fanout: usize, consumed: u32, names: &[&[u8]], blocks: &mut HashMap<Cid, Bytes>) -> Cid {
        let width = fanout.trailing_zeros();
        let mut slots = std::collections::BTreeMap::<usize, Vec<&[u8]>>::new();
        for name in names {
            slots.entry(hash_name(name).slot(consumed, width).unwrap()).or_default().push(name);
        }
        let links: Vec<_> = slots
            .into_iter()
            .map(|(slot, names)| {
                if let [name] = names[..] {
                    (slot, link(name))
                } else {
                    let cid = shard(fanout, consumed + width, &names, blocks);
                    (slot, PbLink { cid, name: b"", tsize: Some(1) })
                }
            })
            .collect();
        let data = Bytes::from(encode(fanout, links, None, None).unwrap());
        let cid = Cid::new_v1(codec::DAG_PB, &HashFunction::Sha2_256.digest(&data));
        blocks.insert(cid.clone(), data);
        cid
    }
    let mut blocks = HashMap::new();
    let root = shard(fanout, 0, &names.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut blocks);
    (root, blocks)
}

/// Lists a trie depth first from `from` on: names with their positions.
fn list((root, blocks): &(Cid, HashMap<Cid, Bytes>), from: Position) -> Vec<(Vec<u8>, Position)> {
    let mut out = Vec::new();
    let mut waiting = vec![(root.clone(), Place::ROOT)];
    while let Some((cid, place)) = waiting.pop() {
        let shard = Shard::decode(blocks[&cid].clone(), place).unwrap();
        // The order between a shard and its children is settled by the positions below.
        let mut children = Vec::new();
        for slot in shard.slots(from) {
            match slot {
                Slot::Entry(link, position) => out.push((link.name.to_vec(), position)),
                Slot::Shard(cid, place) => children.push((cid, place)),
                Slot::Stray(link) => panic!("{link:?}"),
            }
        }
        children.reverse();
        waiting.append(&mut children);
    }
    out.retain(|(_, position)| *position >= from);
    out.sort_by_key(|(_, position)| *position);
    out
}

#[test]
fn every_name_of_a_trie_is_found_and_listed_once_in_the_order_of_hashes() {
    for fanout in [8, 16, 64, 256, 512, 1024] {
        let mut names: Vec<_> = (0..3000).map(|n| format!("file {n}").into_bytes()).collect();
        let blocks = build(fanout, &names);
        for name in &names {
            let (mut cid, mut place) = (blocks.0.clone(), Place::ROOT);
            let found = loop {
                let shard = Shard::decode(blocks.1[&cid].clone(), place).unwrap();
                match shard.find(name, hash_name(name)) {
                    Found::Shard(child, child_place) => (cid, place) = (child, child_place),
                    Found::Entry(link) => break link.cid,
                    Found::Nothing => panic!("{name:?} is not found"),
                }
            };
            assert_eq!(found, link(name).cid);
        }
        let listed = list(&blocks, Position::START);
        names.sort_by_key(|name| hash_name(name));
        assert_eq!(listed.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
        assert!(listed.is_sorted_by(|a, b| a.1 < b.1), "positions are distinct and ascend");
    }
}

#[test]
fn a_listing_goes_on_from_any_position() {
    let names: Vec<_> = (0..500).map(|n| format!("file {n}").into_bytes()).collect();
    for fanout in [8, 256, 1024] {
        let blocks = build(fanout, &names);
        let whole = list(&blocks, Position::START);
        for (index, (_, position)) in whole.iter().enumerate() {
            assert_eq!(list(&blocks, *position), whole[index..]);
            assert_eq!(list(&blocks, position.next()), whole[index + 1..]);
            assert_eq!(Position::from_u64(position.as_u64()), *position);
        }
        assert_eq!(list(&blocks, Position::from_u64(u64::MAX)), []);
    }
}

#[test]
fn places_say_what_a_position_can_still_reach() {
    let place = Place::ROOT.slot(0x80, 8);
    assert!(place.reaches(Position::START) && place.reaches(place.position()));
    assert!(place.reaches(Position::from_u64(0x80FF_FFFF_FFFF_FFFF >> 1)));
    assert!(!place.reaches(Position::from_u64(0x8100_0000_0000_0000 >> 1)));
    assert!(Place::ROOT.reaches(Position::from_u64(u64::MAX)));
}

#[test]
fn a_stray_entry_is_listed_as_such_and_never_found() {
    let home = hash_name(b"name").slot(0, 8).unwrap();
    let data = Bytes::from(encode(256, [(home ^ 1, link(b"name"))], None, None).unwrap());
    let shard = Shard::decode(data, Place::ROOT).unwrap();
    assert_eq!(shard.slots(Position::START).collect::<Vec<_>>(), [Slot::Stray(link(b"name"))]);
    assert_eq!(shard.find(b"name", hash_name(b"name")), Found::Nothing);
}

#[test]
fn mode_and_mtime_of_the_first_shard_are_kept() {
    let mtime = Mtime { seconds: -1, nanoseconds: 5 };
    let data = Bytes::from(encode(256, [], Some(0o750), Some(mtime)).unwrap());
    let shard = Shard::decode(data, Place::ROOT).unwrap();
    assert_eq!((shard.mode(), shard.mtime(), shard.len(), shard.fanout()), (Some(0o750), Some(mtime), 0, 256));
    assert!(shard.is_empty());
}

fn shard_with(unixfs: &UnixFs, names: &[&[u8]]) -> Result<Shard, DagError> {
    let links = names.iter().map(|name| link(name));
    Shard::decode(Bytes::from(pb::encode(links, Some(&unixfs.encode()))), Place::ROOT)
}

fn unixfs(fanout: u64, bitfield: &'static [u8]) -> UnixFs {
    UnixFs {
        data: Some(Bytes::from_static(bitfield)),
        hash_type: Some(HASH_MURMUR3_X64_64),
        fanout: Some(fanout),
        ..UnixFs::new(Kind::HamtShard)
    }
}

#[test]
fn a_bitfield_may_have_leading_zeros_but_no_more_bytes_than_slots() {
    assert!(shard_with(&unixfs(16, &[0, 1]), &[b"0x"]).is_ok());
    assert!(shard_with(&unixfs(16, &[1]), &[b"0x"]).is_ok());
    assert!(shard_with(&unixfs(16, &[0, 0, 1]), &[b"0x"]).is_err());
    assert!(shard_with(&unixfs(8, &[1, 0]), &[b"8x"]).is_err());
    assert!(shard_with(&unixfs(16, &[3]), &[b"0x"]).is_err(), "two slots, one link");
    assert!(shard_with(&unixfs(16, &[1]), &[b"0x", b"1x"]).is_err(), "one slot, two links");
}

#[test]
fn a_fanout_out_of_bounds_is_refused() {
    for fanout in [0, 1, 4, 9, 255, 2048, u64::MAX, 1 << 63] {
        assert!(shard_with(&unixfs(fanout, &[1]), &[b"00x"]).is_err(), "{fanout}");
        if let Ok(fanout) = usize::try_from(fanout) {
            assert!(encode(fanout, [], None, None).is_err());
        }
    }
    for (fanout, prefix) in [(8, "0"), (16, "0"), (32, "00"), (256, "00"), (512, "000"), (1024, "000")] {
        assert!(shard_with(&unixfs(fanout, &[1]), &[format!("{prefix}x").as_bytes()]).is_ok(), "{fanout}");
    }
}

#[test]
fn a_prefix_that_does_not_number_its_slot_is_refused() {
    assert!(shard_with(&unixfs(256, &[4, 0]), &[b"0Ax"]).is_ok());
    for name in [&b"0ax"[..], b"0Bx", b"A", b"", b"+Ax", b"00Ax"] {
        assert!(shard_with(&unixfs(256, &[4, 0]), &[name]).is_err(), "{name:?}");
    }
    assert!(shard_with(&unixfs(256, &[12, 0]), &[b"0Bx", b"0Ax"]).is_err(), "links out of order");
}

#[test]
fn another_hash_function_or_type_is_refused() {
    assert!(shard_with(&UnixFs { hash_type: Some(0x12), ..unixfs(256, &[1]) }, &[b"00x"]).is_err());
    assert!(shard_with(&UnixFs { hash_type: None, ..unixfs(256, &[1]) }, &[b"00x"]).is_err());
    assert!(shard_with(&UnixFs { kind: Kind::Directory, ..unixfs(256, &[1]) }, &[b"00x"]).is_err());
    assert!(Shard::decode(Bytes::new(), Place::ROOT).is_err());
}

#[test]
fn a_chain_of_shards_ends_with_the_bits_of_the_hash() {
    for (fanout, deepest) in [(8, 21), (256, 8), (1024, 6)] {
        let data = Bytes::from(encode(fanout, [(1, PbLink { name: b"", ..link(b"next") })], None, None).unwrap());
        let mut place = Place::ROOT;
        let mut depth = 0;
        // The block names a child shard; the chain is endless if that child is the block again.
        let error = loop {
            let shard = match Shard::decode(data.clone(), place) {
                Ok(shard) => shard,
                Err(error) => break error,
            };
            depth += 1;
            let Some(Slot::Shard(_, below)) = shard.slots(Position::START).next() else { panic!() };
            place = below;
        };
        assert_eq!(depth, deepest);
        assert!(matches!(error, DagError::Limit { limit: 64, .. }));
    }
}

#[test]
fn slots_that_do_not_ascend_are_not_encoded() {
    assert!(encode(8, [(3, link(b"a")), (3, link(b"b"))], None, None).is_err());
    assert!(encode(8, [(8, link(b"a"))], None, None).is_err());
}
