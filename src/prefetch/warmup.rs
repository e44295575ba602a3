//! Warming up: a tree, or parts of one, brought to this machine before anybody reads it.
//!
//! [`bring`] walks the DAGs and fetches what is not here, ahead of the walk ([`Bringing`]). What is here already costs a look, so
//! a warmup that was stopped goes on where it was. Each distinct block counts once, however often it is linked to: an exabyte
//! file made of a kilobyte of blocks is brought in a moment. A block that nobody has does not end it; it is counted, and the
//! first ones are named.
//!
//! [`check`] says what is here, and [`evict`] drops it, but for what a pin needs. Neither asks another machine.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::block::{Block, Cid, codec};
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Kind, UnixFs};
use crate::dag::{self, Links};
use crate::fetch::bring::{Bringing, Senders, claimed_bytes};
pub use crate::fetch::depth::Depth;
use crate::fetch::walk::{Reach, Visit, Walk, WalkError};
use crate::fetch::{Fetch, FetchError};
use crate::store::StoreError;

/// How often whoever watches is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);
/// Blocks that are looked at between two questions whether anybody wants to be told.
const TELL_BLOCKS: u64 = 256;
/// Missing blocks that are named.
const NAMED: usize = 10;
/// Leaves that are evicted at a time: each time begins with a look at all pins.
const EVICTED_AT_ONCE: usize = 1 << 18;

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
    /// Blocks that came in for their root meanwhile.
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
}

/// Why it ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum WarmupError {
    /// Whoever watched wants no more.
    #[error("stopped")]
    Stopped,
    /// What is fetched cannot be kept.
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

/// What is learned of DAGs as they are walked.
struct Survey {
    progress: Progress,
    /// The roots, whose claims count where they are met.
    roots: HashSet<u64>,
    /// What directories link to, and the roots: the files among them count.
    entries: HashSet<u64>,
    hasher: RandomState,
    looked: u64,
}

impl Survey {
    fn new(roots: &[Cid]) -> Survey {
        let hasher = RandomState::new();
        let roots: HashSet<u64> = roots.iter().map(|root| hasher.hash_one(root)).collect();
        Survey { progress: Progress::default(), entries: roots.clone(), roots, hasher, looked: 0 }
    }

    /// A block of `bytes` that is here.
    fn here(&mut self, visit: &Visit, bytes: u64) {
        self.progress.blocks += 1;
        self.progress.bytes += bytes;
        let place = self.hasher.hash_one(visit.cid());
        if self.roots.remove(&place) {
            let claimed = claimed_bytes(visit, bytes).unwrap_or(bytes);
            self.progress.claimed_bytes = self.progress.claimed_bytes.saturating_add(claimed);
        }
        match visit {
            Visit::Node(block) => self.node(block, place),
            Visit::Leaf(_) => self.progress.files += u64::from(self.entries.contains(&place)),
        }
    }

    fn node(&mut self, block: &Block, place: u64) {
        let mut links_to_entries = block.cid().codec() != codec::DAG_PB;
        if !links_to_entries
            && let Ok(node) = PbNode::decode(block.data().clone())
            && let Some(unixfs) = node.data().and_then(|data| UnixFs::decode(&data).ok())
        {
            match unixfs.kind {
                Kind::Directory | Kind::HamtShard => links_to_entries = true,
                Kind::File | Kind::Raw => self.progress.files += u64::from(self.entries.contains(&place)),
                _ => {}
            }
        }
        if links_to_entries && let Ok(links) = Links::decode(block.cid(), block.data()) {
            self.entries.extend(links.map(|link| self.hasher.hash_one(&link.cid)));
        }
    }

    /// A block that could not be had or read. Fails where the store did.
    fn missing(&mut self, error: WalkError) -> Result<(), WarmupError> {
        match error {
            WalkError::Store(StoreError::Full { .. }) => Err(WarmupError::Full { bytes: self.progress.bytes }),
            WalkError::Store(error) => Err(error.into()),
            error => {
                self.progress.missing += 1;
                if self.progress.first_missing.len() < NAMED {
                    self.progress.first_missing.push(error.to_string());
                }
                Ok(())
            }
        }
    }

    /// Whether it is time to tell how far it is, after one more look.
    fn is_due(&mut self) -> bool {
        self.looked += 1;
        self.looked.is_multiple_of(TELL_BLOCKS)
    }
}

/// Fetches what is not here of the DAGs below `roots`. `fetch` is bound to the root that they belong to. Call it within a
/// runtime; it blocks the thread while the disk is written.
pub async fn bring(
    fetch: &Fetch,
    roots: Vec<Cid>,
    depth: Depth,
    tier: Tier,
    tell: Tell<'_>,
) -> Result<Progress, WarmupError> {
    let mut survey = Survey::new(&roots);
    let senders = Senders::new(fetch);
    let mut bringing = Bringing::new(fetch, roots, depth);
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let next = {
            // Never dropped before its end: it has gone on by then.
            let mut next = std::pin::pin!(bringing.next());
            loop {
                tokio::select! {
                    biased;
                    next = &mut next => break next,
                    _ = ticks.tick() => say(&mut survey, &senders, tell)?,
                }
            }
        };
        match next {
            Ok(None) => break,
            Ok(Some((visit, bytes))) => {
                if tier == Tier::Ram
                    && let Visit::Leaf(cid) = &visit
                {
                    fetch.store().get(cid)?;
                }
                survey.here(&visit, bytes);
            }
            Err(error) => survey.missing(error)?,
        }
        if survey.is_due() {
            say(&mut survey, &senders, tell)?;
        }
    }
    fetch.settle().await;
    say(&mut survey, &senders, tell)?;
    Ok(survey.progress)
}

fn say(survey: &mut Survey, senders: &Senders, tell: Tell<'_>) -> Result<(), WarmupError> {
    let brought = senders.brought();
    survey.progress.fetched_blocks = brought.iter().map(|(_, blocks, _)| blocks).sum();
    survey.progress.fetched_bytes = brought.iter().map(|(_, _, bytes)| bytes).sum();
    if tell(&survey.progress).is_break() { Err(WarmupError::Stopped) } else { Ok(()) }
}

/// Looks what is here of the DAGs below `roots`, on this machine alone.
pub async fn check(fetch: &Fetch, roots: Vec<Cid>, depth: Depth, tell: Tell<'_>) -> Result<Progress, WarmupError> {
    survey_local(fetch, roots, depth, tell, &mut |_| Ok(())).await
}

/// Drops what is here of the DAGs below `roots` and no pin needs. Where a node is missing, what is below it is not found
/// by this, and stays until the store makes room.
pub async fn evict(fetch: &Fetch, roots: Vec<Cid>, tell: Tell<'_>) -> Result<Evicted, WarmupError> {
    let mut evicted = Evicted::default();
    // Nodes go last: the walk may want to read them again.
    let (mut nodes, mut leaves) = (Vec::new(), Vec::new());
    survey_local(fetch, roots, Depth::Whole, tell, &mut |cid| {
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
    tell: Tell<'_>,
    found: &mut dyn FnMut(&Cid) -> Result<(), WarmupError>,
) -> Result<Progress, WarmupError> {
    let mut survey = Survey::new(&roots);
    let mut walk = Walk::as_deep(fetch, Reach::Local, roots, depth);
    loop {
        match walk.next().await {
            Ok(None) => return Ok(survey.progress),
            Ok(Some(visit)) => {
                let bytes = match &visit {
                    Visit::Node(block) => Some(block.data().len() as u64),
                    Visit::Leaf(cid) => fetch.store().size(cid)?,
                };
                if let Some(bytes) = bytes {
                    survey.here(&visit, bytes);
                    found(visit.cid())?;
                } else {
                    let (cid, tried) = (visit.cid().clone(), "only this machine was asked".into());
                    survey.missing(FetchError::NotFound { cid, tried }.into())?;
                }
            }
            Err(error) => survey.missing(error)?,
        }
        if survey.is_due() && tell(&survey.progress).is_break() {
            return Err(WarmupError::Stopped);
        }
    }
}
