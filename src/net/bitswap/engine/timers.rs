//! What happens when nothing happens.
//!
//! - A block that takes longer than 95 of 100 do is asked of a second holder too (a *hedge*), within a budget that keeps
//!   duplicates below 1%.
//! - A peer that says nothing while something is in flight from it has *stalled*: what it was asked for is asked of others.
//!   It is put aside when it stays silent.
//! - A fellow that passes nothing on is no fellow; and when nothing else is left to do, what fellows are slow to get is
//!   fetched without them. Slow is what takes much longer than fellows usually do, and there is a budget too: where everybody
//!   waits for a processor, all look slow to all.
//! - While nobody has a block, providers are looked for again and again, more and more rarely.

use std::time::{Duration, Instant};

use super::schedule::Choice;
use super::session::{MAX_SEARCH_PAUSE, Session};
use super::wants::{Answer, Key, Place};
use super::{Command, Engine, FIRST_ASIDE, MAX_ASIDE, PeerNumber};
use crate::net::bitswap::message::{Ask, Entry};
use crate::net::bitswap::{SessionId, Urgency};

/// How often timers are looked at while there is anything to wait for.
const TICK: Duration = Duration::from_millis(50);
/// A block is not hedged before then, and a reader's block not before a quarter of it.
const MIN_HEDGE: Duration = Duration::from_millis(200);
/// The same while it is not known how long blocks take.
const FIRST_HEDGE: Duration = Duration::from_millis(500);
/// The oldest blocks of a peer that are looked at in each tick.
const OLDEST: usize = 16;
/// How long a fellow may pass nothing on, and a block of a fellow may take when nothing else is left to do.
const MIN_PATIENCE: Duration = Duration::from_secs(2);
const MAX_PATIENCE: Duration = Duration::from_secs(30);
/// How many times as long as fellows usually take one may take.
const FELLOW_PATIENCE: u32 = 4;
/// How long a fellow that passed nothing on is none.
const NO_FELLOW_FOR: Duration = Duration::from_secs(5);
/// A `DONT_HAVE` counts for so long while nobody else has the block.
const DONT_HAVE_FOR: Duration = Duration::from_secs(10);

impl Engine {
    /// When [`Engine::flush`] has something to do although nothing happened.
    pub fn deadline(&self) -> Option<Instant> {
        let is_idle = self.wants.is_empty() && self.recent_order.is_empty() && self.owed.is_empty();
        (!is_idle || !self.held.is_empty()).then(|| self.last_tick + TICK)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        if now < self.last_tick + TICK {
            return;
        }
        self.last_tick = now;
        self.say_owed(now);
        self.forget_recent(now);
        self.held.expire(now);
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            self.check_aside(now, number);
            self.check_silence(now, number);
            self.check_oldest(now, number);
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.check_search(now, id);
        }
    }

    /// Ends the time that a peer was put aside for.
    fn check_aside(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        if peer.aside_until.is_none_or(|until| until > now) {
            return;
        }
        peer.aside_until = None;
        peer.is_stalled = false;
        self.dirty.insert(number);
        if peer.is_connected {
            self.peer_is_usable(now, number);
        }
    }

    fn check_silence(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get(&number) else { return };
        let silence = now.saturating_duration_since(peer.last_heard);
        if !peer.is_connected {
            return;
        }
        if (peer.in_flight_bytes > 0 || peer.is_stalled) && silence > self.limits.answer_timeout {
            self.stat.timeouts += 1;
            self.put_aside(now, number, None);
        } else if peer.in_flight_bytes > 0 && silence > peer.stall_after() {
            self.stall(now, number);
        } else if peer.in_flight > 0 && peer.in_flight_bytes == 0 && silence > self.patience(number) {
            for id in peer.sessions.clone() {
                if let Some(member) = self.member(id, number) {
                    member.fellow_until = None;
                    member.no_fellow_before = Some(now + NO_FELLOW_FOR);
                }
            }
            self.ask_others(number, |charge| charge == 0);
        }
        // Whoever waits for blocks of us wants the same ones still.
        let Some(peer) = self.peers.get(&number) else { return };
        if !peer.ledger.wants.is_empty() {
            for id in peer.sessions.clone() {
                if let Some(member) = self.member(id, number)
                    && let Some(until) = &mut member.fellow_until
                    && *until > now
                {
                    *until = (*until).max(now + TICK * 4);
                }
            }
        }
    }

    /// How long a fellow may pass nothing on: as long as blocks take to get anywhere, several times, and as fellows do.
    fn patience(&self, number: PeerNumber) -> Duration {
        let Some(peer) = self.peers.get(&number) else { return MIN_PATIENCE };
        let sessions = peer.sessions.iter().filter_map(|id| self.sessions.get(id));
        let usual = |session: &Session| {
            (session.latencies.p95().unwrap_or_default() * 8).max(session.fellow_latency * FELLOW_PATIENCE)
        };
        sessions.map(usual).max().unwrap_or_default().clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    /// What a silent peer was asked for is asked of others. It may still come. Where fellows alone are left it is waited for: they
    /// would get it from the same peer, or wait for us.
    fn stall(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        self.stat.stalls += u64::from(!std::mem::replace(&mut peer.is_stalled, true));
        let sessions = self.peers[&number].sessions.iter().filter_map(|id| self.sessions.get(id));
        let mut waits = sessions.map(|session| {
            let has_fellow = session.members.values().any(|member| member.is_fellow(now));
            has_fellow && !self.holders(now, session).any(|other| other != number && !self.peers[&other].is_stalled)
        });
        if !waits.any(|waits| waits) {
            self.ask_others(number, |_| true);
        }
    }

    /// Asks others for what is in flight from a peer, where `which` says so of what it is counted for.
    fn ask_others(&mut self, number: PeerNumber, which: impl Fn(u64) -> bool) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        for (_, key) in std::mem::take(&mut peer.asks).into_iter().rev() {
            let Some(ask) = self.wants.get_mut(&key).and_then(|want| want.ask_mut(number)) else { continue };
            match ask.charged {
                Some(charge) if which(charge) => {
                    let charged = ask.charged.take();
                    self.release(number, charged);
                    if !self.wants[&key].is_in_flight() {
                        self.requeue(&key);
                    }
                }
                Some(_) => {
                    let at = ask.at;
                    if let Some(peer) = self.peers.get_mut(&number) {
                        peer.asks.push_front((at, key));
                    }
                }
                None => {}
            }
        }
    }

    /// Looks at the blocks that a peer was asked for long ago.
    fn check_oldest(&mut self, now: Instant, number: PeerNumber) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let is_open = |key: &Key, at: Instant| {
            let ask = self.wants.get(key).and_then(|want| want.ask(number));
            ask.is_some_and(|ask| ask.charged.is_some() && ask.at == at)
        };
        while peer.asks.front().is_some_and(|(at, key)| !is_open(key, *at)) {
            peer.asks.pop_front();
        }
        if peer.asks.len() > 4 * peer.in_flight + OLDEST {
            peer.asks.retain(|(at, key)| is_open(key, *at));
        }
        let oldest: Vec<(Instant, Key)> =
            peer.asks.iter().filter(|(at, key)| is_open(key, *at)).take(OLDEST).cloned().collect();
        for (at, key) in oldest {
            let age = now.saturating_duration_since(at);
            let Some(want) = self.wants.get(&key) else { continue };
            let id = want.session;
            let Some(session) = self.sessions.get(&id) else { continue };
            if want.ask(number).is_some_and(|ask| ask.charged == Some(0)) {
                let may_spare = session.is_queue_empty(want.urgency) && session.spare >= 1.0;
                let patience = if may_spare { self.patience(number) } else { MAX_PATIENCE };
                if age > patience {
                    if let Some(session) = self.sessions.get_mut(&id) {
                        session.spare = (session.spare - 1.0).max(0.0);
                    }
                    self.do_without_fellow(&key, number);
                }
                continue;
            }
            if age > self.limits.answer_timeout {
                // Who sends slowly would be asked to send the same twice, where nobody else can be asked.
                let is_on_its_way = self.peers.get(&number).is_some_and(|peer| peer.trickles(now));
                if !is_on_its_way || !matches!(self.choose(now, id, &key), Choice::Seek | Choice::Full) {
                    self.ask_again(&key, number);
                }
                continue;
            }
            let is_demand = want.urgency == Urgency::Demand;
            let least = if is_demand { MIN_HEDGE / 4 } else { MIN_HEDGE };
            let late = session.latencies.p95().map_or(FIRST_HEDGE, |p95| (p95 + p95 / 2).max(least));
            let in_flight = want.asks.iter().filter(|ask| ask.charged.is_some()).count();
            // Fellows wait for blocks anyway, and ask for what is late when nothing else is left to do.
            let has_fellows = session.members.values().any(|member| member.is_fellow(now));
            let may_hedge = session.hedges >= 1.0 && (is_demand || !has_fellows);
            if age < late || in_flight > 1 || !may_hedge {
                continue;
            }
            if let Choice::Ask(second, charge) = self.choose(now, id, &key)
                && charge > 0
            {
                self.ask(now, &key, second, charge);
                self.stat.hedges += 1;
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.hedges -= 1.0;
                }
            }
        }
    }

    /// A block that was left to a fellow is fetched without it.
    fn do_without_fellow(&mut self, key: &Key, number: PeerNumber) {
        let Some(want) = self.wants.get_mut(key) else { return };
        self.stat.taken_over += 1;
        want.is_impatient = true;
        let charged = want.ask_mut(number).and_then(|ask| ask.charged.take());
        self.release(number, charged);
        self.requeue(key);
    }

    /// A peer answers other wants and not this one: the want or the block was lost.
    fn ask_again(&mut self, key: &Key, number: PeerNumber) {
        let Some(ask) = self.wants.get_mut(key).and_then(|want| want.ask_mut(number)) else { return };
        ask.answer = Answer::GaveUp;
        let charged = ask.charged.take();
        self.release(number, charged);
        self.requeue(key);
    }

    /// Looks for providers again.
    fn check_search(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.search_at.is_none_or(|at| at > now) {
            return;
        }
        if session.seeking.is_empty() {
            session.search_at = None;
            return;
        }
        session.search_at = Some(now + session.search_every);
        session.search_every = (session.search_every * 2).min(MAX_SEARCH_PAUSE);
        let keys: Vec<Key> = session.seeking.iter().cloned().collect();
        let first = keys.iter().filter_map(|key| self.wants.get(key)).min_by_key(|want| want.sequence);
        if let Some(first) = first {
            self.commands.push_back(Command::Search { session: id, cid: first.cid.clone() });
        }
        self.dial_holders(id);
        // Whoever did not have a block may have got it.
        for key in keys {
            let Some(want) = self.wants.get_mut(&key) else { continue };
            let entry =
                Entry { cid: want.cid.clone(), priority: want.priority(), ask: Ask::Have, send_dont_have: true };
            let mut is_old = false;
            let mut probes = Vec::new();
            for ask in &mut want.asks {
                let was_out = ask.answer == Answer::DontHave || (ask.answer == Answer::None && ask.charged.is_none());
                if !was_out || now.saturating_duration_since(ask.at) < DONT_HAVE_FOR {
                    continue;
                }
                if ask.wants_block {
                    ask.answer = Answer::GaveUp;
                    is_old = true;
                } else {
                    ask.at = now;
                    ask.answer = Answer::None;
                    probes.push(ask.peer);
                }
            }
            for number in probes {
                self.say_want(number, &key, entry.clone());
            }
            if is_old {
                self.requeue(&key);
            }
        }
    }

    /// A peer is not asked for a while, and what it was asked for is asked of others.
    pub(super) fn put_aside(&mut self, now: Instant, number: PeerNumber, time: Option<Duration>) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let time = time.unwrap_or((peer.aside_for * 2).clamp(FIRST_ASIDE, MAX_ASIDE));
        peer.aside_for = time.min(MAX_ASIDE);
        peer.aside_until = Some(peer.aside_until.unwrap_or(now).max(now + time));
        peer.is_stalled = false;
        self.drop_asks(number, Some(Answer::GaveUp));
        self.dirty.insert(number);
    }

    /// Nothing more is expected of what a peer was asked. With an answer, the peer is told so and its answer is noted;
    /// without one, it is gone.
    pub(super) fn drop_asks(&mut self, number: PeerNumber, answer: Option<Answer>) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.asks.clear();
        let mut again = Vec::new();
        for key in std::mem::take(&mut peer.entries) {
            let Some(want) = self.wants.get_mut(&key) else { continue };
            let Some(index) = want.asks.iter().position(|ask| ask.peer == number) else { continue };
            let was_asked = want.asks[index].charged.is_some() || want.asks[index].wants_block;
            let charged = want.asks[index].charged.take();
            let cid = want.cid.clone();
            if let Some(answer) = answer {
                want.asks[index].answer = answer;
                if let Some(peer) = self.peers.get_mut(&number) {
                    peer.entries.insert(key.clone());
                }
                let entry = Entry { cid, priority: 0, ask: Ask::Cancel, send_dont_have: false };
                self.say_want(number, &key, entry);
            } else {
                want.asks.swap_remove(index);
            }
            self.release(number, charged);
            let want = &self.wants[&key];
            if was_asked && !want.is_in_flight() {
                again.push((want.sequence, key));
            }
        }
        // The earliest goes back last, which is to the front.
        again.sort();
        for (_, key) in again.into_iter().rev() {
            self.requeue(&key);
        }
        // What waited for it to have room finds another way.
        let Some(peer) = self.peers.get(&number) else { return };
        for id in peer.sessions.clone() {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            for key in session.backlogs.remove(&number).unwrap_or_default().into_iter().rev() {
                if self.wants.get(&key).is_some_and(|want| want.place == Place::Backlog(number)) {
                    self.requeue(&key);
                }
            }
        }
    }
}
