//! Building a whole HAMT from its entries.
//!
//! A trie is determined by its entries and its fanout, whatever the order in which they come: sorted by the hashes of
//! their names, the entries of each shard and of each child below it are a run. A slot holds the entry itself where it is
//! alone in its run, and a child shard otherwise. Recursion goes one level for each slot's bits of the hash, so it is
//! bounded by the 64 bits.

use super::{NameHash, encode, hash_name, width_of};
use crate::block::Cid;
use crate::dag::DagError;
use crate::dag::pb::PbLink;
use crate::dag::unixfs::Mtime;
use crate::limits::HAMT_HASH_BITS;

/// The settings of a HAMT.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The number of slots of each shard.
    pub fanout: usize,
    /// The directory's mode, which its first shard holds.
    pub mode: Option<u32>,
    /// The directory's time of last change, which its first shard holds.
    pub mtime: Option<Mtime>,
}

/// The first shard of a HAMT that has been built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its CID.
    pub cid: Cid,
    /// The bytes of all blocks of the HAMT and of what its entries link to: the Tsize of links to it.
    pub dag_bytes: u64,
}

/// Builds the HAMT of `entries`, whose names are distinct. Each shard's block is given to `keep`, which names it;
/// children come before the shard that links to them.
pub fn build<'a, E: From<DagError>>(
    entries: impl IntoIterator<Item = PbLink<'a>>,
    settings: Settings,
    keep: &mut dyn FnMut(Vec<u8>) -> Result<Cid, E>,
) -> Result<Root, E> {
    let width = width_of(settings.fanout as u64)?;
    let mut entries: Vec<_> = entries.into_iter().map(|link| (hash_name(link.name), link)).collect();
    entries.sort_unstable_by_key(|(hash, _)| *hash);
    build_shard(&entries, 0, width, settings, keep)
}

fn build_shard<E: From<DagError>>(
    entries: &[(NameHash, PbLink<'_>)],
    consumed: u32,
    width: u32,
    settings: Settings,
    keep: &mut dyn FnMut(Vec<u8>) -> Result<Cid, E>,
) -> Result<Root, E> {
    let slot_of = |hash: NameHash| {
        hash.slot(consumed, width).ok_or_else(|| {
            let what = "bits of the hash that tell apart the names of a sharded directory".to_owned();
            E::from(DagError::Limit { what, limit: HAMT_HASH_BITS.into() })
        })
    };
    let mut slots = Vec::new();
    let mut rest = entries;
    while let Some(((hash, first), _)) = rest.split_first() {
        let slot = slot_of(*hash)?;
        let mut len = 1;
        while rest.get(len).map(|(hash, _)| slot_of(*hash)).transpose()? == Some(slot) {
            len += 1;
        }
        let (run, after) = rest.split_at(len);
        rest = after;
        let link = if len == 1 {
            first.clone()
        } else {
            let below = Settings { mode: None, mtime: None, ..settings };
            let child = build_shard(run, consumed + width, width, below, keep)?;
            PbLink { cid: child.cid, name: b"", tsize: Some(child.dag_bytes) }
        };
        slots.push((slot, link));
    }
    let below: u64 = slots.iter().map(|(_, link)| link.tsize.unwrap_or(0)).sum();
    let bytes = encode(settings.fanout, slots, settings.mode, settings.mtime)?;
    let dag_bytes = bytes.len() as u64 + below;
    Ok(Root { cid: keep(bytes)?, dag_bytes })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::{Found, Place, Position, Shard, Slot};
    use super::*;
    use crate::block::{HashFunction, codec};

    type Blocks = BTreeMap<Cid, Bytes>;

    fn target(name: &[u8]) -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(name))
    }

    fn built(names: &[Vec<u8>], fanout: usize) -> (Root, Blocks) {
        let mut blocks = Blocks::new();
        let links = names.iter().map(|name| PbLink { cid: target(name), name, tsize: Some(7) });
        let root = build::<DagError>(links, Settings { fanout, mode: None, mtime: None }, &mut |bytes| {
            let cid = Cid::new_v1(codec::DAG_PB, &HashFunction::Sha2_256.digest(&bytes));
            blocks.insert(cid.clone(), bytes.into());
            Ok(cid)
        });
        (root.unwrap(), blocks)
    }

    fn listed(root: &Cid, blocks: &Blocks) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut todo = vec![(root.clone(), Place::ROOT)];
        while let Some((cid, place)) = todo.pop() {
            let shard = Shard::decode(blocks[&cid].clone(), place).unwrap();
            for slot in shard.slots(Position::START) {
                match slot {
                    Slot::Entry(link, _) => names.push(link.name.to_vec()),
                    Slot::Shard(cid, place) => todo.push((cid, place)),
                    Slot::Stray(link) => panic!("stray {:?}", link.name),
                }
            }
        }
        names.sort();
        names
    }

    proptest! {
        #[test]
        fn insertion_order_does_not_matter_and_every_entry_is_found(
            names in prop::collection::btree_set(prop::collection::vec(1_u8.., 1..20), 1..200),
            order in any::<u64>(),
            width in 3_u32..=10,
        ) {
            let names: Vec<_> = names.into_iter().collect();
            let fanout = 1 << width;
            let (root, blocks) = built(&names, fanout);
            let mut shuffled = names.clone();
            shuffled.sort_by_key(|name| (hash_name(name).slot(0, 10).unwrap() as u64 ^ order).reverse_bits());
            prop_assert_eq!(&built(&shuffled, fanout), &(root.clone(), blocks.clone()));
            prop_assert_eq!(&listed(&root.cid, &blocks), &names);
            let bytes: u64 = blocks.values().map(|block| block.len() as u64).sum();
            // Equal shards are one block in the map and are counted as often as they are linked to.
            prop_assert!(root.dag_bytes >= bytes + 7 * names.len() as u64);
            for name in &names {
                let mut at = (root.cid.clone(), Place::ROOT);
                loop {
                    let shard = Shard::decode(blocks[&at.0].clone(), at.1).unwrap();
                    match shard.find(name, hash_name(name)) {
                        Found::Shard(cid, place) => at = (cid, place),
                        Found::Entry(link) => { prop_assert_eq!(link.cid, target(name)); break }
                        Found::Nothing => prop_assert!(false, "{:?} is lost", name),
                    }
                }
            }
        }
    }

    #[test]
    fn names_of_one_hash_are_refused() {
        let name: &[u8] = b"twice";
        let links = [name, name].map(|name| PbLink { cid: target(name), name, tsize: Some(1) });
        let result =
            build::<DagError>(links, Settings { fanout: 8, mode: None, mtime: None }, &mut |_| Ok(target(b"shard")));
        assert!(matches!(result, Err(DagError::Limit { .. })));
    }

    #[test]
    fn one_entry_is_in_the_first_shard() {
        let (root, blocks) = built(&[b"one".to_vec()], 256);
        assert_eq!((blocks.len(), listed(&root.cid, &blocks)), (1, vec![b"one".to_vec()]));
        let many: BTreeSet<Vec<u8>> = (0..3000).map(|number| format!("{number}").into_bytes()).collect();
        let (_, blocks) = built(&many.into_iter().collect::<Vec<_>>(), 8);
        assert!(blocks.len() > 300);
    }
}
