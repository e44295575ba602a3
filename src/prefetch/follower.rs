//! Staying ahead of readers who take files in a known order.
//!
//! A [`Follower`] hands out the files of its order for pushing as long as no more than a *window* of bytes lies ahead of the
//! readers. Files that were pushed are read without a word to us, so one in a while is pushed without its first page: that
//! is a *tripwire*, and the request for the page says how far a reader has come, which confirms everything before it. A
//! window doubles each time it is confirmed by a step as long as what was read elsewhere meanwhile: who reads in no order comes upon
//! any order's files now and then. A reader who comes to files that are not pushed yet has overtaken us; we go on
//! a little ahead of it, so that no file is brought twice.
//!
//! Nothing here does I/O: what was handed out is answered with [`Follower::done`]. What must be fetched from other machines
//! comes back through [`Follower::arrived`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::Rate;
use super::upcoming::{Fate, Order, Progress, Upcoming};
use crate::block::Cid;
use crate::limits::{PREFETCH_BATCH_BYTES, PREFETCH_BATCH_FILES, PREFETCH_WINDOW_BYTES};

/// The first window: what is lost at most where a pattern was none.
const FIRST_WINDOW_BYTES: u64 = 2 << 20;
/// Tripwires in a window: the reader is told from one to be past a quarter of it.
const TRIPWIRES: u64 = 4;
/// Files that are known beyond the next to be pushed, where the order has as many.
const KNOWN_AHEAD: usize = 1024;
/// Files behind the readers that are still recognised: those of the workers that are behind.
const KNOWN_BEHIND: u64 = 2048;
/// How far ahead of a reader that overtook us we go on, in files: those before are read before they could be pushed.
const LEAD: u64 = 3;
/// How far beyond what is pushed one read is believed to be the reader's place. Farther, it takes [`FAR_BEFORE`] others as near
/// before it, among the last [`FAR_READS`] such: readers in random order come upon the files of any order, but not one after the
/// other.
const NEAR: u64 = 16;
const FAR_BEFORE: usize = 2;
const FAR_READS: usize = 16;
/// A file of more bytes is read from its beginning only, and left to its own read-ahead.
pub(super) const MAX_WHOLE_BYTES: u64 = 8 << 20;
/// What is brought of such a file.
const HEAD_BYTES: u64 = 1 << 20;
/// Reads elsewhere, while ours stand still, that contradict an order.
const MAX_STRAYS: u64 = 64;
/// How long an order without a reader is kept.
const MAX_IDLE: Duration = Duration::from_mins(2);

/// Where an order comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It was seen among the files of a directory.
    Siblings,
    /// It was handed over.
    Plan,
}

/// A file on its way to a reader.
#[derive(Clone, Debug)]
pub(super) struct Bring {
    /// Its place in the order.
    pub at: u64,
    /// Its inode number.
    pub number: u64,
    pub file: Upcoming,
    /// How many bytes of it are wanted.
    pub wanted: u64,
    /// Its first page is not pushed.
    pub tripwire: bool,
}

/// What became of a file that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// So many bytes of it were pushed.
    Pushed(u64),
    /// So many bytes of it are in RAM: it cannot be pushed.
    Warmed(u64),
    /// It is not on this machine.
    Remote,
    /// It was not brought, because it cannot be had, or is too much now.
    Left,
}

/// Whether a file that is in memory is to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timing {
    Now,
    /// A reader is about to open it: it asks before a push would be through, and two would do the same work.
    Later,
    /// A reader has asked for it.
    TooLate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Handed out.
    Taken,
    /// To be fetched, or being fetched.
    Remote,
    /// Fetched: to be handed out again.
    Here,
    /// Brought: these many bytes of it.
    Brought(u64),
    /// A reader came before us.
    Missed,
}

struct Item {
    number: u64,
    file: Upcoming,
    state: State,
    /// What it counts of the window.
    charged: u64,
    /// A reader has asked for it.
    is_begun: bool,
    /// Where the same file came before, and where it comes again, as far as that is known: orders of several epochs follow each
    /// other.
    before: Option<u64>,
    again: Option<u64>,
}

/// Where a file is in the order: the place that its next read is taken for, and the last that is known.
struct Places {
    current: u64,
    last: u64,
}

/// What readers have made of what was brought, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub pushed: u64,
    pub useful: u64,
    pub wasted: u64,
    /// Files that a reader wanted while they were on their way.
    pub late: u64,
}

/// An order and its readers.
pub(super) struct Follower {
    pub root: Cid,
    /// The directory that it is for, where it is not for the whole root.
    pub scope: Option<u64>,
    pub origin: Origin,
    pub description: String,
    pub progress: Arc<Progress>,
    /// What it was served, for fairness.
    pub served: u64,
    pub tally: Tally,
    /// Bytes that its readers pass, and bytes that are brought.
    pub reading: Rate,
    pub bringing: Rate,
    /// Taken while it is pulled.
    order: Option<Order>,
    ended: bool,
    items: VecDeque<Item>,
    /// The place of the first of `items`.
    base: u64,
    next: u64,
    reached: u64,
    places: HashMap<u64, Places>,
    ready: VecDeque<u64>,
    window: u64,
    ahead: u64,
    since_tripwire: u64,
    /// Reads far ahead that others must confirm.
    far: VecDeque<u64>,
    strays: u64,
    /// Reads elsewhere since a reader last came further.
    elsewhere: u64,
    moved: Instant,
}

impl Follower {
    pub fn new(root: Cid, origin: Origin, description: String, order: Order, now: Instant) -> Follower {
        Follower {
            root,
            scope: None,
            origin,
            description,
            progress: Arc::default(),
            served: 0,
            tally: Tally::default(),
            reading: Rate::default(),
            bringing: Rate::default(),
            order: Some(order),
            ended: false,
            items: VecDeque::new(),
            base: 0,
            next: 0,
            reached: 0,
            places: HashMap::new(),
            ready: VecDeque::new(),
            window: FIRST_WINDOW_BYTES,
            ahead: 0,
            since_tripwire: 0,
            far: VecDeque::new(),
            strays: 0,
            elsewhere: 0,
            moved: now,
        }
    }

    /// The window in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The bytes that lie ahead of the readers, brought or on their way.
    pub fn ahead(&self) -> u64 {
        self.ahead
    }

    /// When a reader last came further.
    pub fn moved(&self) -> Instant {
        self.moved
    }

    /// The order, where more of it should be known; it comes back through [`Follower::pulled`].
    pub fn pull(&mut self) -> Option<Order> {
        let known = (self.base + self.items.len() as u64).saturating_sub(self.next) as usize;
        if self.ended || known >= KNOWN_AHEAD / 2 { None } else { self.order.take() }
    }

    /// Whether there is something to pull or to hand out, as far as the window goes.
    pub fn has_work(&self) -> bool {
        let known = (self.base + self.items.len() as u64).saturating_sub(self.next) as usize;
        let next = self.items.get((self.next - self.base) as usize);
        let fits = |item: &Item| self.ahead == 0 || self.ahead + wanted(&item.file) <= self.window;
        let may_go_on = |item: &Item| if self.lies_ahead(item) { self.may_pass_over() } else { fits(item) };
        !self.ready.is_empty() || (self.order.is_some() && known < KNOWN_AHEAD / 2) || next.is_some_and(may_go_on)
    }

    /// Whether the file comes before, where no reader has been yet: it is not brought twice.
    fn lies_ahead(&self, item: &Item) -> bool {
        item.before.is_some_and(|before| before >= self.reached)
    }

    /// Whether files that lie ahead already are passed over: not without an end, for a small dataset comes again and again.
    fn may_pass_over(&self) -> bool {
        self.next - self.reached < KNOWN_AHEAD as u64
    }

    /// Takes back the order, with what was pulled of it (inode numbers and files), and whether that was the last.
    pub fn pulled(&mut self, order: Order, files: Vec<(u64, Upcoming)>, ended: bool) {
        for (number, file) in files {
            let place = self.base + self.items.len() as u64;
            let known = self.places.entry(number).or_insert(Places { current: place, last: place });
            let before = (known.last < place).then_some(known.last);
            known.last = place;
            if let Some(before) = before.and_then(|before| before.checked_sub(self.base))
                && let Some(item) = self.items.get_mut(before as usize)
            {
                item.again = Some(place);
            }
            self.items.push_back(Item {
                number,
                file,
                state: State::Waiting,
                charged: 0,
                is_begun: false,
                before,
                again: None,
            });
        }
        self.ended = ended;
        self.order = (!ended).then_some(order);
    }

    /// How many files to pull at a time.
    pub const PULL: usize = KNOWN_AHEAD / 2;

    /// Takes note that a reader has begun the file `number`; says whether it is one of ours.
    pub fn note(&mut self, number: u64, now: Instant) -> bool {
        let Some(at) = self.place(number) else { return false };
        if let Some(item) = self.items.get_mut((at - self.base) as usize) {
            item.is_begun = true;
            self.tally.late += u64::from(matches!(item.state, State::Taken | State::Remote));
        }
        if at < self.reached {
            return true;
        }
        if at < self.next.max(self.reached) + NEAR {
            let step = at + 1 - self.reached;
            self.strays = self.strays.saturating_sub(step);
            if step >= std::mem::take(&mut self.elsewhere) {
                self.window = (self.window * 2).min(PREFETCH_WINDOW_BYTES);
            }
        } else if self.far.iter().filter(|far| (at.saturating_sub(NEAR)..at).contains(*far)).count() < FAR_BEFORE {
            if self.far.len() == FAR_READS {
                self.far.pop_front();
            }
            self.far.push_back(at);
            self.stray();
            return true;
        }
        self.far.clear();
        self.reach(at + 1, now);
        true
    }

    /// Where the order has the file that is read now: of its places the one that is nearest to the readers.
    fn place(&mut self, number: u64) -> Option<u64> {
        let places = self.places.get_mut(&number)?;
        loop {
            let item = self.items.get(places.current.checked_sub(self.base)? as usize)?;
            match item.again {
                Some(again) if again.abs_diff(self.reached) <= places.current.abs_diff(self.reached) => {
                    places.current = again;
                }
                _ => return Some(places.current),
            }
        }
    }

    /// Whether the file is one of those that are known of the order.
    pub fn has(&self, number: u64) -> bool {
        self.places.contains_key(&number)
    }

    /// Whether nothing is known of the order yet.
    pub fn is_unknown(&self) -> bool {
        self.base == 0 && self.items.is_empty() && !self.ended
    }

    /// Whether to push a file that was handed out, now that it is in memory.
    pub fn timing(&self, at: u64) -> Timing {
        match at.checked_sub(self.base).and_then(|index| self.items.get(index as usize)) {
            Some(item) if !item.is_begun => {
                if (self.reached..self.reached + LEAD).contains(&at) && self.reached > 0 {
                    Timing::Later
                } else {
                    Timing::Now
                }
            }
            _ => Timing::TooLate,
        }
    }

    /// Whether a file of `root` below the directories `above` is one that the order might have.
    pub fn covers(&self, root: &Cid, above: &[u64]) -> bool {
        self.root == *root && self.scope.is_none_or(|scope| above.contains(&scope))
    }

    /// Takes note that a reader of this root has begun a file that is not ours.
    pub fn stray(&mut self) {
        self.strays += 1;
        self.elsewhere += 1;
    }

    /// Whether readers do something else, or nothing.
    pub fn is_contradicted(&self, now: Instant) -> bool {
        self.strays > MAX_STRAYS || (self.origin == Origin::Siblings && now - self.moved > MAX_IDLE)
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.ended && self.reached >= self.base + self.items.len() as u64
    }

    fn state(&self, at: u64) -> State {
        self.items.get((at - self.base) as usize).map_or(State::Missed, |item| item.state)
    }

    /// The readers have come to `reached`: everything before was of use.
    fn reach(&mut self, reached: u64, now: Instant) {
        let mut passed = 0;
        for at in self.reached..reached {
            let Some(item) = self.items.get_mut((at - self.base) as usize) else { break };
            passed += item.file.size;
            self.ahead -= item.charged;
            item.charged = 0;
            match item.state {
                State::Brought(bytes) => self.tally.useful += bytes,
                State::Waiting | State::Here => item.state = State::Missed,
                State::Taken | State::Remote | State::Missed => {}
            }
        }
        self.reading.add(passed, now);
        self.reached = reached;
        self.progress.set_reached(reached);
        self.moved = now;
        if self.next < reached {
            // Overtaken: what lies directly before the reader is its own to bring.
            let next = (reached + LEAD).min(self.base + self.items.len() as u64).max(reached);
            for at in self.next.max(reached)..next {
                if let Some(item) = self.items.get_mut((at - self.base) as usize) {
                    item.state = State::Missed;
                }
            }
            self.next = next;
        }
        while self.base + KNOWN_BEHIND < self.reached {
            let Some(item) = self.items.pop_front() else { break };
            if let Some(places) = self.places.get_mut(&item.number)
                && places.current == self.base
            {
                match item.again {
                    Some(again) => places.current = again,
                    None => drop(self.places.remove(&item.number)),
                }
            }
            self.base += 1;
        }
    }

    /// The next files to bring, at most a batch of them, where the window and `room` allow it.
    pub fn take(&mut self, room: u64) -> Vec<Bring> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < PREFETCH_BATCH_BYTES / 2
            && let Some(at) = self.ready.pop_front()
        {
            if at >= self.base && self.state(at) == State::Here {
                bytes += self.hand_out(at, &mut batch);
            }
        }
        let window = self.window.min(room);
        let fits = |bytes: u64, wanted: u64| bytes == 0 || bytes + wanted <= PREFETCH_BATCH_BYTES;
        while bytes < PREFETCH_BATCH_BYTES && batch.len() < PREFETCH_BATCH_FILES {
            let Some(item) = self.items.get((self.next - self.base) as usize) else { break };
            if self.lies_ahead(item) {
                if !self.may_pass_over() {
                    break;
                }
                if let Some(item) = self.items.get_mut((self.next - self.base) as usize) {
                    item.state = State::Missed;
                }
                self.next += 1;
                continue;
            }
            let wanted = wanted(&item.file);
            // At least one file, however large, where the window is not a whim of the memory.
            if (self.ahead + wanted > window && (self.ahead > 0 || wanted > room)) || !fits(bytes, wanted) {
                break;
            }
            let at = self.next;
            self.next += 1;
            if self.state(at) != State::Waiting {
                continue;
            }
            if let Some(item) = self.items.get_mut((at - self.base) as usize) {
                item.charged = wanted;
            }
            self.ahead += wanted;
            bytes += self.hand_out(at, &mut batch);
        }
        self.served += bytes;
        batch
    }

    fn hand_out(&mut self, at: u64, batch: &mut Vec<Bring>) -> u64 {
        let known = self.base + self.items.len() as u64;
        let Some(item) = self.items.get_mut((at - self.base) as usize) else { return 0 };
        let wanted = wanted(&item.file);
        item.state = State::Taken;
        self.since_tripwire += wanted;
        // The end of an order has one, or nobody would know that it was reached.
        let is_last = self.ended && at + 1 == known;
        let tripwire = self.since_tripwire >= self.window / TRIPWIRES || is_last;
        if tripwire {
            self.since_tripwire = 0;
        }
        batch.push(Bring { at, number: item.number, file: item.file.clone(), wanted, tripwire });
        wanted
    }

    /// What became of a file that was handed out.
    pub fn done(&mut self, at: u64, outcome: Outcome, now: Instant) {
        if at < self.base {
            return;
        }
        let is_behind = at < self.reached;
        let Some(item) = self.items.get_mut((at - self.base) as usize) else { return };
        match outcome {
            Outcome::Pushed(bytes) | Outcome::Warmed(bytes) => {
                item.state = State::Brought(bytes);
                self.tally.pushed += bytes;
                self.progress.add_pushed(bytes);
                self.bringing.add(bytes, now);
                if is_behind {
                    // Others of the readers may still come; the first has read it from elsewhere.
                    self.tally.useful += bytes;
                }
            }
            Outcome::Remote if is_behind => item.state = State::Missed,
            Outcome::Remote => item.state = State::Remote,
            Outcome::Left => {
                item.state = State::Missed;
                self.ahead -= item.charged;
                item.charged = 0;
            }
        }
    }

    /// Whether a file that is to be fetched is still ahead of the readers.
    pub fn wants(&self, at: u64) -> bool {
        at >= self.reached && self.state(at) == State::Remote
    }

    /// A file was fetched, or cannot be.
    pub fn arrived(&mut self, at: u64, fetched: bool, now: Instant) {
        if at < self.base || self.state(at) != State::Remote {
            return;
        }
        if fetched && at >= self.reached {
            if let Some(item) = self.items.get_mut((at - self.base) as usize) {
                item.state = State::Here;
            }
            self.ready.push_back(at);
        } else {
            self.done(at, Outcome::Left, now);
        }
    }

    /// For how long readers will wait within the window, as things go: what is missing of it comes later than they do.
    pub fn predicted_stall(&self, now: Instant) -> Duration {
        let (reading, bringing) = (self.reading.per_second(now), self.bringing.per_second(now));
        let places = self.reached..self.next;
        let is_missing = |at: &u64| matches!(self.state(*at), State::Taken | State::Remote | State::Here);
        let missing: u64 = places
            .filter(|at| *at >= self.base && is_missing(at))
            .filter_map(|at| self.items.get((at - self.base) as usize))
            .map(|item| item.charged)
            .sum();
        if missing == 0 || reading <= 0.0 || bringing <= 0.0 {
            return Duration::ZERO;
        }
        let seconds = missing as f64 / bringing - self.ahead.saturating_sub(missing) as f64 / reading;
        Duration::try_from_secs_f64(seconds.clamp(0.0, 3600.0)).unwrap_or_default()
    }

    /// It is over: what was brought and not reached was for nothing.
    pub fn end(&mut self, fate: Fate) -> Tally {
        for item in self.items.iter().skip((self.reached - self.base) as usize) {
            if let State::Brought(bytes) = item.state {
                self.tally.wasted += bytes;
            }
        }
        self.items.clear();
        self.places.clear();
        self.base = self.reached;
        self.next = self.reached;
        self.ahead = 0;
        self.progress.end(fate);
        self.tally
    }
}

/// What is brought of a file.
fn wanted(file: &Upcoming) -> u64 {
    if file.size > MAX_WHOLE_BYTES { HEAD_BYTES } else { file.size }
}
