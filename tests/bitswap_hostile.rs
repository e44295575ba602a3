//! Peers that mean harm, or are broken, or just old: nobody else is the worse for them.

#[path = "bitswap/net.rs"]
mod net;
#[path = "blocks/random.rs"]
mod random;
#[path = "bitswap/raw.rs"]
mod raw;

use std::time::{Duration, Instant};

use cidfs::block::Block;
use cidfs::limits::{MAX_BITSWAP_STREAMS, MAX_WANTLIST_ENTRIES};
use cidfs::net::bitswap::{Config, Urgency};
use futures::{AsyncReadExt, AsyncWriteExt};
use net::{Node, soon};
use random::block;
use raw::{Message, Raw, frame, have, payload, want, wants};

/// A node that is connected to a raw peer.
async fn node_and_raw() -> (Node, Raw) {
    let (node, raw) = (Node::start(Config::default()).await, Raw::bitswap().await);
    node.dial(&raw.tcp);
    node.connected(1).await;
    (node, raw)
}

/// An honest peer that has these blocks, connected to the node.
async fn honest(node: &Node, blocks: &[Block]) -> Node {
    let honest = Node::start(Config::default()).await;
    honest.hold(blocks);
    node.dial(&honest.tcp);
    node.connected(2).await;
    honest
}

/// Whether the other side has ended the stream.
async fn ends(stream: &mut libp2p::swarm::Stream, within: Duration) -> bool {
    let mut byte = [0];
    tokio::time::timeout(within, stream.read(&mut byte)).await.is_ok_and(|read| read.unwrap_or(0) == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_2_gib_ends_its_stream_and_nothing_else() {
    let (node, raw) = node_and_raw().await;
    let mut stream = raw.open().await;
    // 2 GiB as a varint, and the first of it.
    stream.write_all(&[0x80, 0x80, 0x80, 0x80, 0x08]).await.unwrap();
    stream.flush().await.unwrap();
    assert!(ends(&mut stream, Duration::from_secs(10)).await);
    soon("it is charged", || node.client.stat().faults >= 3).await;
    let data = block(1, 50_000);
    node.hold(std::slice::from_ref(&data));
    raw.say(&wants(vec![want(data.cid())])).await;
    let mut raw = raw;
    assert_eq!(raw.hear().await.payload, [payload(&data)], "and is still answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_charged_and_the_one_who_sends_it_is_not_asked() {
    let (node, raw) = node_and_raw().await;
    for seed in 1..20_u64 {
        let mut stream = raw.open().await;
        let garbage = block(seed, 3000);
        drop(stream.write_all(garbage.data()).await);
        drop(stream.close().await);
    }
    soon("it is charged", || node.client.stat().faults >= 3).await;
    let data = block(1, 100_000);
    let _honest = honest(&node, std::slice::from_ref(&data)).await;
    let session = node.client.session(Some(data.cid()));
    assert_eq!(session.want(data.cid(), Urgency::Demand).await.unwrap(), data);
    assert!(session.note_of(data.cid()).peers.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_wants_is_bounded_and_answered_dont_have() {
    let (node, mut raw) = node_and_raw().await;
    let mut stream = raw.open().await;
    let per_message = MAX_WANTLIST_ENTRIES as u64 / 4;
    for round in 0..6 {
        let entries = (0..per_message).map(|seed| want(block(1 + round * per_message + seed, 8).cid())).collect();
        stream.write_all(&frame(&wants(entries))).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut dont_have = 0;
    while dont_have < 6 * per_message {
        dont_have += raw.hear().await.presences.iter().filter(|presence| presence.kind == 1).count() as u64;
    }
    assert_eq!(node.client.wantlist(Some(raw.peer)).len(), MAX_WANTLIST_ENTRIES);
    assert_eq!(node.client.stat().refused_wants, 2 * per_message);
    // Those that stand are answered when their block comes.
    let late = block(7, 8);
    node.hold(std::slice::from_ref(&late));
    node.client.arrived(&late);
    assert_eq!(raw.hear().await.payload, [payload(&late)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn have_and_then_silence_costs_a_second() {
    let (node, mut raw) = node_and_raw().await;
    let data = block(1, 100_000);
    let session = node.client.session(Some(data.cid()));
    let waiting = session.want(data.cid(), Urgency::Demand);
    raw.hear_wants(&[data.cid()]).await;
    raw.say(&Message { presences: vec![have(data.cid(), true)], ..Message::default() }).await;
    raw.hear_wants(&[data.cid()]).await;
    let _honest = honest(&node, std::slice::from_ref(&data)).await;
    let start = Instant::now();
    assert_eq!(waiting.await.unwrap(), data);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_blocks_reach_nobody_and_another_is_asked() {
    let (node, mut raw) = node_and_raw().await;
    let data: Vec<Block> = (1..4).map(|seed| block(seed, 100_000)).collect();
    let session = node.client.session(Some(data[0].cid()));
    session.add_provider(raw.peer);
    let waiting: Vec<_> = data.iter().map(|block| session.want(block.cid(), Urgency::Demand)).collect();
    raw.hear_wants(&data.iter().map(Block::cid).collect::<Vec<_>>()).await;
    // Each is almost right.
    let wrong = data.iter().map(|block| {
        let mut bytes = block.data().to_vec();
        bytes[50_000] ^= 1;
        payload(&Block::new(0x55, cidfs::block::HashFunction::Sha2_256, bytes.into()))
    });
    raw.say(&Message { payload: wrong.collect(), ..Message::default() }).await;
    soon("they are charged", || node.client.stat().unrequested_blocks == 3).await;
    let _honest = honest(&node, &data).await;
    for (want, block) in waiting.into_iter().zip(&data) {
        assert_eq!(want.await.unwrap(), *block);
    }
    assert!(node.client.stat().faults >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_nobody_asked_for_are_dropped_and_counted() {
    let (node, raw) = node_and_raw().await;
    let mut stream = raw.open().await;
    for seed in 1..50 {
        let message = Message { payload: vec![payload(&block(seed, 30_000))], ..Message::default() };
        stream.write_all(&frame(&message)).await.unwrap();
    }
    stream.flush().await.unwrap();
    soon("they are counted", || node.client.stat().unrequested_blocks == 49).await;
    assert_eq!(node.store.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_a_second_does_not_hold_up_a_reader_and_ends_in_time() {
    let (node, mut raw) = node_and_raw().await;
    let data = block(1, 200_000);
    let session = node.client.session(Some(data.cid()));
    session.add_provider(raw.peer);
    let waiting = session.want(data.cid(), Urgency::Demand);
    raw.hear_wants(&[data.cid()]).await;
    let mut stream = raw.open().await;
    let message = frame(&Message { payload: vec![payload(&data)], ..Message::default() });
    stream.write_all(&message[..1000]).await.unwrap();
    stream.flush().await.unwrap();
    let (mut reading, mut trickling) = futures::AsyncReadExt::split(stream);
    let trickle = tokio::spawn(async move {
        for byte in &message[1000..] {
            if trickling.write_all(&[*byte]).await.is_err() || trickling.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let _honest = honest(&node, std::slice::from_ref(&data)).await;
    let start = Instant::now();
    assert_eq!(waiting.await.unwrap(), data);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let mut byte = [0];
    let ended = tokio::time::timeout(Duration::from_secs(30), reading.read(&mut byte)).await;
    assert!(ended.expect("the stream is ended").unwrap_or(0) == 0);
    trickle.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_bound_are_reset_and_the_rest_go_on() {
    let (node, mut raw) = node_and_raw().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_BITSWAP_STREAMS {
        let mut stream = raw.open().await;
        // The beginning of a frame.
        stream.write_all(&[0x80, 0x80, 0x10, 1, 2, 3]).await.unwrap();
        stream.flush().await.unwrap();
        streams.push(stream);
    }
    let mut one_more = raw.open().await;
    drop(one_more.write_all(&[1]).await);
    drop(one_more.flush().await);
    assert!(ends(&mut one_more, Duration::from_secs(10)).await);
    drop(streams);
    // What was begun and not ended is over with its stream: there is room again.
    let data = block(1, 1000);
    node.hold(std::slice::from_ref(&data));
    let mut answered = false;
    for _ in 0..50 {
        let mut stream = raw.open().await;
        drop(stream.write_all(&frame(&wants(vec![want(data.cid())]))).await);
        drop(stream.close().await);
        if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(200), raw.messages.recv()).await {
            assert_eq!(message.payload, [payload(&data)]);
            answered = true;
            break;
        }
    }
    assert!(answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_for_each_message_is_taken_as_go_sends_them() {
    let (node, mut raw) = node_and_raw().await;
    let data: Vec<Block> = (1..=500).map(|seed| block(seed, 5000)).collect();
    node.hold(&data);
    let mut left: std::collections::HashSet<Vec<u8>> = data.iter().map(|block| block.data().to_vec()).collect();
    for block in &data {
        raw.say(&wants(vec![want(block.cid())])).await;
    }
    while !left.is_empty() {
        for got in raw.hear().await.payload {
            assert!(left.remove(&got.data.to_vec()), "each block comes once");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_spoken_both_ways() {
    for protocols in [&["/ipfs/bitswap/1.1.0"], &["/ipfs/bitswap/1.0.0"]] {
        let is_oldest = protocols[0].ends_with("1.0.0");
        let (node, mut raw) = (Node::start(Config::default()).await, Raw::start(protocols).await);
        node.dial(&raw.tcp);
        node.connected(1).await;
        let theirs = Block::new_v0(block(1, 20_000).data().clone());
        let session = node.client.session(Some(theirs.cid()));
        session.add_provider(raw.peer);
        let waiting = session.want(theirs.cid(), Urgency::Demand);
        let message = raw.hear().await;
        let entry = &message.wantlist.unwrap().entries[0];
        assert_eq!((entry.want_type, entry.send_dont_have), (0, false), "what came with 1.2.0 is not said");
        let mut answer = Message::default();
        if is_oldest {
            answer.blocks.push(theirs.data().clone());
        } else {
            let prefix = vec![0, 0x70, 0x12, 32];
            answer.payload.push(raw::Payload { prefix, data: theirs.data().clone() });
        }
        raw.say(&answer).await;
        assert_eq!(waiting.await.unwrap(), theirs);

        let ours = Block::new_v0(block(2, 20_000).data().clone());
        node.hold(std::slice::from_ref(&ours));
        let mut asked = want(ours.cid());
        asked.send_dont_have = false;
        raw.say(&wants(vec![asked])).await;
        let got = raw.hear().await;
        let data = if is_oldest { got.blocks[0].clone() } else { got.payload[0].data.clone() };
        assert_eq!(data, ours.data());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_bitswap_is_asked_nothing() {
    let (node, raw) = (Node::start(Config::default()).await, Raw::start(&["/something/else"]).await);
    node.dial(&raw.tcp);
    node.connected(1).await;
    let data = block(1, 10_000);
    let session = node.client.session(Some(data.cid()));
    session.add_provider(raw.peer);
    let waiting = session.want(data.cid(), Urgency::Demand);
    let _honest = honest(&node, std::slice::from_ref(&data)).await;
    let start = Instant::now();
    assert_eq!(waiting.await.unwrap(), data);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
