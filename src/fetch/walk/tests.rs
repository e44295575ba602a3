use bytes::Bytes;

use super::*;
use crate::block::{HashFunction, codec};
use crate::config::StoreConfig;
use crate::dag::pb::{self, PbLink};
use crate::limits::MAX_BLOCK_BYTES;
use crate::store::Store;

/// A store in a directory that goes with it.
fn store() -> (Fetch, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
    (Fetch::new(store), dir)
}

fn leaf(data: &[u8]) -> Block {
    Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::copy_from_slice(data))
}

fn node(data: &[u8], children: &[&Block]) -> Block {
    let links = children.iter().map(|child| PbLink { cid: child.cid().clone(), name: b"", tsize: None });
    Block::new(codec::DAG_PB, HashFunction::Sha2_256, Bytes::from(pb::encode(links, Some(data))))
}

fn keep(fetch: &Fetch, blocks: &[&Block]) {
    let mut writer = fetch.store().writer();
    for block in blocks {
        writer.put(block).unwrap();
    }
}

/// Every step of a walk: the CID that was visited, or that of the error.
async fn steps(fetch: &Fetch, roots: &[&Block]) -> Vec<Result<Cid, Cid>> {
    let mut walk = Walk::new(fetch, Reach::Local, roots.iter().map(|block| block.cid().clone()).collect());
    let mut steps = Vec::new();
    loop {
        match walk.next().await {
            Ok(Some(visit)) => steps.push(Ok(visit.cid().clone())),
            Ok(None) => return steps,
            Err(error) => steps.push(Err(error.cid().unwrap().clone())),
        }
    }
}

fn visited(blocks: &[&Block]) -> Vec<Result<Cid, Cid>> {
    blocks.iter().map(|block| Ok(block.cid().clone())).collect()
}

#[tokio::test]
async fn a_walk_visits_each_block_once_and_a_node_before_its_links() {
    let (fetch, _dir) = store();
    let (a, b, c) = (leaf(b"a"), leaf(b"b"), leaf(b"c"));
    let shared = node(b"shared", &[&b, &a]);
    let left = node(b"left", &[&a, &shared, &a]);
    let right = node(b"right", &[&shared, &c]);
    let root = node(b"root", &[&left, &right, &left]);
    keep(&fetch, &[&shared, &left, &right, &root]);
    assert_eq!(steps(&fetch, &[&root]).await, visited(&[&root, &left, &a, &shared, &b, &right, &c]));
    assert_eq!(
        steps(&fetch, &[&shared, &root, &a]).await,
        visited(&[&shared, &b, &a, &root, &left, &right, &c]),
        "what roots share is visited with the first"
    );
}

#[tokio::test]
async fn a_walk_of_a_bomb_of_shared_subtrees_ends() {
    let (fetch, _dir) = store();
    let mut block = leaf(b"x");
    let mut blocks = Vec::new();
    for _ in 0..64 {
        block = node(b"", &[&block, &block]);
        blocks.push(block.clone());
    }
    keep(&fetch, &blocks.iter().collect::<Vec<_>>());
    assert_eq!(steps(&fetch, &[&block]).await.len(), 65);
}

#[tokio::test]
async fn a_walk_goes_on_behind_what_is_missing_or_no_node() {
    let (fetch, _dir) = store();
    let missing = node(b"missing", &[&leaf(b"below it")]);
    let broken = Block::new(codec::DAG_PB, HashFunction::Sha2_256, Bytes::from_static(b"\xff"));
    let last = leaf(b"last");
    let root = node(b"", &[&missing, &broken, &missing, &last]);
    keep(&fetch, &[&root, &broken]);
    let expected =
        vec![Ok(root.cid().clone()), Err(missing.cid().clone()), Err(broken.cid().clone()), Ok(last.cid().clone())];
    assert_eq!(steps(&fetch, &[&root]).await, expected);
    let error = Walk::new(&fetch, Reach::Local, vec![broken.cid().clone()]).next().await.unwrap_err();
    assert!(error.to_string().contains(&broken.cid().to_string()), "{error}");
}

#[tokio::test]
async fn a_chain_is_walked_to_its_limit_and_no_further() {
    let (fetch, _dir) = store();
    let mut writer = fetch.store().writer();
    let mut block = leaf(b"x");
    for _ in 0..MAX_WALK_DEPTH {
        block = node(b"", &[&block]);
        writer.put(&block).unwrap();
    }
    let mut walk = Walk::new(&fetch, Reach::Local, vec![block.cid().clone()]);
    while walk.next().await.unwrap().is_some() {}
    assert_eq!(walk.met(), MAX_WALK_DEPTH + 1);

    let over = node(b"", &[&block]);
    writer.put(&over).unwrap();
    let steps = steps(&fetch, &[&over]).await;
    assert!(matches!(steps.last(), Some(Err(_))), "the deepest node is not gone into");
    assert_eq!(steps.len(), MAX_WALK_DEPTH + 1);
}

#[tokio::test]
async fn a_walk_holds_no_more_than_its_limit_and_finds_its_way_back() {
    let (fetch, _dir) = store();
    let mut writer = fetch.store().writer();
    let levels = 3 * MAX_WALK_BYTES / MAX_BLOCK_BYTES;
    let large = vec![7; MAX_BLOCK_BYTES - 1000];
    let leaf_of = |level: usize, side: &str| leaf(format!("{level} {side}").as_bytes());
    let mut block = leaf(b"x");
    let mut expected = std::collections::VecDeque::from([block.cid().clone()]);
    for level in 0..levels {
        let (before, between, after) = (leaf_of(level, "before"), leaf_of(level, "between"), leaf_of(level, "after"));
        let inner = node(format!("inner {level}").as_bytes(), &[&between]);
        writer.put(&inner).unwrap();
        block = node(&large, &[&before, &block, &inner, &after]);
        writer.put(&block).unwrap();
        expected.push_front(before.cid().clone());
        expected.push_front(block.cid().clone());
        expected.extend([inner.cid().clone(), between.cid().clone(), after.cid().clone()]);
    }
    let mut walk = Walk::new(&fetch, Reach::Local, vec![block.cid().clone()]);
    let mut visited = Vec::new();
    while let Some(visit) = walk.next().await.unwrap() {
        visited.push(visit.cid().clone());
        let held: usize = walk.path.open.iter().filter_map(|open| open.links.as_ref()).map(|(_, len)| len).sum();
        assert_eq!(held, walk.path.held_bytes);
        assert!(held <= MAX_WALK_BYTES + MAX_BLOCK_BYTES);
    }
    assert_eq!(visited, Vec::from(expected));
}

#[test]
fn fingerprints_of_cids_differ_also_where_their_blocks_do_not() {
    let mut seen = Seen::default();
    let block = leaf(b"x");
    assert!(seen.insert(block.cid()) && !seen.insert(block.cid()));
    assert!(seen.insert(&block.cid().with_codec(codec::DAG_PB)), "kubo counts such blocks twice, too");
    assert_eq!(seen.len(), 2);
}
