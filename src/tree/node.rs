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
use crate::block::{Block, Cid, codec};
use crate::dag::directory::{Directory, DirectoryEntry};
use crate::dag::hamt::{Place, Shard};
use crate::dag::ipld;
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Kind, UnixFs};
use crate::limits::{MAX_NODE_CACHE_BYTES, MAX_SYMLINK_BYTES};

/// A block of dag-pb or the data model, decoded.
pub(super) enum Node {
    /// A directory in one node.
    Directory(Attr, Directory),
    /// A shard of a directory.
    Shard(Attr, Shard),
    /// A file, or an inner node of one.
    File(Attr, FileNode),
    /// A symbolic link.
    Symlink(Attr, Bytes),
    /// A value of the IPLD data model.
    Ipld(ipld::Node),
}

impl Node {
    /// Decodes a block of dag-pb, dag-cbor or dag-json; `place` is where it is in its trie if it is a shard.
    pub fn decode(block: &Block, place: Place) -> Result<Node, TreeError> {
        let cid = block.cid();
        if cid.codec() != codec::DAG_PB {
            return ipld::Node::decode(cid.codec(), block.data()).map(Node::Ipld).map_err(TreeError::dag(cid));
        }
        let malformed = |why: String| TreeError::dag(cid)(crate::dag::DagError::malformed("UnixFS", why));
        let node = PbNode::decode(block.data().clone()).map_err(TreeError::dag(cid))?;
        let data = node.data().ok_or_else(|| malformed("a dag-pb node without data".into()))?;
        let unixfs = UnixFs::decode(&data).map_err(TreeError::dag(cid))?;
        let attr = Attr::of_unixfs(&unixfs).ok_or_else(|| malformed("a node of metadata".into()))?;
        Ok(match unixfs.kind {
            Kind::Directory => Node::Directory(attr, Directory::from_node(&node)),
            Kind::HamtShard => Node::Shard(attr, Shard::from_node(node, &unixfs, place).map_err(TreeError::dag(cid))?),
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
            Kind::Metadata => return Err(malformed("a node of metadata".into())),
        })
    }

    /// What a listing shows of a dag-pb node.
    pub fn attr(&self) -> Option<Attr> {
        match self {
            Node::Directory(attr, _) | Node::Shard(attr, _) | Node::File(attr, _) | Node::Symlink(attr, _) => {
                Some(*attr)
            }
            Node::Ipld(_) => None,
        }
    }

    /// Roughly the memory that it takes, in bytes; `None` for what is not worth keeping.
    fn weight(&self, block_len: usize) -> Option<usize> {
        match self {
            Node::Directory(_, directory) => {
                Some(block_len + directory.entries().len() * (size_of::<DirectoryEntry>() + 4))
            }
            Node::Shard(_, shard) => Some(block_len + shard.len() * size_of::<u32>() + size_of::<Shard>()),
            Node::File(_, file) if file.is_leaf() => None,
            Node::File(_, file) => Some(block_len + file.memory()),
            // A dag-json block is kept as CBOR of about its length.
            Node::Symlink(..) | Node::Ipld(_) => Some(block_len),
        }
    }
}

/// The node as a part of a file.
pub(super) fn file_of(node: &Node) -> Option<&FileNode> {
    if let Node::File(_, file) = node { Some(file) } else { None }
}

/// Keeps decoded nodes, up to [`MAX_NODE_CACHE_BYTES`] of them; the least recently used go first.
pub(super) struct NodeCache {
    stripes: [Mutex<Stripe>; STRIPES],
    hasher: RandomState,
}

/// Enough that FUSE threads rarely meet at one lock.
const STRIPES: usize = 16;

struct Stripe {
    nodes: LruCache<Cid, (Arc<Node>, usize)>,
    bytes: usize,
}

impl NodeCache {
    pub fn new() -> NodeCache {
        let stripe = |_| Mutex::new(Stripe { nodes: LruCache::unbounded(), bytes: 0 });
        NodeCache { stripes: std::array::from_fn(stripe), hasher: RandomState::new() }
    }

    /// The node of `cid`; a shard only as the one at `place`.
    pub fn get(&self, cid: &Cid, place: Place) -> Option<Arc<Node>> {
        let node = self.stripe(cid).lock().nodes.get(cid).map(|(node, _)| node.clone())?;
        match &*node {
            Node::Shard(_, shard) if shard.place() != place => None,
            _ => Some(node),
        }
    }

    /// Keeps `node`, the decoded form of a block of `block_len` bytes, if it is of a kind that is kept.
    pub fn keep(&self, cid: &Cid, node: &Arc<Node>, block_len: usize) {
        let Some(weight) = node.weight(block_len) else { return };
        let mut dropped = Vec::new();
        let mut stripe = self.stripe(cid).lock();
        if let Some((_, (_, old))) = stripe.nodes.push(cid.clone(), (node.clone(), weight)) {
            stripe.bytes -= old;
        }
        stripe.bytes += weight;
        while stripe.bytes > MAX_NODE_CACHE_BYTES / STRIPES && stripe.nodes.len() > 1 {
            let Some((_, (node, weight))) = stripe.nodes.pop_lru() else { break };
            stripe.bytes -= weight;
            dropped.push(node);
        }
        // Large nodes are freed after the lock.
        drop(stripe);
    }

    fn stripe(&self, cid: &Cid) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(cid) as usize % STRIPES]
    }
}
