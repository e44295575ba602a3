//! What a warmup promises where blocks come from far away.

#[path = "fetch/sources.rs"]
mod sources;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::config::StoreConfig;
use cidfs::dag::pb::{self, PbLink};
use cidfs::dag::unixfs::{Kind, UnixFs};
use cidfs::fetch::source::SourceError;
use cidfs::limits::{WALK_AHEAD_BLOCKS, WALK_AHEAD_BYTES};
use cidfs::prefetch::warmup::{self, Depth, Progress, Tier, WarmupError};
use sources::{Fake, Local, sized};

const LONG: Duration = Duration::from_secs(30);

/// A dag-pb node of `kind` over blocks and their sizes.
fn node(kind: Kind, children: &[(Cid, u64)], data: Option<&[u8]>) -> Block {
    let mut unixfs = UnixFs::new(kind);
    if kind == Kind::File {
        unixfs.data = data.map(bytes::Bytes::copy_from_slice);
        unixfs.blocksizes = children.iter().map(|(_, size)| *size).collect();
        unixfs.filesize =
            Some(unixfs.blocksizes.iter().sum::<u64>() + unixfs.data.as_ref().map_or(0, |data| data.len() as u64));
    }
    let names: Vec<String> = (0..children.len())
        .map(|number| if kind == Kind::Directory { format!("{number:06}") } else { String::new() })
        .collect();
    let links = children.iter().zip(&names).map(|((cid, size), name)| PbLink {
        cid: cid.clone(),
        name: name.as_bytes(),
        tsize: Some(*size),
    });
    Block::new(codec::DAG_PB, HashFunction::Sha2_256, pb::encode(links, Some(&unixfs.encode())).into())
}

fn link(block: &Block) -> (Cid, u64) {
    (block.cid().clone(), block.data().len() as u64)
}

/// `directories` of `files` leaves of `len` bytes, the root first.
fn tree(directories: u64, files: u64, len: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut links = Vec::new();
    for directory in 0..directories {
        let leaves: Vec<Block> = (0..files).map(|file| sized(directory * files + file, len)).collect();
        let inner = node(Kind::Directory, &leaves.iter().map(link).collect::<Vec<_>>(), None);
        links.push((inner.cid().clone(), inner.data().len() as u64 + (len as u64) * files));
        blocks.push(inner);
        blocks.extend(leaves);
    }
    blocks.insert(0, node(Kind::Directory, &links, None));
    blocks
}

async fn bring(local: &Local, root: &Block, depth: Depth) -> Result<Progress, WarmupError> {
    let fetch = local.fetch.session(root.cid());
    warmup::bring(&fetch, vec![root.cid().clone()], depth, Tier::Disk, &mut |_| ControlFlow::Continue(())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmup_brings_everything_once_and_many_blocks_at_a_time() {
    let blocks = tree(20, 100, 1000);
    let delay = Duration::from_millis(20);
    let (local, source) = Local::new(LONG).with(Fake::having("far", &blocks, delay));
    let began = Instant::now();
    let done = bring(&local, &blocks[0], Depth::Whole).await.unwrap();
    let took = began.elapsed();
    assert_eq!((done.files, done.blocks, done.missing), (2000, 2021, 0));
    assert_eq!((done.fetched_blocks, source.asked()), (2021, 2021));
    let bytes: u64 = blocks.iter().map(|block| block.data().len() as u64).sum();
    assert_eq!(done.bytes, bytes);
    assert_eq!(done.claimed_bytes, bytes);
    // One after the other would take 40 s; all leaves at once, in turns of as many as may be, less than a second.
    assert!(took < delay * 2021 / 2, "{took:?}");
    assert!(blocks.iter().all(|block| local.store.has(block.cid())));
    // Again, it asks nobody.
    let again = bring(&local, &blocks[0], Depth::Whole).await.unwrap();
    assert_eq!((again.fetched_blocks, source.asked(), again.files), (0, 2021, 2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmup_that_is_stopped_goes_on_where_it_was() {
    let blocks = tree(10, 100, 1000);
    let (local, source) = Local::new(LONG).with(Fake::having("far", &blocks, Duration::from_millis(20)));
    let fetch = local.fetch.session(blocks[0].cid());
    let stopped = warmup::bring(&fetch, vec![blocks[0].cid().clone()], Depth::Whole, Tier::Disk, &mut |now| {
        if now.blocks > 100 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .await;
    assert!(matches!(stopped, Err(WarmupError::Stopped)));
    local.fetch.settle().await;
    let here = blocks.iter().filter(|block| local.store.has(block.cid())).count();
    assert!(here > 100 && here < blocks.len(), "{here}");
    let asked = source.asked();
    let done = bring(&local, &blocks[0], Depth::Whole).await.unwrap();
    assert_eq!((done.blocks, done.missing), (1011, 0));
    assert!(source.asked() - asked <= blocks.len() - here, "nothing is fetched twice");
    let mut nothing = |_: &Progress| ControlFlow::Continue(());
    let checked = warmup::check(&fetch, vec![blocks[0].cid().clone()], Depth::Whole, &mut nothing).await.unwrap();
    assert_eq!((checked.blocks, checked.files, checked.missing), (1011, 1000, 0));
}

/// How many blocks a warmup of these has on their way at once, at most.
async fn most_on_their_way(blocks: &[Block]) -> usize {
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let having: std::collections::HashMap<Cid, Block> =
        blocks.iter().map(|block| (block.cid().clone(), block.clone())).collect();
    let (counted, highest) = (busy.clone(), most.clone());
    let source = Fake::new("far", move |request| {
        let block = having.get(&request.cid).cloned();
        let (busy, most) = (counted.clone(), highest.clone());
        async move {
            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            busy.fetch_sub(1, Ordering::SeqCst);
            block.ok_or_else(|| SourceError::NotThere("has it not".into()))
        }
    });
    let (local, _) = Local::new(LONG).with(source);
    bring(&local, &blocks[0], Depth::Whole).await.unwrap();
    most.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_bounded() {
    let most = most_on_their_way(&tree(3, 500, 1000)).await;
    // The walk's own node may be one more.
    assert!((WALK_AHEAD_BLOCKS / 2..=WALK_AHEAD_BLOCKS + 1).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_bounded_in_bytes_from_the_first_block_on() {
    let most = most_on_their_way(&tree(1, 100, 1 << 20)).await;
    let allowed = WALK_AHEAD_BYTES >> 20;
    assert!((allowed / 2..=allowed + 1).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_list_come_many_at_a_time() {
    let blocks = tree(1, 600, 1000);
    let delay = Duration::from_millis(20);
    let (local, source) = Local::new(LONG).with(Fake::having("far", &blocks, delay));
    // Each file is a root of its own; some lie in a directory that is named, too.
    let mut roots: Vec<Cid> = blocks[2..].iter().map(|block| block.cid().clone()).rev().collect();
    roots.push(blocks[0].cid().clone());
    let fetch = local.fetch.session(blocks[0].cid());
    let mut nothing = |_: &Progress| ControlFlow::Continue(());
    let began = Instant::now();
    let done = warmup::bring(&fetch, roots, Depth::Whole, Tier::Disk, &mut nothing).await.unwrap();
    let took = began.elapsed();
    assert_eq!((done.files, done.blocks, source.asked()), (600, 602, 602));
    assert!(took < delay * 602 / 2, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_alone_brings_no_leaf() {
    // A file of raw leaves, and one whose leaves are dag-pb as kubo made them by default for years.
    let raw: Vec<Block> = (0..50).map(|number| sized(number, 5000)).collect();
    let pb: Vec<Block> = (0..50).map(|number| node(Kind::File, &[], Some(sized(100 + number, 5000).data()))).collect();
    let raw_file = node(Kind::File, &raw.iter().map(link).collect::<Vec<_>>(), None);
    // Links say how large a leaf is; block sizes say how much of the file it holds.
    let pb_file = {
        let mut unixfs = UnixFs::new(Kind::File);
        unixfs.blocksizes = vec![5000; 50];
        unixfs.filesize = Some(250_000);
        let links = pb.iter().map(|leaf| PbLink { cid: leaf.cid().clone(), name: b"", tsize: Some(link(leaf).1) });
        Block::new(codec::DAG_PB, HashFunction::Sha2_256, pb::encode(links, Some(&unixfs.encode())).into())
    };
    let root = node(Kind::Directory, &[link(&raw_file), link(&pb_file)], None);
    let all: Vec<Block> = [root.clone(), raw_file, pb_file].into_iter().chain(raw).chain(pb).collect();
    let (local, source) = Local::new(LONG).with(Fake::having("far", &all, Duration::from_millis(1)));
    let done = bring(&local, &root, Depth::Metadata).await.unwrap();
    assert_eq!((done.blocks, done.files, source.asked()), (3, 2, 3));
    let done = bring(&local, &root, Depth::Whole).await.unwrap();
    assert_eq!((done.blocks, done.files, source.asked()), (103, 2, 103));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_nobody_has_are_counted_and_named_and_end_nothing() {
    let blocks = tree(4, 25, 1000);
    // Without the second directory, and without a leaf of the third.
    let (inner, leaf) = (&blocks[27], &blocks[55]);
    let having = blocks.iter().filter(|block| *block != inner && *block != leaf);
    let (local, _) = Local::new(Duration::from_secs(5)).with(Fake::having("far", having, Duration::from_millis(1)));
    let done = bring(&local, &blocks[0], Depth::Whole).await.unwrap();
    assert_eq!((done.missing, done.files, done.blocks), (2, 74, 1 + 3 + 74));
    let named = done.first_missing.join("\n");
    assert!(named.contains(&inner.cid().to_string()) && named.contains(&leaf.cid().to_string()), "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmup_of_more_than_the_cache_holds_stops_when_nothing_is_kept_any_more() {
    let blocks = tree(6, 100, 200_000);
    let config = StoreConfig { disk_bytes: 16 << 20, segment_bytes: 1 << 20, ram_bytes: 0, free_ratio: 0.0 };
    let (local, source) = Local::with_store(LONG, &config).with(Fake::having("far", &blocks, Duration::from_millis(1)));
    let error = bring(&local, &blocks[0], Depth::Whole).await.unwrap_err();
    assert!(error.to_string().contains("store.disk_bytes"), "{error}");
    assert!(source.asked() < blocks.len(), "not everything is fetched for nothing");
    let here = blocks.iter().filter(|block| local.store.has(block.cid())).count();
    assert!(here > 40, "{here}");
}
