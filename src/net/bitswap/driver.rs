//! What lies between the engine and everything that takes time.
//!
//! Whoever has news (a stream that was read, a client that wants a block) tells the engine at once, under a lock that is
//! never held for longer than that takes. One task then has the engine decide, and carries out its commands: so what came
//! together is decided together, and no queue can grow between the two.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::behaviour::{Behaviour, ToBehaviour};
use super::client::Client;
use super::engine::{Batch, Command, Engine, Limits, PeerNumber, Ticket};
use super::message::{Message, Outgoing};
use super::streams::{Answer, Memory, Outbox};
use super::{Blocks, Config, SessionId};
use crate::block::{Block, Cid};
use crate::limits::{MAX_FRAME_BYTES, MAX_REMEMBERED_ROOTS};

/// What all parts of bitswap share.
pub struct Core {
    state: Mutex<State>,
    wake: Notify,
    is_stopped: AtomicBool,
    pub config: Config,
    pub blocks: Arc<dyn Blocks>,
    pub runtime: Handle,
    /// KiB of frames that may be received or hashed.
    pub frames: Arc<Semaphore>,
    /// Where long frames lie.
    pub memory: Arc<Memory>,
    /// Threads that hash.
    pub hashers: Arc<Semaphore>,
}

/// What the lock protects.
pub struct State {
    pub engine: Engine,
    pub waiters: HashMap<Ticket, oneshot::Sender<Block>>,
    numbers: HashMap<PeerId, PeerNumber>,
    peers: HashMap<PeerNumber, Arc<Outbox>>,
    remembered: LruCache<Cid, Vec<PeerId>>,
    next_number: u32,
    next_ticket: u64,
}

/// A number that every node computes of a peer's name.
fn identity(peer: &PeerId) -> u64 {
    // The name ends in a key or its hash, which look random.
    let mut mixed = 0xcbf2_9ce4_8422_2325_u64;
    for byte in peer.to_bytes() {
        mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mixed
}

impl State {
    /// The outbox of a peer, made where there is none.
    pub fn outbox(&mut self, peer: &PeerId) -> Arc<Outbox> {
        if let Some(outbox) = self.numbers.get(peer).and_then(|number| self.peers.get(number)) {
            return outbox.clone();
        }
        self.next_number = self.next_number.wrapping_add(1);
        let number = PeerNumber(self.next_number);
        let outbox = Arc::new(Outbox::new(*peer, number));
        self.numbers.insert(*peer, number);
        self.peers.insert(number, outbox.clone());
        outbox
    }

    pub fn number(&self, peer: &PeerId) -> Option<PeerNumber> {
        self.numbers.get(peer).copied()
    }

    pub fn peer_id(&self, number: PeerNumber) -> Option<PeerId> {
        self.peers.get(&number).map(|outbox| outbox.peer)
    }

    pub fn new_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub fn open_session(&mut self, now: Instant, root: Option<&Cid>) -> SessionId {
        let id = self.engine.open_session(now, root);
        let holders = root.and_then(|root| self.remembered.get(root)).cloned().unwrap_or_default();
        for peer in holders {
            self.add_provider(now, id, &peer);
        }
        id
    }

    pub fn add_provider(&mut self, now: Instant, id: SessionId, peer: &PeerId) {
        let number = self.outbox(peer).number;
        self.engine.add_provider(now, id, number, identity(peer));
    }

    /// Nothing is known of a peer: its number goes, unless it is connected.
    fn forget(&mut self, number: PeerNumber) {
        let is_unused = |outbox: &Arc<Outbox>| !outbox.is_connected();
        if self.peers.get(&number).is_some_and(is_unused)
            && let Some(outbox) = self.peers.remove(&number)
        {
            self.numbers.remove(&outbox.peer);
        }
    }

    fn remember(&mut self, root: Cid, holders: &[PeerNumber]) {
        let holders = holders.iter().filter_map(|number| self.peer_id(*number)).collect();
        self.remembered.put(root, holders);
    }
}

/// Starts the task. See [`super::new`].
pub fn start(own: PeerId, config: Config, blocks: Arc<dyn Blocks>, runtime: &Handle) -> (Behaviour, Client) {
    let limits = Limits {
        wants_in_flight: config.wants_in_flight.clamp(1, crate::limits::MAX_WANTS_IN_FLIGHT),
        answer_timeout: config.answer_timeout,
    };
    let state = State {
        engine: Engine::new(Instant::now(), identity(&own), limits),
        waiters: HashMap::new(),
        numbers: HashMap::new(),
        peers: HashMap::new(),
        remembered: LruCache::new(MAX_REMEMBERED_ROOTS),
        next_number: 0,
        next_ticket: 0,
    };
    let core = Arc::new(Core {
        state: Mutex::new(state),
        wake: Notify::new(),
        is_stopped: AtomicBool::new(false),
        frames: Arc::new(Semaphore::new(MAX_FRAME_BYTES / 1024)),
        memory: Arc::default(),
        hashers: Arc::new(Semaphore::new(config.hash_threads.max(1))),
        config,
        blocks,
        runtime: runtime.clone(),
    });
    let (events, from_driver) = mpsc::unbounded_channel();
    runtime.spawn(run(core.clone(), events));
    (Behaviour::new(core.clone(), from_driver), Client::new(core))
}

/// Carries out what the engine decides, until bitswap is stopped.
async fn run(core: Arc<Core>, events: mpsc::UnboundedSender<ToBehaviour>) {
    let mut works = Vec::new();
    while !core.is_stopped.load(Ordering::Acquire) {
        let deadline = {
            let mut state = core.state.lock();
            let state = &mut *state;
            state.engine.flush(Instant::now());
            while let Some(command) = state.engine.poll() {
                works.extend(state.prepare(command));
            }
            state.engine.deadline()
        };
        for work in works.drain(..) {
            core.carry_out(work, &events);
        }
        match deadline {
            Some(deadline) => {
                // Woken or not, there is something to do.
                let _ = tokio::time::timeout_at(deadline.into(), core.wake.notified()).await;
            }
            None => core.wake.notified().await,
        }
    }
}

/// A command with everything that it needs.
enum Work {
    Event(ToBehaviour),
    Tell(Arc<Outbox>, Outgoing),
    LookUp(PeerNumber, Vec<Cid>),
    Answer(Arc<Outbox>, Batch),
    Deliver(Block, Vec<(oneshot::Sender<Block>, Cid)>),
}

impl State {
    /// Finds what a command needs, and carries it out where that is no work.
    fn prepare(&mut self, command: Command) -> Option<Work> {
        match command {
            Command::Dial { peer } => Some(Work::Event(ToBehaviour::Dial(self.peer_id(peer)?))),
            Command::Search { session, cid } => Some(Work::Event(ToBehaviour::Search { session, cid })),
            Command::Tell { peer, full, entries } => {
                let outbox = self.peers.get(&peer)?.clone();
                Some(Work::Tell(outbox, Outgoing { full, entries, ..Outgoing::default() }))
            }
            Command::LookUp { peer, cids } => Some(Work::LookUp(peer, cids)),
            Command::Answer { peer, batch } => Some(Work::Answer(self.peers.get(&peer)?.clone(), batch)),
            Command::Deliver { block, tickets } => {
                let waiters = tickets.into_iter();
                let waiters = waiters.filter_map(|(ticket, cid)| Some((self.waiters.remove(&ticket)?, cid)));
                Some(Work::Deliver(block, waiters.collect()))
            }
            Command::Busy { peer, is_busy } => {
                self.peers.get(&peer)?.is_busy.store(is_busy, Ordering::Relaxed);
                None
            }
            Command::Remember { root, holders } => {
                self.remember(root, &holders);
                None
            }
            Command::Forget { peer } => {
                self.forget(peer);
                None
            }
        }
    }
}

impl Core {
    /// Tells the engine something, and has it decided soon.
    pub fn tell<T>(&self, news: impl FnOnce(&mut State, Instant) -> T) -> T {
        let result = news(&mut self.state.lock(), Instant::now());
        self.wake.notify_one();
        result
    }

    /// Looks at the state, without anything to be decided.
    pub fn look<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    /// Ends everything: who waits gets an error, and streams are closed.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        let (waiters, peers) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.waiters), state.peers.values().cloned().collect::<Vec<_>>())
        };
        drop(waiters);
        for outbox in peers {
            outbox.close();
        }
        self.wake.notify_one();
    }

    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    fn carry_out(self: &Arc<Core>, work: Work, events: &mpsc::UnboundedSender<ToBehaviour>) {
        match work {
            // Nobody listens where the behaviour is gone: then all of this ends.
            Work::Event(event) => drop(events.send(event)),
            Work::Tell(outbox, message) => outbox.tell(self, message),
            Work::LookUp(number, cids) => {
                let core = self.clone();
                self.runtime.spawn_blocking(move || {
                    let size = |cid: &Cid| core.blocks.block_bytes(cid).and_then(|bytes| u32::try_from(bytes).ok());
                    let found = cids.into_iter().map(|cid| (size(&cid), cid)).map(|(bytes, cid)| (cid, bytes));
                    let found = found.collect();
                    core.tell(|state, now| state.engine.found(now, number, found));
                });
            }
            Work::Answer(outbox, batch) => {
                let core = self.clone();
                if batch.blocks.is_empty() {
                    let answer = Answer::load(batch, &*core.blocks);
                    outbox.answer(&core, answer);
                } else {
                    self.runtime.spawn_blocking(move || {
                        let answer = Answer::load(batch, &*core.blocks);
                        outbox.answer(&core, answer);
                    });
                }
            }
            Work::Deliver(block, waiters) => {
                for (waiter, cid) in waiters {
                    let block = if *block.cid() == cid { Some(block.clone()) } else { block.renamed(&cid) };
                    if let Some(block) = block {
                        // Who has stopped waiting is told nothing.
                        drop(waiter.send(block));
                    }
                }
            }
        }
    }

    // What streams and connections have to tell.

    /// The outbox of a peer that is connecting.
    pub fn connecting(&self, peer: &PeerId) -> Arc<Outbox> {
        self.state.lock().outbox(peer)
    }

    /// A connection to a peer came to nothing.
    pub fn not_connected(&self, peer: &PeerId) {
        self.tell(|state, now| {
            let Some(number) = state.number(peer) else { return };
            state.engine.dial_failed(now, number);
            if !state.engine.knows(number) {
                state.forget(number);
            }
        });
    }

    pub fn connected(&self, outbox: &Outbox) {
        self.tell(|state, now| state.engine.connected(now, outbox.number, identity(&outbox.peer)));
    }

    pub fn disconnected(&self, outbox: &Outbox) {
        self.tell(|state, _| state.engine.disconnected(outbox.number));
    }

    /// A message came; its blocks are left to [`Core::received`].
    pub fn message(&self, number: PeerNumber, message: &mut Message) {
        let (entries, presences) = (std::mem::take(&mut message.entries), std::mem::take(&mut message.presences));
        self.tell(|state, now| {
            state.engine.received_message();
            if message.full || !entries.is_empty() {
                state.engine.wantlist(now, number, message.full, entries);
            }
            if !presences.is_empty() || !message.blocks.is_empty() {
                state.engine.queued(number, message.pending_bytes);
                state.engine.presences(now, number, presences);
            }
        });
    }

    pub fn received(&self, number: PeerNumber, blocks: Vec<Block>) {
        self.tell(|state, now| state.engine.blocks(now, number, blocks));
    }

    pub fn part_came(&self, number: PeerNumber) {
        self.look(|state| state.engine.part_came(Instant::now(), number));
    }

    pub fn told(&self, number: PeerNumber, is_sent: bool) {
        self.tell(|state, now| state.engine.told(now, number, is_sent));
    }

    pub fn no_protocol(&self, number: PeerNumber) {
        self.tell(|state, now| state.engine.no_protocol(now, number));
    }

    pub fn fault(&self, number: PeerNumber, faults: u32) {
        self.tell(|state, now| state.engine.fault(now, number, faults));
    }

    pub fn answered(&self, number: PeerNumber, loaded_bytes: u64, bytes: u64, blocks: u64, took: Duration) {
        self.tell(|state, _| state.engine.answered(number, loaded_bytes, bytes, blocks, took));
    }
}
