//! A pass over a whole tree in an order that nobody knows: an epoch of a shuffled dataset.
//!
//! A [`Pass`] counts the files of a root that are read to their end, each once, and the smallest directory that holds them
//! all. Where enough are, the rest is worth bringing: the whole of it will be read. Enough is a few dozen where somebody
//! listed the tree before (as programs do that are about to read it), and a share of all files where nobody did. What is on
//! the disk is pushed in the disk's order, if the whole fits the budget; what is on other machines is fetched with the least
//! priority. The rest comes in the DAG's order, which is the disk's where the tree was added by us.
//!
//! Since files that were pushed are read without a word, every [`TRIPWIRE_FILES`]-th is pushed without its first page. What is
//! brought is never more than [`LEVERAGE`] times what is known to have been read, so a reader who stops leaves little behind;
//! and a pass that reads files again is a new one.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::follower::{Bring, Outcome, Tally};
use super::upcoming::{Order, Upcoming};
use crate::limits::{PREFETCH_BATCH_BYTES, PREFETCH_BATCH_FILES, PREFETCH_PASS_BITS};

/// Files that must have been read where the tree was listed before.
const LISTED_FILES: u64 = 48;
/// The share of all files that must have been read where it was not.
const UNLISTED_SHARE: f64 = 0.02;
/// Trees of fewer files are not worth a pass of their own.
const MIN_FILES: u64 = 256;
/// What is brought is at most this many times what was read.
const LEVERAGE: u64 = 4;
/// One file of so many is a tripwire.
const TRIPWIRE_FILES: u64 = 32;
/// Files that are known ahead of what is brought.
const KNOWN_AHEAD: usize = 1024;
/// Files that are being fetched at a time.
const MAX_REMOTE: usize = 256;
/// Reads, and how many of them may be of files that were read before.
const REPEATS_OF: u32 = 64;
const MAX_REPEATS: u32 = 24;
/// A pass in which nothing was read for so long is over.
const MAX_IDLE: Duration = Duration::from_mins(10);

/// What a look at the tree found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// The directory.
    pub scope: u64,
    pub files: u64,
    pub bytes: u64,
    /// Whether the kernel knows most of the files, because somebody listed them.
    pub is_listed: bool,
}

/// A pass over the tree of one root.
pub(super) struct Pass {
    /// The directories from the root down to the smallest that holds all that was read.
    scope: SmallVec<[u64; 8]>,
    seen: Seen,
    files: u64,
    bytes: u64,
    /// The next number of files at which the tree is looked at.
    checkpoint: u64,
    recent: (u32, u32),
    surveying: bool,
    survey: Option<Survey>,
    sweep: Option<Sweep>,
    pub tally: Tally,
    pub served: u64,
    last: Instant,
}

/// The rest of a tree on its way.
struct Sweep {
    scope: u64,
    order: Option<Order>,
    ended: bool,
    waiting: std::collections::VecDeque<(u64, Upcoming)>,
    /// Files that were fetched, and can be pushed.
    here: Vec<(u64, Upcoming)>,
    /// Files that are on their way from other machines, by their place.
    remote: HashMap<u64, (u64, Upcoming)>,
    next: u64,
    brought: u64,
    tripwires: HashMap<u64, u64>,
    since_tripwire: (u64, u64),
    /// Whether local files are pushed: else only what is on other machines is brought.
    pushes: bool,
}

impl Pass {
    pub fn new(now: Instant) -> Pass {
        Pass {
            scope: SmallVec::new(),
            seen: Seen::new(),
            files: 0,
            bytes: 0,
            checkpoint: LISTED_FILES,
            recent: (0, 0),
            surveying: false,
            survey: None,
            sweep: None,
            tally: Tally::default(),
            served: 0,
            last: now,
        }
    }

    /// Takes note that the file `number` of `size` bytes was begun; `above` are the directories above it, the nearest first.
    pub fn begun(&mut self, number: u64, size: u64, above: &[u64], now: Instant) {
        self.last = now;
        let represented = self.sweep.as_mut().and_then(|sweep| sweep.tripwires.remove(&number));
        if let Some(bytes) = represented {
            self.tally.useful += bytes.saturating_sub(size);
            self.files += TRIPWIRE_FILES;
            self.bytes += bytes;
            return;
        }
        let is_new = self.seen.insert(number);
        self.recent.0 += 1;
        self.recent.1 += u32::from(!is_new);
        if self.recent.1 > MAX_REPEATS {
            // Files are read that were read before: it begins anew.
            self.restart();
            self.seen.insert(number);
        } else if self.recent.0 >= REPEATS_OF {
            self.recent = (0, 0);
        }
        if !is_new {
            return;
        }
        self.files += 1;
        self.bytes += size;
        if self.scope.is_empty() {
            self.scope = above.iter().rev().copied().collect();
        } else {
            let common = self.scope.iter().zip(above.iter().rev()).take_while(|(a, b)| a == b).count();
            self.scope.truncate(common);
        }
    }

    /// Takes note that a file was brought for another reason.
    pub fn seen(&mut self, number: u64) {
        self.seen.insert(number);
    }

    fn restart(&mut self) {
        self.end();
        self.seen.clear();
        (self.files, self.bytes, self.recent, self.checkpoint) = (0, 0, (0, 0), LISTED_FILES);
        self.scope.clear();
        self.survey = None;
    }

    /// The directory to look at, where it is time to.
    pub fn survey_due(&mut self) -> Option<u64> {
        let scope = *self.scope.last()?;
        if self.surveying || self.files < self.checkpoint {
            return None;
        }
        self.checkpoint = self.files * 2;
        match self.survey {
            Some(survey) if survey.scope == scope => None,
            _ => {
                self.surveying = true;
                Some(scope)
            }
        }
    }

    /// What was found there.
    pub fn surveyed(&mut self, survey: Option<Survey>) {
        self.surveying = false;
        self.survey = survey.or(self.survey);
    }

    /// The directory whose rest is worth bringing now, and is not being brought.
    pub fn worth_sweeping(&self) -> Option<Survey> {
        let survey = self.survey?;
        let needed = if survey.is_listed { LISTED_FILES } else { (survey.files as f64 * UNLISTED_SHARE) as u64 };
        let is_worth = survey.files >= MIN_FILES && self.files >= needed.max(LISTED_FILES) && self.files < survey.files;
        let is_swept = self.sweep.as_ref().is_some_and(|sweep| sweep.scope == survey.scope);
        (is_worth && !is_swept && self.scope.last() == Some(&survey.scope)).then_some(survey)
    }

    /// Begins to bring the rest, in this order; `pushes` where it fits the budget of pushes.
    pub fn sweep(&mut self, scope: u64, order: Order, pushes: bool) {
        self.end();
        self.sweep = Some(Sweep {
            scope,
            order: Some(order),
            ended: false,
            waiting: std::collections::VecDeque::new(),
            here: Vec::new(),
            remote: HashMap::new(),
            next: 0,
            brought: 0,
            tripwires: HashMap::new(),
            since_tripwire: (0, 0),
            pushes,
        });
    }

    /// Whether a rest is being brought, and pushed.
    pub fn pushes(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.pushes)
    }

    /// Whether a rest is being brought.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| !(sweep.ended && sweep.waiting.is_empty()))
    }

    /// Whether something may be brought for what was read.
    pub fn has_work(&self) -> bool {
        self.is_sweeping() && self.allowed() > 0
    }

    /// Whether it was left by its readers.
    pub fn is_over(&self, now: Instant) -> bool {
        now - self.last > MAX_IDLE
    }

    /// The order, where more of it should be known; it comes back through [`Pass::pulled`].
    pub fn pull(&mut self) -> Option<Order> {
        let allowed = self.allowed();
        let sweep = self.sweep.as_mut()?;
        if sweep.ended || sweep.waiting.len() >= KNOWN_AHEAD / 2 || allowed == 0 { None } else { sweep.order.take() }
    }

    /// How many files to pull at a time.
    pub const PULL: usize = KNOWN_AHEAD;

    /// Takes back the order, with what was pulled of it.
    pub fn pulled(&mut self, order: Order, files: Vec<(u64, Upcoming)>, ended: bool) {
        let Some(sweep) = &mut self.sweep else { return };
        // The order of another sweep, which was given up meanwhile, goes with what was pulled of it.
        if sweep.order.is_some() {
            return;
        }
        sweep.waiting.extend(files);
        sweep.ended = ended;
        sweep.order = (!ended).then_some(order);
    }

    /// What may still be brought for what was read.
    fn allowed(&self) -> u64 {
        let brought = self.sweep.as_ref().map_or(0, |sweep| sweep.brought);
        (self.bytes * LEVERAGE).saturating_sub(brought)
    }

    /// The next files to bring, at most a batch of them, where pushes may take `room` in all.
    pub fn take(&mut self, room: u64) -> Vec<Bring> {
        let (allowed, mut bytes) = (self.allowed(), 0);
        let Some(sweep) = &mut self.sweep else { return Vec::new() };
        let room = if sweep.pushes { room.saturating_sub(sweep.brought) } else { u64::MAX };
        let mut batch = Vec::new();
        if sweep.remote.len() >= MAX_REMOTE {
            return batch;
        }
        while bytes < allowed
            && batch.len() < PREFETCH_BATCH_FILES
            && let Some((number, file)) = sweep.here.pop().or_else(|| sweep.waiting.pop_front())
        {
            let wanted = file.size;
            // What a reader was faster with, or what is too large for the rest of the room, is left to it.
            if self.seen.contains(number) || bytes + wanted > room {
                continue;
            }
            if bytes > 0 && bytes + wanted > PREFETCH_BATCH_BYTES {
                sweep.waiting.push_front((number, file));
                break;
            }
            self.seen.insert(number);
            sweep.since_tripwire.0 += 1;
            sweep.since_tripwire.1 += wanted;
            let tripwire = sweep.pushes && sweep.since_tripwire.0 == TRIPWIRE_FILES;
            if tripwire {
                sweep.tripwires.insert(number, sweep.since_tripwire.1);
                sweep.since_tripwire = (0, 0);
            }
            sweep.brought += wanted;
            bytes += wanted;
            self.served += wanted;
            batch.push(Bring { at: sweep.next, number, file, wanted, tripwire });
            sweep.next += 1;
        }
        batch
    }

    /// What became of a file that was handed out.
    pub fn done(&mut self, bring: &Bring, outcome: Outcome) {
        match outcome {
            Outcome::Pushed(bytes) | Outcome::Warmed(bytes) => self.tally.pushed += bytes,
            Outcome::Remote => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.tripwires.remove(&bring.number);
                    sweep.remote.insert(bring.at, (bring.number, bring.file.clone()));
                }
            }
            Outcome::Left => {}
        }
    }

    /// Whether a file that is to be fetched is still wanted.
    pub fn wants(&self, at: u64) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.remote.contains_key(&at))
    }

    /// A file was fetched, or cannot be.
    pub fn arrived(&mut self, at: u64, fetched: bool) {
        let Some(sweep) = &mut self.sweep else { return };
        if let Some((number, file)) = sweep.remote.remove(&at)
            && fetched
            && sweep.pushes
        {
            sweep.brought = sweep.brought.saturating_sub(file.size);
            self.seen.remove(number);
            sweep.here.push((number, file));
        }
    }

    /// Gives up what is being brought: what is not known to be read was for nothing.
    pub fn end(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            self.tally.wasted += sweep.tripwires.values().sum::<u64>();
        }
    }

    /// How its files are being read, for people.
    pub fn description(&self) -> Option<String> {
        let survey = self.survey.filter(|_| self.sweep.is_some())?;
        Some(format!("each once in no order, {} of {} files", self.files.min(survey.files), survey.files))
    }

    /// The files that were read, as far as is known.
    #[cfg(test)]
    fn files(&self) -> u64 {
        self.files
    }
}

/// Which files were read or brought: bits by a hash of their number. A file that shares its bit with another is taken for
/// seen, and is read by whoever wants it.
struct Seen {
    bits: Box<[u64]>,
    hasher: RandomState,
}

impl Seen {
    fn new() -> Seen {
        Seen { bits: vec![0; PREFETCH_PASS_BITS / 64].into(), hasher: RandomState::new() }
    }

    fn bit(&self, number: u64) -> (usize, u64) {
        let hash = self.hasher.hash_one(number) as usize % PREFETCH_PASS_BITS;
        (hash / 64, 1 << (hash % 64))
    }

    fn contains(&self, number: u64) -> bool {
        let (word, bit) = self.bit(number);
        self.bits[word] & bit != 0
    }

    /// Whether it was not there.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = self.bit(number);
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }

    fn remove(&mut self, number: u64) {
        let (word, bit) = self.bit(number);
        self.bits[word] &= !bit;
    }

    fn clear(&mut self) {
        self.bits.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Cid, HashFunction, codec};
    use crate::tree::Location;

    const SIZE: u64 = 100_000;

    fn cid() -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(b"root"))
    }

    fn order(files: u64) -> (Order, Vec<(u64, Upcoming)>) {
        let file = |_| Upcoming { location: Location::new(cid()), size: SIZE, directory: None };
        (Box::new(std::iter::empty()), (1000..1000 + files).map(|number| (number, file(number))).collect())
    }

    fn pass(read: u64) -> Pass {
        let mut pass = Pass::new(Instant::now());
        for number in 0..read {
            pass.begun(1000 + number * 7, SIZE, &[10 + number % 5, 3, 2], Instant::now());
        }
        pass
    }

    fn begin(read: u64, files: u64) -> Pass {
        let mut pass = pass(read);
        assert_eq!(pass.survey_due(), Some(3), "the directory that holds all");
        pass.surveyed(Some(Survey { scope: 3, files, bytes: files * SIZE, is_listed: true }));
        let survey = pass.worth_sweeping().expect("enough were read");
        let (empty, rest) = order(files);
        pass.sweep(survey.scope, Box::new(std::iter::empty()), true);
        assert!(pass.pull().is_some());
        pass.pulled(empty, rest, true);
        pass
    }

    fn take_all(pass: &mut Pass) -> Vec<Bring> {
        let mut all = Vec::new();
        loop {
            let batch = pass.take(u64::MAX);
            if batch.is_empty() {
                return all;
            }
            for bring in &batch {
                pass.done(bring, Outcome::Pushed(bring.wanted));
            }
            all.extend(batch);
        }
    }

    #[test]
    fn a_tree_that_nobody_listed_takes_more_reads_than_one_that_somebody_did() {
        // The set of what was read takes a few files for ones that it has: it counts a little less, and never more.
        for (is_listed, read, worth) in
            [(true, 47, false), (true, 56, true), (false, 56, false), (false, 399, false), (false, 440, true)]
        {
            let mut pass = pass(read);
            pass.surveyed(Some(Survey { scope: 3, files: 20_000, bytes: 0, is_listed }));
            assert_eq!(pass.worth_sweeping().is_some(), worth, "listed: {is_listed}, read: {read}");
        }
        let mut pass = pass(100);
        pass.surveyed(Some(Survey { scope: 3, files: 101, bytes: 0, is_listed: true }));
        assert_eq!(pass.worth_sweeping(), None, "a small tree");
    }

    #[test]
    fn a_reader_who_stops_leaves_little_behind() {
        let mut pass = begin(50, 20_000);
        let brought = take_all(&mut pass);
        let bytes: u64 = brought.iter().map(|bring| bring.wanted).sum();
        assert!(bytes <= (50 * LEVERAGE + 1) * SIZE, "{bytes}");
        let numbers: std::collections::HashSet<u64> = brought.iter().map(|bring| bring.number).collect();
        assert_eq!(numbers.len(), brought.len());
        assert!((0..50).all(|number| !numbers.contains(&(1000 + number * 7))), "what was read is not brought");
    }

    #[test]
    fn tripwires_tell_that_readers_go_on_until_all_is_brought() {
        let mut pass = begin(50, 20_000);
        let mut brought = 0;
        loop {
            let all = take_all(&mut pass);
            if all.is_empty() {
                break;
            }
            brought += all.len();
            for tripwire in all.iter().filter(|bring| bring.tripwire) {
                pass.begun(tripwire.number, SIZE, &[10, 3, 2], Instant::now());
            }
        }
        // But for those whose bits collide.
        assert!(brought > 19_800, "{brought}");
        assert!(pass.tally.useful > 19_000 * SIZE);
    }

    #[test]
    fn files_that_are_read_again_begin_a_new_pass() {
        let mut pass = begin(100, 20_000);
        for number in 0..60 {
            pass.begun(1000 + number * 7, SIZE, &[10, 3, 2], Instant::now());
        }
        assert!(!pass.is_sweeping());
        assert!(pass.files() < 60);
    }
}
