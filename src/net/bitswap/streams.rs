//! The streams of one peer: tasks that read messages off them and write messages to them, apart from the swarm's.
//!
//! We write on streams of our own: one for what we want, which is kept open, and a few on each connection for blocks. So a want
//! never waits behind a block, and several connections carry blocks at once. A peer writes on streams that it opens, as
//! many as it likes up to a bound.
//!
//! A connection through a relay is written to only while there is no direct one: relays let little through, and then no more.

mod frame;
mod memory;
mod read;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use self::memory::Memory;

use libp2p::PeerId;
use libp2p::swarm::{ConnectionId, Stream};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::Blocks;
use super::driver::Core;
use super::engine::{Batch, PeerNumber};
use super::message::{Outgoing, Version};
use crate::limits::{ANSWER_STREAMS, MAX_PEER_FRAME_BYTES};

/// A stream that was asked for.
pub type Opened = Result<(Stream, Version), OpenError>;
/// Asks a connection for a stream.
pub type OpenRequest = oneshot::Sender<Opened>;

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The peer speaks no bitswap.
    NoProtocol,
    /// The connection is gone, or too slow.
    Failed,
}

/// What goes to one peer, and how.
pub struct Outbox {
    pub peer: PeerId,
    pub number: PeerNumber,
    /// Whether its connections are in use.
    pub is_busy: AtomicBool,
    /// KiB of frames of this peer that may be received or hashed.
    pub frames: Arc<Semaphore>,
    queues: Mutex<Queues>,
    /// There is something to say, or nothing ever again.
    tell_ready: Notify,
    answer_ready: Notify,
}

#[derive(Default)]
struct Queues {
    connections: Vec<Connection>,
    /// At most one: the engine waits for it to be sent.
    tells: VecDeque<Outgoing>,
    /// A few: the engine bounds what is loaded.
    answers: VecDeque<Answer>,
    has_teller: bool,
}

struct Connection {
    id: ConnectionId,
    open: mpsc::UnboundedSender<OpenRequest>,
    is_relayed: bool,
    /// Tasks that answer on it, each on a stream of its own.
    answerers: usize,
}

impl Queues {
    /// The connections that are written to.
    fn used(&mut self) -> impl Iterator<Item = &mut Connection> {
        let has_direct = self.connections.iter().any(|connection| !connection.is_relayed);
        self.connections.iter_mut().filter(move |connection| !(has_direct && connection.is_relayed))
    }

    /// Nothing is answered on a connection for now.
    fn stop_answering(&mut self, id: ConnectionId) {
        if let Some(own) = self.connections.iter_mut().find(|connection| connection.id == id) {
            own.answerers = own.answerers.saturating_sub(1);
        }
    }
}

/// Blocks and presences, read from the store and ready to be sent.
pub struct Answer {
    message: Outgoing,
    loaded_bytes: u64,
}

impl Answer {
    /// Reads the blocks of a batch. One that is gone is said to be not here.
    pub fn load(batch: Batch, blocks: &dyn Blocks) -> Answer {
        let mut message = Outgoing {
            blocks: batch.held,
            presences: batch.presences,
            pending_bytes: batch.pending_bytes,
            ..Outgoing::default()
        };
        for cid in batch.blocks {
            match blocks.get(&cid) {
                Some(block) if *block.cid() == cid => message.blocks.push(block),
                // Stored under another name of the same bytes.
                Some(block) => message.blocks.extend(block.renamed(&cid)),
                None => message.presences.push((cid, false)),
            }
        }
        Answer { message, loaded_bytes: batch.loaded_bytes }
    }
}

impl Outbox {
    pub fn new(peer: PeerId, number: PeerNumber) -> Outbox {
        Outbox {
            peer,
            number,
            is_busy: AtomicBool::new(false),
            frames: Arc::new(Semaphore::new(MAX_PEER_FRAME_BYTES / 1024)),
            queues: Mutex::default(),
            tell_ready: Notify::new(),
            answer_ready: Notify::new(),
        }
    }

    pub fn is_connected(&self) -> bool {
        !self.queues.lock().connections.is_empty()
    }

    /// A connection can be used from now on. Says whether it is the first one.
    pub fn add_connection(&self, id: ConnectionId, open: mpsc::UnboundedSender<OpenRequest>, is_relayed: bool) -> bool {
        let mut queues = self.queues.lock();
        queues.connections.push(Connection { id, open, is_relayed, answerers: 0 });
        let is_first = queues.connections.len() == 1;
        drop(queues);
        // Those of a relayed connection notice that there is a direct one.
        self.answer_ready.notify_waiters();
        is_first
    }

    /// A connection is gone. Says whether it was the last one.
    pub fn remove_connection(&self, id: ConnectionId) -> bool {
        let mut queues = self.queues.lock();
        queues.connections.retain(|connection| connection.id != id);
        let is_last = queues.connections.is_empty();
        drop(queues);
        // Tasks of the connection notice that it is gone.
        self.tell_ready.notify_waiters();
        self.answer_ready.notify_waiters();
        is_last
    }

    /// Ends all tasks.
    pub fn close(&self) {
        self.queues.lock().connections.clear();
        self.tell_ready.notify_waiters();
        self.answer_ready.notify_waiters();
    }

    /// Sends what we want.
    pub fn tell(self: &Arc<Outbox>, core: &Arc<Core>, message: Outgoing) {
        let mut queues = self.queues.lock();
        queues.tells.push_back(message);
        if !std::mem::replace(&mut queues.has_teller, true) {
            core.runtime.spawn(write::tell(core.clone(), self.clone()));
        }
        drop(queues);
        self.tell_ready.notify_one();
    }

    /// Sends an answer, on whichever connection is free first.
    pub fn answer(self: &Arc<Outbox>, core: &Arc<Core>, answer: Answer) {
        let mut queues = self.queues.lock();
        queues.answers.push_back(answer);
        self.send_answers(core, queues);
    }

    /// Nothing is answered any more on a connection that is gone, or not written to: what is left goes over another one.
    fn leave_answers(self: &Arc<Outbox>, core: &Arc<Core>, id: ConnectionId) {
        let mut queues = self.queues.lock();
        queues.stop_answering(id);
        self.send_answers(core, queues);
    }

    /// Sees to it that the answers that wait are sent, or lost where there is no connection.
    fn send_answers(self: &Arc<Outbox>, core: &Arc<Core>, mut queues: MutexGuard<'_, Queues>) {
        if !queues.answers.is_empty() {
            for connection in queues.used() {
                while connection.answerers < ANSWER_STREAMS {
                    connection.answerers += 1;
                    core.runtime.spawn(write::answer(core.clone(), self.clone(), connection.id));
                }
            }
        }
        let is_lost = queues.connections.is_empty();
        drop(queues);
        if is_lost {
            self.lose_answers(core);
        }
        // One task is woken for each answer, or finds it before it sleeps.
        self.answer_ready.notify_one();
    }

    /// Answers for a peer that is gone.
    fn lose_answers(&self, core: &Core) {
        let lost = std::mem::take(&mut self.queues.lock().answers);
        for answer in lost {
            core.answered(self.number, answer.loaded_bytes, 0, 0, std::time::Duration::ZERO);
        }
    }

    /// The connection that is used for what we want: the first one.
    fn first_connection(&self) -> Option<(ConnectionId, mpsc::UnboundedSender<OpenRequest>)> {
        let mut queues = self.queues.lock();
        queues.used().next().map(|connection| (connection.id, connection.open.clone()))
    }

    /// A connection, as long as it is to be written to.
    fn connection(&self, id: ConnectionId) -> Option<mpsc::UnboundedSender<OpenRequest>> {
        let mut queues = self.queues.lock();
        queues.used().find(|connection| connection.id == id).map(|connection| connection.open.clone())
    }
}

/// Asks a connection for a stream and waits for it.
async fn open(connection: &mpsc::UnboundedSender<OpenRequest>) -> Opened {
    let (sender, receiver) = oneshot::channel();
    connection.send(sender).map_err(|_| OpenError::Failed)?;
    receiver.await.unwrap_or(Err(OpenError::Failed))
}

/// A place among the streams that a connection may have open to us.
pub struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// A place, if one is left.
    pub fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Slot> {
        let is_free = |count| (count < most).then_some(count + 1);
        taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_free).ok()?;
        Some(Slot(taken.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reads messages off a stream that the peer opened.
pub fn accept(core: &Arc<Core>, outbox: &Arc<Outbox>, mut stream: Stream, slot: Slot) {
    stream.ignore_for_keep_alive();
    core.runtime.spawn(read::read(core.clone(), outbox.clone(), stream, slot));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relayed_connection_is_written_to_only_while_there_is_no_direct_one() {
        let outbox = Outbox::new(PeerId::random(), PeerNumber(1));
        let [relayed, direct, other] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let add = |id, is_relayed| outbox.add_connection(id, mpsc::unbounded_channel().0, is_relayed);
        let first = || outbox.first_connection().map(|(id, _)| id);
        assert!(add(relayed, true));
        assert_eq!(first(), Some(relayed));
        assert!(!add(direct, false) && !add(other, false));
        assert_eq!(first(), Some(direct));
        assert!(outbox.connection(relayed).is_none());
        assert!(outbox.connection(direct).is_some() && outbox.connection(other).is_some());
        assert!(!outbox.remove_connection(direct) && !outbox.remove_connection(other));
        assert_eq!(first(), Some(relayed));
        assert!(outbox.connection(relayed).is_some());
    }
}
