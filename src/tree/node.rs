//! Decoded nodes, and the cache that keeps them.
//!
//! What is cached is structure: directories, shards, the inner nodes of files, symbolic links. Leaves are not, however
//! they are encoded; their bytes are the store's RAM tier's and the kernel's to keep.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::attr::Attr;
use super::error::TreeError;
use super::file::FileNode;
use crate::block::{Block, Cid};
use crate::dag::directory::{Directory, DirectoryEntry};
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Kind, UnixFs};
use crate::limits::{MAX_NODE_CACHE_BYTES, MAX_SYMLINK_BYTES};

/// A dag-pb block, decoded.
pub(super) enum Node {
    /// A directory in one node.
    Directory(Attr, Directory),
    /// A file, or an inner node of one.
    File(Attr, FileNode),
    /// A symbolic link.
    Symlink(Attr, Bytes),
}

impl Node {
    /// Decodes a dag-pb block.
    pub fn decode(block: &Block) -> Result<Node, TreeError> {
        let cid = block.cid();
        let malformed = |why: String| TreeError::dag(cid)(crate::dag::DagError::malformed("UnixFS", why));
        let node = PbNode::decode(block.data().clone()).map_err(TreeError::dag(cid))?;
        let data = node.data().ok_or_else(|| malformed("a dag-pb node without data".into()))?;
        let unixfs = UnixFs::decode(&data).map_err(TreeError::dag(cid))?;
        let attr = Attr::of_unixfs(&unixfs).ok_or_else(|| malformed("a node of metadata".into()))?;
        Ok(match unixfs.kind {
            Kind::Directory => {
                let directory = Directory::from_node(&node);
                if directory.dropped() > 0 {
                    tracing::warn!(%cid, names = directory.dropped(), "names that no file can have are not shown");
                }
                Node::Directory(attr, directory)
            }
            Kind::File | Kind::Raw => Node::File(attr, FileNode::new(cid, &node, unixfs)?),
            Kind::Symlink => {
                let target = unixfs.data.unwrap_or_default();
                if target.len() > MAX_SYMLINK_BYTES {
                    return Err(TreeError::Limit {
                        cid: cid.clone(),
                        what: "the length in bytes of the symbolic link's target",
                        limit: MAX_SYMLINK_BYTES as u64,
                    });
                }
                Node::Symlink(attr, target)
            }
            kind => return Err(malformed(format!("a node of kind {kind:?}"))),
        })
    }

    /// What a listing shows of it.
    pub fn attr(&self) -> Attr {
        match self {
            Node::Directory(attr, _) | Node::File(attr, _) | Node::Symlink(attr, _) => *attr,
        }
    }

    /// Roughly the memory that it takes, in bytes; `None` for what is not worth keeping.
    fn weight(&self, block_len: usize) -> Option<usize> {
        match self {
            Node::Directory(_, directory) => {
                Some(block_len + directory.entries().len() * (size_of::<DirectoryEntry>() + 4))
            }
            Node::File(_, file) if file.is_leaf() => None,
            Node::File(_, file) => Some(block_len + file.memory()),
            Node::Symlink(..) => Some(block_len),
        }
    }
}

/// The node as a part of a file.
pub(super) fn file_of(node: &Node) -> Option<&FileNode> {
    if let Node::File(_, file) = node { Some(file) } else { None }
}

/// Keeps decoded nodes, up to [`MAX_NODE_CACHE_BYTES`] of them; the least recently used go first.
pub(super) struct NodeCache {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

/// Enough that FUSE threads rarely meet at one lock.
const SHARDS: usize = 16;

struct Shard {
    nodes: LruCache<Cid, (Arc<Node>, usize)>,
    bytes: usize,
}

impl NodeCache {
    pub fn new() -> NodeCache {
        let shard = |_| Mutex::new(Shard { nodes: LruCache::unbounded(), bytes: 0 });
        NodeCache { shards: std::array::from_fn(shard), hasher: RandomState::new() }
    }

    pub fn get(&self, cid: &Cid) -> Option<Arc<Node>> {
        self.shard(cid).lock().nodes.get(cid).map(|(node, _)| node.clone())
    }

    /// Keeps `node`, the decoded form of a block of `block_len` bytes, if it is of a kind that is kept.
    pub fn keep(&self, cid: &Cid, node: &Arc<Node>, block_len: usize) {
        let Some(weight) = node.weight(block_len) else { return };
        let mut dropped = Vec::new();
        let mut shard = self.shard(cid).lock();
        if let Some((_, (_, old))) = shard.nodes.push(cid.clone(), (node.clone(), weight)) {
            shard.bytes -= old;
        }
        shard.bytes += weight;
        while shard.bytes > MAX_NODE_CACHE_BYTES / SHARDS && shard.nodes.len() > 1 {
            let Some((_, (node, weight))) = shard.nodes.pop_lru() else { break };
            shard.bytes -= weight;
            dropped.push(node);
        }
        // Large nodes are freed after the lock.
        drop(shard);
    }

    fn shard(&self, cid: &Cid) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(cid) as usize % SHARDS]
    }
}
