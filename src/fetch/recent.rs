//! What was fetched lately, and how: who was asked, when, and what they answered. For `cidfs why`.
//!
//! Each fetch keeps a [`Log`] while it lasts. Those that have ended stay for a while in two rings, so that what was slow or
//! failed is not pushed out by the many that were quick.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Priority;
use crate::block::Cid;
use crate::limits::{MAX_FETCH_NOTES, RECENT_FETCHES};

/// From here on a fetch is slow: a reader has noticed.
const SLOW: Duration = Duration::from_millis(500);

/// What is known of one fetch while it lasts.
#[derive(Debug)]
pub(super) struct Log {
    pub cid: Cid,
    pub session: Option<Cid>,
    begun: Instant,
    begun_at: SystemTime,
    /// Microseconds after the beginning at which something last arrived.
    progress: AtomicU64,
    bytes: AtomicU64,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    notes: VecDeque<Note>,
    left_out: u64,
    from: Option<String>,
}

#[derive(Clone, Debug)]
struct Note {
    after: Duration,
    whom: String,
    said: String,
}

/// How a fetch ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Fetched(usize),
    Failed(String),
    /// Nobody wanted it any more.
    Dropped,
}

/// One fetch, for people and programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FetchReport {
    /// The block.
    pub cid: String,
    /// The root that was being read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub root: Option<String>,
    /// How much it was wanted: `demand`, `read-ahead`, `background`.
    pub priority: String,
    /// How it stands: `waiting`, `fetched`, `failed`, `dropped` (nobody wanted it any more).
    pub state: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    /// When it began, in milliseconds of Unix time.
    pub began: u64,
    /// How long it took, or has taken so far, in milliseconds.
    pub milliseconds: u64,
    /// The bytes that arrived for it, whoever sent them.
    pub bytes: u64,
    /// Who sent the block.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// What was asked of whom, and what they answered, in order.
    pub notes: Vec<NoteReport>,
    /// Notes in the middle that were not kept.
    pub left_out: u64,
}

/// What was asked of somebody, or what they answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NoteReport {
    /// When, in milliseconds from the beginning of the fetch.
    pub milliseconds: u64,
    /// The source, and whom of it.
    pub whom: String,
    /// What was asked or answered.
    pub said: String,
}

impl Log {
    pub fn new(cid: Cid, session: Option<Cid>) -> Log {
        Log {
            cid,
            session,
            begun: Instant::now(),
            begun_at: SystemTime::now(),
            progress: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            written: Mutex::default(),
        }
    }

    /// When something last arrived; the beginning where nothing did.
    pub fn last_progress(&self) -> Instant {
        self.begun + Duration::from_micros(self.progress.load(Ordering::Relaxed))
    }

    /// Bytes arrived.
    pub fn progress(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.progress.fetch_max(self.begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    pub fn note(&self, source: &str, whom: &str, said: String) {
        let note = Note { after: self.begun.elapsed(), whom: full_name(source, whom), said };
        let mut written = self.written.lock();
        if written.notes.len() == MAX_FETCH_NOTES {
            // The beginning and the end say most.
            written.notes.remove(MAX_FETCH_NOTES / 2);
            written.left_out += 1;
        }
        written.notes.push_back(note);
    }

    pub fn brought_by(&self, source: &str, whom: &str) {
        self.written.lock().from = Some(full_name(source, whom));
    }

    /// Who sent the block.
    pub fn from(&self) -> Option<String> {
        self.written.lock().from.clone()
    }

    /// The last that was heard of each, for an error.
    pub fn summary(&self) -> String {
        let written = self.written.lock();
        let mut last: Vec<&Note> = Vec::new();
        for note in &written.notes {
            last.retain(|known| known.whom != note.whom);
            last.push(note);
        }
        let shown = last.iter().rev().take(MAX_IN_SUMMARY).rev();
        let mut text: Vec<String> = shown.map(|note| format!("{}: {}", note.whom, note.said)).collect();
        if last.len() > MAX_IN_SUMMARY {
            text.insert(0, format!("{} others", last.len() - MAX_IN_SUMMARY));
        }
        text.join("; ")
    }

    pub fn report(&self, priority: Priority, end: Option<&End>) -> FetchReport {
        let took = self.begun.elapsed();
        let written = self.written.lock();
        let (state, error) = match end {
            None => ("waiting", None),
            Some(End::Fetched(_)) => ("fetched", None),
            Some(End::Failed(why)) => ("failed", Some(why.clone())),
            Some(End::Dropped) => ("dropped", None),
        };
        let began = self.begun_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        FetchReport {
            cid: self.cid.to_string(),
            root: self.session.as_ref().map(ToString::to_string),
            priority: priority.word().to_owned(),
            state: state.to_owned(),
            error,
            began: began.as_millis() as u64,
            milliseconds: took.as_millis() as u64,
            bytes: match end {
                // A source need not tell of a block that comes at once.
                Some(End::Fetched(len)) => self.bytes.load(Ordering::Relaxed).max(*len as u64),
                _ => self.bytes.load(Ordering::Relaxed),
            },
            from: written.from.clone(),
            notes: written.notes.iter().map(Note::report).collect(),
            left_out: written.left_out,
        }
    }
}

/// How many of those that were asked an error names.
const MAX_IN_SUMMARY: usize = 6;

impl Note {
    fn report(&self) -> NoteReport {
        let milliseconds = self.after.as_millis() as u64;
        NoteReport { milliseconds, whom: self.whom.clone(), said: self.said.clone() }
    }
}

fn full_name(source: &str, whom: &str) -> String {
    if whom.is_empty() { source.to_owned() } else { format!("{source} {whom}") }
}

/// The fetches that ended lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    all: Mutex<VecDeque<Ended>>,
    /// Those that were slow or failed.
    notable: Mutex<VecDeque<Ended>>,
}

#[derive(Debug)]
struct Ended {
    cid: Cid,
    session: Option<Cid>,
    report: FetchReport,
}

impl Recent {
    /// Takes in a fetch that has ended.
    pub fn push(&self, log: &Log, priority: Priority, end: &End) {
        let is_notable = matches!(end, End::Failed(_)) || log.begun.elapsed() >= SLOW;
        let ended =
            Ended { cid: log.cid.clone(), session: log.session.clone(), report: log.report(priority, Some(end)) };
        let mut ring = if is_notable { self.notable.lock() } else { self.all.lock() };
        if ring.len() == RECENT_FETCHES {
            ring.pop_front();
        }
        ring.push_back(ended);
    }

    /// The fetches of `cid`, and those for it as a root, in no order.
    pub fn about(&self, cid: &Cid) -> Vec<FetchReport> {
        let mut reports = Vec::new();
        for ring in [&self.all, &self.notable] {
            let ring = ring.lock();
            let is_about = |ended: &&Ended| ended.cid == *cid || ended.session.as_ref() == Some(cid);
            reports.extend(ring.iter().filter(is_about).map(|ended| ended.report.clone()));
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    fn cid(number: u64) -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&number.to_le_bytes()))
    }

    #[test]
    fn the_ring_is_bounded_and_failures_outlast_what_went_well() {
        let recent = Recent::default();
        recent.push(&Log::new(cid(0), None), Priority::Demand, &End::Failed("no".into()));
        for number in 1..=3 * RECENT_FETCHES as u64 {
            recent.push(&Log::new(cid(number), Some(cid(1))), Priority::Background, &End::Fetched(1));
        }
        assert_eq!(recent.about(&cid(0))[0].error.as_deref(), Some("no"));
        assert_eq!(recent.about(&cid(1)).len(), RECENT_FETCHES, "by its root");
        assert_eq!(recent.about(&cid(2)).len(), 0, "pushed out");
    }

    #[test]
    fn notes_are_bounded_and_keep_the_beginning_and_the_end() {
        let log = Log::new(cid(0), None);
        for number in 0..10 * MAX_FETCH_NOTES {
            log.note("peers", &number.to_string(), "asked".into());
        }
        let report = log.report(Priority::Demand, None);
        assert_eq!(report.notes.len(), MAX_FETCH_NOTES);
        assert_eq!(report.left_out as usize, 9 * MAX_FETCH_NOTES);
        assert_eq!(report.notes[0].whom, "peers 0");
        assert_eq!(report.notes[MAX_FETCH_NOTES - 1].whom, format!("peers {}", 10 * MAX_FETCH_NOTES - 1));
        assert!(log.summary().contains("others"), "{}", log.summary());
    }
}
