//! The store against a model that is too simple to be wrong: any sequence of acts, and both agree on what is there.

#[path = "blocks/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use cidfs::block::{Block, Cid};
use cidfs::config::StoreConfig;
use cidfs::store::{PinKind, Store, StoreError};
use proptest::prelude::*;
use random::{block, node};

/// Leaves that there are; tree `n` links to some of them.
const LEAVES: u64 = 24;
const TREES: usize = 8;

#[derive(Clone, Debug)]
enum Act {
    Put(usize),
    PutTree(usize),
    Pin(usize, bool),
    Unpin(usize),
    Remove(usize),
    Gc,
    Reopen,
    Verify,
    Read(usize, u64, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let block = 0..LEAVES as usize + TREES;
    let tree = 0..TREES;
    prop_oneof![
        4 => block.clone().prop_map(Act::Put),
        4 => tree.clone().prop_map(Act::PutTree),
        3 => (tree.clone(), any::<bool>()).prop_map(|(tree, recursive)| Act::Pin(tree, recursive)),
        2 => tree.prop_map(Act::Unpin),
        2 => block.clone().prop_map(Act::Remove),
        2 => Just(Act::Gc),
        2 => Just(Act::Reopen),
        1 => Just(Act::Verify),
        4 => (block, 0..200_000_u64, 0..200_000_u64).prop_map(|(block, from, len)| Act::Read(block, from, len)),
    ]
}

struct World {
    blocks: Vec<Block>,
    /// The blocks of each tree, its root last.
    trees: Vec<Vec<usize>>,
}

impl World {
    fn new() -> World {
        let sizes = [0, 1, 900, 20_000, 65_536, 140_000];
        let mut blocks: Vec<Block> =
            (0..LEAVES).map(|seed| block(seed + 1, sizes[seed as usize % sizes.len()] + seed as usize)).collect();
        let mut trees = Vec::new();
        for tree in 0..TREES {
            let leaves: Vec<usize> = (0..4).map(|leaf| (tree * 3 + leaf * 5) % LEAVES as usize).collect();
            let mut children: Vec<Block> = leaves.iter().map(|leaf| blocks[*leaf].clone()).collect();
            let mut all = leaves;
            // Every second tree has another below it.
            if tree % 2 == 1 {
                let below: &Vec<usize> = &trees[tree - 1];
                children.push(blocks[below[below.len() - 1]].clone());
                all.extend(below);
            }
            blocks.push(node(&children));
            all.push(blocks.len() - 1);
            trees.push(all);
        }
        World { blocks, trees }
    }

    fn root(&self, tree: usize) -> &Cid {
        self.blocks[LEAVES as usize + tree].cid()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_and_the_model_agree(acts in proptest::collection::vec(act(), 1..60)) {
        let world = World::new();
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig { segment_bytes: 200_000, ram_bytes: 1 << 20, free_ratio: 0.0, ..StoreConfig::default() };
        let mut store = Some(Store::open(dir.path(), &config).unwrap());
        let mut here: BTreeSet<usize> = BTreeSet::new();
        let mut pins: BTreeMap<usize, bool> = BTreeMap::new();
        let kept = |pins: &BTreeMap<usize, bool>| -> BTreeSet<usize> {
            let of = |(tree, recursive): (&usize, &bool)| {
                if *recursive { world.trees[*tree].clone() } else { vec![LEAVES as usize + tree] }
            };
            pins.iter().flat_map(of).collect()
        };
        for act in acts {
            let open = store.as_ref().unwrap();
            match act {
                Act::Put(number) => {
                    open.put(&world.blocks[number]).unwrap();
                    here.insert(number);
                }
                Act::PutTree(tree) => {
                    let mut writer = open.writer();
                    for number in &world.trees[tree] {
                        writer.put(&world.blocks[*number]).unwrap();
                        here.insert(*number);
                    }
                }
                Act::Pin(tree, recursive) => {
                    // Only what is whole is pinned, as the floors above see to.
                    if world.trees[tree].iter().all(|number| here.contains(number)) {
                        let kind = if recursive { PinKind::Recursive } else { PinKind::Direct };
                        open.pin(world.root(tree), kind, "").unwrap();
                        pins.insert(tree, recursive);
                    }
                }
                Act::Unpin(tree) => {
                    prop_assert_eq!(open.unpin(world.root(tree)).unwrap(), pins.remove(&tree).is_some());
                }
                Act::Remove(number) => {
                    let removed = open.remove(&[world.blocks[number].cid().clone()]).unwrap().remove(0);
                    if kept(&pins).contains(&number) {
                        let refused = matches!(removed, Err(StoreError::Pinned { .. }));
                        prop_assert!(refused);
                    } else {
                        prop_assert_eq!(removed.unwrap(), here.remove(&number));
                    }
                }
                Act::Gc => {
                    let report = open.gc(&mut |_| ControlFlow::Continue(())).unwrap();
                    let kept = kept(&pins);
                    prop_assert_eq!(report.kept_blocks as usize, kept.len());
                    prop_assert_eq!(report.removed_blocks as usize, here.len() - kept.len());
                    here = kept;
                }
                Act::Reopen => {
                    drop(store.take());
                    store = Some(Store::open(dir.path(), &config).unwrap());
                }
                Act::Verify => {
                    let report = open.verify(true, &mut |_| ControlFlow::Continue(())).unwrap();
                    prop_assert_eq!(report.blocks as usize, here.len());
                    prop_assert!(report.damaged.is_empty() && report.incomplete.is_empty());
                }
                Act::Read(number, from, len) => {
                    let block = &world.blocks[number];
                    let end = (from + len).min(block.data().len() as u64);
                    let expected = here.contains(&number).then(|| block.data().slice(from.min(end) as usize..end as usize));
                    let part = open.get_range(block.cid(), from..from + len).unwrap();
                    prop_assert!(part.as_ref().is_none_or(|part| part.block_bytes == block.data().len() as u64));
                    prop_assert_eq!(part.map(|part| part.data), expected);
                }
            }
            let open = store.as_ref().unwrap();
            for (number, block) in world.blocks.iter().enumerate() {
                let found = open.get(block.cid()).unwrap();
                prop_assert_eq!(found.as_ref(), here.contains(&number).then_some(block));
                prop_assert_eq!(open.has(block.cid()), here.contains(&number));
            }
            prop_assert_eq!(open.stat().unwrap().blocks as usize, here.len());
            prop_assert_eq!(open.blocks().count(), here.len());
            prop_assert_eq!(open.pins().unwrap().len(), pins.len());
        }
    }
}
