//! Disks that fill up and fail: nothing acknowledged is lost, reads go on, and the store says what is wrong.

#[path = "blocks/disk.rs"]
mod disk;
#[path = "blocks/random.rs"]
mod random;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use cidfs::block::Block;
use cidfs::config::StoreConfig;
use cidfs::store::{PinKind, Store, StoreError};
use disk::MemoryDisk;
use random::block;

type Disk = MemoryDisk<()>;

fn open(disk: &Disk) -> Store {
    let config = StoreConfig { segment_bytes: 1 << 20, ram_bytes: 0, free_ratio: 0.0, ..StoreConfig::default() };
    Store::open_on(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap()
}

fn assert_all(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
    }
}

#[test]
fn a_full_disk_refuses_writes_by_name_and_takes_them_again_when_there_is_room() {
    let disk = Disk::new();
    let store = open(&disk);
    let pinned: Vec<Block> = (0..20).map(|seed| block(seed, 30_000)).collect();
    // Held, or they would make room for others.
    let mut writer = store.writer();
    for block in &pinned {
        writer.put(block).unwrap();
    }
    store.pin(pinned[0].cid(), PinKind::Direct, "").unwrap();
    assert!(store.health().is_empty());
    disk.set_capacity(disk.used() + 500_000);
    let mut accepted = Vec::new();
    let error = (100..)
        .find_map(|seed| {
            let block = block(seed, 100_000);
            let result = writer.put(&block);
            accepted.extend(result.is_ok().then_some(block));
            result.err()
        })
        .unwrap();
    assert!(error.is_disk_full(), "{error}");
    assert!(error.to_string().contains("/store/segments/"), "it names the file: {error}");
    assert!(!store.health().is_empty());
    assert_all(&store, &pinned);
    assert_all(&store, &accepted);

    disk.set_capacity(1 << 40);
    let last = block(9_999, 100_000);
    writer.put(&last).unwrap();
    store.pin(last.cid(), PinKind::Direct, "").unwrap();
    assert_eq!(store.health(), Vec::<String>::new());
    drop((writer, store));
    let store = open(&disk);
    assert_all(&store, &pinned);
    assert_all(&store, &accepted);
    assert_all(&store, &[last]);
    assert_eq!(store.pins().unwrap().len(), 2);
}

#[test]
fn small_blocks_that_could_not_be_written_yet_can_be_read_and_are_written_later() {
    let disk = Disk::new();
    let store = open(&disk);
    store.put(&block(0, 10)).unwrap();
    store.sync().unwrap();
    disk.set_capacity(disk.used());
    let blocks: Vec<Block> = (1..50).map(|seed| block(seed, 100)).collect();
    for block in &blocks {
        store.put(block).unwrap();
    }
    assert!(store.sync().unwrap_err().is_disk_full());
    assert!(store.pin(blocks[0].cid(), PinKind::Direct, "").is_err());
    assert_all(&store, &blocks);
    disk.set_capacity(1 << 40);
    store.sync().unwrap();
    assert!(store.pins().unwrap().is_empty(), "the pin was refused");
    drop(store);
    assert_all(&open(&disk), &blocks);
}

#[test]
fn a_pin_whose_row_could_not_be_written_leaves_no_trace_and_the_database_works_on() {
    let disk = Disk::new();
    let store = open(&disk);
    let (kept, refused) = (block(1, 1_000), block(2, 1_000));
    store.put(&kept).unwrap();
    store.put(&refused).unwrap();
    store.pin(kept.cid(), PinKind::Direct, "old").unwrap();
    for what in ["write", "sync"] {
        disk.fail(move |did, path| (did == what && path.ends_with("store.redb")).then_some(ErrorKind::StorageFull));
        assert!(store.pin(refused.cid(), PinKind::Direct, "").is_err());
        assert!(store.pin(kept.cid(), PinKind::Direct, "new").is_err());
        assert!(store.name("name", kept.cid()).is_err());
        assert!(store.unpin(kept.cid()).is_err());
        assert!(!store.health().is_empty());
        disk.heal();
        let pins = store.pins().unwrap();
        assert_eq!(pins.len(), 1, "after a failed {what}");
        assert_eq!((&pins[0].cid, pins[0].name.as_str()), (kept.cid(), "old"));
        assert!(store.names().unwrap().is_empty());
    }
    store.pin(refused.cid(), PinKind::Direct, "").unwrap();
    drop(store);
    assert_eq!(open(&disk).pins().unwrap().len(), 2);
}

#[test]
fn after_a_failed_flush_nothing_more_is_acknowledged_until_the_store_is_opened_again() {
    let disk = Disk::new();
    let store = open(&disk);
    let blocks: Vec<Block> = (0..10).map(|seed| block(seed, 1_000)).collect();
    for block in &blocks {
        store.put(block).unwrap();
    }
    disk.fail(|did, path| {
        (did == "sync" && path.extension().is_some_and(|it| it == "car")).then_some(ErrorKind::Other)
    });
    assert!(matches!(store.pin(blocks[0].cid(), PinKind::Direct, ""), Err(StoreError::Io { what: "flush", .. })));
    disk.heal();
    // The flush would succeed now, and say nothing of what the failed one lost.
    assert!(matches!(store.pin(blocks[0].cid(), PinKind::Direct, ""), Err(StoreError::FlushFailed { .. })));
    assert!(matches!(store.put(&block(99, 10)), Err(StoreError::FlushFailed { .. })));
    assert!(store.health()[0].contains("until it is opened again"));
    assert_all(&store, &blocks);
    drop(store);
    let store = open(&disk);
    assert!(store.pins().unwrap().is_empty());
    assert_all(&store, &blocks);
    store.pin(blocks[0].cid(), PinKind::Direct, "").unwrap();
    assert!(store.health().is_empty());
}

#[test]
fn a_segment_that_cannot_be_read_is_an_error_and_the_others_are_read_on() {
    let disk = Disk::new();
    let blocks: Vec<Block> = (0..60).map(|seed| block(seed, 60_000)).collect();
    {
        let store = open(&disk);
        let mut writer = store.writer();
        for block in &blocks {
            writer.put(block).unwrap();
        }
    }
    disk.fail(|did, path| (did == "read" && path.ends_with("00000001.car")).then_some(ErrorKind::Other));
    let store = open(&disk);
    let (mut read, mut failed) = (0, 0);
    for block in &blocks {
        match store.get(block.cid()) {
            Ok(Some(found)) => {
                assert_eq!(found, *block);
                read += 1;
            }
            Ok(None) => failed += 1,
            Err(error) => {
                assert!(error.to_string().contains("00000001.car"), "{error}");
                failed += 1;
            }
        }
    }
    assert!(read >= 40 && failed > 0, "{read} read, {failed} failed");
    assert!(!store.health().is_empty());
    disk.heal();
    drop(store);
    assert_all(&open(&disk), &blocks);
}

#[test]
fn a_disk_that_has_become_read_only_is_read_on() {
    let disk = Disk::new();
    let store = open(&disk);
    let block = block(1, 100_000);
    store.put(&block).unwrap();
    store.pin(block.cid(), PinKind::Direct, "").unwrap();
    disk.fail(|did, _| matches!(did, "write" | "create" | "sync" | "remove").then_some(ErrorKind::ReadOnlyFilesystem));
    assert!(store.put(&random::block(2, 100_000)).is_err());
    assert!(store.unpin(block.cid()).is_err());
    assert!(!store.health().is_empty());
    assert_all(&store, std::slice::from_ref(&block));
    drop(store);
    disk.heal();
    let store = open(&disk);
    assert_all(&store, &[block]);
    assert_eq!(store.pins().unwrap().len(), 1);
}
