//! What there is to do: detectors in, tasks out.
//!
//! [`State`] is told what readers do, and hands out [`Task`]s to threads that may block. It does no I/O itself and is held under
//! one lock for microseconds, also by the threads that answer the kernel. Orders that are followed are served by turns, the
//! one that got least first, so that two jobs on one machine get the same; what an epoch's rest takes comes after them.
//!
//! That no reader's own request is delayed by more than one of ours is the store's to see to, who knows which reader waits for
//! the disk and which for a piece of ours.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use smallvec::SmallVec;

use super::Settings;
use super::directories::{Directories, Directory, Sequence};
use super::epoch::{Pass, Survey};
use super::follower::{Bring, Follower, Origin, Outcome, Timing};
use super::report::{RootReport, Sums};
use super::siblings::{Found, Said, Siblings, Tracks};
use super::upcoming::{Fate, Order, Progress, Upcoming};
use super::worker::number;
use crate::block::Cid;
use crate::fetch::Priority;
use crate::limits::{MAX_FOLLOWED_ORDERS, MAX_WATCHED_ROOTS};
use crate::metrics::PrefetchFigures;

/// Pieces that are brought at a time: one on its way from the disk, one that waits for it, one that is pushed.
const MAX_BRINGING: usize = 3;
/// For how long an order that is followed explains what its root's readers do.
const EXPLAINS: Duration = Duration::from_secs(1);
/// For how long nothing is pushed after a push has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Directories that are remembered as introduced, and for how long: the kernel may have forgotten their files since.
const INTRODUCED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const INTRODUCED_FOR: Duration = Duration::from_secs(1);
/// Files that wait to be fetched, for all readers.
const MAX_WANTS: usize = 4096;

/// Whose a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Follower(u64),
    Pass(Cid),
}

/// Something to do on a thread that may block.
pub(super) enum Task {
    /// Read a directory, for [`State::watch`].
    Watch(u64),
    /// Make the names in a directory known to the kernel.
    Introduce(Arc<Path>),
    /// Pull so many files of an order, for [`State::pulled`].
    Pull(Owner, Order, usize),
    /// Bring files, for [`State::brought`]: pushed or in RAM, and for a pass what is not on this machine.
    Bring { owner: Owner, batch: Vec<Bring> },
    /// Look at the tree below a directory, for [`State::surveyed`].
    Survey(Cid, u64),
    /// Make an order of the files below a directory, for [`State::sweep`].
    Sweep(Cid, Survey),
}

/// A file to be fetched from other machines.
pub(super) struct Want {
    pub owner: Owner,
    pub root: Cid,
    pub at: u64,
    pub file: Upcoming,
    pub bytes: u64,
    pub priority: Priority,
}

/// A file that a reader has begun.
#[derive(Clone)]
pub(super) struct Begun {
    pub number: u64,
    pub size: u64,
    pub root: Cid,
    /// The directories above it, the nearest first.
    pub above: SmallVec<[u64; 8]>,
}

/// How busy the machine is, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// What pushes may fill, in bytes.
    pub room: u64,
    pub now: Instant,
}

pub(super) struct State {
    settings: Settings,
    directories: Arc<Directories>,
    followers: Vec<(u64, Follower)>,
    next_id: u64,
    tracks: Tracks,
    passes: LruCache<Cid, Pass>,
    watches: VecDeque<u64>,
    introductions: VecDeque<Arc<Path>>,
    introduced: LruCache<Arc<Path>, Instant>,
    surveys: VecDeque<(Cid, u64)>,
    sweeps: VecDeque<(Cid, Survey)>,
    wants: VecDeque<Want>,
    background: VecDeque<Want>,
    /// What was done for roots, beyond what is going on.
    sums: Sums,
    /// Threads at work.
    pub workers: usize,
    /// Whether somebody fetches.
    pub is_fetching: bool,
    bringing: usize,
    paused_until: Option<Instant>,
}

impl State {
    pub fn new(settings: Settings, directories: Arc<Directories>) -> State {
        State {
            settings,
            directories,
            followers: Vec::new(),
            next_id: 0,
            tracks: Tracks::new(),
            passes: LruCache::new(MAX_WATCHED_ROOTS),
            watches: VecDeque::new(),
            introductions: VecDeque::new(),
            introduced: LruCache::new(INTRODUCED),
            surveys: VecDeque::new(),
            sweeps: VecDeque::new(),
            wants: VecDeque::new(),
            background: VecDeque::new(),
            sums: Sums::new(),
            workers: 0,
            is_fetching: false,
            bringing: 0,
            paused_until: None,
        }
    }

    /// Follows an order that was handed over, in place of another plan for the same root.
    pub fn follow(&mut self, root: Cid, order: Order, now: Instant) -> Arc<Progress> {
        self.follow_below(root, None, order, now)
    }

    /// The same; reads outside of the directory `scope` say nothing about the order.
    pub fn follow_below(&mut self, root: Cid, scope: Option<u64>, order: Order, now: Instant) -> Arc<Progress> {
        self.end_where(Fate::Stopped, |follower| follower.root == root);
        let mut follower = Follower::new(root, Origin::Plan, "plan".into(), order, now);
        follower.scope = scope;
        self.add(follower)
    }

    /// Follows the plan for `root` no more.
    pub fn unfollow(&mut self, root: &Cid) {
        self.end_where(Fate::Stopped, |follower| follower.root == *root && follower.origin == Origin::Plan);
    }

    fn add(&mut self, mut follower: Follower) -> Arc<Progress> {
        if self.followers.len() == MAX_FOLLOWED_ORDERS {
            let idle = self.followers.iter().min_by_key(|(_, follower)| follower.moved()).map(|(id, _)| *id);
            self.end_by(Fate::Stopped, |id, _| Some(id) == idle);
        }
        // A newcomer is served like the others from now on, not for all that they got before.
        follower.served = self.followers.iter().map(|(_, follower)| follower.served).min().unwrap_or(0);
        let progress = follower.progress.clone();
        self.followers.push((self.next_id, follower));
        self.next_id += 1;
        progress
    }

    fn end_where(&mut self, fate: Fate, which: impl Fn(&Follower) -> bool) {
        self.end_by(fate, |_, follower| which(follower));
    }

    fn end_by(&mut self, fate: Fate, which: impl Fn(u64, &Follower) -> bool) {
        for (_, mut follower) in self.followers.extract_if(.., |(id, follower)| which(*id, follower)) {
            let tally = follower.end(fate);
            if fate == Fate::Contradicted && follower.origin == Origin::Plan {
                tracing::warn!(
                    root = %follower.root,
                    reached = follower.progress.reached(),
                    "the plan is dropped: other files are read than it says"
                );
            }
            let sums = self.sums.of(&follower.root);
            *sums += tally.into();
            sums.contradicted_plans += u64::from(fate == Fate::Contradicted && follower.origin == Origin::Plan);
        }
    }

    /// Takes note that a reader has begun a file.
    pub fn begun(&mut self, file: &Begun, now: Instant) {
        let mut is_followed = false;
        for (_, follower) in &mut self.followers {
            is_followed |= follower.note(file.number, now);
        }
        if !is_followed {
            for (_, follower) in
                self.followers.iter_mut().filter(|(_, follower)| follower.covers(&file.root, &file.above))
            {
                follower.stray();
            }
        }
        self.end_where(Fate::Contradicted, |follower| follower.is_contradicted(now));
        self.end_where(Fate::Finished, Follower::is_finished);
        if self.settings.epochs && !file.above.is_empty() {
            if !self.passes.contains(&file.root)
                && let Some((root, mut left)) = self.passes.push(file.root.clone(), Pass::new(now))
            {
                left.end();
                *self.sums.of(&root) += left.tally.into();
            }
            let pass = self.passes.get_or_insert_mut(file.root.clone(), || Pass::new(now));
            pass.begun(file.number, file.size, &file.above, now);
            let is_explained = self
                .followers
                .iter()
                .any(|(_, follower)| follower.root == file.root && now - follower.moved() < EXPLAINS);
            if !is_explained {
                self.surveys.extend(pass.survey_due().map(|scope| (file.root.clone(), scope)));
                self.sweeps.extend(pass.worth_sweeping().map(|survey| (file.root.clone(), survey)));
            }
        }
    }

    /// Takes note that a reader has come to the end of a file, having begun at its beginning.
    pub fn finished(&mut self, file: &Begun, now: Instant) {
        let Some(parent) = file.above.first() else { return };
        let is_followed = self.followers.iter().any(|(_, follower)| follower.has(file.number));
        if !self.settings.siblings || is_followed {
            return;
        }
        match self.tracks.note(*parent, file.number) {
            Said::Nothing => {}
            Said::Read => self.watches.push_back(*parent),
            Said::Found(found) => self.follow_siblings(&found, file.root.clone(), now),
        }
    }

    /// A directory was read, for the files of a root.
    pub fn watch(&mut self, number: u64, directory: Option<Arc<Directory>>, root: Option<Cid>, now: Instant) {
        if let (Some(found), Some(root)) = (self.tracks.watch(number, directory), root) {
            self.follow_siblings(&found, root, now);
        }
    }

    fn follow_siblings(&mut self, found: &Found, root: Cid, now: Instant) {
        // A plan knows better.
        if self.followers.iter().any(|(_, follower)| follower.root == root && follower.origin == Origin::Plan) {
            return;
        }
        // One that was found a moment ago may be this very one: it does not know its files yet. If it is another, it is found
        // again with the next file.
        let is_unknown =
            |follower: &Follower| follower.root == root && follower.origin == Origin::Siblings && follower.is_unknown();
        if self.followers.iter().any(|(_, follower)| is_unknown(follower)) {
            return;
        }
        let order = match found.sequence {
            Sequence::Listed => "directory order",
            Sequence::Named => "by name",
            Sequence::Numbered => "by inode number",
        };
        let stride =
            if found.pattern.stride == 1 { String::new() } else { format!(", every {}th", found.pattern.stride) };
        let backward = if found.pattern.backward { ", backward" } else { "" };
        let siblings = Siblings::after(self.directories.clone(), found);
        let description = format!("{order}{stride}{backward}");
        self.add(Follower::new(root, Origin::Siblings, description, Box::new(siblings), now));
    }

    /// The next thing to do.
    pub fn next(&mut self, load: &Load) -> Option<Task> {
        if let Some(directory) = self.watches.pop_front() {
            return Some(Task::Watch(directory));
        }
        if let Some(directory) = self.introductions.pop_front() {
            return Some(Task::Introduce(directory));
        }
        for (id, follower) in &mut self.followers {
            if let Some(order) = follower.pull() {
                return Some(Task::Pull(Owner::Follower(*id), order, Follower::PULL));
            }
        }
        if let Some((root, survey)) = self.sweeps.pop_front() {
            return Some(Task::Sweep(root, survey));
        }
        if let Some((root, scope)) = self.surveys.pop_front() {
            return Some(Task::Survey(root, scope));
        }
        if self.bringing >= MAX_BRINGING || self.paused_until.is_some_and(|until| load.now < until) {
            return None;
        }
        let task = self.next_for_followers(load).or_else(|| self.next_for_passes(load.now));
        if matches!(task, Some(Task::Bring { .. })) {
            self.bringing += 1;
        }
        task
    }

    fn next_for_followers(&mut self, load: &Load) -> Option<Task> {
        let ahead: u64 = self.followers.iter().map(|(_, follower)| follower.ahead()).sum();
        let mut turns: SmallVec<[(u64, usize); 8]> =
            self.followers.iter().enumerate().map(|(index, (_, follower))| (follower.served, index)).collect();
        turns.sort_unstable();
        for (_, index) in turns {
            let (id, follower) = &mut self.followers[index];
            let others = ahead - follower.ahead();
            let batch = follower.take(load.room.saturating_sub(others));
            if !batch.is_empty() {
                return Some(Task::Bring { owner: Owner::Follower(*id), batch });
            }
        }
        None
    }

    fn next_for_passes(&mut self, now: Instant) -> Option<Task> {
        let followed: SmallVec<[Cid; 4]> = self
            .followers
            .iter()
            .filter(|(_, follower)| now - follower.moved() < EXPLAINS)
            .map(|(_, follower)| follower.root.clone())
            .collect();
        let mut turns: SmallVec<[(u64, Cid); 4]> = self
            .passes
            .iter()
            .filter(|(root, pass)| pass.is_sweeping() && !followed.contains(root))
            .map(|(root, pass)| (pass.served, root.clone()))
            .collect();
        turns.sort_unstable();
        for (_, root) in turns {
            let Some(pass) = self.passes.peek_mut(&root) else { continue };
            if pass.is_over(now) {
                pass.end();
                continue;
            }
            if let Some(order) = pass.pull() {
                return Some(Task::Pull(Owner::Pass(root), order, Pass::PULL));
            }
            let batch = pass.take();
            if !batch.is_empty() {
                return Some(Task::Bring { owner: Owner::Pass(root), batch });
            }
        }
        None
    }

    /// Takes back an order, with what was pulled of it, and notes directories whose files the kernel does not know.
    pub fn pulled(&mut self, owner: &Owner, order: Order, files: Vec<(u64, Upcoming)>, unknown: Vec<Arc<Path>>) {
        let count = if matches!(owner, Owner::Pass(_)) { Pass::PULL } else { Follower::PULL };
        let ended = files.len() < count;
        self.introductions.extend(unknown);
        match owner {
            Owner::Follower(id) => {
                if let Some(follower) = self.follower(*id) {
                    follower.pulled(order, files, ended);
                }
                self.end_where(Fate::Finished, Follower::is_finished);
            }
            Owner::Pass(root) => {
                if let Some(pass) = self.passes.peek_mut(root) {
                    pass.pulled(order, files, ended);
                }
            }
        }
    }

    /// Whether to introduce a directory now: not where it was a moment ago.
    pub fn may_introduce(&mut self, directory: &Arc<Path>, now: Instant) -> bool {
        let is_fresh = self.introduced.get(directory).is_some_and(|at| now - *at < INTRODUCED_FOR);
        if !is_fresh {
            self.introduced.put(directory.clone(), now);
        }
        !is_fresh
    }

    /// Whether to push a file that was handed out, now that it is in memory.
    pub fn timing(&self, owner: &Owner, at: u64) -> Timing {
        match owner {
            Owner::Follower(id) => {
                let follower = self.followers.iter().find(|(other, _)| other == id);
                follower.map_or(Timing::TooLate, |(_, follower)| follower.timing(at))
            }
            Owner::Pass(_) => Timing::Now,
        }
    }

    /// What became of files that were handed out.
    pub fn brought(&mut self, owner: &Owner, outcomes: Vec<(Bring, Outcome)>, now: Instant) {
        self.bringing -= 1;
        for (bring, outcome) in outcomes {
            let root = match owner {
                Owner::Follower(id) => {
                    let Some(follower) = self.follower(*id) else { return };
                    follower.done(bring.at, outcome, now);
                    follower.root.clone()
                }
                Owner::Pass(root) => {
                    let Some(pass) = self.passes.peek_mut(root) else { return };
                    pass.done(&bring, outcome);
                    root.clone()
                }
            };
            if outcome == Outcome::Remote {
                let (queue, priority) = match owner {
                    Owner::Follower(_) => (&mut self.wants, Priority::ReadAhead),
                    Owner::Pass(_) => (&mut self.background, Priority::Background),
                };
                let want =
                    Want { owner: owner.clone(), root, at: bring.at, file: bring.file, bytes: bring.wanted, priority };
                if queue.len() < MAX_WANTS {
                    queue.push_back(want);
                } else {
                    self.arrived(&want, false, now);
                }
            }
        }
    }

    /// A push has failed, or the machine is short of memory: nothing is pushed for a moment.
    pub fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + PAUSE);
    }

    /// The next file to fetch: what a reader is about to want before what some reader may.
    pub fn next_want(&mut self) -> Option<Want> {
        loop {
            let want = self.wants.pop_front().or_else(|| self.background.pop_front())?;
            let is_wanted = match &want.owner {
                Owner::Follower(id) => self.follower(*id).is_some_and(|follower| follower.wants(want.at)),
                Owner::Pass(root) => self.passes.peek(root).is_some_and(|pass| pass.wants(want.at)),
            };
            if is_wanted {
                return Some(want);
            }
        }
    }

    /// A file was fetched, or cannot be.
    pub fn arrived(&mut self, want: &Want, fetched: bool, now: Instant) {
        if fetched {
            self.sums.of(&want.root).fetched_bytes += want.bytes;
        }
        match &want.owner {
            Owner::Follower(id) => {
                if let Some(follower) = self.follower(*id) {
                    follower.arrived(want.at, fetched, now);
                }
            }
            Owner::Pass(root) => {
                if let Some(pass) = self.passes.peek_mut(root) {
                    pass.arrived(want.at, number(&want.file), fetched);
                }
            }
        }
    }

    /// What was found below a directory.
    pub fn surveyed(&mut self, root: &Cid, survey: Option<Survey>) {
        if let Some(pass) = self.passes.peek_mut(root) {
            pass.surveyed(survey);
            self.sweeps.extend(pass.worth_sweeping().map(|survey| (root.clone(), survey)));
        }
    }

    /// Begins to fetch the rest of a tree.
    pub fn sweep(&mut self, root: &Cid, survey: &Survey, order: Order) {
        let Some(pass) = self.passes.peek_mut(root) else { return };
        if pass.worth_sweeping().is_some_and(|now| now.scope == survey.scope) {
            tracing::info!(%root, files = survey.files, bytes = survey.bytes, "an epoch has begun: fetching the rest of it");
            pass.sweep(survey.scope, order);
        }
    }

    /// The bytes that are on their way for the rest of a tree.
    pub fn coming_bytes(&self, root: &Cid) -> u64 {
        self.passes.peek(root).map_or(0, Pass::coming_bytes)
    }

    /// The rest of a tree cannot be kept: no more of it is fetched.
    pub fn stop_full(&mut self, root: &Cid) {
        if let Some(pass) = self.passes.peek_mut(root) {
            tracing::info!(%root, "the rest of the epoch is not fetched: there is no room for it");
            pass.stop_full();
        }
    }

    /// Whether there may be something to do.
    pub fn has_work(&self) -> bool {
        let is_sweeping = || self.passes.iter().any(|(_, pass)| pass.has_work());
        self.followers.iter().any(|(_, follower)| follower.has_work())
            || !self.watches.is_empty()
            || !self.surveys.is_empty()
            || !self.sweeps.is_empty()
            || !self.introductions.is_empty()
            || is_sweeping()
    }

    fn follower(&mut self, id: u64) -> Option<&mut Follower> {
        self.followers.iter_mut().find(|(other, _)| *other == id).map(|(_, follower)| follower)
    }

    /// What was done for roots that were not read for long.
    pub fn others(&self) -> PrefetchFigures {
        self.sums.others()
    }

    /// What was done for each root, and goes on.
    pub fn report(&mut self, now: Instant) -> Vec<(Cid, RootReport)> {
        self.end_where(Fate::Contradicted, |follower| follower.is_contradicted(now));
        let mut reports: Vec<(Cid, RootReport)> =
            self.sums.reports().map(|(root, report)| (root.clone(), report)).collect();
        let mut add = |root: &Cid, report: RootReport| match reports.iter_mut().find(|(other, _)| other == root) {
            Some((_, sum)) => sum.add(&report),
            None => reports.push((root.clone(), report)),
        };
        for (_, follower) in &self.followers {
            let report = RootReport {
                pattern: follower.description.clone(),
                window_bytes: follower.window(),
                ahead_bytes: follower.ahead(),
                figures: follower.tally.into(),
                predicted_stall_milliseconds: follower.predicted_stall(now).as_millis() as u64,
                ..RootReport::default()
            };
            add(&follower.root, report);
        }
        for (root, pass) in &self.passes {
            let report = RootReport {
                pattern: pass.description().unwrap_or_default(),
                figures: pass.tally.into(),
                ..RootReport::default()
            };
            add(root, report);
        }
        reports
    }
}

#[cfg(test)]
mod tests;
