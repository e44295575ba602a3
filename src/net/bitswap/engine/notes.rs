//! What the engine says of itself to people.

use std::time::Instant;

use super::wants::{Answer, Key, Place};
use super::{Engine, PeerNumber};
use crate::block::Cid;
use crate::net::bitswap::{Ledger, PeerAnswer, SessionId, Stat};

impl Engine {
    /// A message came.
    pub fn received_message(&mut self) {
        self.stat.received_messages += 1;
    }

    /// Whether anything is known of a peer.
    pub fn knows(&self, number: PeerNumber) -> bool {
        self.peers.contains_key(&number)
    }

    /// What was done; the peers are left to the caller.
    pub fn stat(&self) -> Stat {
        Stat { wantlist: self.wantlist_of_own(), sessions: self.sessions.len(), ..self.stat.clone() }
    }

    pub fn connected_peers(&self) -> impl Iterator<Item = PeerNumber> {
        self.peers.iter().filter(|(_, peer)| peer.is_connected).map(|(number, _)| *number)
    }

    /// What we want, the earliest first.
    pub fn wantlist_of_own(&self) -> Vec<Cid> {
        let mut wants: Vec<_> = self.wants.values().collect();
        wants.sort_by_key(|want| want.sequence);
        wants.into_iter().map(|want| want.cid.clone()).collect()
    }

    /// What a peer wants of us and has not got.
    pub fn wantlist_of(&self, number: PeerNumber) -> Vec<Cid> {
        let Some(peer) = self.peers.get(&number) else { return Vec::new() };
        let mut cids: Vec<Cid> = peer.ledger.wants.values().map(|want| want.cid.clone()).collect();
        cids.sort();
        cids
    }

    pub fn ledger(&self, number: PeerNumber, peer: libp2p::PeerId) -> Option<Ledger> {
        let ledger = &self.peers.get(&number)?.ledger;
        Some(Ledger {
            peer,
            sent_bytes: ledger.sent_bytes,
            sent_blocks: ledger.sent_blocks,
            received_bytes: ledger.received_bytes,
            received_blocks: ledger.received_blocks,
            exchanged: ledger.exchanged,
            wantlist: self.wantlist_of(number),
        })
    }

    /// Whether a block is sought, and what was asked of whom for it: the peer, whether for the block itself, when, and what
    /// it said.
    #[expect(clippy::type_complexity, reason = "the caller names the parts")]
    pub fn asks(&self, key: &Key) -> Option<(bool, Vec<(PeerNumber, bool, Instant, PeerAnswer)>)> {
        let want = self.wants.get(key)?;
        let answer = |answer| match answer {
            Answer::None => PeerAnswer::None,
            Answer::Have => PeerAnswer::Have,
            Answer::DontHave => PeerAnswer::DontHave,
            Answer::GaveUp => PeerAnswer::Silent,
        };
        let asks = want.asks.iter().map(|ask| (ask.peer, ask.wants_block, ask.at, answer(ask.answer)));
        Some((want.place == Place::Seeking, asks.collect()))
    }

    pub fn last_progress(&self, id: SessionId) -> Option<Instant> {
        self.sessions.get(&id).map(|session| session.last_progress)
    }
}
