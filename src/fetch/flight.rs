//! Fetches in flight: one for each block, whoever waits for it.
//!
//! Who asks for a block that is on its way joins those that wait for it, and what is wanted most decides how much the fetch is
//! wanted. It runs as a task of its own: it waits for its [place](super::places), races the [sources](super::source), and
//! lands with a block or with what was tried. When the last who waited has gone, it is dropped with all that it asked for.
//!
//! A fetch has no deadline; those who wait have: `fetch.timeout` counted from the last byte that arrived for the block or its
//! session, or from their own beginning, and [`FETCH_PATIENCE`] times as long in all. A failure is remembered for a while.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::failures::Failures;
use super::keep::Keeper;
use super::places::{Place, Places};
use super::recent::{End, FetchReport, Log, Recent};
use super::source::{Request, Source};
use super::{FetchError, Priority};
use crate::block::{Block, Cid, codec};
use crate::limits::{FETCH_PATIENCE, MAX_FETCH_SESSIONS};
use crate::store::Store;

/// After so many head starts the next source is asked, however much the ones before it have to show.
const MAX_HEAD_STARTS: u32 = 25;

/// Everything that is in flight, and what it takes to fly.
pub(super) struct Flights {
    pub store: Store,
    pub keeper: Keeper,
    pub failures: Failures,
    pub recent: Recent,
    pub counters: Counters,
    runtime: Handle,
    sources: ArcSwap<Vec<Arc<dyn Source>>>,
    /// Moves when there is a new source.
    new_source: watch::Sender<u64>,
    table: Mutex<HashMap<Cid, Arc<Flight>>>,
    places: Arc<Places>,
    /// Which source brought the last block of each session: it gets no handicap.
    winners: Mutex<LruCache<Cid, Arc<str>>>,
    /// Blocks and bytes of each session, by who sent them.
    sessions: Mutex<LruCache<Cid, Brought>>,
}

type Brought = HashMap<Arc<str>, (u64, u64)>;

/// A whole DAG on its way in one go. Dropped, it stops.
pub(crate) struct Bulk(AbortHandle);

impl Drop for Bulk {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What was done since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub begun: AtomicU64,
    pub joined: AtomicU64,
    pub failed: AtomicU64,
    pub dropped: AtomicU64,
    pub refused: AtomicU64,
    /// Blocks and bytes by whoever sent them.
    pub brought: Mutex<Brought>,
}

/// One block on its way.
pub(super) struct Flight {
    log: Arc<Log>,
    priority: watch::Sender<Priority>,
    outcome: watch::Sender<Option<Outcome>>,
    /// Changed under the lock of the table only.
    waiting: AtomicU64,
    /// Whether any of those that wait leaves the keeping to us.
    keeps: AtomicBool,
    task: OnceLock<AbortHandle>,
}

#[derive(Clone, Debug)]
enum Outcome {
    Here(Block),
    Failed(Arc<str>),
}

/// Somebody who waits for a block. Dropped, it does not any more.
pub(crate) struct Waiter {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
    outcome: watch::Receiver<Option<Outcome>>,
    timeout: Duration,
    /// Why it gave up.
    gave_up: Option<String>,
}

impl Flights {
    pub fn new(store: Store, runtime: Handle) -> std::io::Result<Arc<Flights>> {
        Ok(Arc::new(Flights {
            keeper: Keeper::start(store.clone())?,
            store,
            failures: Failures::new(),
            recent: Recent::default(),
            counters: Counters::default(),
            runtime,
            sources: ArcSwap::default(),
            new_source: watch::Sender::new(0),
            table: Mutex::default(),
            places: Arc::default(),
            winners: Mutex::new(LruCache::new(MAX_FETCH_SESSIONS)),
            sessions: Mutex::new(LruCache::new(MAX_FETCH_SESSIONS)),
        }))
    }

    /// One more source; what could not be had before may be there.
    pub fn add_source(&self, source: &Arc<dyn Source>) {
        self.sources.rcu(|sources| {
            let mut sources = Vec::clone(sources);
            sources.push(source.clone());
            sources.sort_by_key(|source| source.head_start());
            sources
        });
        self.failures.clear();
        self.new_source.send_modify(|count| *count += 1);
    }

    pub fn sources(&self) -> arc_swap::Guard<Arc<Vec<Arc<dyn Source>>>> {
        self.sources.load()
    }

    /// How many fetches run and how many wait for their turn.
    pub fn count(&self) -> (usize, usize) {
        self.places.count()
    }

    /// Waits for `cid` with those who do, or has it fetched.
    pub fn join(
        self: &Arc<Self>,
        cid: &Cid,
        session: Option<&Cid>,
        priority: Priority,
        timeout: Duration,
        keeps: bool,
    ) -> Result<Waiter, FetchError> {
        let mut table = self.table.lock();
        if let Some(flight) = table.get(cid).cloned() {
            flight.waiting.fetch_add(1, Ordering::Relaxed);
            flight.keeps.fetch_or(keeps, Ordering::Relaxed);
            flight.priority.send_if_modified(|now| {
                let raised = *now < priority;
                *now = (*now).max(priority);
                raised
            });
            drop(table);
            self.counters.joined.fetch_add(1, Ordering::Relaxed);
            return Ok(self.waiter(flight, timeout));
        }
        if let Some((ago, tried)) = self.failures.get(cid) {
            drop(table);
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(FetchError::NotFound { cid: cid.clone(), tried: format!("{} s ago {tried}", ago.as_secs()) });
        }
        let flight = Arc::new(Flight {
            log: Arc::new(Log::new(cid.clone(), session.cloned())),
            priority: watch::Sender::new(priority),
            outcome: watch::Sender::new(None),
            waiting: AtomicU64::new(1),
            keeps: AtomicBool::new(keeps),
            task: OnceLock::new(),
        });
        let (flights, flown) = (self.clone(), flight.clone());
        let task = self.runtime.spawn(async move {
            let mut landing = Landing { flights: &flights, flight: &flown, landed: false };
            let outcome = flights.fly(&flown).await;
            landing.land(outcome);
        });
        let _ = flight.task.set(task.abort_handle());
        // Whoever finds it in the table can end it.
        table.insert(cid.clone(), flight.clone());
        drop(table);
        self.counters.begun.fetch_add(1, Ordering::Relaxed);
        Ok(self.waiter(flight, timeout))
    }

    fn waiter(self: &Arc<Self>, flight: Arc<Flight>, timeout: Duration) -> Waiter {
        Waiter { flights: self.clone(), outcome: flight.outcome.subscribe(), flight, timeout, gave_up: None }
    }

    /// A block has come in by another way: whoever waits for it has it.
    pub fn arrived(&self, block: &Block) {
        self.failures.forget(block.cid());
        let Some(flight) = self.table.lock().remove(block.cid()) else { return };
        self.recent.push(&flight.log, flight.priority(), &End::Fetched(block.data().len()));
        flight.outcome.send_replace(Some(Outcome::Here(block.clone())));
        flight.abort();
    }

    /// Takes in a block that nobody needs to have asked for: it is kept, and whoever waits for it has it. Blocks the thread
    /// while the disk is behind.
    pub fn take_in(&self, block: &Block, root: Option<&Cid>, whom: &str) {
        self.count_brought(root, whom, block.data().len());
        let keeper = &self.keeper;
        // Kept first: who asks after the fetch has landed must find it.
        self.runtime.block_on(keeper.put(block, root));
        let flight = self.table.lock().get(block.cid()).cloned();
        if let Some(flight) = flight {
            let (source, whom) = whom.split_once(' ').unwrap_or((whom, ""));
            flight.log.brought_by(source, whom);
            if flight.priority() > Priority::Background || block.cid().codec() != codec::RAW {
                self.store.keep_in_ram(block);
            }
        }
        self.arrived(block);
    }

    /// What is known of the fetches of `cid`, and of those for it as a root: those in flight, and the recent ones.
    pub fn about(&self, cid: &Cid) -> Vec<FetchReport> {
        let flights: Vec<Arc<Flight>> = self.table.lock().values().cloned().collect();
        let is_about = |flight: &&Arc<Flight>| flight.log.cid == *cid || flight.log.session.as_ref() == Some(cid);
        let in_flight = flights.iter().filter(is_about).map(|flight| flight.log.report(flight.priority(), None));
        let mut reports: Vec<FetchReport> = in_flight.collect();
        reports.extend(self.recent.about(cid));
        reports.sort_by_key(|report| (report.cid != cid.to_string(), Reverse(report.milliseconds)));
        reports
    }

    fn count_brought(&self, session: Option<&Cid>, whom: &str, len: usize) {
        count(&mut self.counters.brought.lock(), whom, len);
        if let Some(session) = session {
            let mut sessions = self.sessions.lock();
            count(sessions.get_or_insert_mut(session.clone(), Brought::new), whom, len);
        }
    }

    /// What came in for a root, by who sent it, most first.
    pub fn brought(&self, root: &Cid) -> Vec<(String, u64, u64)> {
        let mut sessions = self.sessions.lock();
        let Some(brought) = sessions.get(root) else { return Vec::new() };
        let mut list: Vec<(String, u64, u64)> =
            brought.iter().map(|(whom, (blocks, bytes))| (whom.to_string(), *blocks, *bytes)).collect();
        list.sort_by_key(|(_, _, bytes)| Reverse(*bytes));
        list
    }

    /// Has the DAG below `root` sent in one go, if who brought the last block of `session` has a way to.
    pub fn start_bulk(self: &Arc<Self>, session: &Cid, root: &Block) -> Option<Bulk> {
        let winner = self.winners.lock().get(session).cloned()?;
        let source = self.sources.load().iter().find(|source| source.name() == &*winner).cloned()?;
        let log = Arc::new(Log::new(root.cid().clone(), Some(session.clone())));
        let (_, priority) = watch::channel(Priority::Background);
        let request = Request::new(log.clone(), priority, source.name());
        let (flights, of) = (Arc::downgrade(self), session.clone());
        let take = move |block: Block, whom: &str| match flights.upgrade() {
            Some(flights) => {
                flights.take_in(&block, Some(&of), whom);
                true
            }
            None => false,
        };
        let sending = source.fetch_dag(request, root, Arc::new(take))?;
        let flights = Arc::downgrade(self);
        let task = self.runtime.spawn(async move {
            let end = match sending.await {
                Ok(()) => End::Fetched(0),
                Err(error) => End::Failed(error.to_string()),
            };
            if let Some(flights) = flights.upgrade() {
                flights.recent.push(&log, Priority::Background, &end);
            }
        });
        Some(Bulk(task.abort_handle()))
    }

    async fn fly(&self, flight: &Flight) -> Outcome {
        let cid = &flight.log.cid;
        // Another fetch may have landed between the look into the store and the beginning of this one.
        if let Some(block) = self.keeper.get(cid) {
            return Outcome::Here(block);
        }
        if self.store.has(cid)
            && let Ok(Some(block)) = self.store.get(cid)
        {
            return Outcome::Here(block);
        }
        let mut priority = flight.priority.subscribe();
        let mut place = self.places.take(&mut priority).await;
        let outcome = self.race(flight, &mut priority, &mut place).await;
        drop(place);
        if let Outcome::Here(block) = &outcome {
            self.keep(flight, block).await;
        }
        outcome
    }

    /// Keeps a block for those who will ask for it.
    async fn keep(&self, flight: &Flight, block: &Block) {
        let priority = flight.priority();
        if priority > Priority::Background {
            self.store.keep_in_ram(block);
        }
        if !flight.keeps.load(Ordering::Relaxed) {
            return;
        }
        if priority == Priority::Demand {
            self.keeper.offer(block, flight.log.session.as_ref());
        } else {
            self.keeper.put(block, flight.log.session.as_ref()).await;
        }
    }

    /// Asks the sources, one after the other by their head starts, until one brings the block or all have given up.
    async fn race(&self, flight: &Flight, priority: &mut watch::Receiver<Priority>, place: &mut Place) -> Outcome {
        let log = &flight.log;
        let begun = Instant::now();
        let winner = log.session.as_ref().and_then(|session| self.winners.lock().get(session).cloned());
        let mut new_source = self.new_source.subscribe();
        let mut known = Vec::clone(&self.sources.load());
        let mut waiting: VecDeque<Arc<dyn Source>> = known.iter().cloned().collect();
        if let Some(winner) = winner
            && let Some(at) = waiting.iter().position(|source| source.name() == &*winner)
            && let Some(source) = waiting.remove(at)
        {
            waiting.push_front(source);
        }
        let mut running = FuturesUnordered::new();
        let mut tried: Vec<String> = Vec::new();
        loop {
            let due = |source: &Arc<dyn Source>| {
                let quiet_since = known.iter().filter_map(|known| known.last_progress(log.session.as_ref()));
                let quiet_since = quiet_since.fold(log.last_progress().max(begun), Instant::max);
                let head_start = source.head_start();
                (quiet_since + head_start).min(begun + head_start * MAX_HEAD_STARTS)
            };
            let mut next = None;
            while let Some(source) = waiting.front() {
                let at = due(source);
                if !running.is_empty() && at > Instant::now() {
                    next = Some(at);
                    break;
                }
                let Some(source) = waiting.pop_front() else { break };
                let request = Request::new(log.clone(), flight.priority.subscribe(), source.name());
                running.push(async move {
                    let result = source.fetch(request).await;
                    (source, result)
                });
            }
            if running.is_empty() {
                let tried = if tried.is_empty() { "there is nobody to ask".to_owned() } else { tried.join("; ") };
                return Outcome::Failed(tried.into());
            }
            let next = tokio::time::sleep_until(next.unwrap_or_else(|| begun + FAR).into());
            tokio::select! {
                biased;
                Some((source, result)) = running.next() => match result {
                    Ok(block) if *block.cid() == log.cid => {
                        self.won(&*source, log, &block);
                        return Outcome::Here(block);
                    }
                    Ok(block) => tried.push(format!("{} brought {} instead", source.name(), block.cid())),
                    Err(error) => {
                        log.note(source.name(), "", error.to_string());
                        tried.push(format!("{}: {error}", source.name()));
                    }
                },
                Ok(()) = priority.changed() => place.raise(*priority.borrow_and_update()),
                Ok(()) = new_source.changed() => {
                    for source in self.sources.load().iter() {
                        if !known.iter().any(|known| Arc::ptr_eq(known, source)) {
                            known.push(source.clone());
                            waiting.push_back(source.clone());
                        }
                    }
                }
                () = next => {}
            }
        }
    }

    fn won(&self, source: &dyn Source, log: &Log, block: &Block) {
        let from = log.from().unwrap_or_else(|| {
            log.brought_by(source.name(), "");
            source.name().to_owned()
        });
        self.count_brought(log.session.as_ref(), &from, block.data().len());
        if let Some(session) = &log.session {
            let mut winners = self.winners.lock();
            if winners.get(session).is_none_or(|winner| **winner != *source.name()) {
                winners.put(session.clone(), source.name().into());
            }
        }
    }
}

/// Long enough for a sleep that nobody waits for.
const FAR: Duration = Duration::from_hours(1);

/// Counts a block.
fn count(brought: &mut Brought, whom: &str, len: usize) {
    // Whoever sends is known by a bounded number of names; past it they are counted together.
    let name: Arc<str> =
        if brought.contains_key(whom) || brought.len() < MAX_SENDERS { whom.into() } else { "others".into() };
    let (blocks, bytes) = brought.entry(name).or_default();
    *blocks += 1;
    *bytes += len as u64;
}

/// Senders that are counted one by one.
const MAX_SENDERS: usize = 1024;

impl Flight {
    fn priority(&self) -> Priority {
        *self.priority.borrow()
    }

    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// Sees to it that a fetch lands, also one that panics.
struct Landing<'a> {
    flights: &'a Flights,
    flight: &'a Arc<Flight>,
    landed: bool,
}

impl Landing<'_> {
    fn land(&mut self, outcome: Outcome) {
        self.landed = true;
        let (flights, flight) = (self.flights, self.flight);
        {
            let mut table = flights.table.lock();
            match table.get(&flight.log.cid) {
                Some(known) if Arc::ptr_eq(known, flight) => {
                    if let Outcome::Failed(tried) = &outcome {
                        flights.failures.remember(&flight.log.cid, tried.clone());
                    }
                    table.remove(&flight.log.cid);
                }
                // It arrived by another way, or nobody wanted it any more.
                _ => return,
            }
        }
        let end = match &outcome {
            Outcome::Here(block) => End::Fetched(block.data().len()),
            Outcome::Failed(tried) => {
                flights.counters.failed.fetch_add(1, Ordering::Relaxed);
                End::Failed(tried.to_string())
            }
        };
        flights.recent.push(&flight.log, flight.priority(), &end);
        flight.outcome.send_replace(Some(outcome));
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        if !self.landed {
            self.land(Outcome::Failed("the fetch broke off".into()));
        }
    }
}

impl Waiter {
    /// The block, where it has arrived.
    pub fn arrived(&self) -> Option<Block> {
        match &*self.outcome.borrow() {
            Some(Outcome::Here(block)) => Some(block.clone()),
            _ => None,
        }
    }

    /// The block, or why it cannot be had in time.
    pub async fn wait(mut self) -> Result<Block, FetchError> {
        let begun = Instant::now();
        let end = begun + self.timeout * FETCH_PATIENCE;
        let mut sleep = {
            // The first poll may be on a thread without a runtime.
            let _runtime = self.flights.runtime.enter();
            Box::pin(tokio::time::sleep_until(self.deadline(begun, end).into()))
        };
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = self.outcome.wait_for(Option::is_some) => outcome.ok().and_then(|outcome| outcome.clone()),
                () = &mut sleep => None,
            };
            let cid = || self.flight.log.cid.clone();
            match outcome {
                Some(Outcome::Here(block)) => return Ok(block),
                Some(Outcome::Failed(tried)) => {
                    return Err(FetchError::NotFound { cid: cid(), tried: tried.to_string() });
                }
                None => {}
            }
            let deadline = self.deadline(begun, end);
            if Instant::now() >= deadline {
                let tried = self.timed_out(begun, end);
                let cid = cid();
                self.flights.failures.remember(&cid, tried.as_str().into());
                self.gave_up = Some(tried.clone());
                return Err(FetchError::NotFound { cid, tried });
            }
            sleep.as_mut().reset(deadline.into());
        }
    }

    /// Until when something must arrive.
    fn deadline(&self, begun: Instant, end: Instant) -> Instant {
        let log = &self.flight.log;
        let sources = self.flights.sources.load();
        let progress = sources.iter().filter_map(|source| source.last_progress(log.session.as_ref()));
        let progress = progress.fold(log.last_progress().max(begun), Instant::max);
        (progress + self.timeout).min(end)
    }

    fn timed_out(&self, begun: Instant, end: Instant) -> String {
        let why = if Instant::now() >= end {
            format!("it did not come whole in {:.1} s", begun.elapsed().as_secs_f64())
        } else {
            format!("nothing of it came in {:.1} s", self.timeout.as_secs_f64())
        };
        match self.flight.log.summary() {
            asked if asked.is_empty() => why,
            asked => format!("{why} ({asked})"),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let (flights, flight) = (&self.flights, &self.flight);
        let mut table = flights.table.lock();
        if flight.waiting.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        // Where it has landed, another fetch of the block may have begun.
        if table.get(&flight.log.cid).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            table.remove(&flight.log.cid);
            drop(table);
            flight.abort();
            let (counter, end) = match self.gave_up.take() {
                Some(why) => (&flights.counters.failed, End::Failed(why)),
                None => (&flights.counters.dropped, End::Dropped),
            };
            counter.fetch_add(1, Ordering::Relaxed);
            flights.recent.push(&flight.log, flight.priority(), &end);
        }
    }
}
