//! Layouts: how the leaves of a file hang together.
//!
//! A [`Tree`] takes the leaves in order and makes each node as soon as it is full, so it holds no more than the nodes on
//! the way from the root to the last leaf. Both layouts are kubo's:
//!
//! - *balanced*: all leaves are at the same depth, every node but the last of each level is full;
//! - *trickle*: a node has leaves first, then four subtrees of depth 1, four of depth 2, and so on, so that the first
//!   bytes of a file are near its root.

use bytes::Bytes;

use super::ImportError;
use super::buffers::{Buffer, Buffers};
use super::node::{Leaf, Link, Metadata, data_node, file_node};
use super::options::{LayoutKind, Settings};
use crate::block::{Block, codec};
use crate::dag::unixfs::Kind;
use crate::limits::MAX_FILE_DEPTH;

/// Subtrees of one depth in a trickle node.
const DEPTH_REPEAT: usize = 4;

/// Takes in a block: it goes to the store, or to a list that will.
pub(super) type Put<'a> = dyn FnMut(Block) -> Result<(), ImportError> + 'a;

/// A file's tree in the making.
pub(super) struct Tree<'a> {
    settings: &'a Settings,
    metadata: Metadata,
    shape: Shape,
}

enum Shape {
    /// For each level of nodes, lowest first, the links of the node that is being filled.
    Balanced(Vec<Vec<Link>>),
    /// The root, and the nodes that are being filled on the way down from it.
    Trickle(TrickleNode, Vec<TrickleNode>),
}

struct TrickleNode {
    links: Vec<Link>,
    /// Subtrees are of a smaller depth than this; `None` sets no bound (the root).
    depth: Option<usize>,
    /// How many of the links are subtrees.
    subtrees: usize,
}

impl<'a> Tree<'a> {
    /// A tree for one file, whose root holds `metadata`.
    pub fn new(settings: &'a Settings, metadata: Metadata) -> Tree<'a> {
        let shape = match settings.layout {
            LayoutKind::Balanced => Shape::Balanced(vec![Vec::new()]),
            LayoutKind::Trickle => Shape::Trickle(TrickleNode::new(None), Vec::new()),
        };
        Tree { settings, metadata, shape }
    }

    /// Adds the next leaf. Nodes that became full are given to `put`.
    pub fn push(&mut self, leaf: Link, put: &mut Put<'_>) -> Result<(), ImportError> {
        let settings = self.settings;
        match &mut self.shape {
            Shape::Balanced(levels) => add_balanced(settings, levels, 0, leaf, put),
            Shape::Trickle(root, path) => loop {
                let last = path.last_mut().unwrap_or(root);
                if last.subtrees == 0 && last.links.len() < settings.max_file_links {
                    last.links.push(leaf);
                    return Ok(());
                }
                // The next subtree's depth; a node that has all its subtrees is closed, and its parent goes on.
                let depth = last.subtrees / DEPTH_REPEAT + 1;
                if last.depth.is_none_or(|bound| depth < bound) {
                    check_depth(path.len() + 2)?;
                    path.push(TrickleNode::new(Some(depth)));
                } else {
                    close_trickle(settings, root, path, put)?;
                }
            },
        }
    }

    /// Ends the file: gives its last nodes to `put`, and returns the link to its root. Where the tree is one leaf in
    /// the balanced layout, that leaf is the root, and holds the metadata already.
    pub fn finish(self, put: &mut Put<'_>) -> Result<Link, ImportError> {
        let settings = self.settings;
        match self.shape {
            Shape::Balanced(mut levels) => {
                if levels.len() == 1 && levels[0].len() < 2 {
                    if let Some(leaf) = levels[0].pop() {
                        return Ok(leaf);
                    }
                    let empty = leaf(settings, Buffers::default().take(0), self.metadata)?;
                    let link = empty.link();
                    put(empty.block)?;
                    return Ok(link);
                }
                let mut level = 0;
                loop {
                    let links = std::mem::take(&mut levels[level]);
                    if level + 1 == levels.len() {
                        return node(settings, &links, self.metadata, put);
                    }
                    let link = node(settings, &links, Metadata::default(), put)?;
                    level += 1;
                    add_balanced(settings, &mut levels, level, link, put)?;
                }
            }
            Shape::Trickle(mut root, mut path) => {
                while !path.is_empty() {
                    close_trickle(settings, &mut root, &mut path, put)?;
                }
                node(settings, &root.links, self.metadata, put)
            }
        }
    }
}

impl TrickleNode {
    fn new(depth: Option<usize>) -> TrickleNode {
        TrickleNode { links: Vec::new(), depth, subtrees: 0 }
    }
}

/// Adds a link to the node that is being filled at `level`. A node is made when the next link has no room in it, so that
/// a tree never gets a root of one link.
fn add_balanced(
    settings: &Settings,
    levels: &mut Vec<Vec<Link>>,
    level: usize,
    link: Link,
    put: &mut Put<'_>,
) -> Result<(), ImportError> {
    let mut link = link;
    for level in level.. {
        if level == levels.len() {
            check_depth(levels.len() + 1)?;
            levels.push(Vec::new());
        }
        if levels[level].len() < settings.max_file_links {
            levels[level].push(link);
            break;
        }
        if settings.max_file_links < 2 {
            return Err(ImportError::options(
                "--max-file-links=1 cannot hold a file of more than one chunk: a node needs two links or more",
            ));
        }
        let full = std::mem::replace(&mut levels[level], vec![link]);
        link = node(settings, &full, Metadata::default(), put)?;
    }
    Ok(())
}

/// Makes the last node of the path, and gives it to its parent.
fn close_trickle(
    settings: &Settings,
    root: &mut TrickleNode,
    path: &mut Vec<TrickleNode>,
    put: &mut Put<'_>,
) -> Result<(), ImportError> {
    if let Some(full) = path.pop() {
        let link = node(settings, &full.links, Metadata::default(), put)?;
        let parent = path.last_mut().unwrap_or(root);
        parent.links.push(link);
        parent.subtrees += 1;
    }
    Ok(())
}

fn node(settings: &Settings, links: &[Link], metadata: Metadata, put: &mut Put<'_>) -> Result<Link, ImportError> {
    let (block, link) = file_node(&settings.cid, links, metadata)?;
    put(block)?;
    Ok(link)
}

/// A leaf of `data`, as the settings have it: plain bytes, or a node around them with `metadata` in it.
pub(super) fn leaf(settings: &Settings, mut data: Buffer, metadata: Metadata) -> Result<Leaf, ImportError> {
    if settings.raw_leaves {
        let file_bytes = data.data().len() as u64;
        return Ok(Leaf { block: settings.cid.block(codec::RAW, data.freeze())?, file_bytes });
    }
    let kind = match settings.layout {
        LayoutKind::Balanced => Kind::File,
        LayoutKind::Trickle => Kind::Raw,
    };
    data_node(&settings.cid, kind, data, metadata)
}

/// A leaf of `data` that lies among other data. It is copied where the leaf is a node around it.
pub(super) fn leaf_of_slice(
    settings: &Settings,
    buffers: &Buffers,
    data: Bytes,
    metadata: Metadata,
) -> Result<Leaf, ImportError> {
    if settings.raw_leaves {
        let file_bytes = data.len() as u64;
        return Ok(Leaf { block: settings.cid.block(codec::RAW, data)?, file_bytes });
    }
    let mut buffer = buffers.take(data.len());
    buffer.data().copy_from_slice(&data);
    leaf(settings, buffer, metadata)
}

fn check_depth(depth: usize) -> Result<(), ImportError> {
    if depth <= MAX_FILE_DEPTH {
        return Ok(());
    }
    Err(ImportError::options(format!(
        "the file's tree would be over {MAX_FILE_DEPTH} levels deep: give nodes more links with --max-file-links"
    )))
}
