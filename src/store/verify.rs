//! Looking at every byte: `cidfs verify`.
//!
//! All records are read in their order on the disk and hashed, on all cores. A record must be whole: its length and CID
//! as the table has them, its bytes hashing to the CID. What is not is reported with its CID, file and place; with
//! `repair` it is dropped, and its segment is rewritten without it. Then all pins are walked for what they lack.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use smallvec::SmallVec;

use super::index::Location;
use super::live::{Live, Walk};
use super::segment::Segment;
use super::table::{self, Entry};
use super::{Core, Pin, Store, StoreError};
use crate::block::{Block, Cid, write_varint};
use crate::limits::{MAX_BLOCK_BYTES, MAX_RECORD_CID_BYTES};

/// What is read at once: several blocks, or one of the largest.
const WINDOW_BYTES: usize = MAX_BLOCK_BYTES;

/// A damaged record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The block.
    pub cid: Cid,
    /// The segment file.
    pub segment: PathBuf,
    /// Where its record begins in the file.
    pub offset: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A pin that lacks blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompletePin {
    /// The pin.
    pub pin: Pin,
    /// How many blocks are known to be missing: what hangs below a missing node is not.
    pub missing: u64,
    /// The first of them.
    pub first: Cid,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The blocks that were read.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The damaged records.
    pub damaged: Vec<Damaged>,
    /// The damaged records that were dropped.
    pub dropped: u64,
    /// The pins that lack blocks.
    pub incomplete: Vec<IncompletePin>,
}

/// How far a verification is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyProgress {
    /// So much was read.
    Read {
        /// Blocks so far.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// All bytes that are to be read.
        total_bytes: u64,
    },
    /// This record is damaged.
    Damaged(Damaged),
    /// The pins are being walked.
    WalkingPins,
}

/// Told how far a verification is; ends it by answering `Break`.
pub type VerifySink<'a> = &'a mut dyn FnMut(VerifyProgress) -> ControlFlow<()>;

/// What a worker found.
enum Finding {
    Read { blocks: u64, bytes: u64 },
    Damaged { damaged: Damaged, segment: u32, position: u32 },
}

impl Store {
    /// Reads and hashes every block, and walks all pins. With `repair`, damaged records are dropped. Reads and writes go on
    /// meanwhile.
    pub fn verify(&self, repair: bool, sink: VerifySink<'_>) -> Result<VerifyReport, StoreError> {
        let core = self.core();
        let _maintenance = core.maintenance.lock();
        let mut report = VerifyReport::default();
        let places = core.hash_all(&mut report, sink)?;
        if repair {
            report.dropped = core.drop_damaged(&places)?;
            core.compact_sparse()?;
        }
        if sink(VerifyProgress::WalkingPins).is_break() {
            return Err(StoreError::Stopped);
        }
        let damaged: HashSet<&[u8]> = report.damaged.iter().map(|damaged| damaged.cid.multihash()).collect();
        report.incomplete = core.incomplete_pins(&damaged)?;
        Ok(report)
    }
}

impl Core {
    /// Hashes all records with all cores; says where the damaged ones are.
    fn hash_all(&self, report: &mut VerifyReport, sink: VerifySink<'_>) -> Result<Vec<Location>, StoreError> {
        let segments: Vec<Arc<Segment>> = self.snapshot().into_iter().map(|(segment, _)| segment).collect();
        let total_bytes = segments.iter().map(|segment| segment.live_bytes.load(Ordering::Relaxed)).sum();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (findings, found) = channel();
        let mut places = Vec::new();
        let ended = std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(2, usize::from);
            for _ in 0..threads {
                let (findings, segments, next, stop) = (findings.clone(), &segments, &next, &stop);
                scope.spawn(move || {
                    while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // A segment that is unreadable altogether is reported block by block.
                        self.hash_segment(segment, stop, &findings);
                    }
                });
            }
            drop(findings);
            let mut ended = ControlFlow::Continue(());
            for finding in found {
                let progress = match finding {
                    Finding::Read { blocks, bytes } => {
                        report.blocks += blocks;
                        report.bytes += bytes;
                        VerifyProgress::Read { blocks: report.blocks, bytes: report.bytes, total_bytes }
                    }
                    Finding::Damaged { damaged, segment, position } => {
                        report.damaged.push(damaged.clone());
                        places.push(Location { segment, position });
                        VerifyProgress::Damaged(damaged)
                    }
                };
                if ended.is_continue() && sink(progress).is_break() {
                    ended = ControlFlow::Break(());
                    stop.store(true, Ordering::Relaxed);
                }
            }
            ended
        });
        if ended.is_break() { Err(StoreError::Stopped) } else { Ok(places) }
    }

    fn hash_segment(&self, segment: &Arc<Segment>, stop: &AtomicBool, findings: &Sender<Finding>) {
        let table = match segment.whole_table() {
            Ok(table) => table,
            Err(error) => {
                tracing::error!("{error}; its blocks were not verified");
                self.read_failed(error);
                return;
            }
        };
        let mut window: (u64, Bytes) = (0, Bytes::new());
        let mut read = (0, 0);
        for (position, entry) in table::entries(&table) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let at = Location { segment: segment.id, position };
            let is_here = || self.index.with(self.index.key(entry.multihash()), at, || ());
            let Ok(cid) = Cid::from_bytes(entry.cid) else { continue };
            if !is_here() {
                continue;
            }
            // What was removed while it was read is none of ours any more.
            if let Err(why) = check(segment, &entry, &cid, &mut window)
                && is_here()
            {
                let damaged = Damaged { cid, segment: segment.path(), offset: u64::from(entry.offset), why };
                segment.is_damaged.store(true, Ordering::Relaxed);
                let _ = findings.send(Finding::Damaged { damaged, segment: segment.id, position });
            }
            read = (read.0 + 1, read.1 + u64::from(entry.data_len));
            if read.1 >= WINDOW_BYTES as u64 {
                let _ = findings.send(Finding::Read { blocks: read.0, bytes: read.1 });
                read = (0, 0);
            }
        }
        let _ = findings.send(Finding::Read { blocks: read.0, bytes: read.1 });
    }

    fn drop_damaged(&self, places: &[Location]) -> Result<u64, StoreError> {
        let mut dropped = 0;
        for at in places {
            let Some(segment) = self.segments.read().get(&at.segment).cloned() else { continue };
            let found = segment.entry(at.position)?;
            let Some(entry) = found.entry() else { continue };
            if self.drop_record(&segment, at.position, &entry, || false) {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                dropped += 1;
            }
        }
        self.drop_empty_segments();
        self.flush_dead()?;
        Ok(dropped)
    }

    fn incomplete_pins(&self, damaged: &HashSet<&[u8]>) -> Result<Vec<IncompletePin>, StoreError> {
        let pins = self.db.pins()?;
        // One walk over all says whether any lacks anything; only then each is walked on its own.
        let mut live = Live::default();
        let mut all = Lacking { damaged, missing: 0, first: None };
        for pin in &pins {
            let _ = self.mark(pin, &mut live, &mut all)?;
        }
        if all.missing == 0 {
            return Ok(Vec::new());
        }
        let mut incomplete = Vec::new();
        for pin in pins {
            let mut lacking = Lacking { damaged, missing: 0, first: None };
            let _ = self.mark(&pin, &mut Live::default(), &mut lacking)?;
            if let Some(first) = lacking.first {
                incomplete.push(IncompletePin { pin, missing: lacking.missing, first });
            }
        }
        Ok(incomplete)
    }
}

/// Counts what a pin lacks.
struct Lacking<'a> {
    damaged: &'a HashSet<&'a [u8]>,
    missing: u64,
    first: Option<Cid>,
}

impl Walk for Lacking<'_> {
    fn reached(&mut self, _live: &Live, cid: &Cid) -> ControlFlow<()> {
        if self.damaged.contains(cid.multihash()) { self.missing(cid) } else { ControlFlow::Continue(()) }
    }

    fn missing(&mut self, cid: &Cid) -> ControlFlow<()> {
        self.missing += 1;
        self.first.get_or_insert_with(|| cid.clone());
        ControlFlow::Continue(())
    }
}

/// Whether a record is whole. `window` is what was read last: records follow one another.
fn check(segment: &Arc<Segment>, entry: &Entry<'_>, cid: &Cid, window: &mut (u64, Bytes)) -> Result<(), String> {
    let (start, end) = (u64::from(entry.offset), entry.record_end());
    if start < window.0 || end > window.0 + window.1.len() as u64 {
        let left = segment.records_end.load(Ordering::Acquire).saturating_sub(start);
        let len = (end - start).max(left.min(WINDOW_BYTES as u64)) as usize;
        // A window that reaches into what is only being written is read record by record.
        let read = match segment.read(start, len) {
            Ok(Some(read)) => Ok(Some(read)),
            _ => segment.read(start, (end - start) as usize),
        };
        let (bytes, _) = read.map_err(|error| error.to_string())?.ok_or("the file ends before it does")?;
        *window = (start, bytes);
    }
    let skip = (start - window.0) as usize;
    let record = window.1.slice(skip..skip + (end - start) as usize);
    let mut head = SmallVec::<[u8; MAX_RECORD_CID_BYTES + 10]>::new();
    write_varint(&mut head, (entry.cid.len() + entry.data_len as usize) as u64);
    head.extend_from_slice(entry.cid);
    if record[..usize::from(entry.head_len)] != head[..] {
        return Err("its length or CID is wrong".into());
    }
    Block::verify(cid.clone(), record.slice(head.len()..)).map(drop).map_err(|error| error.to_string())
}
