//! The plans of one daemon: orders of reads that its mounts follow.
//!
//! A plan is for the processes of one job on this machine, whose orders are taken by turns. Every mount follows it, those
//! that are made later too: which of them the job reads is not known, and a mount that nobody reads brings a window of files
//! and then waits. When an epoch has come to its end the next one follows by itself. A plan that the reads contradict is
//! dropped by the mount that saw it; it is listed until another takes its place.
//!
//! A root has one plan at a time, since prefetch follows one for each.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::block::Cid;
use crate::limits::MAX_PLANS;
use crate::prefetch::plan::Plan;
use crate::prefetch::{Fate, Prefetch, Progress, Upcoming};
use crate::tree::Location;

/// Beginnings of epochs that are remembered, to tell which one readers are in: files are known some hundred ahead.
const REMEMBERED_EPOCHS: usize = 64;

/// The plans of a daemon.
#[derive(Clone, Default)]
pub struct Plans {
    active: Arc<Mutex<Vec<Active>>>,
}

/// There are too many at a time.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_PLANS} plans are followed already: drop one first (cidfs plan --list, cidfs plan --drop PATH)")]
pub struct TooManyPlans;

struct Active {
    plan: Arc<Plan>,
    /// The epoch to begin with.
    epoch: u64,
    /// The directory's inode number: reads of other directories say nothing about the plan.
    directory: u64,
    followed: Vec<Followed>,
}

/// A plan on one mount.
struct Followed {
    progress: Arc<Progress>,
    epochs: Epochs,
}

/// Where epochs begin: the epoch, the files before it, and the files in it.
type Epochs = Arc<Mutex<VecDeque<(u64, u64, u64)>>>;

/// How a plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum PlanState {
    /// No mount follows it yet.
    Waiting,
    /// Files are brought ahead of the readers.
    Followed,
    /// It has come to its end.
    Finished,
    /// Other files were read than it says: it was dropped.
    Contradicted,
    /// Another plan, or the end of the mount, took its place.
    Stopped,
}

/// A plan, for people and programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PlanReport {
    /// The directory that it is for.
    pub directory: String,
    /// Where its order comes from.
    pub order: String,
    /// How it stands.
    pub state: PlanState,
    /// The files of the dataset.
    pub files: u64,
    /// The epoch that readers are in.
    pub epoch: u64,
    /// How many files of the epoch they have reached, and how many it has.
    pub reached: u64,
    /// See `reached`.
    pub of: u64,
    /// The bytes that were brought ahead of readers.
    pub pushed_bytes: u64,
}

impl Plans {
    /// Follows a plan from `epoch` on, on these mounts and those that come, in place of another plan for the same root.
    /// `directory` is the number of the directory's inode.
    pub fn follow(&self, plan: Plan, epoch: u64, directory: u64, mounts: &[Prefetch]) -> Result<(), TooManyPlans> {
        let mut active = self.active.lock();
        active.retain(|active| active.plan.root != plan.root);
        if active.len() >= MAX_PLANS {
            return Err(TooManyPlans);
        }
        let mut new = Active { plan: Arc::new(plan), epoch, directory, followed: Vec::new() };
        for mount in mounts {
            new.follow_on(mount);
        }
        active.push(new);
        Ok(())
    }

    /// A new mount: it follows what is followed.
    pub fn mounted(&self, mount: &Prefetch) {
        for active in self.active.lock().iter_mut() {
            // What was contradicted or has come to its end is over, here too.
            if matches!(active.state(), PlanState::Waiting | PlanState::Followed | PlanState::Stopped) {
                active.follow_on(mount);
            }
        }
    }

    /// Drops the plan for a directory, or all, and says how many there were. `mounts` follow it no more.
    pub fn drop_for(&self, directory: Option<&str>, mounts: &[Prefetch]) -> usize {
        let is_for = |active: &Active| directory.is_none_or(|directory| active.plan.directory == directory);
        let mut active = self.active.lock();
        let dropped: Vec<Active> = active.extract_if(.., |active| is_for(active)).collect();
        for dropped in &dropped {
            for mount in mounts {
                mount.unfollow(&dropped.plan.root);
            }
        }
        dropped.len()
    }

    /// All plans.
    pub fn list(&self) -> Vec<PlanReport> {
        self.active.lock().iter().map(Active::report).collect()
    }

    /// The plan for a directory below `root`, to take its dataset from.
    pub fn of(&self, root: &Cid) -> Option<Arc<Plan>> {
        self.active.lock().iter().find(|active| active.plan.root == *root).map(|active| active.plan.clone())
    }
}

impl Active {
    fn follow_on(&mut self, prefetch: &Prefetch) {
        let epochs = Epochs::default();
        let reads = Reads {
            root: Arc::new(self.plan.root.clone()),
            plan: self.plan.clone(),
            next_epoch: Some(self.epoch),
            order: Vec::new(),
            at: 0,
            given: 0,
            epochs: epochs.clone(),
        };
        let progress = prefetch.follow_below(&self.plan.root, self.directory, reads);
        self.followed.push(Followed { progress, epochs });
    }

    /// The mount where readers are furthest: the others have none.
    fn furthest(&self) -> Option<&Followed> {
        self.followed.iter().max_by_key(|followed| followed.progress.reached())
    }

    fn state(&self) -> PlanState {
        let fates: Vec<Fate> = self.followed.iter().map(|followed| followed.progress.fate()).collect();
        let states = [
            (Fate::Contradicted, PlanState::Contradicted),
            (Fate::Followed, PlanState::Followed),
            (Fate::Finished, PlanState::Finished),
            (Fate::Stopped, PlanState::Stopped),
        ];
        states.into_iter().find(|(fate, _)| fates.contains(fate)).map_or(PlanState::Waiting, |(_, state)| state)
    }

    fn report(&self) -> PlanReport {
        let furthest = self.furthest();
        let reached = furthest.map_or(0, |followed| followed.progress.reached());
        let epochs = furthest.map(|followed| followed.epochs.lock().clone()).unwrap_or_default();
        let now = epochs.iter().rev().find(|(_, before, _)| *before <= reached).or(epochs.front()).copied();
        let (epoch, before, of) = now.unwrap_or((self.epoch, 0, 0));
        PlanReport {
            directory: self.plan.directory.clone(),
            order: self.plan.order.to_string(),
            state: self.state(),
            files: self.plan.dataset.len() as u64,
            epoch,
            reached: reached.saturating_sub(before).min(of),
            of,
            pushed_bytes: self.followed.iter().map(|followed| followed.progress.pushed_bytes()).sum(),
        }
    }
}

/// The files of a plan, epoch after epoch.
struct Reads {
    root: Arc<Cid>,
    plan: Arc<Plan>,
    /// `None` where there is no other one.
    next_epoch: Option<u64>,
    order: Vec<u32>,
    at: usize,
    /// The files that were handed out.
    given: u64,
    epochs: Epochs,
}

impl Reads {
    /// Begins the next epoch. False where there is none.
    fn begin(&mut self) -> bool {
        let Some(epoch) = self.next_epoch else { return false };
        let order = match self.plan.epoch(epoch) {
            Ok(order) => order,
            Err(error) => {
                tracing::warn!(directory = self.plan.directory, epoch, %error, "the plan ends");
                return false;
            }
        };
        // Where there is nothing to fetch for a file, nobody waits for it.
        self.order = order;
        self.order.retain(|file| self.plan.dataset.size(*file) > 0);
        self.at = 0;
        self.next_epoch = epoch.checked_add(1);
        let mut epochs = self.epochs.lock();
        if epochs.len() == REMEMBERED_EPOCHS {
            epochs.pop_front();
        }
        epochs.push_back((epoch, self.given, self.order.len() as u64));
        !self.order.is_empty()
    }
}

impl Iterator for Reads {
    type Item = Upcoming;

    fn next(&mut self) -> Option<Upcoming> {
        if self.at == self.order.len() && !self.begin() {
            self.next_epoch = None;
            return None;
        }
        let file = self.order[self.at];
        let (cid, size) = self.plan.dataset.file(file)?;
        self.at += 1;
        self.given += 1;
        Some(Upcoming { location: Location::below(&self.root, cid), size, directory: None })
    }
}
