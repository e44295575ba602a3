//! Budgets: what is not pinned goes by root, the one that was used longest ago first; what is pinned stays.

#[path = "blocks/random.rs"]
mod random;

use std::path::Path;

use cidfs::block::Block;
use cidfs::config::StoreConfig;
use cidfs::store::{PinKind, Store, StoreError};
use random::{block, node};

const MIB: u64 = 1 << 20;

fn open(dir: &Path, disk_bytes: u64) -> Store {
    let config = StoreConfig { segment_bytes: MIB, ram_bytes: 0, disk_bytes, free_ratio: 0.0 };
    Store::open(dir, &config).unwrap()
}

/// A root and its leaves of 50 KB, `kib` KiB in all.
fn tree(seed: u64, kib: u64) -> Vec<Block> {
    let leaves: Vec<Block> = (0..kib / 50).map(|leaf| block(seed * 10_000 + leaf, 50 << 10)).collect();
    let root = node(&leaves);
    [root].into_iter().chain(leaves).collect()
}

fn here(store: &Store, blocks: &[Block]) -> usize {
    blocks.iter().filter(|block| store.get(block.cid()).unwrap().as_ref() == Some(block)).count()
}

/// Fetches a tree as a cache would: what does not fit is not kept. Says how much was kept.
fn fetch(store: &Store, tree: &[Block]) -> usize {
    let mut writer = store.writer_for(tree[0].cid());
    let mut kept = 0;
    for block in tree {
        match writer.put(block) {
            Ok(()) => kept += 1,
            Err(StoreError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    kept
}

#[test]
fn the_root_that_was_used_longest_ago_goes_first_and_the_budget_holds() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 16 * MIB);
    let trees: Vec<Vec<Block>> = (1..=3).map(|seed| tree(seed, 4_000)).collect();
    for tree in &trees {
        assert_eq!(fetch(&store, tree), tree.len());
        // The order of use is kept in seconds.
        wait_a_second();
    }
    store.touch(trees[0][0].cid());
    let fourth = tree(4, 6_000);
    assert_eq!(fetch(&store, &fourth), fourth.len());
    let used = store.stat().unwrap().disk_bytes;
    assert!((12 * MIB..=16 * MIB).contains(&used), "no more goes than must: {used}");
    assert_eq!(here(&store, &fourth), fourth.len());
    assert_eq!(here(&store, &trees[0]), trees[0].len(), "it was touched");
    let gone = trees[1].len() - here(&store, &trees[1]);
    assert!(gone > 0, "it was the oldest");
    assert_eq!(here(&store, &trees[2]), trees[2].len(), "it was younger");
    let counted = store.stat().unwrap().counted;
    assert!(counted.evicted_blocks >= gone as u64 && counted.evicted_bytes > 0, "{counted:?}");
    assert_eq!((counted.collections, counted.misses), (0, gone as u64));
}

/// Waits until the clock shows another second.
fn wait_a_second() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = now();
    while now() == begun {
        std::thread::yield_now();
    }
}

#[test]
fn pinned_blocks_are_never_evicted_and_a_full_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let pinned = tree(1, 5_000);
    {
        let store = open(dir.path(), 12 * MIB);
        let mut writer = store.writer();
        for block in &pinned {
            writer.put(block).unwrap();
        }
        store.pin(pinned[0].cid(), PinKind::Recursive, "").unwrap();
        drop(writer);
        for seed in 2..8 {
            fetch(&store, &tree(seed, 3_000));
            assert_eq!(here(&store, &pinned), pinned.len());
            assert!(store.stat().unwrap().disk_bytes <= 12 * MIB);
        }
        // More of the user's own than the budget holds.
        let too_much = tree(20, 12_000);
        let mut writer = store.writer();
        let error = too_much.iter().find_map(|block| writer.put(block).err()).unwrap();
        assert!(error.to_string().contains("store.disk_bytes"), "{error}");
        assert_eq!(here(&store, &pinned), pinned.len());
    }
    let store = open(dir.path(), 6 * MIB);
    store.evict().unwrap();
    assert_eq!(here(&store, &pinned), pinned.len());
    let stat = store.stat().unwrap();
    assert!(stat.disk_bytes <= 6 * MIB, "{stat:?}");
}

#[test]
fn a_root_larger_than_the_budget_keeps_what_it_has_and_leaves_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 8 * MIB);
    let large = tree(1, 20_000);
    let kept = fetch(&store, &large);
    assert!(kept > large.len() / 5 && kept < large.len() / 2, "{kept} of {}", large.len());
    let first: Vec<bool> = large.iter().map(|block| store.has(block.cid())).collect();
    // Another pass in the same order: a cache that drops the oldest would drop each block just before it is read.
    assert!(fetch(&store, &large) >= kept);
    let second: Vec<bool> = large.iter().map(|block| store.has(block.cid())).collect();
    assert_eq!(first, second);
    // Another root may take its place.
    let other = tree(2, 3_000);
    assert_eq!(fetch(&store, &other), other.len());
}

/// What sealing adds to segments is counted before: the last one that fits is not refused for it, and nothing is evicted.
#[test]
fn a_cache_is_filled_to_its_budget_with_tables_and_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let leaves: Vec<Block> = (0..3_000).map(|leaf| block(leaf + 1, 5 << 10)).collect();
    let large: Vec<Block> = [node(&leaves)].into_iter().chain(leaves).collect();
    let store = open(dir.path(), 8 * MIB);
    let kept = fetch(&store, &large);
    assert!(kept * (5 << 10) > 7 * MIB as usize * 17 / 16, "{kept}: eight segments, not seven");
    drop(store);
    let store = open(dir.path(), 8 * MIB);
    let stat = store.stat().unwrap();
    assert!(stat.disk_bytes <= 8 * MIB, "{stat:?}");
    store.evict().unwrap();
    assert_eq!(here(&store, &large), kept);
}

/// The formula of a cache that drops what was used longest ago, where a part `x` fits and each pass has a fresh random order.
fn hit_rate_of_lru(x: f64) -> f64 {
    x + (1.0 - x) * (1.0 - x).ln()
}

#[test]
fn shuffled_epochs_of_more_than_fits_hit_what_is_cached_and_not_what_lru_would() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 16 * MIB);
    let dataset = tree(1, 30_000);
    let mut order: Vec<usize> = (1..dataset.len()).collect();
    let mut state = 1_u64;
    let mut epoch = || {
        for last in (1..order.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(last, (state >> 33) as usize % (last + 1));
        }
        let mut hits = 0;
        // A reader's misses are kept a few at a time, by writers that come and go.
        for few in order.chunks(20) {
            let mut writer = store.writer_for(dataset[0].cid());
            for block in few.iter().map(|at| &dataset[*at]) {
                if store.get(block.cid()).unwrap().is_some() {
                    hits += 1;
                } else if let Err(error) = writer.put(block) {
                    assert!(matches!(error, StoreError::Full { .. }), "{error}");
                }
            }
        }
        f64::from(hits) / (dataset.len() - 1) as f64
    };
    assert!(epoch() < 0.01, "nothing was here");
    let cached =
        || dataset[1..].iter().filter(|block| store.has(block.cid())).count() as f64 / (dataset.len() - 1) as f64;
    for number in 2..6 {
        let x = cached();
        assert!((0.35..0.55).contains(&x), "{x} of it is here");
        let rate = epoch();
        assert!((rate - x).abs() < 0.02, "epoch {number} hits {rate}, and {x} was here");
        assert!(rate > hit_rate_of_lru(x) + 0.2, "{rate} of {x}");
    }
}

#[test]
fn a_block_of_two_roots_stays_with_the_pinned_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 8 * MIB);
    let shared = tree(1, 1_000);
    fetch(&store, &shared);
    wait_a_second();
    // The same leaves below a root of the user's own.
    let own = node(&shared[2..]);
    let mut writer = store.writer();
    for block in shared[2..].iter().chain([&own]) {
        writer.put(block).unwrap();
    }
    store.pin(own.cid(), PinKind::Recursive, "").unwrap();
    drop(writer);
    for seed in 2..8 {
        fetch(&store, &tree(seed, 3_000));
    }
    assert_eq!(here(&store, &shared[2..]), shared.len() - 2);
    assert!(!store.has(shared[0].cid()), "nobody needs the other root");
}

#[test]
fn whose_the_blocks_are_is_known_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let (old, young) = (tree(1, 2_000), tree(2, 2_000));
    {
        let store = open(dir.path(), 12 * MIB);
        fetch(&store, &old);
        wait_a_second();
        fetch(&store, &young);
    }
    let store = open(dir.path(), 13 * MIB / 2);
    let third = tree(3, 3_000);
    assert_eq!(fetch(&store, &third), third.len());
    assert!(here(&store, &old) < old.len());
    assert_eq!(here(&store, &young), young.len());
    assert!(store.stat().unwrap().disk_bytes > 5 * MIB, "no more goes than must");
}

/// A dataset larger than the budget, read in a fresh random order each epoch: each epoch hits what is here of it, where a
/// cache that drops the least recently used would hit far less.
#[test]
fn epochs_in_random_order_hit_the_share_that_fits() {
    for (megabytes, seed) in [(64_u64, 1_u64), (32, 2), (22, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), 16 * MIB);
        let blocks: Vec<Block> = (0..megabytes * 50).map(|number| block(seed << 32 | number, 20_000)).collect();
        let root = node(&blocks[..1]);
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        let mut state = seed;
        let mut share = 0.0;
        for epoch in 0..5 {
            for place in (1..order.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                order.swap(place, (state >> 33) as usize % (place + 1));
            }
            let mut hits = 0;
            for part in order.chunks(100) {
                let mut writer = store.writer_for(root.cid());
                for index in part {
                    if store.get(blocks[*index].cid()).unwrap().is_some() {
                        hits += 1;
                    } else if let Err(error) = writer.put(&blocks[*index]) {
                        assert!(matches!(error, StoreError::Full { .. }), "{error}");
                    }
                }
            }
            let rate = f64::from(hits) / blocks.len() as f64;
            let of_lru = share + (1.0 - share) * (1.0_f64 - share).ln();
            assert!(epoch == 0 || ((rate - share).abs() < 0.02 && rate > of_lru + 0.08), "{rate} of {share}");
            share = blocks.iter().filter(|block| store.has(block.cid())).count() as f64 / blocks.len() as f64;
        }
        assert!((10.0..17.0).contains(&(share * megabytes as f64)), "most of the budget is used: {share}");
    }
}
