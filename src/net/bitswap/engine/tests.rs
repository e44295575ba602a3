//! Networks of engines, played through in virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::simulation::{Simulation, Weather, block, blocks};
use super::{Engine, Key, Limits, PeerNumber, Ticket};
use crate::block::{Block, Cid, HashFunction, codec};
use crate::limits::MAX_WANTLIST_ENTRIES;
use crate::net::bitswap::Urgency;
use crate::net::bitswap::message::{Ask, Entry};

const GIGABIT: f64 = 125e6;
const KIB_256: usize = 256 * 1024;
const MILLISECOND: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_mins(10);

/// Nothing is left behind where nobody waits and nobody is connected.
fn assert_no_leaks(simulation: &mut Simulation) {
    for node in 0..simulation.nodes.len() {
        simulation.close_session(node);
    }
    simulation.run(Duration::from_secs(5), |_| false);
    for (index, node) in simulation.nodes.iter().enumerate() {
        let engine = &node.engine;
        assert!(engine.wants.is_empty() && engine.sessions.is_empty() && engine.roots.is_empty(), "node {index}");
        for (number, peer) in &engine.peers {
            assert_eq!((peer.in_flight, peer.in_flight_bytes), (0, 0), "node {index}, peer {number:?}");
            assert!(peer.entries.is_empty() && peer.delta.is_empty(), "node {index}, peer {number:?}");
            assert!(peer.sessions.is_empty());
            assert_eq!(peer.ledger.loaded_bytes, 0, "node {index}, peer {number:?}");
        }
        assert_eq!(engine.loaded_bytes, 0);
    }
}

fn assert_no_wants_stand(simulation: &Simulation) {
    for (index, node) in simulation.nodes.iter().enumerate() {
        assert!(node.engine.standing.is_empty(), "node {index}: {:?}", node.engine.standing.len());
    }
}

#[test]
fn eight_nodes_that_fetch_the_same_at_once_take_it_from_the_seed_about_once() {
    for (window, stagger) in [(usize::MAX, 0), (256, 5), (128, 40)] {
        let data = blocks(2048, KIB_256);
        let mut simulation = Simulation::new(9, GIGABIT, MILLISECOND / 5, 1);
        simulation.hold(0, &data);
        simulation.connect_all();
        for node in 1..9 {
            let data = data.clone();
            simulation.nodes[node].to_want.push((data[0].cid().clone(), Urgency::Background));
            simulation.nodes[node].window = window;
            simulation.after(MILLISECOND * stagger * node as u32, move |simulation| {
                simulation.open_session(node, Some(data[0].cid()));
                simulation.nodes[node].to_want.clear();
                simulation.want_all(node, &data, Urgency::Background);
            });
        }
        assert!(simulation.run(LONG, Simulation::is_done), "everything arrives");
        let total: u64 = data.iter().map(|block| block.data().len() as u64).sum();
        let from_seed = simulation.nodes[0].sent_bytes as f64 / total as f64;
        let seconds = simulation.elapsed().as_secs_f64();
        println!("window {window}, stagger {stagger} ms: seed {from_seed:.3}, {seconds:.2} s");
        let duplicates: Vec<u64> = simulation.nodes.iter().map(|node| node.engine.stat().duplicate_blocks).collect();
        println!("duplicates {duplicates:?}");
        let taken: Vec<u64> = simulation.nodes.iter().map(|node| node.engine.stat().taken_over).collect();
        println!("taken over {taken:?}");
        assert!(from_seed <= 1.3, "the seed sent {from_seed:.2} times the data");
        assert!(seconds <= 9.0, "{seconds} s");
        for node in &simulation.nodes[1..] {
            let stat = node.engine.stat();
            assert!(stat.duplicate_bytes as f64 <= total as f64 * 0.02, "{} duplicates", stat.duplicate_blocks);
            assert_eq!(stat.unrequested_blocks, 0);
        }
        assert_no_leaks(&mut simulation);
        assert_no_wants_stand(&simulation);
    }
}

#[test]
fn blocks_of_a_mib_come_once_and_steadily_however_slow_the_line_is() {
    for rate in [4_500.0, 15_000.0, 100_000.0] {
        let data = blocks(6, 1 << 20);
        let mut simulation = Simulation::new(2, rate, MILLISECOND * 10, 1);
        simulation.hold(0, &data);
        simulation.connect_all();
        simulation.open_session(1, Some(data[0].cid()));
        simulation.add_provider(1, 0);
        simulation.want_all(1, &data, Urgency::Demand);
        let due = Duration::from_secs_f64(f64::from(6 << 20) / rate);
        let session = simulation.nodes[1].session.unwrap();
        let is_stuck = |simulation: &Simulation| {
            let last = simulation.nodes[1].engine.last_progress(session).unwrap();
            simulation.now.duration_since(last) > Duration::from_secs(2)
        };
        simulation.run(due * 2, |simulation| simulation.is_done() || is_stuck(simulation));
        assert!(simulation.is_done(), "a reader saw nothing come at {rate} bytes a second");
        assert!(simulation.elapsed() < due.mul_f64(1.05), "{:?} in place of {due:?}", simulation.elapsed());
        let stat = simulation.nodes[1].engine.stat();
        assert_eq!((stat.duplicate_blocks, stat.timeouts, stat.stalls), (0, 0, 0), "at {rate} bytes a second");
        assert_eq!(simulation.nodes[0].sent_blocks, 6);
    }
}

#[test]
fn a_home_that_comes_to_a_block_later_is_asked_again_before_the_seed_is() {
    for seed in 1..4 {
        let data = blocks(512, 1 << 20);
        let mut simulation = Simulation::new(9, GIGABIT * 0.4, MILLISECOND * 20, seed);
        simulation.weather.starved = MILLISECOND * 50;
        simulation.hold(0, &data);
        simulation.connect_all();
        for node in 1..9 {
            simulation.nodes[node].window = 32;
            simulation.nodes[node].in_order = true;
            simulation.open_session(node, Some(data[0].cid()));
            simulation.want_all(node, &data, Urgency::Background);
        }
        assert!(simulation.run(LONG, Simulation::is_done), "everything arrives");
        let from_seed = simulation.nodes[0].sent_bytes as f64 / f64::from(512 << 20);
        println!("seed {from_seed:.3}, {:.2} s", simulation.elapsed().as_secs_f64());
        // Asked once, they leave a fifth of it to the seed.
        assert!(from_seed <= 1.16, "the seed sent {from_seed:.2} times the data");
        assert_no_leaks(&mut simulation);
        assert_no_wants_stand(&simulation);
    }
}

#[test]
fn nodes_that_wait_for_a_processor_do_not_turn_to_the_seed() {
    let cases = [(KIB_256, 128, 0, 9.0), (1 << 20, 32, 0, 9.0), (1 << 20, 32, 400, 18.0), (KIB_256, 128, 1500, 40.0)];
    for (block_bytes, window, starved, most) in cases {
        let data = blocks(512 * (1 << 20) / block_bytes as u64, block_bytes);
        let mut simulation = Simulation::new(9, GIGABIT, MILLISECOND / 5, 1);
        simulation.weather.starved = MILLISECOND * starved;
        simulation.hold(0, &data);
        simulation.connect_all();
        for node in 1..9 {
            simulation.nodes[node].window = window;
            simulation.nodes[node].in_order = true;
            simulation.open_session(node, Some(data[0].cid()));
            simulation.want_all(node, &data, Urgency::Background);
        }
        assert!(simulation.run(LONG, Simulation::is_done), "everything arrives");
        let total: u64 = data.iter().map(|block| block.data().len() as u64).sum();
        let from_seed = simulation.nodes[0].sent_bytes as f64 / total as f64;
        let stats: Vec<_> = simulation.nodes[1..].iter().map(|node| node.engine.stat()).collect();
        let taken: u64 = stats.iter().map(|stat| stat.taken_over).sum();
        let duplicates: u64 = stats.iter().map(|stat| stat.duplicate_blocks).sum();
        let seconds = simulation.elapsed().as_secs_f64();
        println!(
            "{window} blocks of {block_bytes}, starved {starved} ms: seed {from_seed:.3}, {seconds:.2} s, taken over {taken}, \
             duplicates {duplicates}"
        );
        assert!(from_seed <= 1.3, "the seed sent {from_seed:.2} times the data");
        // Who waited for another in a circle would wait for seconds each time.
        assert!(seconds <= most, "{seconds} s");
        assert_no_leaks(&mut simulation);
        assert_no_wants_stand(&simulation);
    }
}

#[test]
fn nodes_that_read_in_different_orders_still_share() {
    let data = blocks(1024, KIB_256);
    let mut simulation = Simulation::new(5, GIGABIT, MILLISECOND / 5, 3);
    simulation.hold(0, &data);
    simulation.connect_all();
    for node in 1..5 {
        let mut own = data.clone();
        own[1..].rotate_left(node * 200);
        simulation.nodes[node].window = 256;
        simulation.open_session(node, Some(data[0].cid()));
        simulation.want_all(node, &own, Urgency::ReadAhead);
    }
    assert!(simulation.run(LONG, Simulation::is_done));
    let total: u64 = data.iter().map(|block| block.data().len() as u64).sum();
    let from_seed = simulation.nodes[0].sent_bytes as f64 / total as f64;
    println!("seed {from_seed:.3}, {:.2} s", simulation.elapsed().as_secs_f64());
    assert!(from_seed <= 2.0, "the seed sent {from_seed:.2} times the data");
    assert_no_leaks(&mut simulation);
}

#[test]
fn a_fast_path_and_a_long_one_are_filled_by_one_session() {
    for latency in [MILLISECOND / 10, MILLISECOND * 25] {
        let data = blocks(2048, KIB_256);
        let mut simulation = Simulation::new(2, GIGABIT, latency, 1);
        simulation.hold(0, &data);
        simulation.connect(0, 1);
        simulation.open_session(1, Some(data[0].cid()));
        simulation.want_all(1, &data, Urgency::Background);
        assert!(simulation.run(LONG, Simulation::is_done));
        let ideal = 2048.0 * KIB_256 as f64 / GIGABIT;
        let share = ideal / simulation.elapsed().as_secs_f64();
        println!("latency {latency:?}: {share:.3} of the path");
        assert!(share > 0.9, "{share:.2} of the path was used");
        assert_eq!(simulation.nodes[1].searches, 0);
        assert_eq!(simulation.nodes[1].engine.stat().duplicate_blocks, 0);
        assert_no_leaks(&mut simulation);
    }
}

#[test]
fn four_holders_share_the_work_by_their_speed_with_few_duplicates() {
    let data = blocks(2000, KIB_256);
    let mut simulation = Simulation::new(5, GIGABIT, MILLISECOND * 2, 1);
    for (holder, rate) in [(1, 60e6), (2, 30e6), (3, 15e6), (4, 5e6)] {
        simulation.hold(holder, &data);
        simulation.nodes[holder].rate = rate;
        simulation.connect(0, holder);
    }
    simulation.open_session(0, Some(data[0].cid()));
    simulation.want_all(0, &data, Urgency::Demand);
    assert!(simulation.run(LONG, Simulation::is_done));
    let stat = simulation.nodes[0].engine.stat();
    let seconds = simulation.elapsed().as_secs_f64();
    let ideal = 2000.0 * KIB_256 as f64 / 110e6;
    println!("{seconds:.2} s of {ideal:.2}, {} duplicates, {} hedges", stat.duplicate_blocks, stat.hedges);
    assert!(stat.duplicate_bytes as f64 <= stat.received_bytes as f64 * 0.02, "{} duplicates", stat.duplicate_blocks);
    assert!(seconds < ideal * 1.25, "{seconds} s, and {ideal} s would do");
    assert_no_leaks(&mut simulation);
    assert_no_wants_stand(&simulation);
}

#[test]
fn a_provider_that_dies_half_way_is_replaced_by_one_that_appears() {
    let data = blocks(400, KIB_256);
    let mut simulation = Simulation::new(3, GIGABIT, MILLISECOND, 1);
    simulation.hold(1, &data);
    simulation.hold(2, &data);
    simulation.connect(0, 1);
    simulation.open_session(0, Some(data[0].cid()));
    simulation.want_all(0, &data, Urgency::Demand);
    simulation.after(MILLISECOND * 400, |simulation| simulation.disconnect(0, 1));
    simulation.after(MILLISECOND * 700, |simulation| simulation.add_provider(0, 2));
    simulation.after(MILLISECOND * 800, |simulation| simulation.connect(0, 2));
    assert!(simulation.run(LONG, Simulation::is_done));
    assert!(simulation.elapsed() < Duration::from_secs(2), "{:?}", simulation.elapsed());
    assert!(simulation.nodes[0].searches > 0, "providers were looked for");
    assert!(simulation.nodes[0].dialed.contains(&1), "the first one was dialed again");
    assert!(simulation.nodes[0].dialed.contains(&2), "the second one was dialed");
    assert!(simulation.nodes[2].sent_blocks > 100);
    assert_no_leaks(&mut simulation);
}

#[test]
fn a_provider_that_falls_silent_costs_a_second_and_is_put_aside() {
    let data = blocks(400, KIB_256);
    let mut simulation = Simulation::new(3, GIGABIT, MILLISECOND, 1);
    for holder in [1, 2] {
        simulation.hold(holder, &data);
        simulation.connect(0, holder);
    }
    simulation.open_session(0, Some(data[0].cid()));
    simulation.want_all(0, &data, Urgency::Demand);
    simulation.after(MILLISECOND * 200, |simulation| simulation.nodes[1].is_silent = true);
    assert!(simulation.run(LONG, Simulation::is_done));
    assert!(simulation.elapsed() < Duration::from_secs(4), "{:?}", simulation.elapsed());
    simulation.want_all(0, &blocks(401, KIB_256)[400..], Urgency::Demand);
    assert!(!simulation.run(Duration::from_secs(15), Simulation::is_done), "nobody has that one");
    assert!(simulation.nodes[0].engine.stat().stalls > 0);
}

#[test]
fn a_peer_that_sends_other_blocks_is_put_aside() {
    let data = blocks(100, KIB_256);
    let mut simulation = Simulation::new(3, GIGABIT, MILLISECOND, 1);
    for holder in [1, 2] {
        simulation.hold(holder, &data);
        simulation.connect(0, holder);
    }
    simulation.nodes[1].is_liar = true;
    simulation.open_session(0, Some(data[0].cid()));
    simulation.want_all(0, &data, Urgency::Demand);
    assert!(simulation.run(LONG, Simulation::is_done));
    assert!(simulation.elapsed() < Duration::from_secs(3), "{:?}", simulation.elapsed());
    let stat = simulation.nodes[0].engine.stat();
    assert!(stat.unrequested_blocks >= 3 && stat.faults >= 3);
    assert!(simulation.nodes[0].engine.peers[&PeerNumber(1)].aside_until.is_some());
}

#[test]
fn a_reader_is_served_before_background_that_was_there_first() {
    let data = blocks(2000, KIB_256);
    let mut simulation = Simulation::new(2, GIGABIT, MILLISECOND, 1);
    simulation.hold(0, &data);
    simulation.connect(0, 1);
    simulation.open_session(1, Some(data[0].cid()));
    simulation.want_all(1, &data[..1900], Urgency::Background);
    let last = data[1999].clone();
    simulation.after(MILLISECOND * 500, move |simulation| {
        simulation.want_all(1, std::slice::from_ref(&last), Urgency::Demand);
    });
    let key = Key::of(data[1999].cid());
    assert!(simulation.run(LONG, move |simulation| simulation.nodes[1].store.contains_key(&key)));
    let took = simulation.elapsed().saturating_sub(MILLISECOND * 500);
    assert!(took < MILLISECOND * 60, "{took:?}");
}

#[test]
fn a_want_stands_until_the_block_comes_and_is_answered_at_once() {
    let data = blocks(1, KIB_256);
    let mut simulation = Simulation::new(2, GIGABIT, MILLISECOND, 1);
    simulation.connect(0, 1);
    simulation.open_session(1, None);
    simulation.want_all(1, &data, Urgency::Demand);
    assert!(!simulation.run(Duration::from_secs(3), Simulation::is_done));
    assert!(simulation.nodes[1].searches > 0);
    let block = data[0].clone();
    let came = simulation.elapsed();
    simulation.after(came, move |simulation| {
        simulation.hold(0, std::slice::from_ref(&block));
        let now = simulation.now;
        simulation.nodes[0].engine.arrived(now, &block);
        simulation.connect(0, 1);
        let engine = &mut simulation.nodes[0].engine;
        engine.flush(now);
        let mut commands = Vec::new();
        while let Some(command) = engine.poll() {
            commands.push(command);
        }
        assert!(
            commands.iter().any(|command| matches!(command, super::Command::Answer { batch, .. }
                if batch.presences == [(block.cid().clone(), true)] || !batch.blocks.is_empty())),
            "the block was announced: {commands:?}"
        );
    });
    simulation.run(MILLISECOND, |_| false);
}

#[test]
fn sessions_of_one_root_are_one_and_a_want_has_one_message() {
    let data = blocks(10, KIB_256);
    let mut simulation = Simulation::new(2, GIGABIT, MILLISECOND, 1);
    simulation.hold(0, &data);
    simulation.connect(0, 1);
    let now = simulation.now;
    let engine = &mut simulation.nodes[1].engine;
    let first = engine.open_session(now, Some(data[0].cid()));
    assert_eq!(engine.open_session(now, Some(data[0].cid())), first);
    assert_ne!(engine.open_session(now, Some(data[1].cid())), first);
    engine.close_session(now, first);
    assert!(engine.sessions.contains_key(&first), "another handle is open");
    simulation.nodes[1].session = Some(first);
    simulation.want_all(1, &data, Urgency::Demand);
    simulation.want_all(1, &data, Urgency::Background);
    assert!(simulation.run(LONG, Simulation::is_done));
    assert_eq!(simulation.nodes[0].sent_blocks, 10);
}

fn engine_with_peer() -> (Engine, std::time::Instant) {
    let now = std::time::Instant::now();
    let limits = Limits { wants_in_flight: 960, answer_timeout: Duration::from_secs(10) };
    let mut engine = Engine::new(now, 1, limits);
    engine.connected(now, PeerNumber(1), 2);
    (engine, now)
}

fn entry(seed: u64, ask: Ask) -> Entry {
    Entry { cid: block(seed, 0).cid().clone(), priority: 1, ask, send_dont_have: true }
}

/// The presences in what the engine sends now.
fn presences(engine: &mut Engine, now: std::time::Instant) -> Vec<(Cid, bool)> {
    engine.flush(now);
    let mut all = Vec::new();
    while let Some(command) = engine.poll() {
        if let super::Command::Answer { peer, batch } = command {
            engine.answered(peer, batch.loaded_bytes, 0, 0, Duration::ZERO);
            all.extend(batch.presences);
            engine.flush(now);
        }
    }
    all
}

#[test]
fn a_wantlist_over_the_bound_is_answered_dont_have_and_takes_no_memory() {
    let (mut engine, now) = engine_with_peer();
    for batch in 0..5 {
        let wants = (0..MAX_WANTLIST_ENTRIES as u64 / 4).map(|seed| entry(batch * 1_000_000 + seed, Ask::Block));
        engine.wantlist(now, PeerNumber(1), false, wants.collect());
    }
    let ledger = &engine.peers[&PeerNumber(1)].ledger;
    assert_eq!(ledger.wants.len(), MAX_WANTLIST_ENTRIES);
    assert!(ledger.lookups.len() <= MAX_WANTLIST_ENTRIES);
    let said = presences(&mut engine, now);
    assert_eq!(said.len(), MAX_WANTLIST_ENTRIES / 4, "one for each that was refused");
    assert!(said.iter().all(|(_, is_here)| !is_here));
    assert_eq!(engine.stat().refused_wants, MAX_WANTLIST_ENTRIES as u64 / 4);
    engine.disconnected(PeerNumber(1));
    assert!(engine.standing.is_empty());
}

#[test]
fn a_small_block_is_sent_in_place_of_have_and_a_large_one_is_not() {
    let (mut engine, now) = engine_with_peer();
    engine.wantlist(now, PeerNumber(1), false, vec![entry(1, Ask::Have), entry(2, Ask::Have), entry(3, Ask::Have)]);
    let sizes = [Some(1024), Some(1025), None];
    let found = (1..=3).map(|seed| (block(seed, 0).cid().clone(), sizes[seed as usize - 1])).collect();
    engine.found(now, PeerNumber(1), found);
    engine.flush(now);
    let mut batches = Vec::new();
    while let Some(command) = engine.poll() {
        if let super::Command::Answer { batch, .. } = command {
            batches.push(batch);
        }
    }
    assert_eq!(batches.len(), 1);
    assert_eq!(batches[0].blocks, [block(1, 0).cid().clone()]);
    assert_eq!(batches[0].presences, [(block(2, 0).cid().clone(), true), (block(3, 0).cid().clone(), false)]);
}

#[test]
fn a_whole_wantlist_replaces_the_last_one_and_identity_cids_are_passed_over() {
    let (mut engine, now) = engine_with_peer();
    engine.wantlist(now, PeerNumber(1), false, vec![entry(1, Ask::Block), entry(2, Ask::Block)]);
    let mut identity = entry(0, Ask::Block);
    identity.cid = Cid::new_v1(codec::RAW, &HashFunction::Identity.digest(b"in the name"));
    engine.wantlist(now, PeerNumber(1), true, vec![entry(2, Ask::Block), identity]);
    assert_eq!(engine.wantlist_of(PeerNumber(1)), [block(2, 0).cid().clone()]);
    engine.wantlist(now, PeerNumber(1), false, vec![entry(2, Ask::Cancel)]);
    assert!(engine.wantlist_of(PeerNumber(1)).is_empty() && engine.standing.is_empty());
}

#[test]
fn a_block_under_another_codec_satisfies_the_want() {
    let (mut engine, now) = engine_with_peer();
    let data = Block::new(codec::RAW, HashFunction::Sha2_256, bytes::Bytes::from_static(b"data"));
    let wanted = data.cid().with_codec(codec::DAG_PB);
    let id = engine.open_session(now, None);
    engine.want(now, id, &wanted, Urgency::Demand, Ticket(1));
    engine.flush(now);
    engine.blocks(now, PeerNumber(1), vec![data]);
    let mut delivered = Vec::new();
    while let Some(command) = engine.poll() {
        if let super::Command::Deliver { tickets, .. } = command {
            delivered.extend(tickets);
        }
    }
    assert_eq!(delivered, [(Ticket(1), wanted)]);
}

#[test]
fn spam_of_presences_grows_nothing() {
    let (mut engine, now) = engine_with_peer();
    let id = engine.open_session(now, None);
    let cid = block(1, 0).cid().clone();
    engine.want(now, id, &cid, Urgency::Background, Ticket(1));
    engine.flush(now);
    for round in 0..1000 {
        engine.presences(now, PeerNumber(1), vec![(cid.clone(), round % 2 == 0); 10]);
        if round % 10 == 0 {
            engine.flush(now);
        }
    }
    engine.flush(now);
    let session = engine.sessions.get_mut(&id).unwrap();
    assert!(session.queue(Urgency::Background).len() <= 1);
    assert!(engine.wants[&Key::of(&cid)].asks.len() <= 1);
    assert!(engine.peers[&PeerNumber(1)].asks.len() <= 4 * 1000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is lost, doubled, overtaken or cut: each want ends with its block as long as somebody who has it stays.
    #[test]
    fn every_want_is_satisfied_while_a_holder_remains(
        seed in 1_u64..1_000_000,
        lost in 0_u64..60,
        doubled in 0_u64..100,
        jitter in 0_u64..20,
        holders in proptest::collection::vec(0_u64..4, 30),
        cuts in proptest::collection::vec((0_u32..4000, 1_usize..4), 0..12),
        cancels in proptest::collection::vec(0_u32..2000, 0..6),
        urgencies in proptest::collection::vec(0_usize..3, 2),
    ) {
        let data = blocks(30, 40_000);
        // Nodes 0 and 4 read; 1 to 3 hold parts; 3 holds all and stays with both.
        let mut simulation = Simulation::new(5, 10e6, MILLISECOND * 2, seed);
        simulation.weather = Weather { lost, doubled, jitter: MILLISECOND * jitter as u32, ..Weather::default() };
        for (block, holder) in data.iter().zip(&holders) {
            simulation.hold(*holder as usize % 3 + 1, std::slice::from_ref(block));
        }
        simulation.hold(3, &data);
        simulation.connect_all();
        let urgency = |index: usize| [Urgency::Background, Urgency::ReadAhead, Urgency::Demand][urgencies[index]];
        for (index, reader) in [0, 4].into_iter().enumerate() {
            simulation.nodes[reader].window = 12;
            simulation.open_session(reader, Some(data[0].cid()));
            simulation.want_all(reader, &data, urgency(index));
        }
        for (at, peer) in cuts {
            simulation.after(MILLISECOND * at, move |simulation| {
                simulation.disconnect(0, peer);
                let again = simulation.elapsed() + MILLISECOND * 300;
                simulation.after(again, move |simulation| simulation.connect(0, peer));
            });
        }
        for at in cancels {
            simulation.after(MILLISECOND * at, |simulation| simulation.cancel(0));
        }
        prop_assert!(simulation.run(LONG, Simulation::is_done), "{:?}", simulation.nodes.iter()
            .map(|node| node.waiting.len()).collect::<Vec<_>>());
        assert_no_leaks(&mut simulation);
        if lost == 0 && jitter == 0 {
            assert_no_wants_stand(&simulation);
        }
    }
}
