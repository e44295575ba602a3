//! What everybody else sees of bitswap: sessions, wants, and what has come of them. May be used on any thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::PeerId;
use tokio::sync::oneshot;

use super::driver::Core;
use super::engine::{Key, Ticket};
use super::{Ledger, SessionId, Stat, Urgency};
use crate::block::{Block, Cid, HashFunction};

/// The way to bitswap. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
}

/// Why a want ended without its block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantError {
    /// Bitswap was stopped.
    #[error("bitswap has stopped")]
    Stopped,
    /// The block could not be checked: nobody is asked for it.
    #[error("block {cid}: unsupported hash function {code:#x}")]
    UnsupportedHash {
        /// The block.
        cid: Cid,
        /// The function's multicodec code.
        code: u64,
    },
}

/// What was asked of whom for one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whether somebody waits for the block. If not, nothing is known of it.
    pub is_wanted: bool,
    /// Whether nobody is known who has it.
    pub is_sought: bool,
    /// Whom it was asked of.
    pub peers: Vec<AskedPeer>,
}

/// What was asked of one peer for one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedPeer {
    /// The peer.
    pub peer: PeerId,
    /// Whether the block was asked for, and not only whether the peer has it.
    pub for_block: bool,
    /// When.
    pub at: Instant,
    /// What it said.
    pub answer: PeerAnswer,
}

/// What a peer said when it was asked for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// Nothing yet.
    None,
    /// It has the block.
    Have,
    /// It does not have the block.
    DontHave,
    /// Nothing for too long: it was put aside.
    Silent,
}

impl Client {
    pub(super) fn new(core: Arc<Core>) -> Client {
        Client { core }
    }

    /// A session: wants that have one root, and share what is known of who has its blocks. Sessions of the same root are
    /// one. Without a root the session is its own.
    pub fn session(&self, root: Option<&Cid>) -> Session {
        let id = self.core.tell(|state, now| state.open_session(now, root));
        Session { open: Arc::new(OpenSession { core: self.core.clone(), id }) }
    }

    /// A block has entered the store, on whatever road: peers that want it get it, and our own wants for it end. Costs a
    /// lookup where nobody does.
    pub fn arrived(&self, block: &Block) {
        let key = Key::of(block.cid());
        if self.core.look(|state| state.engine.is_awaited(&key)) {
            self.core.tell(|state, now| state.engine.arrived(now, block));
        }
    }

    /// Names a provider for a session: see [`Session::add_provider`].
    pub fn add_provider(&self, session: SessionId, peer: PeerId) {
        self.core.tell(|state, now| state.add_provider(now, session, &peer));
    }

    /// What was done since the start, and what is going on.
    pub fn stat(&self) -> Stat {
        self.core.look(|state| {
            let mut stat = state.engine.stat();
            stat.peers = state.engine.connected_peers().filter_map(|number| state.peer_id(number)).collect();
            stat
        })
    }

    /// What we want, or what a peer wants of us.
    pub fn wantlist(&self, peer: Option<PeerId>) -> Vec<Cid> {
        self.core.look(|state| match peer {
            None => state.engine.wantlist_of_own(),
            Some(peer) => state.number(&peer).map(|number| state.engine.wantlist_of(number)).unwrap_or_default(),
        })
    }

    /// What went to and fro between us and a peer, where it is connected or was lately.
    pub fn ledger(&self, peer: PeerId) -> Option<Ledger> {
        self.core.look(|state| state.engine.ledger(state.number(&peer)?, peer))
    }
}

/// Wants that share a root. Cheap to clone. With the last clone, and the last want of it, the session ends.
#[derive(Clone)]
pub struct Session {
    open: Arc<OpenSession>,
}

struct OpenSession {
    core: Arc<Core>,
    id: SessionId,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.core.tell(|state, now| state.engine.close_session(now, self.id));
    }
}

impl Session {
    /// The session's number, as in [`super::Event::ProvidersWanted`].
    pub fn id(&self) -> SessionId {
        self.open.id
    }

    /// Waits for a block. Dropping the want cancels it. It never ends by itself while nobody has the block: whoever waits
    /// has the deadline.
    pub fn want(&self, cid: &Cid, urgency: Urgency) -> Want {
        let core = &self.open.core;
        if let Some(block) = Block::from_identity(cid) {
            return Want { state: WantState::Ready(Some(Ok(block))) };
        }
        if HashFunction::from_code(cid.hash_code()).is_none() {
            let error = WantError::UnsupportedHash { cid: cid.clone(), code: cid.hash_code() };
            return Want { state: WantState::Ready(Some(Err(error))) };
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = core.tell(|state, now| {
            let ticket = state.new_ticket();
            if !core.is_stopped() {
                state.waiters.insert(ticket, sender);
                state.engine.want(now, self.open.id, cid, urgency, ticket);
            }
            ticket
        });
        let waiting = Waiting { receiver, session: self.open.clone(), key: Key::of(cid), ticket, is_done: false };
        Want { state: WantState::Waiting(waiting) }
    }

    /// Names a peer that is said to have the session's blocks. It is dialed where it is not connected; other behaviours of
    /// the swarm have to know its addresses.
    pub fn add_provider(&self, peer: PeerId) {
        self.open.core.tell(|state, now| state.add_provider(now, self.open.id, &peer));
    }

    /// What was asked of whom for a block that is waited for.
    pub fn note_of(&self, cid: &Cid) -> Asked {
        self.open.core.look(|state| {
            let Some((is_sought, asks)) = state.engine.asks(&Key::of(cid)) else { return Asked::default() };
            let peers = asks.into_iter().filter_map(|(number, for_block, at, answer)| {
                Some(AskedPeer { peer: state.peer_id(number)?, for_block, at, answer })
            });
            Asked { is_wanted: true, is_sought, peers: peers.collect() }
        })
    }

    /// When a block last came for this session, or its first want was made.
    pub fn last_progress(&self) -> Instant {
        self.open.core.look(|state| state.engine.last_progress(self.open.id)).unwrap_or_else(Instant::now)
    }
}

/// One waiting for one block: a future of the block, which was hashed.
pub struct Want {
    state: WantState,
}

enum WantState {
    Ready(Option<Result<Block, WantError>>),
    Waiting(Waiting),
}

struct Waiting {
    receiver: oneshot::Receiver<Block>,
    session: Arc<OpenSession>,
    key: Key,
    ticket: Ticket,
    is_done: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.is_done {
            self.session.core.tell(|state, now| {
                state.waiters.remove(&self.ticket);
                state.engine.cancel(now, &self.key, self.ticket);
            });
        }
    }
}

impl Future for Want {
    type Output = Result<Block, WantError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            WantState::Ready(result) => Poll::Ready(result.take().unwrap_or(Err(WantError::Stopped))),
            WantState::Waiting(waiting) if waiting.is_done => Poll::Ready(Err(WantError::Stopped)),
            WantState::Waiting(waiting) => Pin::new(&mut waiting.receiver).poll(context).map(|result| {
                waiting.is_done = true;
                result.map_err(|_| WantError::Stopped)
            }),
        }
    }
}
