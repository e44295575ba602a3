//! What is removed and what stays: gc, `rm`, and verification, beside readers and writers.

#[path = "blocks/random.rs"]
mod random;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cidfs::block::Block;
use cidfs::config::StoreConfig;
use cidfs::store::{GcProgress, GcReport, PinKind, Store, StoreError, VerifyProgress};
use random::{block, node};

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 1 << 20, ram_bytes: 0, free_ratio: 0.0, ..StoreConfig::default() }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &config()).unwrap()
}

fn gc(store: &Store) -> GcReport {
    store.gc(&mut |_| ControlFlow::Continue(())).unwrap()
}

/// A tree of `leaves` leaves of 20 KB below two levels of nodes: the root comes last.
fn tree(seed: u64, leaves: u64) -> Vec<Block> {
    let leaves: Vec<Block> = (0..leaves).map(|number| block(seed * 1_000 + number, 20_000)).collect();
    let inner: Vec<Block> = leaves.chunks(10).map(node).collect();
    let root = node(&inner);
    leaves.into_iter().chain(inner).chain([root]).collect()
}

fn put_all(store: &Store, blocks: &[Block]) {
    let mut writer = store.writer();
    for block in blocks {
        writer.put(block).unwrap();
    }
}

fn here(store: &Store, blocks: &[Block]) -> usize {
    blocks.iter().filter(|block| store.get(block.cid()).unwrap().as_ref() == Some(block)).count()
}

#[test]
fn gc_keeps_what_pins_need_and_gives_back_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, gone, direct) = (tree(1, 95), tree(2, 95), tree(3, 20));
    {
        let store = open(dir.path());
        // Mixed, so that segments must be compacted.
        for (one, other) in kept.iter().zip(&gone) {
            put_all(&store, &[one.clone(), other.clone()]);
        }
        put_all(&store, &direct);
        store.pin(kept.last().unwrap().cid(), PinKind::Recursive, "").unwrap();
        store.pin(direct.last().unwrap().cid(), PinKind::Direct, "").unwrap();
        let mut removed = Vec::new();
        let report = store
            .gc(&mut |progress| {
                if let GcProgress::Removed(cid) = progress {
                    removed.push(cid);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(report.kept_blocks, kept.len() as u64 + 1);
        assert_eq!(report.removed_blocks, (gone.len() + direct.len() - 1) as u64);
        assert_eq!(removed.len() as u64, report.removed_blocks);
        assert!(report.freed_bytes > 1_500_000, "{report:?}");
        assert_eq!((here(&store, &kept), here(&store, &gone), here(&store, &direct)), (kept.len(), 0, 1));
        let stat = store.stat().unwrap();
        assert_eq!(stat.blocks, report.kept_blocks);
        assert_eq!(stat.bytes, report.kept_bytes);
        assert!(stat.disk_bytes < 2 * stat.bytes, "{stat:?}");
        let counted = stat.counted;
        assert_eq!((counted.collections, counted.collected_blocks), (1, report.removed_blocks));
        assert_eq!((counted.collected_bytes, counted.evicted_blocks), (report.removed_bytes, 0));
        assert_eq!(gc(&store).removed_blocks, 0);
    }
    let store = open(dir.path());
    assert_eq!((here(&store, &kept), here(&store, &gone), here(&store, &direct)), (kept.len(), 0, 1));
    assert!(store.unpin(kept.last().unwrap().cid()).unwrap());
    gc(&store);
    assert_eq!(store.blocks().count(), 1);
    put_all(&store, &kept);
    assert_eq!(here(&store, &kept), kept.len(), "what was removed can come back");
}

#[test]
fn what_was_removed_stays_removed_after_an_orderly_end_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..20).map(|seed| block(seed, 5_000)).collect();
    let store = open(dir.path());
    put_all(&store, &blocks);
    let removed = store.remove(&[blocks[3].cid().clone(), block(99, 5).cid().clone()]).unwrap();
    assert!(matches!(removed[..], [Ok(true), Ok(false)]));
    store.sync().unwrap();
    copy_dir(dir.path(), copy.path());
    drop(store);
    for dir in [dir.path(), copy.path()] {
        let store = open(dir);
        assert!(!store.has(blocks[3].cid()));
        assert_eq!(here(&store, &blocks), blocks.len() - 1);
        assert_eq!(store.blocks().count(), blocks.len() - 1);
    }
}

/// What a kill would leave: the files as they are while the store is open.
fn copy_dir(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}

#[test]
fn a_block_that_a_pin_needs_or_a_writer_holds_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let tree = tree(1, 20);
    put_all(&store, &tree);
    let root = tree.last().unwrap().cid();
    store.pin(root, PinKind::Recursive, "").unwrap();
    let refused = store.remove(&[tree[7].cid().clone()]).unwrap().remove(0).unwrap_err();
    assert!(matches!(&refused, StoreError::Pinned { pin, .. } if **pin == *root), "{refused}");
    store.unpin(root).unwrap();
    let mut writer = store.writer();
    assert!(writer.keep(tree[7].cid()).unwrap());
    assert!(!writer.keep(block(99, 9).cid()).unwrap());
    assert!(matches!(store.remove(&[tree[7].cid().clone()]).unwrap()[0], Err(StoreError::Held { .. })));
    gc(&store);
    assert!(store.has(tree[7].cid()));
    drop(writer);
    assert!(matches!(store.remove(&[tree[7].cid().clone()]).unwrap()[0], Ok(true)));
    assert_eq!(store.blocks().count(), 0);
}

#[test]
fn gc_removes_nothing_while_a_pin_lacks_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (tree, garbage) = (tree(1, 20), block(77, 1_000));
    let (leaves, nodes) = tree.split_at(20);
    put_all(&store, leaves);
    put_all(&store, &nodes[1..]);
    store.put(&garbage).unwrap();
    store.pin(tree.last().unwrap().cid(), PinKind::Recursive, "").unwrap();
    let error = store.gc(&mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains(&nodes[0].cid().to_string()), "{error}");
    assert!(store.has(garbage.cid()));
    assert_eq!(here(&store, leaves), 20);
    store.put(&nodes[0]).unwrap();
    assert_eq!(gc(&store).removed_blocks, 1);
}

#[test]
fn a_gc_that_is_stopped_has_removed_only_what_nobody_needs() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (kept, gone) = (tree(1, 20), tree(2, 20));
    put_all(&store, &kept);
    put_all(&store, &gone);
    store.pin(kept.last().unwrap().cid(), PinKind::Recursive, "").unwrap();
    let mut removed = 0;
    let result = store.gc(&mut |progress| {
        removed += usize::from(matches!(progress, GcProgress::Removed(_)));
        if removed == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(StoreError::Stopped)));
    assert_eq!((here(&store, &kept), here(&store, &gone)), (kept.len(), gone.len() - 5));
}

#[test]
fn adds_reads_and_gc_at_once_lose_nothing_of_the_adds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let old = tree(0, 40);
    put_all(&store, &old);
    let root = old.last().unwrap().cid();
    store.pin(root, PinKind::Recursive, "").unwrap();
    let done = AtomicBool::new(false);
    let trees = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                gc(&store);
                store.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
            }
        });
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(here(&store, &old), old.len());
            }
        });
        let adders: Vec<_> = (1..4)
            .map(|adder| {
                let store = &store;
                scope.spawn(move || {
                    let mut trees = Vec::new();
                    for round in 0..8 {
                        // Half of each tree is another adder's too, and is garbage in between.
                        let mut tree = tree(10 * adder + round, 10);
                        tree.pop();
                        let shared = block(500 + round, 30_000);
                        tree.push(shared);
                        let root = node(&tree[..]);
                        tree.push(root);
                        let mut writer = store.writer();
                        for block in &tree {
                            writer.put(block).unwrap();
                        }
                        store.pin(tree.last().unwrap().cid(), PinKind::Recursive, "").unwrap();
                        drop(writer);
                        if round % 2 == 0 {
                            store.unpin(tree.last().unwrap().cid()).unwrap();
                        } else {
                            trees.push(tree);
                        }
                    }
                    trees
                })
            })
            .collect();
        let trees: Vec<Vec<Block>> = adders.into_iter().flat_map(|adder| adder.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        collector.join().unwrap();
        reader.join().unwrap();
        trees
    });
    gc(&store);
    assert_eq!(store.stat().unwrap().damaged, 0);
    drop(store);
    let store = open(dir.path());
    for tree in trees.iter().chain([&old]) {
        assert_eq!(here(&store, tree), tree.len());
    }
}

#[test]
fn verify_names_each_damaged_block_and_the_pins_that_lack_it_and_repair_drops_it() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (tree(1, 60), tree(2, 60));
    {
        let store = open(dir.path());
        put_all(&store, &first);
        put_all(&store, &second);
        store.pin(first.last().unwrap().cid(), PinKind::Recursive, "first").unwrap();
        store.pin(second.last().unwrap().cid(), PinKind::Recursive, "second").unwrap();
        let report = store.verify(true, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(report.blocks as usize, first.len() + second.len());
        assert!(report.damaged.is_empty() && report.incomplete.is_empty());
    }
    let victims = [&first[3], &first[40]];
    for victim in victims {
        damage(dir.path(), &victim.data()[10_000..10_100]);
    }
    let store = open(dir.path());
    let mut named = 0;
    let report = store
        .verify(false, &mut |progress| {
            named += usize::from(matches!(progress, VerifyProgress::Damaged(_)));
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut damaged: Vec<_> = report.damaged.iter().map(|damaged| &damaged.cid).collect();
    damaged.sort();
    let mut expected: Vec<_> = victims.iter().map(|victim| victim.cid()).collect();
    expected.sort();
    assert_eq!((damaged, named, report.dropped), (expected, 2, 0));
    assert_eq!(report.incomplete.len(), 1);
    assert_eq!((report.incomplete[0].pin.name.as_str(), report.incomplete[0].missing), ("first", 2));

    let report = store.verify(true, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((report.dropped, report.incomplete.len()), (2, 1));
    let report = store.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.damaged.is_empty(), "the segments were rewritten");
    assert_eq!(report.incomplete[0].missing, 2, "the pin still lacks them");
    put_all(&store, &first);
    let report = store.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(report.incomplete.is_empty());
    // No segment holds a damaged record any more, not even as a dead one.
    drop(store);
    for path in fs::read_dir(dir.path().join("segments")).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|extension| extension == "table") {
            fs::remove_file(path).unwrap();
        }
    }
    let store = open(dir.path());
    assert_eq!((here(&store, &first), here(&store, &second)), (first.len(), second.len()));
}

/// Turns one bit in the segment that has these bytes.
fn damage(dir: &Path, bytes: &[u8]) {
    for path in fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path()) {
        let mut file = fs::read(&path).unwrap();
        if let Some(at) = file.windows(bytes.len()).position(|window| window == bytes) {
            file[at] ^= 0x10;
            fs::write(&path, file).unwrap();
            return;
        }
    }
    panic!("no file has the bytes");
}
