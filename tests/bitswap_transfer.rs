//! Blocks between nodes on loopback, over TCP and QUIC.

#[path = "bitswap/net.rs"]
mod net;
#[path = "blocks/random.rs"]
mod random;

use std::time::{Duration, Instant};

use cidfs::block::Block;
use cidfs::net::bitswap::{Client, Config, Event, Session, Urgency};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use net::{Node, soon};
use random::block;

fn blocks(count: u64, bytes: usize) -> Vec<Block> {
    (0..count).map(|seed| block(seed + 1, bytes)).collect()
}

fn bytes(blocks: &[Block]) -> u64 {
    blocks.iter().map(|block| block.data().len() as u64).sum()
}

/// Fetches all blocks, `window` at once, and stores each.
async fn fetch(node: &Node, session: &Session, blocks: &[Block], urgency: Urgency, window: usize) {
    let mut wants = FuturesUnordered::new();
    let mut left = blocks.iter();
    loop {
        while wants.len() < window {
            let Some(block) = left.next() else { break };
            wants.push(session.want(block.cid(), urgency));
        }
        let Some(got) = wants.next().await else { break };
        keep(node, &got.unwrap());
    }
    assert!(node.store.len() >= blocks.len());
}

fn keep(node: &Node, block: &Block) {
    node.store.put(block);
    node.client.arrived(block);
}

fn duplicates(client: &Client) -> f64 {
    let stat = client.stat();
    stat.duplicate_bytes as f64 / stat.received_bytes.max(1) as f64
}

async fn bulk(is_quic: bool) {
    let data = blocks(256, 256 * 1024);
    let (seed, reader) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    seed.hold(&data);
    reader.dial(if is_quic { &seed.quic } else { &seed.tcp });
    reader.connected(1).await;
    let session = reader.client.session(Some(data[0].cid()));
    let start = Instant::now();
    fetch(&reader, &session, &data, Urgency::Background, usize::MAX).await;
    println!("{:.0} MiB/s", 64.0 / start.elapsed().as_secs_f64());
    let figures = reader.client.stat();
    assert_eq!((figures.received_blocks, figures.received_bytes), (256, bytes(&data)));
    assert_eq!((figures.duplicate_blocks, figures.unrequested_blocks, figures.faults), (0, 0, 0));
    assert!(figures.wantlist.is_empty());
    soon("the seed has counted", || seed.client.stat().sent_bytes == bytes(&data)).await;
    let ledger = seed.client.ledger(reader.peer).unwrap();
    assert_eq!((ledger.sent_blocks, ledger.received_blocks, ledger.wantlist.len()), (256, 0, 0));
    assert_eq!(reader.client.ledger(seed.peer).unwrap().received_bytes, bytes(&data));
    assert_eq!(seed.store.reads.load(std::sync::atomic::Ordering::Relaxed), 256, "each block is read once");
    drop(session);
    soon("the session ends", || reader.client.stat().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_data_goes_over_tcp() {
    bulk(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_data_goes_over_quic() {
    bulk(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_blocks_go_both_ways_at_once() {
    let data: Vec<Block> = (0..10_000).map(|seed| block(seed + 1, 100 + seed as usize % 900)).collect();
    let (one, other) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    one.hold(&data[..5000]);
    other.hold(&data[5000..]);
    one.dial(&other.tcp);
    one.connected(1).await;
    other.connected(1).await;
    let sessions = [&one, &other].map(|node| node.client.session(None));
    let start = Instant::now();
    tokio::join!(
        fetch(&one, &sessions[0], &data[5000..], Urgency::Demand, 500),
        fetch(&other, &sessions[1], &data[..5000], Urgency::Demand, 500),
    );
    println!("{:.0} blocks/s", 10_000.0 / start.elapsed().as_secs_f64());
    assert_eq!((one.store.len(), other.store.len()), (10_000, 10_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn four_holders_give_fewer_than_2_percent_twice() {
    let data = blocks(512, 128 * 1024);
    let reader = Node::start(Config::default()).await;
    let mut holders = Vec::new();
    for _ in 0..4 {
        let holder = Node::start(Config::default()).await;
        holder.hold(&data);
        reader.dial(&holder.tcp);
        holders.push(holder);
    }
    reader.connected(4).await;
    let session = reader.client.session(Some(data[0].cid()));
    fetch(&reader, &session, &data, Urgency::Demand, usize::MAX).await;
    assert!(duplicates(&reader.client) < 0.02, "{:?}", reader.client.stat());
    let gave =
        holders.iter().filter(|holder| reader.client.ledger(holder.peer).is_some_and(|of| of.received_blocks > 20));
    assert!(gave.count() >= 3, "the holders share the work");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_dies_is_replaced_by_one_that_appears() {
    let data = blocks(400, 256 * 1024);
    let reader = Node::start(Config::default()).await;
    let first = Node::start(Config::default()).await;
    let second = Node::start(Config::default()).await;
    first.hold(&data);
    second.hold(&data);
    reader.dial(&first.tcp);
    reader.connected(1).await;
    let session = reader.client.session(Some(data[0].cid()));
    let fetching = fetch(&reader, &session, &data, Urgency::Demand, usize::MAX);
    let dying = async {
        soon("half is here", || reader.client.stat().received_blocks > 100).await;
        drop(first);
    };
    // What a node does: it looks for providers and names them. That one cannot be dialed yet takes nothing from it.
    let finding = async {
        let Event::ProvidersWanted { session, .. } = reader.event().await;
        reader.client.add_provider(session, second.peer);
        tokio::time::sleep(Duration::from_millis(50)).await;
        reader.dial(&second.tcp);
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(fetching, dying, finding) }).await.unwrap();
    assert_eq!(reader.store.len(), 400);
    assert!(reader.client.ledger(second.peer).unwrap().received_blocks > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_fetch_the_same_at_once_take_it_from_the_seed_about_once() {
    let data = blocks(1536, 128 * 1024);
    let seed = Node::start(Config::default()).await;
    seed.hold(&data);
    // The seed's uplink is what is scarce.
    seed.caps.up.set_rate(Some(40_000_000));
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(Node::start(Config::default()).await);
    }
    for (index, node) in nodes.iter().enumerate() {
        node.dial(&seed.tcp);
        for other in &nodes[..index] {
            node.dial(&other.tcp);
        }
    }
    for node in &nodes {
        node.connected(4).await;
    }
    let fetches = nodes.iter().map(|node| {
        let data = &data;
        async move {
            let session = node.client.session(Some(data[0].cid()));
            fetch(node, &session, data, Urgency::Background, 64).await;
        }
    });
    futures::future::join_all(fetches).await;
    let share = seed.client.stat().sent_bytes as f64 / bytes(&data) as f64;
    println!("the seed sent {share:.2} times the data");
    // Before the nodes know of each other each fills its first window from the seed: that is the most of it. Where a node waits
    // for a processor the others have a budget for doing without it.
    assert!(share <= 1.3, "the seed sent {share:.2} times the data");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_want_stands_until_the_block_arrives_anywhere() {
    let data = blocks(3, 300_000);
    let (holder, reader) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    reader.dial(&holder.tcp);
    reader.connected(1).await;
    let session = reader.client.session(None);
    let far = session.want(data[0].cid(), Urgency::Demand);
    let local = session.want(data[1].cid(), Urgency::Demand);
    let Event::ProvidersWanted { session: wanted_by, .. } = reader.event().await;
    assert_eq!(wanted_by, session.id());
    soon("the holder knows what is wanted", || holder.client.wantlist(Some(reader.peer)).len() == 2).await;
    let asked = session.note_of(data[0].cid());
    assert!(asked.is_wanted && asked.is_sought);
    assert_eq!(asked.peers.len(), 1);
    assert_eq!(asked.peers[0].peer, holder.peer);

    holder.store.put(&data[0]);
    holder.client.arrived(&data[0]);
    assert_eq!(far.await.unwrap(), data[0]);
    keep(&reader, &data[1]);
    assert_eq!(local.await.unwrap(), data[1]);
    soon("the want is cancelled", || holder.client.wantlist(Some(reader.peer)).is_empty()).await;

    let dropped = session.want(data[2].cid(), Urgency::Demand);
    soon("it is wanted", || holder.client.wantlist(Some(reader.peer)).len() == 1).await;
    drop(dropped);
    soon("it is wanted no more", || holder.client.wantlist(Some(reader.peer)).is_empty()).await;
    assert!(!session.note_of(data[2].cid()).is_wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_wait_behind_background() {
    let data = blocks(300, 256 * 1024);
    let (seed, reader) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
    seed.hold(&data);
    seed.caps.up.set_rate(Some(40_000_000));
    reader.dial(&seed.tcp);
    reader.connected(1).await;
    let session = reader.client.session(Some(data[0].cid()));
    let background: Vec<_> = data[..299].iter().map(|block| session.want(block.cid(), Urgency::Background)).collect();
    soon("background runs", || reader.client.stat().received_blocks > 20).await;
    let before = reader.client.stat().received_blocks;
    session.want(data[299].cid(), Urgency::Demand).await.unwrap();
    let meanwhile = reader.client.stat().received_blocks - before;
    assert!(meanwhile < 100, "{meanwhile} blocks came before it");
    drop(background);
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_bound_what_goes_and_comes() {
    let data = blocks(16, 128 * 1024);
    for is_up in [true, false] {
        let (seed, reader) = (Node::start(Config::default()).await, Node::start(Config::default()).await);
        seed.hold(&data);
        if is_up {
            seed.caps.up.set_rate(Some(2_000_000));
        } else {
            reader.caps.down.set_rate(Some(2_000_000));
        }
        reader.dial(&seed.tcp);
        reader.connected(1).await;
        let session = reader.client.session(None);
        let start = Instant::now();
        fetch(&reader, &session, &data, Urgency::Demand, usize::MAX).await;
        let took = start.elapsed().as_secs_f64();
        assert!(took > 0.7, "2 MiB took {took} s at 2 MB/s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_when_bitswap_stops() {
    let node = Node::start(Config::default()).await;
    let session = node.client.session(None);
    let want = session.want(block(1, 10).cid(), Urgency::Demand);
    drop(node);
    let mut want = want;
    assert!((&mut want).await.is_err());
    assert!(want.await.is_err(), "once more, and it says the same");
    assert!(session.want(block(2, 10).cid(), Urgency::Demand).await.is_err());
}
