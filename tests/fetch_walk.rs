//! What fetching whole DAGs promises: all of it, verified, ahead of the walk, in whole CARs where a gateway sends them.

#[path = "fetch/gateway.rs"]
mod gateway;
#[path = "fetch/sources.rs"]
mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cidfs::block::{Block, HashFunction, codec};
use cidfs::dag::pb::{self, PbLink};
use cidfs::fetch::bring::bring;
use cidfs::fetch::gateways::GatewaySource;
use cidfs::fetch::pin;
use cidfs::fetch::source::{Source, SourceError};
use cidfs::fetch::walk::{Reach, Visit, Walk};
use cidfs::limits::WALK_AHEAD_BLOCKS;
use cidfs::net::http::Gateways;
use cidfs::store::PinKind;
use gateway::{Gateway, Manner};
use sources::{Fake, Local, sized};

const LONG: Duration = Duration::from_secs(30);

fn node(children: &[Block]) -> Block {
    let links = children.iter().map(|child| PbLink { cid: child.cid().clone(), name: b"", tsize: Some(1000) });
    Block::new(codec::DAG_PB, HashFunction::Sha2_256, Bytes::from(pb::encode(links, Some(b"x"))))
}

/// A root over `nodes` nodes of `leaves` leaves each, depth first.
fn dag(nodes: u64, leaves: u64) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut inner = Vec::new();
    for number in 0..nodes {
        let below: Vec<Block> = (0..leaves).map(|leaf| sized(number * leaves + leaf, 1000)).collect();
        inner.push(node(&below));
        blocks.push(node(&below));
        blocks.extend(below);
    }
    blocks.insert(0, node(&inner));
    blocks
}

fn with_gateway(gateway: &Gateway) -> Local {
    let local = Local::new(LONG);
    let gateways = Gateways::new(std::slice::from_ref(&gateway.url), Arc::default()).unwrap();
    let source: Arc<dyn Source> = Arc::new(GatewaySource::new(gateways, Duration::ZERO));
    local.fetch.add_source(&source);
    local
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_fetches_ahead_and_keeps_its_order_and_its_bounds() {
    let blocks = dag(50, 4);
    let known: std::collections::HashMap<_, _> =
        blocks.iter().map(|block| (block.cid().clone(), block.clone())).collect();
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let count = running.clone();
    let (local, source) = Local::new(LONG).with(Fake::new("far", move |request| {
        let (block, count) = (known.get(&request.cid).cloned(), count.clone());
        async move {
            count.1.fetch_max(count.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            count.0.fetch_sub(1, Ordering::SeqCst);
            block.ok_or_else(|| SourceError::NotThere("has it not".into()))
        }
    }));
    let mut walk = Walk::new(&local.fetch, Reach::Anywhere, vec![blocks[0].cid().clone()]);
    let mut visited = Vec::new();
    while let Some(visit) = walk.next().await.unwrap() {
        if let Visit::Leaf(cid) = &visit {
            walk.fetch(cid).await.unwrap();
        }
        visited.push(visit.cid().clone());
    }
    assert_eq!(visited, blocks.iter().map(|block| block.cid().clone()).collect::<Vec<_>>());
    assert_eq!(source.asked(), blocks.len(), "each once");
    let most = running.1.load(Ordering::SeqCst);
    assert!((5..=WALK_AHEAD_BLOCKS).contains(&most), "{most} at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_that_ends_early_leaves_nothing_under_way() {
    let blocks = dag(50, 4);
    let (local, _) = Local::new(LONG).with(Fake::having("far", &blocks, Duration::from_millis(200)));
    let mut walk = Walk::new(&local.fetch, Reach::Anywhere, vec![blocks[0].cid().clone()]);
    walk.next().await.unwrap();
    walk.next().await.unwrap();
    sources::until("much is under way", || local.fetch.stat().in_flight.0 > 10).await;
    drop(walk);
    sources::until("nothing is under way", || local.fetch.stat().in_flight == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_of_what_is_far_is_whole() {
    let blocks = dag(30, 10);
    let (local, _) = Local::new(LONG).with(Fake::having("far", &blocks, Duration::from_millis(10)));
    pin::pin(&local.fetch, blocks[0].cid(), PinKind::Recursive, "", |_| ()).await.unwrap();
    assert!(blocks.iter().all(|block| local.store.has(block.cid())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_dag_comes_in_one_car() {
    let blocks = dag(40, 10);
    let gateway = Gateway::start(&blocks);
    let local = with_gateway(&gateway);
    let state = bring(&local.fetch, blocks[0].cid(), |_| true).await.unwrap();
    assert_eq!(state.blocks as usize, blocks.len());
    assert!(blocks.iter().all(|block| local.store.has(block.cid())));
    let (raw, cars) = gateway.requests();
    assert_eq!((raw, cars), (1, 1), "the root, then all the rest");
    assert!(state.brought.iter().map(|(_, blocks, _)| *blocks).sum::<u64>() >= blocks.len() as u64);
    // Nothing is asked for a second time.
    bring(&local.fetch, blocks[0].cid(), |_| true).await.unwrap();
    assert_eq!(gateway.requests(), (raw, cars));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_car_that_is_cut_anywhere_keeps_what_was_verified_and_the_rest_comes_one_by_one() {
    let blocks = dag(40, 10);
    for cut in [0, 30, 20_000, 200_000] {
        let gateway = Gateway::start(&blocks).manner(Manner::CutsCars(cut));
        let local = with_gateway(&gateway);
        bring(&local.fetch, blocks[0].cid(), |_| true).await.unwrap();
        assert!(blocks.iter().all(|block| local.store.has(block.cid())), "cut at {cut}");
        let (raw, cars) = gateway.requests();
        assert_eq!(cars, 1);
        let whole_blocks = cut.saturating_sub(20_000) / 1_200;
        assert!(raw <= blocks.len() - whole_blocks + 1, "cut at {cut}: {raw} were asked for again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_cars_or_with_wrong_ones_still_brings_all() {
    let blocks = dag(20, 10);
    for manner in [Manner::BlocksOnly, Manner::ForeignCars] {
        let gateway = Gateway::start(&blocks).manner(manner.clone());
        let local = with_gateway(&gateway);
        bring(&local.fetch, blocks[0].cid(), |_| true).await.unwrap();
        assert!(blocks.iter().all(|block| local.store.has(block.cid())), "{manner:?}");
        assert!(!local.store.has(sized(u64::MAX, 1000).cid()), "what nobody asked for is not kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_was_interrupted_goes_on_where_it_was() {
    let blocks = dag(40, 10);
    let gateway = Gateway::start(&blocks).manner(Manner::BlocksOnly);
    let local = with_gateway(&gateway);
    let error = bring(&local.fetch, blocks[0].cid(), |state| state.blocks < 200).await.unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
    let before = gateway.requests().0;
    assert!(before >= 200);
    bring(&local.fetch, blocks[0].cid(), |_| true).await.unwrap();
    let again = gateway.requests().0 - before;
    assert!(again <= blocks.len() - 199, "{again} were asked for again");
}
