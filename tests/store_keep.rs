//! What the store keeps, it keeps: across an orderly end, a lost database, lost tables, and torn or damaged files.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::config::StoreConfig;
use cidfs::dag::car::CarReader;
use cidfs::dag::car::index::Index;
use cidfs::store::{PinKind, Store, StoreError};

fn config() -> StoreConfig {
    StoreConfig { segment_bytes: 1 << 20, ram_bytes: 0, ..StoreConfig::default() }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &config()).unwrap()
}

/// A block of `len` bytes that look random and differ by `seed`.
fn block(seed: u64, len: usize) -> Block {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let data: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(len)
    .collect();
    Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::from(data))
}

/// Blocks of all sizes, about 8 MB: several segments.
fn blocks() -> Vec<Block> {
    (0..120_u64)
        .map(|seed| {
            let len = [0, 1, 100, 5_000, 65_536, 65_537, 100_000, 262_144, 16][seed as usize % 9];
            block(seed, len + seed as usize)
        })
        .chain([block(1_000, 2 << 20), block(1_001, 0)])
        .collect()
}

fn put_all(store: &Store, blocks: &[Block]) {
    let mut writer = store.writer();
    for block in blocks {
        writer.put(block).unwrap();
        assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block), "readable at once");
    }
}

fn assert_all(store: &Store, blocks: &[Block]) {
    for block in blocks {
        assert!(store.has(block.cid()));
        assert_eq!(store.size(block.cid()).unwrap(), Some(block.data().len() as u64));
        assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
    }
}

fn segment_files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

#[test]
fn blocks_pins_names_and_facts_are_there_after_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks();
    let (root, other) = (blocks[0].cid(), blocks[1].cid());
    {
        let store = open(dir.path());
        put_all(&store, &blocks);
        store.pin(root, PinKind::Recursive, "first").unwrap();
        store.pin(other, PinKind::Direct, "").unwrap();
        store.pin(blocks[2].cid(), PinKind::Direct, "").unwrap();
        assert!(store.unpin(blocks[2].cid()).unwrap());
        assert!(!store.unpin(blocks[2].cid()).unwrap());
        store.name("data set", root).unwrap();
        store.name("gone", root).unwrap();
        assert!(store.unname("gone").unwrap());
        store.remember(vec![(root.clone(), b"a fact".to_vec())]).unwrap();
        assert_eq!(store.facts(root).unwrap().as_deref(), Some(&b"a fact"[..]));
    }
    assert!(segment_files(dir.path(), "car").len() > 5);
    let store = open(dir.path());
    assert_all(&store, &blocks);
    let pins = store.pins().unwrap();
    assert_eq!(pins.len(), 2);
    assert!(pins.iter().any(|pin| pin.cid == *root && pin.kind == PinKind::Recursive && pin.name == "first"));
    assert_eq!(store.names().unwrap(), [("data set".to_owned(), root.clone())]);
    assert_eq!(store.facts(root).unwrap().as_deref(), Some(&b"a fact"[..]));
    assert_eq!(store.health(), Vec::<String>::new());
}

#[test]
fn a_block_is_found_under_any_cid_of_its_multihash_and_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let node = block(1, 300_000);
    for _ in 0..20 {
        store.put(&node).unwrap();
    }
    store.sync().unwrap();
    let files = segment_files(dir.path(), "car");
    assert_eq!(files.len(), 1);
    assert!(fs::metadata(&files[0]).unwrap().len() < 310_000);
    let cid = node.cid().with_codec(codec::DAG_PB);
    assert_eq!(store.get(&cid).unwrap().unwrap().data(), node.data());
    assert!(!store.has(block(2, 10).cid()));
    assert_eq!(store.get(block(2, 10).cid()).unwrap(), None);
}

#[test]
fn everything_is_made_again_from_the_segments_alone() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks();
    put_all(&open(dir.path()), &blocks);
    fs::remove_file(dir.path().join("store.redb")).unwrap();
    for table in segment_files(dir.path(), "table") {
        fs::remove_file(table).unwrap();
    }
    assert_all(&open(dir.path()), &blocks);
    // What was made again is as good as the first.
    for table in segment_files(dir.path(), "table") {
        let mut bytes = fs::read(&table).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&table, bytes).unwrap();
    }
    assert_all(&open(dir.path()), &blocks);
}

#[test]
fn a_torn_end_is_cut_off_and_what_lies_before_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let blocks: Vec<Block> = (0..40).map(|seed| block(seed, 1_000 + seed as usize)).collect();
    put_all(&open(dir.path()), &blocks);
    let file = segment_files(dir.path(), "car").pop().unwrap();
    let whole = fs::read(&file).unwrap();
    for cut in [whole.len() - 1, whole.len() - 500, whole.len() - 1_038, whole.len() / 2, 70, 69, 20, 0] {
        fs::write(&file, &whole[..cut]).unwrap();
        fs::write(file.with_extension("table"), b"rubbish").unwrap();
        let store = open(dir.path());
        let found = blocks.iter().filter(|block| store.get(block.cid()).unwrap().is_some()).count();
        let end = |number: usize| 69 + blocks[..number].iter().map(|block| 38 + block.data().len()).sum::<usize>();
        assert_eq!(found, (0..=40).rev().find(|number| end(*number) <= cut).unwrap_or(0), "cut at {cut}");
        // It grows on from there.
        put_all(&store, &blocks);
        drop(store);
        assert_all(&open(dir.path()), &blocks);
        for other in segment_files(dir.path(), "car") {
            fs::remove_file(other).unwrap();
        }
    }
}

#[test]
fn a_damaged_record_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks();
    put_all(&open(dir.path()), &blocks);
    let victim = blocks.iter().find(|block| block.data().len() > 200_000).unwrap();
    let file = segment_files(dir.path(), "car")
        .into_iter()
        .find_map(|file| {
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.windows(64).position(|window| window == &victim.data()[70_000..70_064])?;
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            Some(file)
        })
        .unwrap();
    let store = open(dir.path());
    let first_piece = store.get_range(victim.cid(), 0..65_536).unwrap().unwrap().data;
    assert_eq!(first_piece, victim.data()[..65_536], "what is sound is served");
    assert_eq!(store.get_range(victim.cid(), 0..65_537).unwrap(), None);
    assert_eq!(store.get(victim.cid()).unwrap(), None);
    assert!(!store.has(victim.cid()), "it is dropped, in {}", file.display());
    // And can be kept again.
    store.put(victim).unwrap();
    assert_all(&store, &blocks);
    drop(store);
    assert_all(&open(dir.path()), &blocks);
}

#[test]
fn a_range_is_the_same_bytes_as_the_block_s() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let large = block(1, 1_000_001);
    store.put(&large).unwrap();
    store.sync().unwrap();
    let ranges = [(0, 0), (0, 1), (65_535, 65_537), (1, 1_000_001), (1_000_000, 1_000_001), (131_072, 262_144)];
    for (from, to) in ranges {
        let read = store.get_range(large.cid(), from..to).unwrap().unwrap();
        assert_eq!(read.block_bytes, 1_000_001);
        assert_eq!(read.data, large.data()[from as usize..to as usize], "{from}..{to}");
    }
    assert_eq!(store.get_range(large.cid(), 999_999..2_000_000).unwrap().unwrap().data.len(), 2, "cut at the end");
    assert_eq!(store.get_range(large.cid(), 2_000_000..2_000_001).unwrap().unwrap().data.len(), 0);
    assert_eq!(store.get_range(block(2, 5).cid(), 0..1).unwrap(), None);
}

#[test]
fn identity_cids_are_always_here() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let cid = Cid::new_v1(codec::RAW, &HashFunction::Identity.digest(b"inside"));
    assert!(store.has(&cid));
    assert_eq!(store.get(&cid).unwrap().unwrap().data(), &b"inside"[..]);
    assert_eq!(store.get_range(&cid, 2..4).unwrap().unwrap().data, &b"si"[..]);
    store.put(&store.get(&cid).unwrap().unwrap()).unwrap();
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let Err(StoreError::InUse { pid, .. }) = Store::open(dir.path(), &config()) else { panic!("opened twice") };
    assert_eq!(pid, Some(std::process::id()));
    drop(store);
    open(dir.path());
}

#[test]
fn a_name_that_cannot_be_a_file_s_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let cid = block(1, 1).cid().clone();
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256), &cid.to_string()] {
        assert!(matches!(store.name(name, &cid), Err(StoreError::InvalidName { .. })), "{name}");
    }
    store.name(&"x".repeat(255), &cid).unwrap();
}

#[test]
fn several_writers_and_readers_work_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let store = &store;
            scope.spawn(move || {
                let mut writer = store.writer();
                for number in 0..200 {
                    // Half of them are everybody's.
                    let seed = if number % 2 == 0 { number } else { 1_000 * thread + number };
                    let block = block(seed, 20_000);
                    writer.put(&block).unwrap();
                    assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(&block));
                    if number % 50 == 0 {
                        store.sync().unwrap();
                    }
                }
            });
        }
    });
    drop(store);
    let store = open(dir.path());
    for seed in
        (0..200).step_by(2).chain((0..4).flat_map(|thread| (1..200).step_by(2).map(move |n| 1_000 * thread + n)))
    {
        assert!(store.get(block(seed, 20_000).cid()).unwrap().is_some());
    }
}

#[test]
fn a_sealed_segment_is_a_carv2_file_with_an_index_of_every_block() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks();
    put_all(&open(dir.path()), &blocks);
    let mut sealed = 0;
    for path in segment_files(dir.path(), "car") {
        let file = fs::read(&path).unwrap();
        // While a segment grows its header is zeros.
        if file[11..51] == [0; 40] {
            continue;
        }
        let mut reader = CarReader::new(&file[..]).unwrap();
        let header = *reader.v2_header().unwrap();
        sealed += 1;
        let index = Index::decode(&file[header.index_offset as usize..]).unwrap();
        let mut count = 0;
        while let Some(block) = reader.next_block().unwrap() {
            assert!(blocks.contains(&block));
            let offset = index.find(block.cid().hash_code(), block.cid().digest()).next().unwrap();
            let record = &file[(header.data_offset + offset) as usize..];
            let varint_len = record.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
            assert!(record[varint_len..].starts_with(block.cid().as_bytes()));
            count += 1;
        }
        assert_eq!(index.len(), count);
    }
    assert!(sealed >= 5, "{sealed} are sealed");
}

#[test]
fn a_process_that_finished_the_store_leaves_nothing_to_be_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blocks: Vec<Block> = (0..20).map(|seed| block(seed, 10_000)).collect();
    put_all(&store, &blocks);
    store.remember(vec![(blocks[0].cid().clone(), b"fact".to_vec())]).unwrap();
    store.finish().unwrap();
    // What is on the disk while the store is still open is what such a process leaves.
    fs::create_dir(copy.path().join("segments")).unwrap();
    for name in ["store.redb", "segments/00000001.car", "segments/00000001.table"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let table = fs::read(copy.path().join("segments/00000001.table")).unwrap();
    assert_eq!(&table[table.len() - 40..table.len() - 32], b"cidfsend");
    let copied = open(copy.path());
    assert_all(&copied, &blocks);
    assert_eq!(copied.facts(blocks[0].cid()).unwrap().as_deref(), Some(&b"fact"[..]));
    // And the store goes on.
    let more: Vec<Block> = (20..30).map(|seed| block(seed, 10_000)).collect();
    put_all(&store, &more);
    drop(store);
    let store = open(dir.path());
    assert_all(&store, &blocks);
    assert_all(&store, &more);
}
