//! The bitswap engine: what to ask of whom, and what to answer, without a socket or a clock.
//!
//! Whoever drives it tells it what happened (a peer came, a message arrived, somebody wants a block, a second has passed)
//! and then takes the [`Command`]s that it made. Time is what the caller says it is, so a network of engines can be played
//! through in a test, the same way each time.
//!
//! - [`wants`]: one want for each multihash, whoever waits for it and whoever was asked.
//! - [`session`], [`peer`]: what is known of the holders of a root, and of a peer's speed.
//! - [`schedule`]: which want goes to which peer, and when.
//! - [`timers`]: what happens when nothing happens: hedges, stalls, searches.
//! - [`ledger`], [`server`], [`held`]: what peers want of us, and what is passed on to them as it comes.
//!
//! [`Engine::flush`] does what several events gave rise to at once: wants that came together leave in one message.

mod held;
mod ledger;
mod notes;
mod peer;
mod schedule;
mod server;
mod session;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timers;
mod wants;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use lru::LruCache;
use smallvec::SmallVec;

pub use self::ledger::Batch;
pub use self::wants::Key;

use self::held::Held;
use self::peer::Peer;
use self::session::Session;
use self::wants::{Answer, PeerAsk, Place, Waiter, Want};
use super::message::{Ask, Entry};
use super::{SessionId, Stat, Urgency};
use crate::block::{Block, Cid};
use crate::limits::{MAX_HOLDER_HINTS, MAX_SESSION_PEERS};

/// A peer, by a number that its driver gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNumber(pub u32);

/// One waiting for one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What the engine has its driver do.
#[derive(Debug)]
pub enum Command {
    /// Connect to a peer.
    Dial { peer: PeerNumber },
    /// Tell a peer what we want; [`Engine::told`] when it is sent.
    Tell { peer: PeerNumber, full: bool, entries: Vec<Entry> },
    /// Ask the store for the sizes of blocks; [`Engine::found`] with what it says.
    LookUp { peer: PeerNumber, cids: Vec<Cid> },
    /// Read blocks and send them; [`Engine::answered`] when that is done.
    Answer { peer: PeerNumber, batch: Batch },
    /// A block came for whoever holds these tickets.
    Deliver { block: Block, tickets: Vec<(Ticket, Cid)> },
    /// Nobody who is known has a block of the session.
    Search { session: SessionId, cid: Cid },
    /// Whether the connections to a peer are in use.
    Busy { peer: PeerNumber, is_busy: bool },
    /// A session ended; these peers had its blocks.
    Remember { root: Cid, holders: Vec<PeerNumber> },
    /// Nothing is known of the peer that is worth knowing: its number may go.
    Forget { peer: PeerNumber },
}

/// What the engine may be told to do otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wants in flight with one peer.
    pub wants_in_flight: usize,
    /// How long a peer may be silent before it is put aside.
    pub answer_timeout: Duration,
}

/// How long a peer is put aside the first time; each next time is twice as long.
const FIRST_ASIDE: Duration = Duration::from_secs(5);
/// The longest that a peer is put aside.
const MAX_ASIDE: Duration = Duration::from_mins(10);
/// A peer that does not speak bitswap is not asked for so long.
const ASIDE_FOR_NO_PROTOCOL: Duration = Duration::from_mins(10);
/// Faults that a peer may have before it is put aside.
const MAX_FAULTS: u32 = 3;

/// The engine. See the head of this file.
pub struct Engine {
    /// The number that every node computes of this node's name.
    own: u64,
    limits: Limits,
    peers: BTreeMap<PeerNumber, Peer>,
    sessions: BTreeMap<SessionId, Session>,
    roots: HashMap<Key, (SessionId, Cid)>,
    wants: HashMap<Key, Want>,
    /// The peers that want a block that is not here, or not found yet.
    standing: HashMap<Key, SmallVec<[PeerNumber; 2]>>,
    /// Blocks that came from a peer and may not be in the store yet, until when.
    recent: HashMap<Key, Instant>,
    recent_order: VecDeque<(Instant, Key)>,
    held: Held,
    /// Fellows that have a block, as far as their cancels tell.
    hints: LruCache<Key, PeerNumber>,
    /// `DONT_HAVE`s that were held back, and until when.
    owed: VecDeque<(Instant, PeerNumber, Key)>,
    /// Peers that something is queued for, in turn.
    ready: VecDeque<PeerNumber>,
    loaded_bytes: u64,
    /// Peers that something has changed about since the last flush.
    dirty: BTreeSet<PeerNumber>,
    commands: VecDeque<Command>,
    next_session: u64,
    sequence: u64,
    turn: usize,
    last_tick: Instant,
    stat: Stat,
}

impl Engine {
    /// An engine of the node whose name gives the number `own`.
    pub fn new(now: Instant, own: u64, limits: Limits) -> Engine {
        Engine {
            own,
            limits,
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            roots: HashMap::new(),
            wants: HashMap::new(),
            standing: HashMap::new(),
            recent: HashMap::new(),
            recent_order: VecDeque::new(),
            held: Held::default(),
            hints: LruCache::new(MAX_HOLDER_HINTS),
            owed: VecDeque::new(),
            ready: VecDeque::new(),
            loaded_bytes: 0,
            dirty: BTreeSet::new(),
            commands: VecDeque::new(),
            next_session: 0,
            sequence: 0,
            turn: 0,
            last_tick: now,
            stat: Stat::default(),
        }
    }

    /// Does what the events since the last flush gave rise to.
    pub fn flush(&mut self, now: Instant) {
        self.tick(now);
        self.schedule(now);
        self.hand_out();
        for number in std::mem::take(&mut self.dirty) {
            self.settle_peer(number);
        }
    }

    /// The next command.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A peer has connected. `identity` is a number that every node computes of its name.
    pub fn connected(&mut self, now: Instant, number: PeerNumber, identity: u64) {
        let peer = self.peers.entry(number).or_insert_with(|| Peer::new(now, identity));
        peer.is_connected = true;
        peer.is_dialing = false;
        peer.is_stalled = false;
        peer.last_heard = now;
        if std::mem::take(&mut peer.is_unreachable) {
            peer.aside_until = None;
        }
        self.dirty.insert(number);
        if peer.is_usable() {
            self.peer_is_usable(now, number);
        }
    }

    /// The last connection to a peer is gone.
    pub fn disconnected(&mut self, number: PeerNumber) {
        self.forget_wants_of(number);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.is_connected = false;
        peer.is_sending = false;
        peer.needs_full = false;
        peer.delta.clear();
        peer.queued_for_us = 0;
        peer.ledger.presences.clear();
        self.drop_asks(number, None);
        self.dirty.insert(number);
    }

    /// A peer could not be reached.
    pub fn dial_failed(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.is_dialing = false;
        if !peer.is_connected {
            peer.is_unreachable = peer.aside_until.is_none();
            self.put_aside(now, number, None);
        }
    }

    /// A message of [`Command::Tell`] is sent, or is lost with its stream.
    pub fn told(&mut self, now: Instant, number: PeerNumber, is_sent: bool) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.is_sending = false;
        if !is_sent && peer.is_connected {
            peer.needs_full = true;
            self.put_aside(now, number, None);
        }
        self.dirty.insert(number);
    }

    /// A peer does not speak bitswap.
    pub fn no_protocol(&mut self, now: Instant, number: PeerNumber) {
        self.put_aside(now, number, Some(ASIDE_FOR_NO_PROTOCOL));
    }

    /// A peer sent what nobody should. Enough of that, and it is put aside.
    pub fn fault(&mut self, now: Instant, number: PeerNumber, faults: u32) {
        self.stat.faults += u64::from(faults);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.faults += faults;
        if peer.faults >= MAX_FAULTS {
            peer.faults = 0;
            self.put_aside(now, number, None);
        }
    }

    /// A peer has said something.
    fn heard(&mut self, now: Instant, number: PeerNumber) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.last_heard = now;
            peer.is_stalled = false;
        }
    }

    /// Bytes of a large message are arriving: whoever waits for blocks of this peer sees something come.
    pub fn part_came(&mut self, now: Instant, number: PeerNumber) {
        self.heard(now, number);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.last_part = Some(now);
        if peer.in_flight > 0 {
            for id in &peer.sessions {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.last_progress = now;
                }
            }
        }
    }

    /// A peer has so many bytes queued for us behind what it sent.
    pub fn queued(&mut self, number: PeerNumber, bytes: i32) {
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.queued_for_us = u64::try_from(bytes).unwrap_or(0);
        }
    }

    /// A new session, or the one that has this root.
    pub fn open_session(&mut self, now: Instant, root: Option<&Cid>) -> SessionId {
        let key = root.map(Key::of);
        if let Some((id, _)) = key.as_ref().and_then(|key| self.roots.get(key)) {
            if let Some(session) = self.sessions.get_mut(id) {
                session.handles += 1;
            }
            return *id;
        }
        self.next_session += 1;
        let id = SessionId(self.next_session);
        if let (Some(key), Some(root)) = (&key, root) {
            self.roots.insert(key.clone(), (id, root.clone()));
        }
        self.sessions.insert(id, Session::new(now, key));
        id
    }

    /// One handle of a session is gone. With the last one it ends.
    pub fn close_session(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.handles -= 1;
        if session.handles > 0 {
            return;
        }
        let tickets: Vec<(Key, Ticket)> = self
            .wants
            .iter()
            .flat_map(|(key, want)| {
                let of_session = want.waiters.iter().filter(|waiter| waiter.session == id);
                of_session.map(|waiter| (key.clone(), waiter.ticket))
            })
            .collect();
        for (key, ticket) in tickets {
            self.cancel(now, &key, ticket);
        }
        let Some(session) = self.sessions.remove(&id) else { return };
        for number in session.members.keys() {
            if let Some(peer) = self.peers.get_mut(number) {
                peer.sessions.remove(&id);
            }
            self.dirty.insert(*number);
        }
        if let Some((_, root)) = session.root.and_then(|root| self.roots.remove(&root)) {
            let holders = session.members.iter().filter(|(_, member)| member.is_holder);
            let holders: Vec<PeerNumber> = holders.map(|(number, _)| *number).collect();
            if !holders.is_empty() {
                self.commands.push_back(Command::Remember { root, holders });
            }
        }
    }

    /// A peer that is said to have the blocks of a session. It is dialed where it is not connected.
    pub fn add_provider(&mut self, now: Instant, id: SessionId, number: PeerNumber, identity: u64) {
        self.peers.entry(number).or_insert_with(|| Peer::new(now, identity));
        self.dirty.insert(number);
        let Some(member) = self.member(id, number) else { return };
        member.is_holder = true;
        member.misses = 0;
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.is_connected {
            self.holder_found(id);
        } else if !peer.is_dialing && peer.aside_until.is_none() {
            peer.is_dialing = true;
            self.commands.push_back(Command::Dial { peer: number });
        }
    }

    /// Somebody waits for a block.
    pub fn want(&mut self, now: Instant, id: SessionId, cid: &Cid, urgency: Urgency, ticket: Ticket) {
        let key = Key::of(cid);
        let waiter = Waiter { ticket, session: id, urgency, cid: cid.clone() };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(want) = self.wants.get_mut(&key) {
            want.waiters.push(waiter);
            if urgency > want.urgency {
                want.urgency = urgency;
                want.session = id;
                self.more_urgent(&key);
            }
            return;
        }
        self.sequence += 1;
        session.queue(urgency).push_back(key.clone());
        let want = Want {
            cid: cid.clone(),
            waiters: SmallVec::from_iter([waiter]),
            urgency,
            session: id,
            sequence: self.sequence,
            place: Place::Queued,
            asks: SmallVec::new(),
            is_impatient: false,
        };
        // Nothing came for as long as nothing was wanted.
        if self.wants.is_empty() {
            session.last_progress = now;
        }
        self.wants.insert(key, want);
    }

    /// A want that is already looked after has become more urgent.
    fn more_urgent(&mut self, key: &Key) {
        let Some(want) = self.wants.get(key) else { return };
        let awaits_fellow = want.asks.iter().any(|ask| ask.charged == Some(0));
        match want.place {
            Place::Asked if !awaits_fellow || want.urgency < Urgency::Demand => {
                let entry =
                    Entry { cid: want.cid.clone(), priority: want.priority(), ask: Ask::Block, send_dont_have: true };
                let asked: Vec<PeerNumber> =
                    want.asks.iter().filter(|ask| ask.charged.is_some()).map(|ask| ask.peer).collect();
                for number in asked {
                    self.say_want(number, key, entry.clone());
                }
            }
            // A reader does not wait for what a fellow may get later.
            _ => self.enqueue(key),
        }
    }

    /// Nobody holds this ticket any more.
    pub fn cancel(&mut self, now: Instant, key: &Key, ticket: Ticket) {
        let Some(want) = self.wants.get_mut(key) else { return };
        want.waiters.retain(|waiter| waiter.ticket != ticket);
        let Some(first) = want.waiters.iter().max_by_key(|waiter| waiter.urgency) else {
            self.end_want(now, key, None);
            return;
        };
        if !want.waiters.iter().any(|waiter| waiter.session == want.session) {
            let (old, new) = (want.session, first.session);
            want.session = new;
            if let Some(session) = self.sessions.get_mut(&old) {
                session.seeking.remove(key);
            }
            if !self.wants[key].is_in_flight() {
                self.enqueue(key);
            }
        }
    }

    /// What a peer says it has, or not.
    pub fn presences(&mut self, now: Instant, number: PeerNumber, presences: Vec<(Cid, bool)>) {
        self.heard(now, number);
        for (cid, is_there) in presences {
            let key = Key::of(&cid);
            let Some(want) = self.wants.get_mut(&key) else { continue };
            let id = want.session;
            let Some(ask) = want.ask_mut(number) else { continue };
            let was_asked_for_block = ask.wants_block;
            let charged = ask.charged.take();
            if is_there {
                ask.answer = Answer::Have;
                // Some answer so although they were asked for the block.
                ask.wants_block = false;
            } else {
                (ask.answer, ask.at) = (Answer::DontHave, now);
            }
            self.release(number, charged);
            let is_new = self.member(id, number).is_some_and(|member| {
                let was_holder = member.is_holder;
                member.is_holder |= is_there;
                if is_there {
                    member.misses = 0;
                } else if was_asked_for_block {
                    member.misses += 1;
                }
                is_there && !was_holder
            });
            if !is_there {
                self.note_miss(now, id, number);
            }
            if !self.wants[&key].is_in_flight() && (is_there || was_asked_for_block) {
                self.requeue(&key);
            }
            if is_new {
                self.holder_found(id);
            }
        }
        self.dirty.insert(number);
    }

    /// Blocks of a peer, hashed.
    pub fn blocks(&mut self, now: Instant, number: PeerNumber, blocks: Vec<Block>) {
        self.heard(now, number);
        for block in blocks {
            let key = Key::of(block.cid());
            let bytes = block.data().len() as u64;
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.ledger.received_bytes += bytes;
                peer.ledger.received_blocks += 1;
            }
            self.stat.received_blocks += 1;
            self.stat.received_bytes += bytes;
            if self.wants.contains_key(&key) {
                let is_shared = self.is_shared(now, &key);
                self.satisfy(now, &key, &block, Some(number));
                if is_shared {
                    self.pass_on(now, &key, &block);
                }
                self.note_recent(now, key);
            } else if self.peers.get(&number).is_some_and(|peer| peer.late.contains(&key)) {
                self.stat.duplicate_blocks += 1;
                self.stat.duplicate_bytes += bytes;
            } else {
                self.stat.unrequested_blocks += 1;
                self.stat.unrequested_bytes += bytes;
                self.fault(now, number, 1);
            }
        }
        self.dirty.insert(number);
    }

    /// A wanted block is here, from a peer or from elsewhere.
    fn satisfy(&mut self, now: Instant, key: &Key, block: &Block, from: Option<PeerNumber>) {
        let Some(want) = self.end_want(now, key, from) else { return };
        let bytes = block.data().len() as u64;
        let ask = from.and_then(|number| want.ask(number)).filter(|ask| ask.wants_block);
        let latency = ask.map(|ask| now.saturating_duration_since(ask.at));
        let charged = ask.and_then(|ask| ask.charged);
        let is_charged = charged.is_some_and(|bytes| bytes > 0);
        let mut sessions: SmallVec<[SessionId; 2]> = want.waiters.iter().map(|waiter| waiter.session).collect();
        sessions.dedup();
        for id in sessions {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.progress(now, bytes, latency.filter(|_| is_charged));
                if let Some(latency) = latency.filter(|_| charged == Some(0)) {
                    session.fellow_gave(latency);
                }
            }
            let Some(number) = from else { continue };
            if let Some(member) = self.member(id, number) {
                let was_holder = std::mem::replace(&mut member.is_holder, true);
                member.misses = 0;
                if !was_holder {
                    self.holder_found(id);
                }
            }
        }
        if let Some(peer) = from.and_then(|number| self.peers.get_mut(&number)) {
            // What a fellow had to get first says nothing about the path to it.
            let in_flight = peer.in_flight_bytes + bytes;
            peer.window.delivered(now, bytes, latency.filter(|_| is_charged), in_flight);
            peer.faults = 0;
            peer.aside_for = Duration::ZERO;
        }
        let tickets = want.waiters.into_iter().map(|waiter| (waiter.ticket, waiter.cid)).collect();
        self.commands.push_back(Command::Deliver { block: block.clone(), tickets });
    }

    /// Takes a want out: whoever was asked for it is told, but for the one who sent the block.
    fn end_want(&mut self, _now: Instant, key: &Key, from: Option<PeerNumber>) -> Option<Want> {
        let mut want = self.wants.remove(key)?;
        if let Some(session) = self.sessions.get_mut(&want.session) {
            session.seeking.remove(key);
        }
        for index in 0..want.asks.len() {
            let PeerAsk { peer: number, charged, answer, wants_block, .. } = want.asks[index].clone();
            self.release(number, charged);
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            peer.entries.remove(key);
            // A `HAVE` ends a want for one.
            let is_over = Some(number) == from || (!wants_block && answer == Answer::Have);
            if is_over {
                peer.delta.remove(key);
                // Who sent a block may send it again where it was asked twice.
                if from.is_some() {
                    peer.late.insert(key.clone());
                }
            } else {
                let entry = Entry { cid: want.cid.clone(), priority: 0, ask: Ask::Cancel, send_dont_have: false };
                self.say_want(number, key, entry);
                if let Some(peer) = self.peers.get_mut(&number) {
                    peer.late.insert(key.clone());
                }
            }
        }
        want.asks.retain(|ask| Some(ask.peer) == from);
        Some(want)
    }

    /// Something that was in flight from a peer is so no more.
    fn release(&mut self, number: PeerNumber, charged: Option<u64>) {
        let (Some(bytes), Some(peer)) = (charged, self.peers.get_mut(&number)) else { return };
        peer.in_flight -= 1;
        peer.in_flight_bytes -= bytes;
        self.dirty.insert(number);
    }

    /// A change in what we want of a peer, for its next message.
    fn say_want(&mut self, number: PeerNumber, key: &Key, entry: Entry) {
        if let Some(peer) = self.peers.get_mut(&number)
            && peer.is_connected
        {
            peer.delta.insert(key.clone(), entry);
            self.dirty.insert(number);
        }
    }

    /// A member of a session, made one if there is room.
    fn member(&mut self, id: SessionId, number: PeerNumber) -> Option<&mut session::Member> {
        let session = self.sessions.get_mut(&id)?;
        if !session.members.contains_key(&number) && session.members.len() >= MAX_SESSION_PEERS {
            // Whoever is gone, or never had a block, gives way.
            let is_connected = |number: &PeerNumber| self.peers.get(number).is_some_and(|peer| peer.is_connected);
            let gone = session.members.iter().find(|(number, member)| !member.is_holder || !is_connected(number));
            let gone = *gone?.0;
            session.members.remove(&gone);
            session.backlogs.remove(&gone);
            if let Some(peer) = self.peers.get_mut(&gone) {
                peer.sessions.remove(&id);
            }
            self.dirty.insert(gone);
        }
        self.peers.get_mut(&number)?.sessions.insert(id);
        Some(self.sessions.get_mut(&id)?.members.entry(number).or_default())
    }

    /// Tells a peer what has changed, and the driver whether the peer is in use.
    fn settle_peer(&mut self, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.is_connected && !peer.is_sending && (peer.needs_full || !peer.delta.is_empty()) {
            let full = std::mem::take(&mut peer.needs_full);
            if full {
                peer.delta.clear();
                for key in &peer.entries {
                    let Some(want) = self.wants.get(key) else { continue };
                    let Some(ask) = want.ask(number).filter(|ask| ask.answer != Answer::Have) else { continue };
                    let ask = if ask.wants_block { Ask::Block } else { Ask::Have };
                    let entry = Entry { cid: want.cid.clone(), priority: want.priority(), ask, send_dont_have: true };
                    peer.delta.insert(key.clone(), entry);
                }
            }
            let mut entries: Vec<Entry> = std::mem::take(&mut peer.delta).into_values().collect();
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.priority));
            peer.is_sending = true;
            self.commands.push_back(Command::Tell { peer: number, full, entries });
        }
        let is_busy = peer.in_flight > 0
            || !peer.ledger.is_idle()
            || peer.ledger.loaded_bytes > 0
            || (peer.is_connected && !(peer.sessions.is_empty() && peer.ledger.wants.is_empty()));
        if is_busy != peer.is_busy {
            peer.is_busy = is_busy;
            self.commands.push_back(Command::Busy { peer: number, is_busy });
        }
        if !peer.is_connected
            && !peer.is_dialing
            && !is_busy
            && peer.sessions.is_empty()
            && peer.aside_until.is_none()
            && peer.entries.is_empty()
        {
            self.peers.remove(&number);
            self.commands.push_back(Command::Forget { peer: number });
        }
    }
}
