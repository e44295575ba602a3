//! Answering peers: what they want is looked up, queued, and handed out in turn.
//!
//! - A want for a block that is not here stands until it is cancelled: the block goes out when it comes, and nobody polls.
//! - `DONT_HAVE` is said at once, except for a block that is on its way here: whoever wants it of us would only fetch it from
//!   where we do.
//! - Peers take turns, a message each, and none has more than a few messages loaded.
//! - Where several fetch the same, a block goes on as it comes, before it is in the store.

use std::time::{Duration, Instant};

use super::ledger::{TheirState, TheirWant};
use super::wants::{Answer, Key, PeerAsk, Place};
use super::{Command, Engine, PeerNumber};
use crate::block::{Block, Cid};
use crate::limits::{HAVE_IS_BLOCK_BYTES, MAX_LOADED_ANSWER_BYTES, MAX_WANTLIST_ENTRIES};
use crate::net::bitswap::message::{Ask, Entry};

/// Blocks that are looked up in one go.
const LOOKUP_BLOCKS: usize = 512;
/// How long `DONT_HAVE` is held back for a block that is on its way, before that is looked at again.
const OWED_FOR: Duration = Duration::from_secs(2);
/// How many are held back at once.
const MAX_OWED: usize = 4 * MAX_WANTLIST_ENTRIES;
/// A session that made no progress for so long does not get its blocks soon.
const IN_PROGRESS: Duration = Duration::from_secs(3);
/// How long a block may take from the network into the store.
const STORING: Duration = Duration::from_secs(2);

impl Engine {
    /// The wantlist of a peer, or what changed in it.
    pub fn wantlist(&mut self, now: Instant, number: PeerNumber, full: bool, entries: Vec<Entry>) {
        if full {
            self.forget_wants_of(number);
        }
        for entry in entries {
            if entry.cid.hash_code() == 0 {
                // Whoever has an identity CID has its block.
                continue;
            }
            let key = Key::of(&entry.cid);
            match entry.ask {
                Ask::Cancel => self.cancelled(now, number, &key),
                Ask::Have | Ask::Block => {
                    self.note_fellow(now, number, &key);
                    self.wanted(number, key, entry);
                }
            }
        }
        self.look_up(number);
        self.dirty.insert(number);
    }

    fn wanted(&mut self, number: PeerNumber, key: Key, entry: Entry) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let ledger = &mut peer.ledger;
        let wants_block = entry.ask == Ask::Block;
        if let Some(want) = ledger.wants.get_mut(&key) {
            // Who wants the block no more, but to hear of it, does not ask anew.
            let wants_less = want.wants_block && !wants_block;
            want.wants_block = wants_block;
            want.send_dont_have = entry.send_dont_have;
            let is_new_priority = want.priority != entry.priority;
            want.priority = entry.priority;
            match want.state {
                TheirState::Queued { order, bytes } => {
                    if is_new_priority {
                        ledger.queue_block(&key, order.1, bytes);
                    }
                }
                // Asked again: answered again.
                TheirState::Standing { .. } if !wants_less => {
                    want.state = TheirState::Looking;
                    ledger.lookups.push_back(key);
                }
                TheirState::Looking | TheirState::Standing { .. } => {}
            }
            return;
        }
        if ledger.wants.len() >= MAX_WANTLIST_ENTRIES || ledger.lookups.len() >= MAX_WANTLIST_ENTRIES {
            self.stat.refused_wants += 1;
            if entry.send_dont_have {
                self.say(number, entry.cid, false);
            }
            return;
        }
        let want = TheirWant {
            cid: entry.cid,
            priority: entry.priority,
            wants_block,
            send_dont_have: entry.send_dont_have,
            state: TheirState::Looking,
        };
        ledger.wants.insert(key.clone(), want);
        if let Some(bytes) = self.held.block_bytes(&key) {
            return self.answer(number, &key, bytes);
        }
        ledger.lookups.push_back(key.clone());
        let standing = self.standing.entry(key).or_default();
        if !standing.contains(&number) {
            standing.push(number);
        }
    }

    /// Asks the store for the next of a peer's wants.
    fn look_up(&mut self, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let ledger = &mut peer.ledger;
        if ledger.is_looking {
            return;
        }
        let mut cids = Vec::new();
        while cids.len() < LOOKUP_BLOCKS {
            let Some(key) = ledger.lookups.pop_front() else { break };
            if let Some(want) = ledger.wants.get(&key)
                && want.state == TheirState::Looking
            {
                cids.push(want.cid.clone());
            }
        }
        if !cids.is_empty() {
            ledger.is_looking = true;
            self.commands.push_back(Command::LookUp { peer: number, cids });
        }
    }

    /// What the store said: the size of each block that is here.
    pub fn found(&mut self, now: Instant, number: PeerNumber, blocks: Vec<(Cid, Option<u32>)>) {
        for (cid, bytes) in blocks {
            let key = Key::of(&cid);
            let is_looking = |want: &TheirWant| want.state == TheirState::Looking;
            if !self.peers.get(&number).is_some_and(|peer| peer.ledger.wants.get(&key).is_some_and(is_looking)) {
                continue;
            }
            // It may have come meanwhile.
            match bytes.or_else(|| self.held.block_bytes(&key)) {
                Some(bytes) => self.answer(number, &key, bytes),
                None => self.not_here(now, number, &key),
            }
        }
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.ledger.is_looking = false;
        }
        self.look_up(number);
        self.dirty.insert(number);
    }

    fn not_here(&mut self, now: Instant, number: PeerNumber, key: &Key) {
        let is_expected = self.is_expected(now, number, key);
        let Some(want) = self.peers.get_mut(&number).and_then(|peer| peer.ledger.wants.get_mut(key)) else { return };
        let owes_dont_have = want.send_dont_have && is_expected && self.owed.len() < MAX_OWED;
        want.state = TheirState::Standing { owes_dont_have };
        if owes_dont_have {
            self.owed.push_back((now + OWED_FOR, number, key.clone()));
        } else if want.send_dont_have {
            let cid = want.cid.clone();
            self.say(number, cid, false);
        }
    }

    /// Whether a peer may wait for a block that is not here, since it is on its way. Where we wait for a fellow ourselves, only
    /// peers with a worse score may wait for us: else they could wait for each other in a circle.
    fn is_expected(&self, now: Instant, number: PeerNumber, key: &Key) -> bool {
        if self.recent.contains_key(key) {
            return true;
        }
        let Some(peer) = self.peers.get(&number) else { return false };
        let is_before = key.score(self.own) > key.score(peer.identity);
        self.wants.get(key).is_some_and(|want| {
            want.place != Place::Seeking
                && (is_before || want.asks.iter().any(|ask| ask.charged.is_some_and(|bytes| bytes > 0)))
                && self
                    .sessions
                    .get(&want.session)
                    .is_some_and(|session| now.saturating_duration_since(session.last_progress) < IN_PROGRESS)
        })
    }

    /// Says the `DONT_HAVE`s whose time is up.
    pub(super) fn say_owed(&mut self, now: Instant) {
        while self.owed.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, number, key)) = self.owed.pop_front() else { break };
            let is_owed = |want: &TheirWant| want.state == TheirState::Standing { owes_dont_have: true };
            let Some(want) = self.peers.get_mut(&number).and_then(|peer| peer.ledger.wants.get_mut(&key)) else {
                continue;
            };
            if is_owed(want) {
                self.not_here(now, number, &key);
            }
        }
    }

    /// Queues the answer to a want whose block is here.
    fn answer(&mut self, number: PeerNumber, key: &Key, bytes: u32) {
        self.stands_no_more(number, key);
        self.sequence += 1;
        let order = self.sequence;
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let Some(want) = peer.ledger.wants.get(key) else { return };
        if want.wants_block || bytes <= HAVE_IS_BLOCK_BYTES {
            peer.ledger.queue_block(key, order, bytes);
        } else if let Some(want) = peer.ledger.remove(key) {
            peer.ledger.queue_presence(want.cid, true);
        }
        self.make_ready(number);
    }

    fn say(&mut self, number: PeerNumber, cid: Cid, is_here: bool) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if !peer.ledger.queue_presence(cid, is_here) {
            self.stat.refused_wants += 1;
        }
        self.make_ready(number);
    }

    fn make_ready(&mut self, number: PeerNumber) {
        if let Some(peer) = self.peers.get_mut(&number)
            && !peer.ledger.is_ready
        {
            peer.ledger.is_ready = true;
            self.ready.push_back(number);
        }
    }

    fn stands_no_more(&mut self, number: PeerNumber, key: &Key) {
        if let Some(standing) = self.standing.get_mut(key) {
            standing.retain(|other| *other != number);
            if standing.is_empty() {
                self.standing.remove(key);
            }
        }
    }

    /// A peer wants a block no more: if it was not we who sent it, it has it now, as a rule.
    fn cancelled(&mut self, now: Instant, number: PeerNumber, key: &Key) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.ledger.remove(key).is_none() {
            return;
        }
        let is_member = !peer.sessions.is_empty();
        self.stands_no_more(number, key);
        if !is_member {
            return;
        }
        let Some(want) = self.wants.get_mut(key) else {
            self.hints.put(key.clone(), number);
            return;
        };
        if want.ask(number).is_none() {
            let ask = PeerAsk { peer: number, wants_block: false, at: now, answer: Answer::Have, charged: None };
            want.asks.push(ask);
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.entries.insert(key.clone());
            }
            if !self.wants[key].is_in_flight() {
                self.requeue(key);
            }
        }
    }

    /// A peer's wants are void.
    pub(super) fn forget_wants_of(&mut self, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let keys: Vec<Key> = peer.ledger.wants.keys().cloned().collect();
        peer.ledger.lookups.clear();
        for key in keys {
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.ledger.remove(&key);
            }
            self.stands_no_more(number, &key);
        }
    }

    /// Whether [`Engine::arrived`] has anything to do for a block.
    pub fn is_awaited(&self, key: &Key) -> bool {
        self.standing.contains_key(key) || self.wants.contains_key(key)
    }

    /// A block has entered the store, on whatever road.
    pub fn arrived(&mut self, now: Instant, block: &Block) {
        let key = Key::of(block.cid());
        if self.wants.contains_key(&key) {
            self.satisfy(now, &key, block, None);
        }
        self.recent.remove(&key);
        for number in self.standing.remove(&key).unwrap_or_default() {
            self.answer(number, &key, block.data().len() as u32);
        }
    }

    /// Whether others want what we want here, as far as is known.
    pub(super) fn is_shared(&self, now: Instant, key: &Key) -> bool {
        let session = self.wants.get(key).and_then(|want| self.sessions.get(&want.session));
        let has_fellow = session.is_some_and(|session| session.members.values().any(|member| member.is_fellow(now)));
        has_fellow || self.standing.contains_key(key)
    }

    /// A block came that others want too: they have it before the store does.
    pub(super) fn pass_on(&mut self, now: Instant, key: &Key, block: &Block) {
        self.held.insert(now, key, block);
        for number in self.standing.remove(key).unwrap_or_default() {
            self.answer(number, key, block.data().len() as u32);
        }
    }

    /// A block was received, and will be in the store soon.
    pub(super) fn note_recent(&mut self, now: Instant, key: Key) {
        self.recent_order.push_back((now + STORING, key.clone()));
        self.recent.insert(key, now + STORING);
    }

    pub(super) fn forget_recent(&mut self, now: Instant) {
        while self.recent_order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((_, key)) = self.recent_order.pop_front() else { break };
            if self.recent.get(&key).is_some_and(|until| *until <= now) {
                self.recent.remove(&key);
            }
        }
    }

    /// Hands out what is queued, a message for each peer in turn, as long as there is room for what is loaded.
    pub(super) fn hand_out(&mut self) {
        let mut passed_over = 0;
        while passed_over < self.ready.len() && self.loaded_bytes < MAX_LOADED_ANSWER_BYTES {
            let Some(number) = self.ready.pop_front() else { break };
            let Some(peer) = self.peers.get_mut(&number) else { continue };
            let ledger = &mut peer.ledger;
            if ledger.is_idle() {
                ledger.is_ready = false;
                continue;
            }
            self.ready.push_back(number);
            if !ledger.has_room() {
                passed_over += 1;
                continue;
            }
            passed_over = 0;
            let mut batch = ledger.take_batch();
            batch.blocks.retain(|cid| match self.held.get(cid) {
                Some(block) => {
                    batch.held.push(block);
                    false
                }
                None => true,
            });
            self.loaded_bytes += batch.loaded_bytes;
            self.dirty.insert(number);
            self.commands.push_back(Command::Answer { peer: number, batch });
        }
    }

    /// A message of [`Command::Answer`] has gone out, or was lost with its connection.
    pub fn answered(&mut self, number: PeerNumber, loaded_bytes: u64, bytes: u64, blocks: u64, took: Duration) {
        self.loaded_bytes = self.loaded_bytes.saturating_sub(loaded_bytes);
        self.stat.sent_bytes += bytes;
        self.stat.sent_blocks += blocks;
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.ledger.sent(loaded_bytes, bytes, blocks, took);
            peer.ledger.exchanged += 1;
        }
        self.dirty.insert(number);
    }
}
