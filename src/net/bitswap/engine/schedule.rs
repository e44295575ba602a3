//! Which want goes to which peer.
//!
//! Demand goes before read-ahead, read-ahead before background. A want goes to the holder that will have sent it first, as
//! far as the holders' speeds and what is in flight from them tell, and only as long as that holder's window has room: so
//! wants are split by speed, and what is not in flight yet can still go elsewhere.
//!
//! **Fellows.** Where several nodes fetch the same DAG at once, each would ask the same few holders for all of it. So wants that
//! no reader waits for are shared out among the session's fellows and ourselves: each block has a *home*, the node with the best
//! score for it, which every node computes alike. The home fetches the block from a holder; the others ask the home, where their
//! wants stand until the block comes. A fellow that does not want the block itself says `DONT_HAVE`, and the next best one is its
//! home; it is asked once more before a holder is, for by then it may have come to the block. Whoever asks a holder cancels its
//! wants for the block with the fellows; who has one cancelled knows by that who gets the block or has it. So nodes wait only for
//! nodes with a better score and for those that have asked a holder, and never in a circle. The one who is asked sees to that
//! too, and says `DONT_HAVE` to whom it might be waiting for itself: a peer that does not know yet that we are a fellow takes us
//! for a holder.

use std::time::{Duration, Instant};

use super::session::{FIRST_SEARCH_PAUSE, Member, SEARCH_AFTER, Session};
use super::wants::{Answer, Key, PeerAsk, Place, Want};
use super::{Command, Engine, PeerNumber};
use crate::limits::{MAX_PROBED_WANTS, MAX_SESSION_PEERS};
use crate::net::bitswap::message::{Ask, Entry};
use crate::net::bitswap::{SessionId, Urgency};

/// How long a peer counts as a fellow after it last wanted a block of the session.
const FELLOW_FOR: Duration = Duration::from_secs(5);
/// A fellow without so many blocks in a row that it was the home of is none for a while.
const MAX_FELLOW_MISSES: u32 = 256;
const NO_FELLOW_FOR: Duration = Duration::from_secs(3);
/// A holder without so many blocks in a row is none.
const MAX_HOLDER_MISSES: u32 = 32;
/// Wants that cannot go out now are passed over, up to so many, for those behind them.
const MAX_PASSED_OVER: usize = 64;
/// A fellow that has fewer blocks to get for us gets them soon: nothing is taken over from it.
const MIN_TAKEN_FROM: usize = 8;
/// What is taken over is among so many that the fellow was asked for last.
const TAKEN_FROM_LAST: usize = 16;
/// Nothing is taken over from a fellow before it could answer.
const TAKEN_AFTER: Duration = Duration::from_millis(100);
/// Blocks that are taken over at once.
const MAX_TAKEN_OVER: usize = 4;
/// A home that did not want a block so long ago may have come to it by now: it is asked once more before a holder is.
const HOME_CHANGES_AFTER: Duration = Duration::from_millis(20);
/// What may be in flight beyond the window for a reader that waits.
const DEMAND_RESERVE_BYTES: u64 = 8 * 1024 * 1024;
/// What a peer is taken to do until it showed its speed, in bytes a second: enough to be tried.
const UNKNOWN_RATE: f64 = 16e6;

pub(super) enum Choice {
    /// Ask the peer for the block, and count so many bytes as in flight from it.
    Ask(PeerNumber, u64),
    /// Wait until the fellow can be asked.
    Backlog(PeerNumber),
    /// Whoever has it has enough to do.
    Full,
    /// Nobody is known.
    Seek,
}

impl Engine {
    /// Sends out what can be.
    pub(super) fn schedule(&mut self, now: Instant) {
        for urgency in [Urgency::Demand, Urgency::ReadAhead, Urgency::Background] {
            let mut ids: Vec<SessionId> =
                self.sessions.iter().filter(|(_, session)| session.has_queued(urgency)).map(|(id, _)| *id).collect();
            if ids.is_empty() {
                continue;
            }
            // Sessions take turns in going first.
            let turn = self.turn % ids.len();
            ids.rotate_left(turn);
            for id in ids {
                if urgency < Urgency::Demand {
                    self.schedule_backlogs(now, id);
                }
                self.schedule_session(now, id, urgency);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.take_over(now, id);
        }
    }

    /// Where a session has nothing left to ask for and a holder has time, blocks are taken over from the fellow that has
    /// most of them still to get: homes are spread by chance, and some have more to do than others. The fellow is told so
    /// by a cancel, and gets the block from us, who ask the holder at once. As many as the session has to spare, for the fellow may have asked already.
    fn take_over(&mut self, now: Instant, id: SessionId) {
        for _ in 0..MAX_TAKEN_OVER {
            let Some(session) = self.sessions.get(&id) else { return };
            let has_queued = |urgency| !session.is_queue_empty(urgency);
            if has_queued(Urgency::Background) || has_queued(Urgency::ReadAhead) || session.spare < 1.0 {
                return;
            }
            let Some(holder) = self.idle_holder(now, session) else { return };
            let fellows = session.members.iter().filter(|(_, member)| member.is_fellow(now));
            let fellows = fellows.filter_map(|(number, _)| Some((*number, self.peers.get(number)?)));
            let (mut nodes, mut left, mut most) = (1, 0, None);
            for (number, peer) in fellows {
                nodes += 1;
                left += peer.in_flight;
                // What is queued for us there already is on its way.
                if peer.in_flight >= MIN_TAKEN_FROM && peer.in_flight_bytes == 0 && peer.queued_for_us == 0 {
                    most = most.max(Some((peer.in_flight, number)));
                }
            }
            let Some((has_left, number)) = most else { return };
            // It has twice its share: less than that is chance.
            if has_left * nodes < 2 * left {
                return;
            }
            // What it was asked for last it will get last.
            let newest = self.peers[&number].asks.iter().rev().take(TAKEN_FROM_LAST);
            let own = self.own;
            let may_take = |(at, key): &&(Instant, Key)| {
                let is_open = self.wants.get(key).is_some_and(|want| {
                    want.session == id
                        && want.ask(holder).is_none()
                        && want.ask(number).is_some_and(|ask| ask.charged == Some(0) && ask.at == *at)
                });
                is_open && now.saturating_duration_since(*at) > TAKEN_AFTER
            };
            // Each node would take other ones.
            let Some((_, key)) = newest.filter(may_take).max_by_key(|(_, key)| key.score(own)).cloned() else { return };
            let Some(want) = self.wants.get_mut(&key) else { return };
            want.is_impatient = true;
            want.asks.retain(|ask| ask.peer != number);
            let entry = Entry { cid: want.cid.clone(), priority: 0, ask: Ask::Cancel, send_dont_have: false };
            self.release(number, Some(0));
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.entries.remove(&key);
                peer.late.insert(key.clone());
            }
            self.say_want(number, &key, entry);
            let Some(session) = self.sessions.get_mut(&id) else { return };
            session.spare -= 1.0;
            let charge = session.block_bytes;
            self.ask(now, &key, holder, charge);
            self.stat.taken_over += 1;
        }
    }

    /// A holder that never was a fellow and has room for more. Only such a one may be named to others as who gives us a block:
    /// they wait for us then, and a fellow might be waiting for them.
    fn idle_holder(&self, now: Instant, session: &Session) -> Option<PeerNumber> {
        let is_idle = |number: &PeerNumber| {
            self.peers.get(number).is_some_and(|peer| {
                let in_flight = peer.in_flight_bytes + session.block_bytes;
                !peer.is_stalled && in_flight <= peer.window.limit(session.block_bytes)
            })
        };
        self.holders(now, session).find(is_idle)
    }

    /// The holders of a session that can be asked and are no fellows.
    pub(super) fn holders(&self, now: Instant, session: &Session) -> impl Iterator<Item = PeerNumber> {
        let holders = session
            .members
            .iter()
            .filter(move |(_, member)| member.is_holder && !member.is_fellow(now) && member.misses < MAX_HOLDER_MISSES);
        let holders = holders.filter(|(number, member)| {
            let Some(peer) = self.peers.get(number) else { return false };
            // Who still waits for blocks has not got all, although it gave some.
            peer.is_usable() && (member.fellow_until.is_none() || peer.ledger.wants.is_empty())
        });
        holders.map(|(number, _)| *number)
    }

    fn schedule_session(&mut self, now: Instant, id: SessionId, urgency: Urgency) {
        let mut passed_over = Vec::new();
        while passed_over.len() < MAX_PASSED_OVER {
            let Some(key) = self.sessions.get_mut(&id).and_then(|session| session.queue(urgency).pop_front()) else {
                break;
            };
            let is_current = |want: &Want| want.place == Place::Queued && want.session == id && want.urgency == urgency;
            let Some(want) = self.wants.get(&key).filter(|want| is_current(want)) else { continue };
            let was_asked = !want.asks.is_empty();
            match self.choose(now, id, &key) {
                Choice::Ask(number, charge) => self.ask_home_or(now, &key, number, charge),
                Choice::Backlog(number) => self.put_into_backlog(id, key, number),
                Choice::Seek => self.seek(now, id, &key),
                Choice::Full => {
                    passed_over.push(key);
                    // A want that nobody was asked for yet can go to anybody: none has room.
                    if !was_asked {
                        break;
                    }
                }
            }
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            for key in passed_over.into_iter().rev() {
                session.queue(urgency).push_front(key);
            }
        }
    }

    fn put_into_backlog(&mut self, id: SessionId, key: Key, number: PeerNumber) {
        if let (Some(want), Some(session)) = (self.wants.get_mut(&key), self.sessions.get_mut(&id)) {
            want.place = Place::Backlog(number);
            session.backlogs.entry(number).or_default().push_back(key);
        }
    }

    /// Asks fellows for what waited until they could be asked.
    fn schedule_backlogs(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let fellows: Vec<PeerNumber> = session.backlogs.keys().copied().collect();
        for number in fellows {
            loop {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                let Some(backlog) = session.backlogs.get_mut(&number) else { break };
                let Some(key) = backlog.pop_front() else {
                    session.backlogs.remove(&number);
                    break;
                };
                let is_current = |want: &Want| want.place == Place::Backlog(number) && want.session == id;
                if !self.wants.get(&key).is_some_and(is_current) {
                    continue;
                }
                match self.choose(now, id, &key) {
                    Choice::Ask(number, charge) => self.ask_home_or(now, &key, number, charge),
                    Choice::Backlog(same) if same == number => {
                        if let Some(session) = self.sessions.get_mut(&id) {
                            session.backlogs.entry(number).or_default().push_front(key);
                        }
                        break;
                    }
                    // Its home is another by now.
                    Choice::Backlog(other) => self.put_into_backlog(id, key, other),
                    Choice::Full => {
                        self.requeue(&key);
                    }
                    Choice::Seek => self.seek(now, id, &key),
                }
            }
        }
    }

    /// Chooses whom to ask for a block.
    pub(super) fn choose(&self, now: Instant, id: SessionId, key: &Key) -> Choice {
        let (Some(want), Some(session)) = (self.wants.get(key), self.sessions.get(&id)) else { return Choice::Seek };
        let is_out = |number: PeerNumber| {
            want.ask(number).is_some_and(|ask| match ask.answer {
                Answer::DontHave => true,
                Answer::None => ask.wants_block,
                Answer::Have | Answer::GaveUp => false,
            })
        };
        let is_usable = |number: PeerNumber| self.peers.get(&number).is_some_and(super::Peer::is_usable);
        let shares = want.urgency < Urgency::Demand && !want.is_impatient;
        let is_fellow = |number: &PeerNumber, member: &Member| member.is_fellow(now) && is_usable(*number);
        let ask_fellow = |number: PeerNumber| {
            let has_room = self.peers[&number].in_flight < self.limits.wants_in_flight;
            if has_room { Choice::Ask(number, 0) } else { Choice::Backlog(number) }
        };
        let mut best_fellow: Option<(u64, PeerNumber)> = None;
        let mut home = (key.score(self.own), None);
        for (number, member) in &session.members {
            if is_fellow(number, member) {
                let score = key.score(self.peers[number].identity);
                home = home.max((score, Some(*number)));
                if !is_out(*number) {
                    best_fellow = best_fellow.max(Some((score, *number)));
                }
            }
        }
        if shares {
            match home.1.filter(|number| !is_out(*number)) {
                Some(number) => return ask_fellow(number),
                // The home is we, or does not want the block: whoever is ahead of us has it or gets it.
                None => {
                    if let Some(number) = self.fellow_with(session, want, key, now).filter(|number| !is_out(*number)) {
                        return ask_fellow(number);
                    }
                }
            }
            if let Some((score, number)) = best_fellow
                && score > key.score(self.own)
            {
                return ask_fellow(number);
            }
        }

        let mut best: Option<(f64, PeerNumber)> = None;
        let mut is_full = false;
        for (number, member) in &session.members {
            let has_it = want.ask(*number).is_some_and(|ask| ask.answer == Answer::Have);
            let is_holder = has_it || (member.is_holder && member.misses < MAX_HOLDER_MISSES);
            if !is_holder || is_out(*number) || !is_usable(*number) || (is_fellow(number, member) && !has_it) {
                continue;
            }
            let peer = &self.peers[number];
            // Who still waits for blocks has not got all, although it gave some.
            if member.fellow_until.is_some() && !has_it && !peer.ledger.wants.is_empty() {
                continue;
            }
            let mut limit = peer.window.limit(session.block_bytes);
            if want.urgency == Urgency::Demand {
                limit += DEMAND_RESERVE_BYTES;
            }
            let in_flight = peer.in_flight_bytes + session.block_bytes;
            if peer.in_flight >= self.limits.wants_in_flight || (in_flight > limit && peer.in_flight_bytes > 0) {
                is_full = true;
                continue;
            }
            let mut cost = in_flight as f64 / peer.window.rate().unwrap_or(UNKNOWN_RATE);
            if peer.is_stalled {
                cost += 1000.0;
            }
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, *number));
            }
        }
        match (best, best_fellow) {
            (Some((_, number)), _) => Choice::Ask(number, session.block_bytes),
            (None, _) if is_full => Choice::Full,
            (None, Some((_, number))) => ask_fellow(number),
            (None, None) => Choice::Seek,
        }
    }

    /// A fellow that has the block, or gets it from a holder: it said so, or wants it of us no more.
    fn fellow_with(&self, session: &Session, want: &Want, key: &Key, now: Instant) -> Option<PeerNumber> {
        let is_fellow = |number: &PeerNumber| {
            session.members.get(number).is_some_and(|member| member.is_fellow(now))
                && self.peers.get(number).is_some_and(super::Peer::is_usable)
        };
        let said_have = want.asks.iter().filter(|ask| ask.answer == Answer::Have).map(|ask| ask.peer);
        said_have.chain(self.hints.peek(key).copied()).find(is_fellow)
    }

    /// Asks a peer for a block, or its home first, where that said long ago that it did not want it.
    fn ask_home_or(&mut self, now: Instant, key: &Key, number: PeerNumber, charge: u64) {
        let home = if charge > 0 { self.home_that_may_want(now, key) } else { None };
        let Some(home) = home else { return self.ask(now, key, number, charge) };
        if let Some(ask) = self.wants.get_mut(key).and_then(|want| want.ask_mut(home)) {
            ask.answer = Answer::GaveUp;
        }
        self.ask(now, key, home, 0);
    }

    /// The home of a block, if it is a fellow that said `DONT_HAVE` some time ago.
    fn home_that_may_want(&self, now: Instant, key: &Key) -> Option<PeerNumber> {
        let want = self.wants.get(key).filter(|want| want.urgency < Urgency::Demand && !want.is_impatient)?;
        if want.asks.is_empty() {
            return None;
        }
        let session = self.sessions.get(&want.session)?;
        let fellows = session.members.iter().filter(|(_, member)| member.is_fellow(now));
        let scores = fellows.filter_map(|(number, _)| Some((key.score(self.peers.get(number)?.identity), *number)));
        let (score, home) = scores.max()?;
        let ask = want.ask(home).filter(|ask| ask.answer == Answer::DontHave && ask.charged.is_none())?;
        let has_room = self.peers[&home].is_usable() && self.peers[&home].in_flight < self.limits.wants_in_flight;
        let is_old = now.saturating_duration_since(ask.at) > HOME_CHANGES_AFTER;
        (score > key.score(self.own) && has_room && is_old).then_some(home)
    }

    /// Asks a peer for a block.
    pub(super) fn ask(&mut self, now: Instant, key: &Key, number: PeerNumber, charge: u64) {
        self.leave_fellows(now, key, charge > 0);
        let (Some(want), Some(peer)) = (self.wants.get_mut(key), self.peers.get_mut(&number)) else { return };
        let ask = PeerAsk { peer: number, wants_block: true, at: now, answer: Answer::None, charged: Some(charge) };
        match want.ask_mut(number) {
            Some(old) => {
                debug_assert!(old.charged.is_none(), "a peer is asked once for a block");
                *old = ask;
            }
            None => want.asks.push(ask),
        }
        want.place = Place::Asked;
        if peer.in_flight == 0 {
            peer.last_heard = now;
            peer.is_stalled = false;
        }
        if peer.in_flight_bytes == 0 && charge > 0 {
            peer.window.begin(now);
        }
        peer.in_flight += 1;
        peer.in_flight_bytes += charge;
        peer.asks.push_back((now, key.clone()));
        peer.entries.insert(key.clone());
        let entry = Entry { cid: want.cid.clone(), priority: want.priority(), ask: Ask::Block, send_dont_have: true };
        self.say_want(number, key, entry);
    }

    /// A block is asked of somebody else: fellows that did not have it should not send it too when they get it. Where a
    /// holder is asked they are told that we get it, by a cancel; else they still say when they have it.
    fn leave_fellows(&mut self, now: Instant, key: &Key, asks_holder: bool) {
        let Some(want) = self.wants.get_mut(key) else { return };
        let Some(session) = self.sessions.get(&want.session) else { return };
        let mut fellows = Vec::new();
        for ask in &mut want.asks {
            let is_fellow = session.members.get(&ask.peer).is_some_and(|member| member.is_fellow(now));
            if is_fellow && ask.answer == Answer::DontHave && (asks_holder || ask.wants_block) {
                ask.wants_block = false;
                fellows.push(ask.peer);
            }
        }
        let (ask, priority) = if asks_holder { (Ask::Cancel, 0) } else { (Ask::Have, want.priority()) };
        let entry = Entry { cid: want.cid.clone(), priority, ask, send_dont_have: !asks_holder };
        if asks_holder {
            want.asks.retain(|ask| !fellows.contains(&ask.peer));
        }
        for number in fellows {
            self.say_want(number, key, entry.clone());
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.late.insert(key.clone());
                if asks_holder {
                    peer.entries.remove(key);
                }
            }
        }
    }

    /// Asks a peer whether it has a block.
    fn probe(&mut self, now: Instant, key: &Key, number: PeerNumber) {
        let (Some(want), Some(peer)) = (self.wants.get_mut(key), self.peers.get_mut(&number)) else { return };
        want.asks.push(PeerAsk { peer: number, wants_block: false, at: now, answer: Answer::None, charged: None });
        peer.entries.insert(key.clone());
        let entry = Entry { cid: want.cid.clone(), priority: want.priority(), ask: Ask::Have, send_dont_have: true };
        self.say_want(number, key, entry);
    }

    /// Nobody is known who has the block: whoever is connected is asked, and providers are looked for.
    fn seek(&mut self, now: Instant, id: SessionId, key: &Key) {
        let (Some(want), Some(session)) = (self.wants.get_mut(key), self.sessions.get_mut(&id)) else { return };
        want.place = Place::Seeking;
        session.seeking.insert(key.clone());
        let cid = want.cid.clone();
        self.dial_holders(id);
        let mut probed = 0;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.seeking.len() <= MAX_PROBED_WANTS {
            let connected: Vec<PeerNumber> =
                self.peers.iter().filter(|(_, peer)| peer.is_usable()).map(|(number, _)| *number).collect();
            for number in connected {
                if probed < MAX_SESSION_PEERS && self.wants[key].ask(number).is_none() {
                    self.probe(now, key, number);
                    probed += 1;
                }
            }
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.search_at.is_none() {
            if probed == 0 {
                session.search_at = Some(now + session.search_every);
                self.commands.push_back(Command::Search { session: id, cid });
            } else {
                session.search_at = Some(now + SEARCH_AFTER);
            }
        }
    }

    /// Connects to the holders of a session that are known and not connected.
    pub(super) fn dial_holders(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        for (number, _) in session.members.iter().filter(|(_, member)| member.is_holder) {
            if let Some(peer) = self.peers.get_mut(number)
                && !peer.is_connected
                && !peer.is_dialing
                && peer.aside_until.is_none()
            {
                peer.is_dialing = true;
                self.commands.push_back(Command::Dial { peer: *number });
            }
        }
    }

    /// A want goes back into the queue of its session, before the others of its kind.
    pub(super) fn requeue(&mut self, key: &Key) {
        if self.wants.get(key).is_some_and(|want| want.place != Place::Queued) {
            self.enqueue(key);
        }
    }

    /// The same for a want that may be in another queue, where it counts no more.
    pub(super) fn enqueue(&mut self, key: &Key) {
        let Some(want) = self.wants.get_mut(key) else { return };
        let Some(session) = self.sessions.get_mut(&want.session) else { return };
        session.seeking.remove(key);
        want.place = Place::Queued;
        session.queue(want.urgency).push_front(key.clone());
    }

    /// Somebody who may have the session's blocks has turned up: what nobody had is asked for again.
    pub(super) fn holder_found(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.search_at = None;
        session.search_every = FIRST_SEARCH_PAUSE;
        let mut keys: Vec<Key> = std::mem::take(&mut session.seeking).into_iter().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(self.wants.get(key).map(|want| want.sequence)));
        for key in keys {
            self.requeue(&key);
        }
    }

    /// A peer can be asked now: it is, for what nobody else has.
    pub(super) fn peer_is_usable(&mut self, now: Instant, number: PeerNumber) {
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| !session.seeking.is_empty()).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(session) = self.sessions.get(&id) else { continue };
            if session.members.get(&number).is_some_and(|member| member.is_holder) {
                self.holder_found(id);
                continue;
            }
            let mut keys: Vec<Key> = session.seeking.iter().cloned().collect();
            keys.sort_by_key(|key| self.wants.get(key).map(|want| want.sequence));
            for key in keys.into_iter().take(MAX_PROBED_WANTS) {
                if self.wants.get(&key).is_some_and(|want| want.ask(number).is_none()) {
                    self.probe(now, &key, number);
                }
            }
        }
    }

    /// A peer wants a block: if it is one of a session's, the peer is a fellow.
    pub(super) fn note_fellow(&mut self, now: Instant, number: PeerNumber, key: &Key) {
        let of_root = self.roots.get(key).map(|(id, _)| *id);
        let Some(id) = of_root.or_else(|| self.wants.get(key).map(|want| want.session)) else {
            // A fellow that is ahead of us wants what we do not want yet, and one that is behind what we have.
            return self.renew_fellow(now, number);
        };
        if let Some(member) = self.member(id, number)
            && member.no_fellow_before.is_none_or(|until| until <= now)
        {
            member.fellow_until = Some(now + FELLOW_FOR);
            member.no_fellow_before = None;
        }
    }

    /// A peer wants something: it is what it was to the sessions that it shares with us.
    fn renew_fellow(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get(&number) else { return };
        for id in &peer.sessions {
            let member = self.sessions.get_mut(id).and_then(|session| session.members.get_mut(&number));
            if let Some(until) = member.and_then(|member| member.fellow_until.as_mut()) {
                *until = now + FELLOW_FOR;
            }
        }
    }

    /// A peer did not have a block that it was asked for.
    pub(super) fn note_miss(&mut self, now: Instant, id: SessionId, number: PeerNumber) {
        if let Some(member) = self.member(id, number)
            && member.is_fellow(now)
            && member.misses >= MAX_FELLOW_MISSES
        {
            member.misses = 0;
            member.fellow_until = None;
            member.no_fellow_before = Some(now + NO_FELLOW_FOR);
        }
    }
}
