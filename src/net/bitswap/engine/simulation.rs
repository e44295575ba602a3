//! A network of engines in virtual time: links with a speed and a latency, stores that are sets, and nothing that is not the
//! same in each run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Batch, Command, Engine, Key, Limits, PeerNumber, Ticket};
use crate::block::{Block, Cid, HashFunction, codec};
use crate::net::bitswap::message::{Ask, Entry};
use crate::net::bitswap::{SessionId, Urgency};

/// A node of the network.
pub struct Node {
    pub engine: Engine,
    pub store: HashMap<Key, Block>,
    /// Bytes a second, each way.
    pub rate: f64,
    up_free: Instant,
    down_free: Instant,
    tick: Option<Instant>,
    pub sent_blocks: u64,
    pub sent_bytes: u64,
    pub session: Option<SessionId>,
    /// Who waits for what.
    pub waiting: BTreeMap<Ticket, Cid>,
    /// What is still to be wanted, the next one last.
    pub to_want: Vec<(Cid, Urgency)>,
    /// How many wants it has at once.
    pub window: usize,
    /// Whether it takes its blocks in the order of its wants, as a walk does: what came before its turn is not in the store
    /// yet, and nothing more is wanted before the window moves.
    pub in_order: bool,
    early: BTreeMap<Ticket, Block>,
    /// When it is given a processor again.
    awake_at: Instant,
    next_ticket: u64,
    pub is_silent: bool,
    /// Sends other bytes than it should.
    pub is_liar: bool,
    pub searches: u32,
    pub dialed: BTreeSet<usize>,
    pub finished_at: Option<Instant>,
}

enum Happening {
    Message { from: usize, to: usize, full: bool, entries: Vec<Entry> },
    Answer { from: usize, to: usize, blocks: Vec<Block>, presences: Vec<(Cid, bool)>, queued: i32 },
    Part { from: usize, to: usize },
    Told { node: usize, to: usize },
    Answered { node: usize, to: usize, loaded_bytes: u64, bytes: u64, blocks: u64, took: Duration },
    Found { node: usize, peer: usize, found: Vec<(Cid, Option<u32>)> },
    Stored { node: usize, block: Block },
    Tick { node: usize },
    Do { act: Box<dyn FnOnce(&mut Simulation)> },
}

/// What befalls messages on their way.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    /// Of 1000 messages so many are lost, or arrive twice.
    pub lost: u64,
    pub doubled: u64,
    /// The most that a message is late by: later ones overtake it.
    pub jitter: Duration,
    /// The longest that a node gets no processor; it then falls behind about half of the time.
    pub starved: Duration,
}

/// How often a node is told that a long message goes on.
const PART_EVERY: Duration = Duration::from_millis(250);

pub struct Simulation {
    pub nodes: Vec<Node>,
    pub start: Instant,
    pub now: Instant,
    pub latency: Duration,
    pub weather: Weather,
    connected: BTreeSet<(usize, usize)>,
    happenings: BinaryHeap<(Reverse<(Instant, u64)>, usize)>,
    pending: HashMap<usize, Happening>,
    count: u64,
    random: u64,
}

/// A block of so many bytes. They are the same in all of them: what a simulation looks at is their number.
pub fn block(seed: u64, bytes: usize) -> Block {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    let cid = Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&seed.to_le_bytes()));
    Block::from_checked_record(cid, Bytes::from_static(&ZEROS[..bytes]))
}

pub fn blocks(count: u64, bytes: usize) -> Vec<Block> {
    (0..count).map(|seed| block(seed, bytes)).collect()
}

fn identity(node: usize) -> u64 {
    Key::of(block(1_000_000 + node as u64, 0).cid()).score(0)
}

impl Simulation {
    pub fn new(nodes: usize, rate: f64, latency: Duration, seed: u64) -> Simulation {
        let start = Instant::now();
        let limits = Limits { wants_in_flight: 960, answer_timeout: Duration::from_secs(10) };
        let node = |index| Node {
            engine: Engine::new(start, identity(index), limits.clone()),
            store: HashMap::new(),
            rate,
            up_free: start,
            down_free: start,
            tick: None,
            sent_blocks: 0,
            sent_bytes: 0,
            session: None,
            waiting: BTreeMap::new(),
            to_want: Vec::new(),
            window: usize::MAX,
            in_order: false,
            early: BTreeMap::new(),
            awake_at: start,
            next_ticket: 0,
            is_silent: false,
            is_liar: false,
            searches: 0,
            dialed: BTreeSet::new(),
            finished_at: None,
        };
        Simulation {
            nodes: (0..nodes).map(node).collect(),
            start,
            now: start,
            latency,
            weather: Weather::default(),
            connected: BTreeSet::new(),
            happenings: BinaryHeap::new(),
            pending: HashMap::new(),
            count: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A number below `bound` that looks random.
    pub fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn at(&mut self, when: Instant, happening: Happening) {
        self.count += 1;
        let index = self.count as usize;
        self.happenings.push((Reverse((when, self.count)), index));
        self.pending.insert(index, happening);
    }

    /// Does something at a time.
    pub fn after(&mut self, delay: Duration, act: impl FnOnce(&mut Simulation) + 'static) {
        self.at(self.start + delay, Happening::Do { act: Box::new(act) });
    }

    pub fn hold(&mut self, node: usize, blocks: &[Block]) {
        for block in blocks {
            self.nodes[node].store.insert(Key::of(block.cid()), block.clone());
        }
    }

    pub fn connect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            if self.connected.insert((node, peer)) {
                self.nodes[node].engine.connected(self.now, PeerNumber(peer as u32), identity(peer));
                self.flush(node);
            }
        }
    }

    pub fn disconnect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            if self.connected.remove(&(node, peer)) {
                self.nodes[node].engine.disconnected(PeerNumber(peer as u32));
                self.flush(node);
            }
        }
    }

    pub fn connect_all(&mut self) {
        for one in 0..self.nodes.len() {
            for other in 0..one {
                self.connect(one, other);
            }
        }
    }

    pub fn open_session(&mut self, node: usize, root: Option<&Cid>) {
        let id = self.nodes[node].engine.open_session(self.now, root);
        self.nodes[node].session = Some(id);
    }

    pub fn add_provider(&mut self, node: usize, peer: usize) {
        let (now, id) = (self.now, self.nodes[node].session.expect("there is a session"));
        self.nodes[node].engine.add_provider(now, id, PeerNumber(peer as u32), identity(peer));
        self.flush(node);
    }

    pub fn close_session(&mut self, node: usize) {
        if let Some(id) = self.nodes[node].session.take() {
            self.nodes[node].engine.close_session(self.now, id);
            self.flush(node);
        }
    }

    /// Has a node want blocks, as many at once as its window says.
    pub fn want_all(&mut self, node: usize, blocks: &[Block], urgency: Urgency) {
        let wants = blocks.iter().rev().map(|block| (block.cid().clone(), urgency));
        self.nodes[node].to_want.splice(0..0, wants);
        self.want_more(node);
        self.flush(node);
    }

    fn want_more(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let id = node.session.expect("there is a session");
        loop {
            let first = node.waiting.first_key_value().map_or(node.next_ticket, |(ticket, _)| ticket.0 - 1);
            let has = if node.in_order { (node.next_ticket - first) as usize } else { node.waiting.len() };
            if has >= node.window {
                break;
            }
            let Some((cid, urgency)) = node.to_want.pop() else { break };
            node.next_ticket += 1;
            let ticket = Ticket(node.next_ticket);
            node.waiting.insert(ticket, cid.clone());
            node.engine.want(now, id, &cid, urgency, ticket);
        }
        if node.waiting.is_empty() {
            node.finished_at.get_or_insert(now);
        }
    }

    /// Has a node want one block no more.
    pub fn cancel(&mut self, node: usize) {
        let now = self.now;
        let node_ref = &mut self.nodes[node];
        if let Some((ticket, cid)) = node_ref.waiting.pop_last() {
            node_ref.engine.cancel(now, &Key::of(&cid), ticket);
            self.flush(node);
        }
    }

    /// When a message of so many bytes has left, and when it is there.
    fn send(&mut self, from: usize, to: usize, bytes: u64) -> (Instant, Instant) {
        let jitter = self.weather.jitter.as_nanos() as u64;
        let late = Duration::from_nanos(if jitter == 0 { 0 } else { self.random(jitter) });
        let node = &mut self.nodes[from];
        let left = node.up_free.max(self.now) + Duration::from_secs_f64(bytes as f64 / node.rate);
        node.up_free = left;
        let node = &mut self.nodes[to];
        // The first byte comes after the latency; the link of the receiver may be busy with others.
        let here = (left + self.latency).max(node.down_free + Duration::from_secs_f64(bytes as f64 / node.rate));
        node.down_free = here;
        (left, here + late)
    }

    /// How often a message arrives.
    fn copies(&mut self) -> u32 {
        if self.random(1000) < self.weather.lost {
            0
        } else if self.random(1000) < self.weather.doubled {
            2
        } else {
            1
        }
    }

    fn flush(&mut self, index: usize) {
        let now = self.now;
        self.nodes[index].engine.flush(now);
        while let Some(command) = self.nodes[index].engine.poll() {
            self.carry_out(index, command);
        }
        if let Some(deadline) = self.nodes[index].engine.deadline()
            && self.nodes[index].tick.is_none_or(|tick| tick <= now)
        {
            let deadline = deadline.max(now + Duration::from_millis(1));
            self.nodes[index].tick = Some(deadline);
            self.at(deadline, Happening::Tick { node: index });
        }
    }

    fn carry_out(&mut self, index: usize, command: Command) {
        match command {
            Command::Tell { peer, full, entries } => {
                let to = peer.0 as usize;
                let (left, here) = self.send(index, to, 20 + 50 * entries.len() as u64);
                self.at(left, Happening::Told { node: index, to });
                for _ in 0..self.copies() {
                    let message = Happening::Message { from: index, to, full, entries: entries.clone() };
                    self.at(here, message);
                }
            }
            Command::LookUp { peer, cids } => {
                let store = &self.nodes[index].store;
                let size = |cid: &Cid| store.get(&Key::of(cid)).map(|block| block.data().len() as u32);
                let found = cids.into_iter().map(|cid| (cid.clone(), size(&cid))).collect();
                let at = self.now + Duration::from_micros(100);
                self.at(at, Happening::Found { node: index, peer: peer.0 as usize, found });
            }
            Command::Answer { peer, batch } => self.answer(index, peer.0 as usize, &batch),
            Command::Deliver { block, tickets } => {
                for (ticket, cid) in tickets {
                    let node = &mut self.nodes[index];
                    assert_eq!(node.waiting.remove(&ticket), Some(cid), "each ticket is served once");
                    node.early.insert(ticket, block.clone());
                }
                let node = &mut self.nodes[index];
                let turn = node.waiting.keys().next().copied().filter(|_| node.in_order);
                let later = turn.map_or_else(BTreeMap::new, |turn| node.early.split_off(&turn));
                for block in std::mem::replace(&mut node.early, later).into_values() {
                    let at = self.now + Duration::from_millis(1);
                    self.at(at, Happening::Stored { node: index, block });
                }
                self.want_more(index);
            }
            Command::Search { .. } => self.nodes[index].searches += 1,
            Command::Dial { peer } => {
                self.nodes[index].dialed.insert(peer.0 as usize);
            }
            Command::Busy { .. } | Command::Remember { .. } | Command::Forget { .. } => {}
        }
    }

    fn answer(&mut self, index: usize, to: usize, batch: &Batch) {
        let node = &self.nodes[index];
        let stored = batch.blocks.iter().filter_map(|cid| node.store.get(&Key::of(cid)).cloned());
        let blocks: Vec<Block> = stored.chain(batch.held.iter().cloned()).collect();
        let bytes: u64 = blocks.iter().map(|block| block.data().len() as u64).sum();
        let count = blocks.len() as u64;
        let size = bytes + 50 * (count + batch.presences.len() as u64);
        let begins = self.nodes[index].up_free.max(self.now) + self.latency;
        let (left, here) = self.send(index, to, size);
        // The one that it is for sees it come.
        let mut part = begins + PART_EVERY;
        while part < here {
            self.at(part, Happening::Part { from: index, to });
            part += PART_EVERY;
        }
        let node = &mut self.nodes[index];
        node.sent_bytes += bytes;
        node.sent_blocks += count;
        let took = left.saturating_duration_since(self.now);
        let loaded_bytes = batch.loaded_bytes;
        self.at(left, Happening::Answered { node: index, to, loaded_bytes, bytes, blocks: count, took });
        if self.nodes[index].is_silent {
            return;
        }
        let blocks = if self.nodes[index].is_liar {
            blocks.iter().enumerate().map(|(number, _)| block(self.count + number as u64 + 5_000_000, 1000)).collect()
        } else {
            blocks
        };
        for _ in 0..self.copies() {
            let message = Happening::Answer {
                from: index,
                to,
                blocks: blocks.clone(),
                presences: batch.presences.clone(),
                queued: batch.pending_bytes,
            };
            self.at(here, message);
        }
    }

    /// Plays on until nothing happens any more, or for so long. Says whether `until` came true.
    pub fn run(&mut self, limit: Duration, until: impl Fn(&Simulation) -> bool) -> bool {
        let end = self.now + limit;
        while !until(self) {
            let Some((Reverse((when, _)), index)) = self.happenings.pop() else { return until(self) };
            if when > end {
                self.happenings.push((Reverse((when, 0)), index));
                self.now = end;
                return until(self);
            }
            self.now = self.now.max(when);
            let happening = self.pending.remove(&index).expect("it was queued");
            if let Some(awake_at) = self.asleep_until(&happening) {
                self.at(awake_at, happening);
                continue;
            }
            self.happen(happening);
        }
        true
    }

    /// Until when the node that something happens to has no processor.
    fn asleep_until(&mut self, happening: &Happening) -> Option<Instant> {
        let node = match happening {
            Happening::Message { to, .. } | Happening::Answer { to, .. } | Happening::Part { to, .. } => *to,
            Happening::Told { node, .. }
            | Happening::Answered { node, .. }
            | Happening::Found { node, .. }
            | Happening::Stored { node, .. }
            | Happening::Tick { node } => *node,
            Happening::Do { .. } => return None,
        };
        let starved = self.weather.starved.as_nanos() as u64;
        if starved > 0 && self.nodes[node].awake_at + self.weather.starved < self.now {
            let sleeps = Duration::from_nanos(self.random(starved));
            self.nodes[node].awake_at = self.now + sleeps;
        }
        Some(self.nodes[node].awake_at).filter(|awake_at| *awake_at > self.now)
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        let is_up = |simulation: &Simulation, one: usize, other: usize| simulation.connected.contains(&(one, other));
        match happening {
            Happening::Message { from, to, full, entries } if is_up(self, to, from) => {
                assert!(entries.iter().all(|entry| entry.cid.hash_code() != 0), "identity CIDs are never wanted");
                let cancels = entries.iter().filter(|entry| entry.ask == Ask::Cancel).count();
                assert!(cancels == 0 || !full, "a whole wantlist cancels by itself");
                self.nodes[to].engine.wantlist(now, PeerNumber(from as u32), full, entries);
                self.flush(to);
            }
            Happening::Answer { from, to, blocks, presences, queued } if is_up(self, to, from) => {
                let peer = PeerNumber(from as u32);
                self.nodes[to].engine.queued(peer, queued);
                self.nodes[to].engine.presences(now, peer, presences);
                self.nodes[to].engine.blocks(now, peer, blocks);
                self.flush(to);
            }
            Happening::Part { from, to } if is_up(self, to, from) => {
                self.nodes[to].engine.part_came(now, PeerNumber(from as u32));
                self.flush(to);
            }
            Happening::Message { .. } | Happening::Answer { .. } | Happening::Part { .. } => {}
            Happening::Told { node, to } => {
                if is_up(self, node, to) {
                    self.nodes[node].engine.told(now, PeerNumber(to as u32), true);
                    self.flush(node);
                }
            }
            Happening::Answered { node, to, loaded_bytes, bytes, blocks, took } => {
                self.nodes[node].engine.answered(PeerNumber(to as u32), loaded_bytes, bytes, blocks, took);
                self.flush(node);
            }
            Happening::Found { node, peer, found } => {
                self.nodes[node].engine.found(now, PeerNumber(peer as u32), found);
                self.flush(node);
            }
            Happening::Stored { node, block } => {
                self.nodes[node].store.insert(Key::of(block.cid()), block.clone());
                self.nodes[node].engine.arrived(now, &block);
                self.flush(node);
            }
            Happening::Tick { node } => {
                self.nodes[node].tick = None;
                self.flush(node);
            }
            Happening::Do { act } => act(self),
        }
    }

    /// Whether nobody waits for anything.
    pub fn is_done(&self) -> bool {
        self.nodes.iter().all(|node| node.waiting.is_empty() && node.to_want.is_empty())
    }

    /// How long it took.
    pub fn elapsed(&self) -> Duration {
        self.now.saturating_duration_since(self.start)
    }
}
