//! What a walk will come to, fetched before it is there.
//!
//! Where blocks come from afar, a walk that asked for one at a time would wait a round trip for each. Once it misses one, a list
//! of what it comes to next is kept, in its order: blocks, and the links of nodes that were not unrolled yet. From its beginning on,
//! as many are on their way as [`WALK_AHEAD_BLOCKS`] and [`WALK_AHEAD_BYTES`] allow; a node that arrives is unrolled in its place. The
//! walk's order is not changed, nor does it pay anything while all that it reads is here. What the walk leaves out is left out here.
//!
//! Where the first block came from a source that sends whole DAGs in one go, the rest of its DAG is asked for that way, too.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::depth::Depth;
use super::flight::{Bulk, Waiter};
use super::walk::Roots;
use super::{Fetch, FetchError, Priority};
use crate::block::{Block, Cid};
use crate::dag::{Links, can_link};
use crate::limits::{MAX_BLOCK_BYTES, WALK_AHEAD_BLOCKS, WALK_AHEAD_BYTES};

/// How many places of the list are looked at each time, and how many nodes that are here are read for it.
const MAX_STEPS: usize = 4 * WALK_AHEAD_BLOCKS;
const MAX_READS: usize = 16;
/// After so many blocks in a row that were here, nothing more is looked for ahead.
const QUIET: usize = 4 * WALK_AHEAD_BLOCKS;
/// With so many on their way, more are looked for at every so many blocks only: each look goes through all of them.
const MANY: usize = 16;
const LOOK_EVERY: usize = 8;
/// What is assumed of the size of blocks before any came, in bytes.
const FIRST_GUESS: usize = 256 * 1024;

/// The list, empty until the first miss.
#[derive(Default)]
pub(super) struct Ahead {
    depth: Depth,
    is_active: bool,
    slots: VecDeque<Slot>,
    waiting: HashMap<Cid, Asked>,
    /// Whether the links of the block that the walk is at stand in the list.
    is_unrolled: bool,
    quiet: usize,
    /// Blocks that the walk has come to since it was last looked for more.
    since_look: usize,
    /// The usual size of a block, in bytes.
    usual: usize,
    bulk: Option<Bulk>,
    was_bulk_tried: bool,
}

enum Slot {
    Block {
        cid: Cid,
        tsize: Option<u64>,
        state: State,
    },
    /// What comes next.
    Coming(Coming),
}

/// Blocks that a walk comes to one after the other.
#[derive(Clone)]
pub(super) enum Coming {
    Links(Links),
    Roots(Roots),
}

impl Iterator for Coming {
    /// A block, and what its DAG is claimed to come to, in bytes.
    type Item = (Cid, Option<u64>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Coming::Links(links) => links.next().map(|link| (link.cid, link.tsize)),
            Coming::Roots(roots) => roots.next().map(|cid| (cid, None)),
        }
    }
}

/// Who waits for a block that was asked for.
struct Asked {
    waiter: Waiter,
    /// The bytes that it is expected to have.
    expected: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Started,
    /// Its links follow.
    Unrolled,
}

impl Ahead {
    /// Nothing yet, for a walk that goes as deep.
    pub fn new(depth: Depth) -> Ahead {
        Ahead { depth, ..Ahead::default() }
    }

    /// The walk goes on elsewhere: forgets all.
    pub fn end(&mut self) {
        *self = Ahead::new(self.depth);
    }

    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// The walk misses a block. `path` is what comes after it, the nearest first.
    pub fn begin(&mut self, path: impl Iterator<Item = Coming>) {
        self.is_active = true;
        self.quiet = 0;
        self.slots = path.map(Slot::Coming).collect();
        self.usual = self.usual.max(FIRST_GUESS / 8);
    }

    /// The walk has come to `cid`: what stood before it is past. Gives who waits for it, where it is on its way.
    pub fn come_to(&mut self, cid: &Cid) -> Option<Waiter> {
        self.is_unrolled = false;
        while let Some(slot) = self.slots.front_mut() {
            match slot {
                Slot::Block { cid: known, state, .. } => {
                    let (is_it, state) = (known == cid, *state);
                    if let Some(Slot::Block { cid: passed, .. }) = self.slots.pop_front()
                        && !is_it
                    {
                        self.waiting.remove(&passed);
                    }
                    if is_it {
                        self.is_unrolled = state == State::Unrolled;
                        break;
                    }
                }
                Slot::Coming(coming) => match coming.next() {
                    None => drop(self.slots.pop_front()),
                    Some((next, _)) if next == *cid => break,
                    Some(_) => {}
                },
            }
        }
        let waiter = self.waiting.remove(cid).map(|asked| asked.waiter);
        if self.waiting.is_empty() && waiter.is_none() {
            self.quiet += 1;
            if self.quiet > QUIET {
                let (usual, was_bulk_tried) = (self.usual, self.was_bulk_tried);
                *self = Ahead { usual, was_bulk_tried, ..Ahead::new(self.depth) };
            }
        } else {
            self.quiet = 0;
        }
        waiter
    }

    /// The walk goes down into the block that it has come to.
    pub fn enter(&mut self, fetch: &Fetch, block: &Block, links: &Links) {
        if !self.is_unrolled {
            self.slots.push_front(Slot::Coming(Coming::Links(links.clone())));
        }
        if self.depth == Depth::Whole && !std::mem::replace(&mut self.was_bulk_tried, true) {
            self.bulk = fetch.start_bulk(block);
        }
        self.fill(fetch, block.cid());
    }

    /// A block has come by this way.
    pub fn came(&mut self, block: &Block) {
        self.usual = (self.usual * 7 + block.data().len()) / 8;
    }

    /// Has more fetched, as far as there is room. `at_hand` is what the walk has come to: it may not be here yet, and is not
    /// asked for again where the walk would come to it a second time.
    fn fill(&mut self, fetch: &Fetch, at_hand: &Cid) {
        let (mut is_any_coming, mut bytes) = (false, 0);
        for asked in self.waiting.values() {
            let arrived = asked.waiter.arrived();
            is_any_coming |= arrived.is_none();
            bytes += arrived.map_or(asked.expected, |block| block.data().len());
        }
        let (mut at, mut reads) = (0, 0);
        for _ in 0..MAX_STEPS {
            match self.slots.get_mut(at) {
                None => break,
                Some(Slot::Coming(coming)) => match coming.find(|(cid, _)| self.depth.wants(cid)) {
                    None => drop(self.slots.remove(at)),
                    Some((cid, tsize)) => self.slots.insert(at, Slot::Block { cid, tsize, state: State::New }),
                },
                Some(Slot::Block { state: State::Unrolled, .. }) => at += 1,
                Some(Slot::Block { cid, state: State::Started, .. }) => {
                    let asked = self.waiting.get(cid).filter(|_| can_link(cid.codec()));
                    let arrived = asked.and_then(|asked| asked.waiter.arrived());
                    if let Some(block) = arrived {
                        self.unroll(at, &block);
                    }
                    at += 1;
                }
                Some(Slot::Block { cid, tsize, state }) => {
                    if *cid == *at_hand {
                        self.slots.remove(at);
                        continue;
                    }
                    let cid = cid.clone();
                    if cid.identity_data().is_some() || fetch.is_here(&cid) {
                        if !can_link(cid.codec()) {
                            self.slots.remove(at);
                            continue;
                        }
                        reads += 1;
                        if reads > MAX_READS {
                            break;
                        }
                        match fetch.local(&cid) {
                            Ok(Some(block)) => self.unroll(at, &block),
                            _ => drop(self.slots.remove(at)),
                        }
                        continue;
                    }
                    let expected = expected(&cid, *tsize, self.usual);
                    let room = bytes + expected <= WALK_AHEAD_BYTES;
                    if self.waiting.len() >= WALK_AHEAD_BLOCKS || (!room && is_any_coming) {
                        break;
                    }
                    *state = State::Started;
                    if let Entry::Vacant(place) = self.waiting.entry(cid)
                        // What failed a moment ago is the walk's to meet.
                        && let Ok(waiter) = fetch.start(place.key(), Priority::Background)
                    {
                        place.insert(Asked { waiter, expected });
                        is_any_coming = true;
                        bytes += expected;
                    }
                    at += 1;
                }
            }
        }
    }

    /// Puts the links of the block at `at` behind it, as far as they are wanted.
    fn unroll(&mut self, at: usize, block: &Block) {
        if let Some(Slot::Block { state, .. }) = self.slots.get_mut(at) {
            *state = State::Unrolled;
        }
        // What is no node is an error that the walk meets.
        if self.depth.goes_below(block)
            && let Ok(links) = Links::decode(block.cid(), block.data())
        {
            self.slots.insert(at + 1, Slot::Coming(Coming::Links(links)));
        }
    }
}

/// The bytes that a block is expected to have: a leaf has what is claimed of it, and a node no more.
fn expected(cid: &Cid, tsize: Option<u64>, usual: usize) -> usize {
    let claimed = tsize.map(|bytes| bytes.min(MAX_BLOCK_BYTES as u64) as usize);
    match claimed {
        Some(claimed) if can_link(cid.codec()) => claimed.min(usual),
        Some(claimed) => claimed,
        None => usual,
    }
}

/// The block that the walk has come to, from wherever it is.
pub(super) async fn fetch(
    ahead: &mut Ahead,
    fetch: &Fetch,
    cid: &Cid,
    path: impl Iterator<Item = Coming>,
) -> Result<Block, FetchError> {
    let waiter = if ahead.is_active() { ahead.come_to(cid) } else { None };
    let waiter = if let Some(waiter) = waiter {
        waiter
    } else {
        if let Ok(Some(block)) = fetch.local(cid) {
            return Ok(block);
        }
        if !fetch.has_sources() {
            return fetch.get(cid, Priority::Background).await;
        }
        if !ahead.is_active() {
            ahead.begin(path);
        }
        fetch.start(cid, Priority::Background)?
    };
    ahead.since_look += 1;
    if ahead.waiting.len() < MANY || ahead.since_look >= LOOK_EVERY {
        ahead.since_look = 0;
        ahead.fill(fetch, cid);
    }
    let block = waiter.wait().await?;
    ahead.came(&block);
    Ok(block)
}
