//! Brings whole DAGs here: what `cidfs fetch` does.
//!
//! Every block below a root is walked to; what is here is left as it is, what is not is fetched ahead of the walk, verified, and
//! kept as the root's. So a fetch that was interrupted goes on where it was. It ends when all is here and durable.

use std::collections::HashMap;

use super::walk::{Reach, Visit, Walk, WalkError};
use super::{Fetch, FetchError};
use crate::block::{Block, Cid, codec};
use crate::dag::pb::PbNode;
use crate::store::StoreError;

/// Every how many blocks it is looked who has sent what.
const LOOK_EVERY: u64 = 64;

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
    let fetch = fetch.session(root).unkept();
    let before: HashMap<String, (u64, u64)> =
        fetch.brought(root).into_iter().map(|(whom, blocks, bytes)| (whom, (blocks, bytes))).collect();
    let mut writer = fetch.store().writer_for(root);
    let mut walk = Walk::new(&fetch, Reach::Anywhere, vec![root.clone()]);
    let mut state = Progress::default();
    while let Some(visit) = walk.next().await? {
        let len = match &visit {
            Visit::Node(block) => {
                writer.put(block)?;
                block.data().len() as u64
            }
            Visit::Leaf(cid) if cid.identity_data().is_some() => 0,
            Visit::Leaf(cid) if writer.keep(cid)? => {
                fetch.store().size(cid).map_err(|source| FetchError::Store { cid: cid.clone(), source })?.unwrap_or(0)
            }
            Visit::Leaf(cid) => {
                let block = walk.fetch(cid).await?;
                writer.put(&block)?;
                block.data().len() as u64
            }
        };
        if state.blocks == 0 {
            state.total_bytes = total(&visit, len);
        }
        state.blocks += 1;
        state.bytes += len;
        if state.blocks.is_multiple_of(LOOK_EVERY) {
            state.brought = since(&before, fetch.brought(root));
        }
        if !progress(&state) {
            return Err(StoreError::Stopped.into());
        }
    }
    state.brought = since(&before, fetch.brought(root));
    fetch.settle().await;
    fetch.store().sync()?;
    Ok(state)
}

/// What was brought since `before`.
fn since(before: &HashMap<String, (u64, u64)>, now: Vec<(String, u64, u64)>) -> Vec<(String, u64, u64)> {
    let more = now.into_iter().map(|(whom, blocks, bytes)| {
        let (blocks_before, bytes_before) = before.get(&whom).copied().unwrap_or_default();
        (whom, blocks - blocks_before, bytes - bytes_before)
    });
    more.filter(|(_, blocks, _)| *blocks > 0).collect()
}

/// What the root claims of the whole.
fn total(root: &Visit, len: u64) -> Option<u64> {
    match root {
        Visit::Node(block) if block.cid().codec() == codec::DAG_PB => total_of(block),
        Visit::Node(_) => None,
        Visit::Leaf(_) => Some(len),
    }
}

fn total_of(block: &Block) -> Option<u64> {
    let node = PbNode::decode(block.data().clone()).ok()?;
    let mut total = block.data().len() as u64;
    for link in node.links() {
        total = total.checked_add(link.tsize?)?;
    }
    Some(total)
}
