//! Warming up: a tree, or parts of one, brought to this machine before anybody reads it.
//!
//! [`bring`] walks the DAGs and fetches what is not here, many blocks at a time: leaves as the walk meets them, and nodes
//! ahead of the walk, so that it seldom waits. What is here already costs a look, so a warmup that was stopped goes on where
//! it was. Each distinct block counts once, however often it is linked to: an exabyte file made of a kilobyte of blocks is
//! brought in a moment. A block that nobody has does not end it; it is counted, and the first ones are named.
//!
//! [`check`] says what is here, and [`evict`] drops it, but for what a pin needs. Neither asks another machine.

use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::block::{Block, Cid, codec};
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Kind, UnixFs};
use crate::dag::{self, Links};
use crate::fetch::walk::{Reach, Visit, Walk, WalkError};
use crate::fetch::{Fetch, Priority};
use crate::limits::{MAX_WARMUP_AHEAD, WARMUP_CONCURRENCY};
use crate::store::StoreError;

/// How often whoever watches is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Blocks that are looked at between two questions whether anybody wants to be told.
const TELL_BLOCKS: u64 = 256;
/// Missing blocks that are named.
const NAMED: usize = 10;
/// A dag-pb block of a file without links is so much longer at most than what it holds of the file; one with links names
/// two blocks at least, each by a CID.
const LEAF_FRAME_BYTES: u64 = 32;
/// Fetched blocks after which it is looked whether the first of them was kept: it may wait for the disk until then.
const LOOK_BACK: usize = 256;
/// Blocks in a row that were not kept: the cache is full.
const NOT_KEPT_IN_A_ROW: u32 = 64;
/// Leaves that are evicted at a time: each time begins with a look at all pins.
const EVICTED_AT_ONCE: usize = 1 << 18;

/// What is wanted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Depth {
    /// Everything.
    Whole,
    /// Directories, and the nodes of files that say where their leaves are: enough to list and to seek.
    Metadata,
}

/// Where it is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Tier {
    /// On this machine's disk.
    Disk,
    /// In RAM, too, as far as the RAM tier holds it.
    Ram,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Progress {
    /// Distinct blocks that were looked at and are here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of them, the leaves that were fetched.
    pub fetched_blocks: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Distinct files that were met.
    pub files: u64,
    /// What the roots claim to come to, in bytes; what is shared counts each time.
    pub claimed_bytes: u64,
    /// Blocks that could not be had, or are not nodes of their codec: what is below them was not met.
    pub missing: u64,
    /// The first of those, and why.
    pub first_missing: Vec<String>,
    /// Blocks that were fetched and are not here, since the cache had no room for them.
    pub not_kept: u64,
}

/// Why it ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// Whoever watched wants no more.
    #[error("stopped")]
    Stopped,
    /// What is fetched is not kept.
    #[error(
        "the cache has no room for more: {bytes} bytes of it are here, and what follows would not be kept; raise \
         store.disk_bytes, or make room (cidfs warmup --evict, cidfs pin rm, cidfs gc)"
    )]
    Full {
        /// What is here of what was to be brought.
        bytes: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Told how far it is; ends it by answering `Break`.
pub type Tell<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// What [`evict`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Evicted {
    /// Blocks that were dropped.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that stay, since a pin needs them or somebody is writing them.
    pub kept_blocks: u64,
}

/// What is learned of a DAG by its nodes.
#[derive(Default)]
struct Survey {
    progress: Progress,
    /// What directories link to: the files among them count.
    entries: HashSet<u64>,
    hasher: std::hash::RandomState,
}

impl Survey {
    fn here(&mut self, bytes: u64) {
        self.progress.blocks += 1;
        self.progress.bytes += bytes;
    }

    fn missing(&mut self, error: &WalkError) {
        self.progress.missing += 1;
        if self.progress.first_missing.len() < NAMED {
            self.progress.first_missing.push(error.to_string());
        }
    }

    fn is_entry(&self, cid: &Cid) -> bool {
        self.entries.contains(&self.hasher.hash_one(cid))
    }

    /// Takes note of a node. True where its children are leaves, each of them.
    fn node(&mut self, block: &Block) -> bool {
        let mut above_leaves = false;
        let mut links_to_entries = block.cid().codec() != codec::DAG_PB;
        if let Ok(node) = PbNode::decode(block.data().clone())
            && block.cid().codec() == codec::DAG_PB
            && let Some(unixfs) = node.data().and_then(|data| UnixFs::decode(&data).ok())
        {
            match unixfs.kind {
                Kind::Directory | Kind::HamtShard => links_to_entries = true,
                Kind::File | Kind::Raw => {
                    self.progress.files += u64::from(self.is_entry(block.cid()));
                    above_leaves = node.link_count() > 0
                        && node.links().zip(&unixfs.blocksizes).all(|(link, size)| {
                            !dag::can_link(link.cid.codec())
                                || link.tsize.is_some_and(|tsize| tsize <= size.saturating_add(LEAF_FRAME_BYTES))
                        });
                }
                _ => {}
            }
        }
        if links_to_entries && let Ok(links) = Links::decode(block.cid(), block.data()) {
            self.entries.extend(links.map(|link| self.hasher.hash_one(&link.cid)));
        }
        above_leaves
    }

    fn leaf(&mut self, cid: &Cid, bytes: u64) {
        self.here(bytes);
        self.progress.files += u64::from(self.is_entry(cid));
    }

    /// What a root claims to come to: itself and the sizes that its links have.
    fn root(&mut self, cid: &Cid, block: Option<&Block>) {
        // A root is a file, if it is none of the others.
        self.entries.insert(self.hasher.hash_one(cid));
        let Some(block) = block else { return };
        let mut claimed = block.data().len() as u64;
        if cid.codec() == codec::DAG_PB
            && let Ok(node) = PbNode::decode(block.data().clone())
        {
            claimed = node.links().fold(claimed, |sum, link| sum.saturating_add(link.tsize.unwrap_or_default()));
        }
        self.progress.claimed_bytes = self.progress.claimed_bytes.saturating_add(claimed);
    }
}

/// Fetches what is not here of the DAGs below `roots`. `fetch` is bound to the root that they belong to. Call it within a
/// runtime.
pub async fn bring(
    fetch: &Fetch,
    roots: Vec<Cid>,
    depth: Depth,
    tier: Tier,
    tell: Tell<'_>,
) -> Result<Progress, WarmupError> {
    let mut survey = Survey::default();
    for root in &roots {
        let block = fetch.get(root, Priority::Background).await.ok();
        survey.root(root, block.as_ref());
    }
    let mut walk = Walk::new(fetch, Reach::InTurn, roots);
    let mut bringing = Bringing {
        fetch,
        survey,
        tier,
        leaves: JoinSet::new(),
        ahead: Ahead::new(fetch),
        unsure: VecDeque::new(),
        not_kept_in_a_row: 0,
        tell,
        ticks: ticks(),
    };
    let mut looked = 0_u64;
    loop {
        looked += 1;
        if looked.is_multiple_of(TELL_BLOCKS) {
            bringing.say()?;
        }
        let visit = bringing.during(walk.next()).await?;
        match visit {
            Ok(None) => break,
            Ok(Some(Visit::Node(block))) => {
                bringing.survey.here(block.data().len() as u64);
                let above_leaves = bringing.survey.node(&block);
                if above_leaves && depth == Depth::Metadata {
                    walk.pass_over();
                } else {
                    bringing.ahead.enter(&block);
                }
            }
            Ok(Some(Visit::Leaf(_))) if depth == Depth::Metadata => {}
            Ok(Some(Visit::Leaf(cid))) => bringing.leaf(cid).await?,
            Err(WalkError::Store(error)) => return Err(error.into()),
            Err(error) => bringing.survey.missing(&error),
        }
    }
    bringing.room(0).await?;
    bringing.during(fetch.settle()).await?;
    bringing.look_back(0)?;
    bringing.say()?;
    Ok(bringing.survey.progress)
}

fn ticks() -> Interval {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A leaf that was asked for, and its size or why it could not be had.
type Leaf = (Cid, Result<u64, WalkError>);

/// What [`bring`] has in hand.
struct Bringing<'a> {
    fetch: &'a Fetch,
    survey: Survey,
    tier: Tier,
    leaves: JoinSet<Leaf>,
    ahead: Ahead<'a>,
    /// Leaves that were fetched, and may be kept or not.
    unsure: VecDeque<(Cid, u64)>,
    not_kept_in_a_row: u32,
    tell: Tell<'a>,
    ticks: Interval,
}

impl Bringing<'_> {
    fn say(&mut self) -> Result<(), WarmupError> {
        if (self.tell)(&self.survey.progress).is_break() { Err(WarmupError::Stopped) } else { Ok(()) }
    }

    /// Drives `next` to its end, which is never dropped before, and takes what arrives meanwhile.
    async fn during<T>(&mut self, next: impl Future<Output = T>) -> Result<T, WarmupError> {
        let mut next = std::pin::pin!(next);
        loop {
            tokio::select! {
                biased;
                done = &mut next => return Ok(done),
                Some(done) = self.leaves.join_next() => self.take(done)?,
                Some(_) = self.ahead.coming.join_next() => self.ahead.ask(),
                _ = self.ticks.tick() => self.say()?,
            }
        }
    }

    /// Fetches a leaf, behind the caller's back, where it is not here.
    async fn leaf(&mut self, cid: Cid) -> Result<(), WarmupError> {
        if let Some(bytes) = self.fetch.store().size(&cid)? {
            self.survey.leaf(&cid, bytes);
            if self.tier == Tier::Ram {
                self.fetch.store().get(&cid)?;
            }
            return Ok(());
        }
        self.room(WARMUP_CONCURRENCY - 1).await?;
        let fetch = self.fetch.clone();
        self.leaves.spawn(async move {
            let got = fetch.get(&cid, Priority::Background).await;
            (cid, got.map(|block| block.data().len() as u64).map_err(WalkError::from))
        });
        Ok(())
    }

    /// Waits until at most `most` leaves are on their way.
    async fn room(&mut self, most: usize) -> Result<(), WarmupError> {
        while self.leaves.len() > most {
            tokio::select! {
                Some(done) = self.leaves.join_next() => self.take(done)?,
                _ = self.ticks.tick() => self.say()?,
            }
        }
        Ok(())
    }

    /// Looks whether what was fetched was kept, but for the last `most` blocks.
    fn look_back(&mut self, most: usize) -> Result<(), WarmupError> {
        while self.unsure.len() > most
            && let Some((cid, bytes)) = self.unsure.pop_front()
        {
            if self.fetch.store().has(&cid) {
                self.not_kept_in_a_row = 0;
                continue;
            }
            if most > 0 && matches!(self.fetch.local(&cid), Ok(Some(_))) {
                // On its way to the disk, as those after it are.
                self.unsure.push_front((cid, bytes));
                return Ok(());
            }
            let progress = &mut self.survey.progress;
            progress.not_kept += 1;
            progress.blocks -= 1;
            progress.bytes -= bytes;
            self.not_kept_in_a_row += 1;
            if self.not_kept_in_a_row == NOT_KEPT_IN_A_ROW {
                return Err(WarmupError::Full { bytes: progress.bytes });
            }
        }
        Ok(())
    }

    fn take(&mut self, done: Result<Leaf, tokio::task::JoinError>) -> Result<(), WarmupError> {
        match done {
            Ok((cid, Ok(bytes))) => {
                self.survey.leaf(&cid, bytes);
                self.survey.progress.fetched_blocks += 1;
                self.survey.progress.fetched_bytes += bytes;
                if self.tier == Tier::Ram {
                    self.fetch.store().get(&cid)?;
                }
                self.unsure.push_back((cid, bytes));
                self.look_back(LOOK_BACK)?;
            }
            Ok((_, Err(error))) => self.survey.missing(&error),
            // It panicked, or the runtime ends.
            Err(_) => return Err(WarmupError::Stopped),
        }
        Ok(())
    }
}

/// Fetches nodes before the walk comes to them: in the order of the walk, as far ahead as is worth it.
struct Ahead<'a> {
    fetch: &'a Fetch,
    next: VecDeque<Cid>,
    coming: JoinSet<()>,
}

impl<'a> Ahead<'a> {
    fn new(fetch: &'a Fetch) -> Ahead<'a> {
        Ahead { fetch, next: VecDeque::new(), coming: JoinSet::new() }
    }

    /// The walk goes down into a node: its children come next.
    fn enter(&mut self, block: &Block) {
        let Ok(links) = Links::decode(block.cid(), block.data()) else { return };
        let nodes: Vec<Cid> = links
            .map(|link| link.cid)
            .filter(|cid| dag::can_link(cid.codec()) && !self.fetch.store().has(cid))
            .take(MAX_WARMUP_AHEAD)
            .collect();
        for cid in nodes.into_iter().rev() {
            self.next.push_front(cid);
        }
        // What is far behind is met by the walk itself.
        self.next.truncate(MAX_WARMUP_AHEAD);
        self.ask();
    }

    fn ask(&mut self) {
        while self.coming.len() < WARMUP_CONCURRENCY
            && let Some(cid) = self.next.pop_front()
        {
            if self.fetch.store().has(&cid) {
                continue;
            }
            let fetch = self.fetch.clone();
            // What fails fails again for the walk, which says so.
            self.coming.spawn(async move {
                let _ = fetch.get(&cid, Priority::Background).await;
            });
        }
    }
}

/// Looks what is here of the DAGs below `roots`, on this machine alone.
pub async fn check(fetch: &Fetch, roots: Vec<Cid>, depth: Depth, tell: Tell<'_>) -> Result<Progress, WarmupError> {
    let mut survey = Survey::default();
    for root in &roots {
        survey.root(root, fetch.local(root).ok().flatten().as_ref());
    }
    survey_local(fetch, roots, depth, &mut survey, tell, &mut |_| Ok(())).await?;
    Ok(survey.progress)
}

/// Drops what is here of the DAGs below `roots` and no pin needs. Where a node is missing, what is below it is not found
/// by this, and stays until the store makes room.
pub async fn evict(fetch: &Fetch, roots: Vec<Cid>, tell: Tell<'_>) -> Result<Evicted, WarmupError> {
    let mut survey = Survey::default();
    let mut evicted = Evicted::default();
    // Nodes go last: the walk may want to read them again.
    let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
    survey_local(fetch, roots, Depth::Whole, &mut survey, tell, &mut |cid| {
        if dag::can_link(cid.codec()) {
            nodes.push(cid.clone());
        } else {
            leaves.push(cid.clone());
            if leaves.len() == EVICTED_AT_ONCE {
                drop_all(fetch, &mut leaves, &mut evicted)?;
            }
        }
        Ok(())
    })
    .await?;
    drop_all(fetch, &mut leaves, &mut evicted)?;
    drop_all(fetch, &mut nodes, &mut evicted)?;
    fetch.store().compact()?;
    Ok(evicted)
}

fn drop_all(fetch: &Fetch, here: &mut Vec<Cid>, evicted: &mut Evicted) -> Result<(), StoreError> {
    let mut sizes = Vec::with_capacity(here.len());
    for cid in here.iter() {
        sizes.push(fetch.store().size(cid)?.unwrap_or_default());
    }
    for (removed, bytes) in fetch.store().remove(here)?.into_iter().zip(sizes) {
        match removed {
            Ok(true) => {
                evicted.blocks += 1;
                evicted.bytes += bytes;
            }
            Ok(false) => {}
            Err(_) => evicted.kept_blocks += 1,
        }
    }
    here.clear();
    Ok(())
}

/// Walks what is here; `found` hears of each block that is.
async fn survey_local(
    fetch: &Fetch,
    roots: Vec<Cid>,
    depth: Depth,
    survey: &mut Survey,
    tell: Tell<'_>,
    found: &mut dyn FnMut(&Cid) -> Result<(), WarmupError>,
) -> Result<(), WarmupError> {
    let mut walk = Walk::new(fetch, Reach::Local, roots);
    let mut looked = 0_u64;
    loop {
        looked += 1;
        if looked.is_multiple_of(TELL_BLOCKS) && tell(&survey.progress).is_break() {
            return Err(WarmupError::Stopped);
        }
        match walk.next().await {
            Ok(None) => return Ok(()),
            Ok(Some(Visit::Node(block))) => {
                survey.here(block.data().len() as u64);
                found(block.cid())?;
                if survey.node(&block) && depth == Depth::Metadata {
                    walk.pass_over();
                }
            }
            Ok(Some(Visit::Leaf(_))) if depth == Depth::Metadata => {}
            Ok(Some(Visit::Leaf(cid))) => {
                if let Some(bytes) = fetch.store().size(&cid)? {
                    survey.leaf(&cid, bytes);
                    found(&cid)?;
                } else {
                    let tried = "only this machine was asked".into();
                    survey.missing(&crate::fetch::FetchError::NotFound { cid, tried }.into());
                }
            }
            Err(WalkError::Store(error)) => return Err(error.into()),
            Err(error) => survey.missing(&error),
        }
    }
}
