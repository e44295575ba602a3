//! A pass over a whole tree in an order that nobody knows: an epoch of a shuffled dataset.
//!
//! A [`Pass`] counts the files of a root that are begun, each once, and the smallest directory that holds them all. Where enough
//! are, the whole of it will be read, and what of it is on other machines is worth fetching, in the DAG's order and with the
//! least priority. Enough is a few dozen files where somebody listed the tree before (as programs do that are about to read
//! it), and a share of all files where nobody did. What is on this machine is left to its readers: on a disk that they keep busy,
//! nobody is faster than they are.
//!
//! What is fetched is never more than [`LEVERAGE`] times what was read, so a reader who stops leaves little behind. An epoch
//! reads nothing twice: where files come again now and then, they are drawn at random, and nothing more is fetched for them;
//! where most do, a new pass has begun. Nor is anything fetched that could not be kept.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
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
/// What is fetched is at most this many times what was read.
const LEVERAGE: u64 = 4;
/// One of so many reads may be of a file that was read before, and this many beside: the set of what was read takes a few files
/// for ones that it has, and some programs look at a file's beginning first.
const REPEATS_ONE_OF: u64 = 50;
const REPEATS_BESIDE: u64 = 2;
/// Files that are known ahead of what is fetched.
const KNOWN_AHEAD: usize = 1024;
/// Files that are being fetched at a time.
const MAX_REMOTE: usize = 256;
/// Reads, and how many of them may be of files that were read before.
const REPEATS_OF: u32 = 64;
const MAX_REPEATS: u32 = 24;
/// How many times over it is taken for random what began as a pass and was none.
const MAX_DOUBTS: u32 = 16;
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
    /// Whether some of them are on other machines.
    pub is_remote: bool,
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
    /// Of the last reads: how many there were, and how many were of files that were read before.
    recent: (u32, u32),
    /// Reads of files that were read before.
    repeats: u64,
    surveying: bool,
    survey: Option<Survey>,
    sweep: Option<Sweep>,
    /// What is fetched cannot be kept.
    is_full: bool,
    /// Passes before that were none: so many times, more must be read than the last time.
    doubts: u32,
    pub tally: Tally,
    pub served: u64,
    last: Instant,
}

/// The rest of a tree on its way.
struct Sweep {
    scope: u64,
    order: Option<Order>,
    ended: bool,
    waiting: VecDeque<(u64, Upcoming)>,
    /// The bytes of files that are on their way from other machines, by their place.
    remote: HashMap<u64, u64>,
    /// Files that were fetched.
    fetched: Seen,
    /// What was handed out, and what of that came and was not read yet, in bytes.
    handed_out: u64,
    unread: u64,
    next: u64,
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
            repeats: 0,
            surveying: false,
            survey: None,
            sweep: None,
            is_full: false,
            doubts: 0,
            tally: Tally::default(),
            served: 0,
            last: now,
        }
    }

    /// Takes note that the file `number` of `size` bytes was begun; `above` are the directories above it, the nearest first.
    pub fn begun(&mut self, number: u64, size: u64, above: &[u64], now: Instant) {
        self.last = now;
        let is_new = self.seen.insert(number);
        self.recent.0 += 1;
        if !is_new {
            self.recent.1 += 1;
            self.repeats += 1;
        }
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
        if let Some(sweep) = &mut self.sweep
            && sweep.fetched.contains(number)
        {
            self.tally.useful += size;
            sweep.unread = sweep.unread.saturating_sub(size);
        }
        if self.scope.is_empty() {
            self.scope = above.iter().rev().copied().collect();
        } else {
            let common = self.scope.iter().zip(above.iter().rev()).take_while(|(a, b)| a == b).count();
            self.scope.truncate(common);
        }
    }

    fn restart(&mut self) {
        self.end();
        let was_epoch = self.survey.is_none_or(|survey| self.files * 2 >= survey.files);
        self.doubts = if was_epoch { 0 } else { (self.doubts + 1).min(MAX_DOUBTS) };
        self.seen.clear();
        (self.files, self.bytes, self.recent, self.repeats) = (0, 0, (0, 0), 0);
        (self.checkpoint, self.survey, self.is_full) = (LISTED_FILES, None, false);
        self.scope.clear();
    }

    /// Whether files come again: then they are drawn at random, and what was not drawn may never be.
    fn is_random(&self) -> bool {
        self.repeats > REPEATS_BESIDE + self.files / REPEATS_ONE_OF
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

    /// The directory whose rest is worth fetching now, and is not being fetched.
    pub fn worth_sweeping(&self) -> Option<Survey> {
        let survey = self.survey?;
        let listed = LISTED_FILES << self.doubts;
        let needed = if survey.is_listed { listed } else { (survey.files as f64 * UNLISTED_SHARE) as u64 };
        let is_worth = survey.is_remote
            && survey.files >= MIN_FILES
            && self.files >= needed.max(listed)
            && self.files < survey.files
            && !self.is_random()
            && !self.is_full;
        let is_swept = self.sweep.as_ref().is_some_and(|sweep| sweep.scope == survey.scope);
        (is_worth && !is_swept && self.scope.last() == Some(&survey.scope)).then_some(survey)
    }

    /// Begins to fetch the rest, in this order.
    pub fn sweep(&mut self, scope: u64, order: Order) {
        self.end();
        self.sweep = Some(Sweep {
            scope,
            order: Some(order),
            ended: false,
            waiting: VecDeque::new(),
            remote: HashMap::new(),
            fetched: Seen::new(),
            handed_out: 0,
            unread: 0,
            next: 0,
        });
    }

    /// Whether a rest is being fetched.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| !(sweep.ended && sweep.waiting.is_empty()))
    }

    /// Whether something may be fetched for what was read.
    pub fn has_work(&self) -> bool {
        let has_place = self.sweep.as_ref().is_some_and(|sweep| sweep.remote.len() < MAX_REMOTE);
        has_place && self.is_sweeping() && self.allowed() > 0
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

    /// What may still be fetched for what was read.
    fn allowed(&self) -> u64 {
        let handed_out = self.sweep.as_ref().map_or(0, |sweep| sweep.handed_out);
        if self.is_random() { 0 } else { (self.bytes * LEVERAGE).saturating_sub(handed_out) }
    }

    /// The next files to fetch where they are not here, at most a batch of them.
    pub fn take(&mut self) -> Vec<Bring> {
        let (allowed, mut bytes) = (self.allowed(), 0);
        let mut batch = Vec::new();
        let Some(sweep) = &mut self.sweep else { return batch };
        if sweep.remote.len() >= MAX_REMOTE {
            return batch;
        }
        while bytes < allowed
            && batch.len() < PREFETCH_BATCH_FILES
            && let Some((number, file)) = sweep.waiting.pop_front()
        {
            let wanted = file.size;
            // What a reader was faster with is here, or on its way.
            if self.seen.contains(number) {
                continue;
            }
            if bytes > 0 && bytes + wanted > PREFETCH_BATCH_BYTES {
                sweep.waiting.push_front((number, file));
                break;
            }
            sweep.handed_out += wanted;
            bytes += wanted;
            self.served += wanted;
            batch.push(Bring { at: sweep.next, number, file, wanted, tripwire: false });
            sweep.next += 1;
        }
        batch
    }

    /// What became of a file that was handed out.
    pub fn done(&mut self, bring: &Bring, outcome: Outcome) {
        let Some(sweep) = &mut self.sweep else { return };
        if outcome == Outcome::Remote {
            sweep.remote.insert(bring.at, bring.wanted);
        } else {
            // It is here, and has cost nothing.
            sweep.handed_out = sweep.handed_out.saturating_sub(bring.wanted);
        }
    }

    /// Whether a file that is to be fetched is still wanted.
    pub fn wants(&self, at: u64) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.remote.contains_key(&at))
    }

    /// The bytes that are on their way.
    pub fn coming_bytes(&self) -> u64 {
        self.sweep.as_ref().map_or(0, |sweep| sweep.remote.values().sum())
    }

    /// The file `number` was fetched, or cannot be.
    pub fn arrived(&mut self, at: u64, number: u64, fetched: bool) {
        let Some(sweep) = &mut self.sweep else { return };
        let Some(bytes) = sweep.remote.remove(&at) else { return };
        if !fetched {
            return;
        }
        self.tally.pushed += bytes;
        if self.seen.contains(number) {
            // A reader came to it meanwhile, and had it from this fetch.
            self.tally.useful += bytes;
        } else if sweep.fetched.insert(number) {
            sweep.unread += bytes;
        }
    }

    /// What is fetched could not be kept: no more is, in this pass.
    pub fn stop_full(&mut self) {
        self.is_full = true;
        self.end();
    }

    /// Gives up what is being fetched: what was not read was for nothing.
    pub fn end(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            self.tally.wasted += sweep.unread;
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

/// Which files were read, or fetched: bits by a hash of their number. A file that shares its bit with another is taken for
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

    fn clear(&mut self) {
        self.bits.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::block::{Cid, HashFunction, codec};
    use crate::tree::Location;

    const SIZE: u64 = 100_000;

    fn cid() -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(b"root"))
    }

    /// A reader of a tree of which nothing is here, in the directory 3, and what is fetched for it.
    struct Reader {
        pass: Pass,
        files: u64,
        /// What was read or fetched.
        here: HashSet<u64>,
        /// What was fetched and not read yet.
        unread: HashSet<u64>,
        fetched: u64,
    }

    impl Reader {
        fn new(files: u64) -> Reader {
            Reader { pass: Pass::new(Instant::now()), files, here: HashSet::new(), unread: HashSet::new(), fetched: 0 }
        }

        fn survey(&self) -> Survey {
            Survey { scope: 3, files: self.files, bytes: self.files * SIZE, is_listed: true, is_remote: true }
        }

        fn read(&mut self, file: u64) {
            self.pass.begun(1000 + file, SIZE, &[10 + file % 5, 3, 2], Instant::now());
            self.unread.remove(&(1000 + file));
            self.here.insert(1000 + file);
            if self.pass.survey_due().is_some() {
                let survey = self.survey();
                self.pass.surveyed(Some(survey));
            }
            if let Some(survey) = self.pass.worth_sweeping() {
                self.pass.sweep(survey.scope, Box::new(std::iter::empty()));
                assert!(self.pass.pull().is_some());
                let file = || Upcoming { location: Location::new(cid()), size: SIZE, directory: None };
                let rest = (1000..1000 + self.files).map(|number| (number, file())).collect();
                self.pass.pulled(Box::new(std::iter::empty()), rest, true);
            }
            loop {
                let batch = self.pass.take();
                if batch.is_empty() {
                    break;
                }
                for bring in batch {
                    if self.here.insert(bring.number) {
                        self.pass.done(&bring, Outcome::Remote);
                        self.pass.arrived(bring.at, bring.number, true);
                        self.fetched += 1;
                        self.unread.insert(bring.number);
                    } else {
                        self.pass.done(&bring, Outcome::Left);
                    }
                }
            }
        }
    }

    /// All files in an order that is none.
    fn shuffled(files: u64, seed: u64) -> Vec<u64> {
        let mut order: Vec<u64> = (0..files).collect();
        let mut drawn = Drawn(seed);
        for last in (1..order.len()).rev() {
            order.swap(last, drawn.next(last as u64 + 1) as usize);
        }
        order
    }

    struct Drawn(u64);

    impl Drawn {
        fn next(&mut self, of: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % of
        }
    }

    #[test]
    fn a_tree_that_nobody_listed_takes_more_reads_than_one_that_somebody_did() {
        // The set of what was read takes a few files for ones that it has: it counts a little less, and never more.
        for (is_listed, read, worth) in
            [(true, 47, false), (true, 56, true), (false, 56, false), (false, 399, false), (false, 440, true)]
        {
            let mut pass = Pass::new(Instant::now());
            for number in 0..read {
                pass.begun(1000 + number * 7, SIZE, &[10 + number % 5, 3, 2], Instant::now());
            }
            assert_eq!(pass.survey_due(), (read >= LISTED_FILES).then_some(3), "the directory that holds all");
            let survey = Survey { scope: 3, files: 20_000, bytes: 0, is_listed, is_remote: true };
            pass.surveyed(Some(survey));
            assert_eq!(pass.worth_sweeping().is_some(), worth, "listed: {is_listed}, read: {read}");
            pass.surveyed(Some(Survey { files: 101, ..survey }));
            assert_eq!(pass.worth_sweeping(), None, "a small tree");
            pass.surveyed(Some(Survey { is_remote: false, ..survey }));
            assert_eq!(pass.worth_sweeping(), None, "all of it is here");
        }
    }

    #[test]
    fn a_reader_who_stops_leaves_little_behind() {
        let mut reader = Reader::new(20_000);
        for file in &shuffled(20_000, 1)[..60] {
            reader.read(*file);
        }
        assert!(reader.fetched > 0 && reader.fetched <= 60 * LEVERAGE + 1, "{}", reader.fetched);
    }

    #[test]
    fn the_whole_of_an_epoch_is_fetched_and_most_of_it_before_it_is_read() {
        for files in [500, 5_000, 50_000] {
            let mut reader = Reader::new(files);
            for file in shuffled(files, files) {
                reader.read(file);
            }
            assert!(reader.unread.is_empty());
            assert!(reader.fetched > files * 3 / 4, "{} of {files}", reader.fetched);
            reader.pass.end();
            // But for those whose bits collide with those of others.
            assert!(reader.pass.tally.wasted <= files / 20 * SIZE, "{:?}", reader.pass.tally);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_fetched() {
        let mut reader = Reader::new(5_000);
        let order = shuffled(5_000, 1);
        for file in &order[..60] {
            reader.read(*file);
        }
        let fetched = reader.fetched;
        assert!(fetched > 0);
        reader.pass.stop_full();
        for file in &order[60..] {
            reader.read(*file);
        }
        assert_eq!(reader.fetched, fetched);
    }

    #[test]
    fn files_that_are_read_again_begin_a_new_pass() {
        let mut reader = Reader::new(20_000);
        for file in (0..100).chain(0..60) {
            reader.read(file);
        }
        assert!(!reader.pass.is_sweeping());
        assert!(reader.pass.files() < 60);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Who draws files at random, again and again, from a tree however large, is not taken for an epoch for long: what was
        /// fetched and never read is next to nothing of what was read.
        #[test]
        fn files_drawn_at_random_waste_less_than_a_twentieth(seed in any::<u64>(), files in 300_u64..20_000, hot in 1_u64..4) {
            let mut reader = Reader::new(files);
            let mut drawn = Drawn(seed);
            let reads = files * 4;
            for _ in 0..reads {
                // Some may be drawn more often than others; those are anywhere in the tree.
                let mut of = files;
                for _ in 1..hot {
                    of = drawn.next(of) + 1;
                }
                reader.read(drawn.next(of) * 7919 % files);
            }
            prop_assert!(reader.unread.len() as u64 * 20 < reads, "{} of {reads} reads of {files}", reader.unread.len());
        }
    }
}
