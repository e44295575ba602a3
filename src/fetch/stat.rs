//! How large DAGs are, and what they share: the figures of kubo's `dag stat`.

use super::walk::{Reach, Seen, Visit, Walk, WalkError};
use super::{Fetch, FetchError};
use crate::block::Cid;

/// What [`dag_stat`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DagStat {
    /// Each root, in the order in which they were given.
    pub roots: Vec<RootStat>,
    /// The distinct blocks of all roots together.
    pub unique_blocks: u64,
    /// Their size in bytes.
    pub total_size: u64,
    /// The bytes that are counted again where roots share blocks.
    pub shared_size: u64,
}

/// The DAG below one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootStat {
    /// The root.
    pub cid: Cid,
    /// Its distinct blocks.
    pub blocks: u64,
    /// Their size in bytes.
    pub size: u64,
}

impl DagStat {
    /// The bytes of the roots each for itself, over those of all together: 1 where nothing is shared. Not a number where
    /// there are no bytes at all.
    pub fn ratio(&self) -> f32 {
        (self.total_size + self.shared_size) as f32 / self.total_size as f32
    }
}

/// Counts the DAGs below `roots`. Leaves that are on this machine are not read. `progress` sees the figures so far at
/// every block.
pub async fn dag_stat(fetch: &Fetch, roots: &[Cid], mut progress: impl FnMut(&DagStat)) -> Result<DagStat, WalkError> {
    let mut stat = DagStat::default();
    // With one root, its walk has seen what is distinct.
    let mut seen = (roots.len() > 1).then(Seen::default);
    for root in roots {
        stat.roots.push(RootStat { cid: root.clone(), blocks: 0, size: 0 });
        let mut walk = Walk::new(fetch, Reach::Anywhere, vec![root.clone()]);
        while let Some(visit) = walk.next().await? {
            let size = match &visit {
                Visit::Node(block) => block.data().len() as u64,
                Visit::Leaf(cid) => size(fetch, &mut walk, cid).await?,
            };
            if let Some(root) = stat.roots.last_mut() {
                root.blocks += 1;
                root.size += size;
            }
            if seen.as_mut().is_none_or(|seen| seen.insert(visit.cid())) {
                stat.unique_blocks += 1;
                stat.total_size += size;
            } else {
                stat.shared_size += size;
            }
            progress(&stat);
        }
    }
    Ok(stat)
}

/// The size of one block in bytes.
async fn size(fetch: &Fetch, walk: &mut Walk, cid: &Cid) -> Result<u64, FetchError> {
    let here = fetch.store().size(cid).map_err(|source| FetchError::Store { cid: cid.clone(), source })?;
    match here {
        Some(size) => Ok(size),
        None => Ok(walk.fetch(cid).await?.data().len() as u64),
    }
}
