//! The warmups of one daemon: those that run, and the last ones that have ended.
//!
//! A warmup in the foreground ends with the request that began it; one in the background goes on until its end, until
//! somebody stops it, or until the daemon ends. What it brought by then stays, and the next one goes on from there.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::limits::MAX_WARMUPS;
use crate::prefetch::warmup::{Progress, WarmupError};

/// The warmups of a daemon.
#[derive(Clone, Default)]
pub struct Warmups {
    jobs: Arc<Mutex<VecDeque<Arc<Job>>>>,
    next_id: Arc<AtomicU64>,
}

/// There are too many at a time.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_WARMUPS} warmups are at work already: wait for one to end, or stop one (cidfs warmup --stop PATH)")]
pub struct TooManyWarmups;

/// One warmup. Dropped while it runs, it counts as stopped.
pub struct Warmup {
    job: Arc<Job>,
}

struct Job {
    id: u64,
    path: String,
    started: Instant,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// How long it took, and how it ended.
    ended: Option<(Duration, WarmupEnd)>,
}

/// How a warmup stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum WarmupEnd {
    /// It is at work.
    Running,
    /// Everything is here.
    Done,
    /// It came to its end, and some blocks could not be had.
    Incomplete,
    /// Somebody stopped it.
    Stopped,
    /// It failed, and why.
    Failed(String),
}

/// A warmup, for people and programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct WarmupReport {
    /// Its number.
    pub id: u64,
    /// What it brings.
    pub path: String,
    /// How it stands.
    pub state: WarmupEnd,
    /// How long it has been at work, or was, in seconds.
    pub seconds: u64,
    /// How far it is.
    pub progress: Progress,
}

impl Warmups {
    /// Begins a warmup of `path`.
    pub fn begin(&self, path: &str) -> Result<Warmup, TooManyWarmups> {
        let job = Arc::new(Job {
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            path: path.to_owned(),
            started: Instant::now(),
            stop: CancellationToken::new(),
            state: Mutex::default(),
        });
        let mut jobs = self.jobs.lock();
        if jobs.iter().filter(|job| job.state.lock().ended.is_none()).count() >= MAX_WARMUPS {
            return Err(TooManyWarmups);
        }
        jobs.push_back(job.clone());
        // The oldest that has ended is forgotten.
        while jobs.len() > MAX_WARMUPS
            && let Some(ended) = jobs.iter().position(|job| job.state.lock().ended.is_some())
        {
            jobs.remove(ended);
        }
        Ok(Warmup { job })
    }

    /// Stops the warmups of `path`, or all, and says how many there were.
    pub fn stop(&self, path: Option<&str>) -> usize {
        let jobs = self.jobs.lock();
        let running = jobs.iter().filter(|job| job.state.lock().ended.is_none());
        let wanted = running.filter(|job| path.is_none_or(|path| job.path == path));
        wanted.map(|job| job.stop.cancel()).count()
    }

    /// Those at work, and the last ones that have ended, in the order in which they began.
    pub fn list(&self) -> Vec<WarmupReport> {
        self.jobs.lock().iter().map(|job| job.report()).collect()
    }
}

impl Warmup {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.job.id
    }

    /// Takes down how far it is. `Break` where somebody stopped it.
    pub fn note(&self, progress: &Progress) -> ControlFlow<()> {
        self.job.state.lock().progress.clone_from(progress);
        if self.job.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Takes down how it ended.
    pub fn finish(self, result: &Result<Progress, WarmupError>) {
        self.job.end(match result {
            Ok(progress) if progress.missing > 0 => WarmupEnd::Incomplete,
            Ok(_) => WarmupEnd::Done,
            Err(WarmupError::Stopped) => WarmupEnd::Stopped,
            Err(error) => WarmupEnd::Failed(error.to_string()),
        });
    }
}

impl Drop for Warmup {
    fn drop(&mut self) {
        self.job.end(WarmupEnd::Stopped);
    }
}

impl Job {
    fn end(&self, end: WarmupEnd) {
        self.state.lock().ended.get_or_insert_with(|| (self.started.elapsed(), end));
    }

    fn report(&self) -> WarmupReport {
        let state = self.state.lock();
        let (time, end) = state.ended.clone().unwrap_or_else(|| (self.started.elapsed(), WarmupEnd::Running));
        WarmupReport {
            id: self.id,
            path: self.path.clone(),
            state: end,
            seconds: time.as_secs(),
            progress: state.progress.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_bounded_and_what_has_ended_is_remembered_for_a_while() {
        let warmups = Warmups::default();
        let running: Vec<Warmup> = (0..MAX_WARMUPS).map(|number| warmups.begin(&number.to_string()).unwrap()).collect();
        assert!(warmups.begin("one more").is_err());
        assert_eq!(warmups.stop(Some("3")), 1);
        assert!(
            running[3].note(&Progress::default()).is_break() && running[4].note(&Progress::default()).is_continue()
        );
        drop(running);
        assert!(warmups.list().iter().all(|job| job.state == WarmupEnd::Stopped));
        let done = warmups.begin("again").unwrap();
        assert_eq!(warmups.stop(None), 1, "only this one runs");
        done.finish(&Ok(Progress { missing: 1, ..Progress::default() }));
        let list = warmups.list();
        assert_eq!((list.len(), list[0].path.as_str()), (MAX_WARMUPS, "1"));
        assert_eq!(list[MAX_WARMUPS - 1].state, WarmupEnd::Incomplete);
    }
}
