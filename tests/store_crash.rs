//! Power loss at any instant. A store works on a disk that records every write, flush, and change of names; then, for each
//! instant of the record, the disk is put into what power loss could leave of it, and a store is opened there.
//!
//! What was not flushed may be there whole (a kill), not at all, or torn into sectors of which any may be there.

#[path = "blocks/disk.rs"]
mod disk;
#[path = "blocks/random.rs"]
mod random;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use cidfs::block::{Block, Cid};
use cidfs::config::StoreConfig;
use cidfs::store::{PinKind, Store};
use disk::{MemoryDisk, Op, Replay, Unflushed};
use random::{block, node};

/// What the user had asked for, or had been told.
#[derive(Clone, Debug)]
enum Note {
    PinAsked(Cid),
    PinAcknowledged(Cid),
    UnpinAsked(Cid),
    UnpinAcknowledged(Cid),
    Synced(Vec<Cid>),
    NameAcknowledged(String, Cid),
}

/// What may be there of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Must,
    May,
    MustNot,
}

const DIR: &str = "/store";

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 64 << 10, ram_bytes: 0, free_ratio: 0.0, ..StoreConfig::default() }
}

fn open(disk: &MemoryDisk<Note>) -> Store {
    Store::open_on(Arc::new(disk.clone()), Path::new(DIR), &config()).unwrap()
}

/// A root over leaves, small and large ones: the root comes last.
fn tree(seed: u64) -> Vec<Block> {
    let sizes = [10, 700, 3_000, 66_000, 500];
    let mut tree: Vec<Block> =
        (0..3).map(|leaf| block(seed * 10 + leaf, sizes[(seed + leaf) as usize % sizes.len()])).collect();
    tree.push(node(&tree));
    tree
}

struct Workload {
    disk: MemoryDisk<Note>,
    trees: BTreeMap<Cid, Vec<Block>>,
}

impl Workload {
    fn new() -> Workload {
        Workload { disk: MemoryDisk::new(), trees: BTreeMap::new() }
    }

    fn add(&mut self, store: &Store, seed: u64) -> Cid {
        let tree = tree(seed);
        let root = tree.last().unwrap().cid().clone();
        self.trees.insert(root.clone(), tree.clone());
        let mut writer = store.writer();
        for block in &tree {
            writer.put(block).unwrap();
        }
        self.disk.note(Note::PinAsked(root.clone()));
        store.pin(&root, PinKind::Recursive, "").unwrap();
        self.disk.note(Note::PinAcknowledged(root.clone()));
        root
    }

    fn unpin(&self, store: &Store, root: &Cid) {
        self.disk.note(Note::UnpinAsked(root.clone()));
        assert!(store.unpin(root).unwrap());
        self.disk.note(Note::UnpinAcknowledged(root.clone()));
    }

    /// Adds, pins, removals, gc with compaction, sealed segments, an end and a new start.
    fn run(&mut self) {
        let store = open(&self.disk);
        let mut roots = Vec::new();
        for seed in 0..6 {
            roots.push(self.add(&store, seed));
            if seed % 2 == 1 {
                // Never pinned: garbage that is written between the others.
                let garbage = tree(100 + seed);
                let mut writer = store.writer();
                for block in &garbage {
                    writer.put(block).unwrap();
                }
            }
        }
        let loose = block(999, 2_000);
        store.put(&loose).unwrap();
        store.sync().unwrap();
        self.disk.note(Note::Synced(vec![loose.cid().clone()]));
        store.name("first", &roots[0]).unwrap();
        self.disk.note(Note::NameAcknowledged("first".into(), roots[0].clone()));
        self.unpin(&store, &roots[1]);
        self.unpin(&store, &roots[2]);
        // The loose block is let go of only now.
        self.disk.note(Note::Synced(Vec::new()));
        store.gc(&mut |_| ControlFlow::Continue(())).unwrap();
        roots.push(self.add(&store, 2));
        drop(store);
        let store = open(&self.disk);
        roots.push(self.add(&store, 20));
        let removed = store.remove(&[tree(4)[0].cid().clone()]).unwrap();
        assert!(removed[0].is_err(), "it is pinned");
        self.unpin(&store, &roots[4]);
        // Numbers of removed records that were never flushed must not be taken for those of later ones.
        let short = block(1_234, 300);
        store.put(&short).unwrap();
        assert!(*store.remove(&[short.cid().clone()]).unwrap()[0].as_ref().unwrap());
        roots.push(self.add(&store, 21));
        store.gc(&mut |_| ControlFlow::Continue(())).unwrap();
        store.verify(true, &mut |_| ControlFlow::Continue(())).unwrap();
        roots.push(self.add(&store, 22));
    }

    /// Opens the store at each `stride`th instant of the log after each kind of loss, and calls `check`.
    fn replay(&self, losses: &[Unflushed], stride: usize, check: impl Fn(&Promises, &Store, &str)) {
        let log = self.disk.take_log();
        assert!(log.len() > 300, "{} steps", log.len());
        let mut replay = Replay::new();
        let mut promises = Promises::default();
        for (instant, op) in log.iter().enumerate() {
            replay.step(op);
            if let Op::Note(note) = op {
                promises.hear(note);
            }
            if instant % stride != 0 {
                continue;
            }
            for loss in losses {
                let loss = match loss {
                    Unflushed::Torn(seed) => Unflushed::Torn(seed + 1_000 * instant as u64),
                    other => *other,
                };
                let disk = replay.lose_power(loss);
                let context = format!("after {instant} of {} steps, {loss:?}, the last being {op:.200?}", log.len());
                let opened = Store::open_on(Arc::new(disk.clone()), Path::new(DIR), &config());
                let store = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
                check(&promises, &store, &context);
                drop(store);
                // And once more: what the first start repaired is whole.
                check(&promises, &open(&disk), &format!("{context}, at the second start"));
            }
        }
    }
}

/// What the user was promised up to an instant.
#[derive(Default)]
struct Promises {
    pins: BTreeMap<Cid, Expected>,
    synced: Vec<Cid>,
    names: BTreeMap<String, Cid>,
}

impl Promises {
    fn hear(&mut self, note: &Note) {
        match note.clone() {
            Note::PinAsked(cid) | Note::UnpinAsked(cid) => drop(self.pins.insert(cid, Expected::May)),
            Note::PinAcknowledged(cid) => drop(self.pins.insert(cid, Expected::Must)),
            Note::UnpinAcknowledged(cid) => drop(self.pins.insert(cid, Expected::MustNot)),
            Note::Synced(cids) => self.synced = cids,
            Note::NameAcknowledged(name, cid) => drop(self.names.insert(name, cid)),
        }
    }
}

fn losses() -> Vec<Unflushed> {
    vec![Unflushed::Kept, Unflushed::Lost, Unflushed::Torn(1), Unflushed::Torn(2)]
}

#[test]
fn acknowledged_pin_survives_power_loss() {
    let mut workload = Workload::new();
    workload.run();
    let trees = workload.trees.clone();
    workload.replay(&losses(), 1, |promises, store, context| {
        for (root, expected) in &promises.pins {
            if *expected == Expected::Must {
                assert!(store.pinned(root).unwrap().is_some(), "{context}: the pin {root} is lost");
                for block in &trees[root] {
                    let found = store.get(block.cid()).unwrap();
                    assert_eq!(found.as_ref(), Some(block), "{context}: a block of {root} is lost");
                }
            }
        }
        for cid in &promises.synced {
            assert!(store.get(cid).unwrap().is_some(), "{context}: {cid} was flushed and is lost");
        }
        let names: BTreeMap<String, Cid> = store.names().unwrap().into_iter().collect();
        assert!(promises.names.iter().all(|(name, cid)| names.get(name) == Some(cid)), "{context}: a name is lost");
    });
}

#[test]
fn unacknowledged_pin_leaves_no_trace() {
    let mut workload = Workload::new();
    workload.run();
    let trees = workload.trees.clone();
    workload.replay(&losses(), 3, |promises, store, context| {
        for pin in store.pins().unwrap() {
            // In the instant between the flush and the answer a pin may be there, but then it is there whole.
            let expected = promises.pins.get(&pin.cid).copied().unwrap_or(Expected::MustNot);
            assert_ne!(expected, Expected::MustNot, "{context}: nobody was told of the pin {}", pin.cid);
            for block in &trees[&pin.cid] {
                let found = store.get(block.cid()).unwrap();
                assert_eq!(found.as_ref(), Some(block), "{context}: half a pin of {}", pin.cid);
            }
        }
        for block in store.blocks() {
            let (cid, len) = block.unwrap();
            assert!(store.get(&cid).unwrap().is_some_and(|block| block.data().len() as u64 == len), "{context}: {cid}");
        }
        assert_eq!(store.stat().unwrap().damaged, 0, "{context}: a torn record was taken up");
    });
}
