//! How much of a DAG is wanted: everything, or what tells where everything is.

use serde::{Deserialize, Serialize};

use crate::block::{Block, Cid, codec};
use crate::dag::can_link;
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Kind, UnixFs};

/// A dag-pb block of a file without links is so much longer at most than what it holds of the file; one with links names
/// two blocks at least, each by a CID.
const LEAF_FRAME_BYTES: u64 = 32;

/// What is wanted of a DAG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum Depth {
    /// Everything.
    #[default]
    Whole,
    /// Directories, and the nodes of files that say where their leaves are: enough to list and to seek.
    Metadata,
}

impl Depth {
    /// Whether a block of this CID may be wanted.
    pub fn wants(self, cid: &Cid) -> bool {
        self == Depth::Whole || can_link(cid.codec())
    }

    /// Whether what a node links to is wanted.
    pub fn goes_below(self, node: &Block) -> bool {
        self == Depth::Whole || !is_above_leaves(node)
    }
}

/// Whether a node is one of a file, and its children are leaves, each of them.
fn is_above_leaves(block: &Block) -> bool {
    if block.cid().codec() != codec::DAG_PB {
        return false;
    }
    let Ok(node) = PbNode::decode(block.data().clone()) else { return false };
    let Some(unixfs) = node.data().and_then(|data| UnixFs::decode(&data).ok()) else { return false };
    matches!(unixfs.kind, Kind::File | Kind::Raw)
        && node.link_count() > 0
        && node.links().zip(&unixfs.blocksizes).all(|(link, size)| {
            !can_link(link.cid.codec())
                || link.tsize.is_some_and(|tsize| tsize <= size.saturating_add(LEAF_FRAME_BYTES))
        })
}
