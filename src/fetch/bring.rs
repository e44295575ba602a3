//! Brings DAGs here: what `cidfs fetch`, and a warmup, do.
//!
//! Every block below the roots is walked to; what is here is left as it is, what is not is fetched ahead of the walk, verified, and
//! kept as the root's ([`Bringing`]). So a fetch that was interrupted goes on where it was. [`bring`] ends when all is here and
//! durable.

use std::collections::HashMap;

use super::depth::Depth;
use super::walk::{Reach, Visit, Walk, WalkError};
use super::{Fetch, FetchError};
use crate::block::{Block, Cid, codec};
use crate::dag::pb::PbNode;
use crate::store::{StoreError, Writer};

/// Every how many blocks it is looked who has sent what.
const LOOK_EVERY: u64 = 64;

/// A walk that leaves behind it what it comes to on this machine. Nothing of that is evicted before this is dropped.
pub struct Bringing {
    fetch: Fetch,
    walk: Walk,
    writer: Writer,
}

impl Bringing {
    /// A walk over the DAGs below `roots`, as deep as is wanted. What is fetched belongs to the root that `fetch` is bound to.
    pub fn new(fetch: &Fetch, roots: Vec<Cid>, depth: Depth) -> Bringing {
        let fetch = fetch.unkept();
        let writer = match &fetch.session {
            Some(root) => fetch.store().writer_for(root),
            None => fetch.store().writer(),
        };
        let walk = Walk::as_deep(&fetch, Reach::Anywhere, roots, depth);
        Bringing { fetch, walk, writer }
    }

    /// The next block, which is here now, with the number of its bytes; `None` at the end. Blocks the thread while the disk is
    /// written. After an error the walk goes on behind the block that it is about.
    pub async fn next(&mut self) -> Result<Option<(Visit, u64)>, WalkError> {
        let Some(visit) = self.walk.next().await? else { return Ok(None) };
        let len = match &visit {
            Visit::Node(block) => {
                if !self.writer.keep(block.cid())? {
                    self.writer.put(block)?;
                }
                block.data().len() as u64
            }
            Visit::Leaf(cid) if self.writer.keep(cid)? => self
                .fetch
                .store()
                .size(cid)
                .map_err(|source| FetchError::Store { cid: cid.clone(), source })?
                .unwrap_or_default(),
            Visit::Leaf(cid) => {
                let block = self.walk.fetch(cid).await?;
                self.writer.put(&block)?;
                block.data().len() as u64
            }
        };
        Ok(Some((visit, len)))
    }
}

/// Who has sent what for a root, from some time on.
pub struct Senders {
    fetch: Fetch,
    before: HashMap<String, (u64, u64)>,
}

impl Senders {
    /// From now on, for the root that `fetch` is bound to.
    pub fn new(fetch: &Fetch) -> Senders {
        let mut senders = Senders { fetch: fetch.clone(), before: HashMap::new() };
        senders.before = senders.all().map(|(whom, blocks, bytes)| (whom, (blocks, bytes))).collect();
        senders
    }

    /// Blocks and bytes that came in since, by who sent them, most first.
    pub fn brought(&self) -> Vec<(String, u64, u64)> {
        let more = self.all().map(|(whom, blocks, bytes)| {
            let (blocks_before, bytes_before) = self.before.get(&whom).copied().unwrap_or_default();
            (whom, blocks.saturating_sub(blocks_before), bytes.saturating_sub(bytes_before))
        });
        more.filter(|(_, blocks, _)| *blocks > 0).collect()
    }

    fn all(&self) -> impl Iterator<Item = (String, u64, u64)> {
        self.fetch.session.as_ref().map_or_else(Vec::new, |root| self.fetch.brought(root)).into_iter()
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Distinct blocks of the DAG that are here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the whole DAG, as the root's links claim, where they do. Blocks that are in it twice count twice.
    pub total_bytes: Option<u64>,
    /// Blocks and bytes that came in for this root meanwhile, by who sent them, most first.
    pub brought: Vec<(String, u64, u64)>,
}

/// Brings the DAG below `root` here. `progress` is told at every block, and says whether to go on. Blocks the thread while the disk
/// is written.
pub async fn bring(
    fetch: &Fetch,
    root: &Cid,
    mut progress: impl FnMut(&Progress) -> bool,
) -> Result<Progress, WalkError> {
    let fetch = fetch.session(root);
    let senders = Senders::new(&fetch);
    let mut bringing = Bringing::new(&fetch, vec![root.clone()], Depth::Whole);
    let mut state = Progress::default();
    while let Some((visit, len)) = bringing.next().await? {
        if state.blocks == 0 {
            state.total_bytes = claimed_bytes(&visit, len);
        }
        state.blocks += 1;
        state.bytes += len;
        if state.blocks.is_multiple_of(LOOK_EVERY) {
            state.brought = senders.brought();
        }
        if !progress(&state) {
            return Err(StoreError::Stopped.into());
        }
    }
    state.brought = senders.brought();
    fetch.settle().await;
    fetch.store().sync()?;
    Ok(state)
}

/// What a root of `len` bytes claims to come to with all that is below it, in bytes; `None` where it claims nothing.
pub fn claimed_bytes(root: &Visit, len: u64) -> Option<u64> {
    match root {
        Visit::Node(block) if block.cid().codec() == codec::DAG_PB => claimed_by_links(block),
        Visit::Node(_) => None,
        Visit::Leaf(_) => Some(len),
    }
}

fn claimed_by_links(block: &Block) -> Option<u64> {
    let node = PbNode::decode(block.data().clone()).ok()?;
    let mut total = block.data().len() as u64;
    for link in node.links() {
        total = total.checked_add(link.tsize?)?;
    }
    Some(total)
}
