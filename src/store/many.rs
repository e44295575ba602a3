//! Reading many blocks at once, in the order of the disk.
//!
//! Blocks that were written one after the other lie one after the other, so a few hundred small ones that will be read
//! together come in one request to the disk. What is read so passes the RAM tier by, unless that has room to spare: it is on
//! its way to somewhere else, and would push out what is read again and again. Until it has got there, whoever wants one of
//! the blocks has it from the same reading.

use bytes::Bytes;

use super::read::Found;
use super::reads::{Underway, Urgency};
use super::{Core, Store, uses};
use crate::block::{Block, Cid};
use crate::limits::{CHECKSUM_PIECE_BYTES, MAX_BLOCK_BYTES};

/// What may lie between two blocks that are read in one request, in bytes: reading it is faster than asking twice.
const MAX_GAP_BYTES: u64 = 32 * 1024;

/// Blocks that were read together. Until this is dropped, [`Store::get`] has them from here.
pub struct Together {
    /// The blocks that are here, in the order in which they were asked for.
    pub blocks: Vec<Option<Block>>,
    _underway: Underway,
}

/// A block that is to be read, and where its data lies in its segment.
struct Wanted {
    index: usize,
    found: Found,
    start: u64,
    end: u64,
}

impl Store {
    /// The blocks that are here, each read and checked as by [`Store::get`], in few requests to the disk. Nobody waits for them
    /// yet: readers who do go first. What cannot be read is left out, like what is not here: who wants it most will learn why.
    pub fn get_many(&self, cids: &[Cid]) -> Together {
        let core = self.core();
        let mut blocks: Vec<Option<Block>> = Vec::with_capacity(cids.len());
        let mut missing = Vec::new();
        for (index, cid) in cids.iter().enumerate() {
            let in_ram = || {
                let data = core.ram.get(cid)?;
                core.counts.ram_hit();
                Some(Block::from_checked_record(cid.clone(), data))
            };
            blocks.push(Block::from_identity(cid).or_else(in_ram));
            if blocks[index].is_none() {
                missing.push(index);
            }
        }
        let (underway, places) = core.reads.begin_many(missing.iter().map(|index| &cids[*index]));
        let mut ours: Vec<&Cid> = Vec::with_capacity(missing.len());
        for (index, place) in missing.iter().zip(&places) {
            // Each of ours comes for the first time in its turn.
            if matches!(place, Ok(own) if *own == ours.len()) {
                ours.push(&cids[*index]);
            }
        }
        let read = core.read_together(&ours, &underway);
        underway.finish(read.iter().cloned());
        // Only now others are waited for, who may wait for what we have just read.
        for (index, place) in missing.into_iter().zip(places) {
            let data = match place {
                Ok(own) => read[own].clone(),
                Err(place) => place.wait().inspect(|_| core.counts.ram_hit()),
            };
            blocks[index] = data.map(|data| Block::from_checked_record(cids[index].clone(), data));
        }
        Together { blocks, _underway: underway }
    }
}

impl Core {
    /// Reads blocks from the disk, those that lie close together in one request.
    fn read_together(&self, cids: &[&Cid], underway: &Underway) -> Vec<Option<Bytes>> {
        let mut blocks = vec![None; cids.len()];
        let mut wanted = Vec::with_capacity(cids.len());
        for (index, cid) in cids.iter().enumerate() {
            if let Ok(Some(found)) = self.find(cid.multihash())
                && let Some(entry) = found.entry.entry()
            {
                let start = u64::from(entry.offset) + u64::from(entry.head_len);
                let end = start + u64::from(entry.data_len);
                wanted.push(Wanted { index, found, start, end });
            }
        }
        wanted.sort_by_key(|wanted| (wanted.found.at.segment, wanted.start));
        let together = |a: &Wanted, b: &Wanted| {
            a.found.at.segment == b.found.at.segment && b.start.saturating_sub(a.end) <= MAX_GAP_BYTES
        };
        for near in wanted.chunk_by(together) {
            let mut rest = near;
            while let Some(first) = rest.first() {
                let fits = |wanted: &&Wanted| wanted.end - first.start <= MAX_BLOCK_BYTES as u64;
                let (run, after) = rest.split_at(rest.iter().take_while(fits).count().max(1));
                rest = after;
                self.read_run(run, cids, underway, &mut blocks);
            }
        }
        blocks
    }

    /// Reads blocks that lie close together in one segment.
    fn read_run(&self, run: &[Wanted], cids: &[&Cid], underway: &Underway, blocks: &mut [Option<Bytes>]) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        let segment = &first.found.segment;
        let end = run.iter().map(|wanted| wanted.end).max().unwrap_or(last.end);
        let read = {
            let _turn = self.reads.turn(Urgency::Ahead, Some(underway));
            segment.read(first.start, (end - first.start) as usize)
        };
        let now = uses::now();
        let data = read.ok().flatten().map(|(data, _)| data);
        for wanted in run {
            let cid = cids[wanted.index];
            let range = (wanted.start - first.start) as usize..(wanted.end - first.start) as usize;
            let sound = data.as_ref().map(|data| data.slice(range)).filter(|data| is_sound(wanted, data));
            blocks[wanted.index] = match sound {
                Some(data) => {
                    self.counts.disk_hit(&data);
                    if let Some(entry) = wanted.found.entry.entry() {
                        self.ram.insert_spare(cid, &data, wanted.found.note_use(&entry, now));
                    }
                    Some(data)
                }
                // Damaged, or the disk failed: this way knows what to do about it.
                None => self.get(cid).ok().flatten(),
            };
        }
    }
}

fn is_sound(wanted: &Wanted, data: &Bytes) -> bool {
    let Some(entry) = wanted.found.entry.entry() else { return false };
    data.chunks(CHECKSUM_PIECE_BYTES).map(crc32c::crc32c).eq(entry.sums().iter().copied())
}
