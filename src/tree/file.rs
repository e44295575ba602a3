//! Files by offset: dag-pb trees of any layout, with data in any node.
//!
//! A node's own data comes before its links' data. Sizes in nodes are claims: a read seeks by them, and holds each node
//! that it meets against its claim, so that a file that lies is an error and never shifted bytes. A read walks down with
//! an explicit stack of at most [`MAX_FILE_DEPTH`] nodes, asks for several children at a time, and copies nothing where one
//! leaf holds the whole answer.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::error::TreeError;
use super::node::{Node, file_of};
use super::{Location, Tree};
use crate::block::{Cid, codec};
use crate::dag::DagError;
use crate::dag::pb::PbNode;
use crate::dag::unixfs::UnixFs;
use crate::fetch::Priority;
use crate::limits::{MAX_FILE_DEPTH, MAX_PARTIAL_READ_BYTES, READ_CONCURRENCY};
use crate::store::BlockPart;

/// A node of a file: its own data, then its children's.
pub(super) struct FileNode {
    data: Bytes,
    /// Where each child's bytes end, counted from the node's beginning; they begin at the end of what is before.
    ends: Vec<u64>,
    children: Vec<Cid>,
    /// The claimed size, where the node has one and it is not the sum of its parts.
    false_claim: Option<u64>,
}

impl FileNode {
    /// Checks that the node's links and block sizes belong together.
    pub fn new(cid: &Cid, node: &PbNode, unixfs: UnixFs) -> Result<FileNode, TreeError> {
        let malformed = |why: String| TreeError::dag(cid)(DagError::malformed("UnixFS", why));
        if unixfs.blocksizes.len() != node.link_count() {
            return Err(malformed(format!("{} block sizes for {} links", unixfs.blocksizes.len(), node.link_count())));
        }
        let data = unixfs.data.unwrap_or_default();
        let mut end = data.len() as u64;
        let mut ends = Vec::with_capacity(node.link_count());
        let mut children = Vec::with_capacity(node.link_count());
        for (link, size) in node.links().zip(&unixfs.blocksizes) {
            if !link.name.is_empty() {
                return Err(malformed("a link of a file that has a name".into()));
            }
            end = end.checked_add(*size).ok_or_else(|| malformed("block sizes over 64 bits".into()))?;
            ends.push(end);
            children.push(link.cid);
        }
        Ok(FileNode { data, ends, children, false_claim: unixfs.filesize.filter(|claim| *claim != end) })
    }

    /// Whether all of the node's bytes are its own.
    pub fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    /// The memory that the lists take, in bytes.
    pub fn memory(&self) -> usize {
        self.children.len() * (size_of::<Cid>() + size_of::<u64>())
    }

    /// The data that is the node's own.
    pub fn own_data(&self) -> &Bytes {
        &self.data
    }

    /// Child `index`, and the bytes that it is claimed to hold.
    pub fn child(&self, index: usize) -> Option<(&Cid, u64)> {
        let span = self.children.get(index).map(|_| self.span(index))?;
        Some((&self.children[index], span.end - span.start))
    }

    /// The size that the node's parts add up to.
    fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(self.data.len() as u64)
    }

    /// Where child `index` lies in the node.
    fn span(&self, index: usize) -> Range<u64> {
        let start = if index == 0 { self.data.len() as u64 } else { self.ends[index - 1] };
        start..self.ends[index]
    }
}

/// A child of a node, loaded.
enum Part {
    /// What is wanted of a leaf.
    Leaf(Bytes),
    Inner(Arc<Node>),
}

/// A node on the way down, and which of its bytes are still to come.
struct Frame {
    node: Arc<Node>,
    /// The bytes wanted of the node, counted from its beginning; what is before `start` is done.
    wanted: Range<u64>,
    /// The children that were loaded, with their locations in the node.
    loaded: VecDeque<(Range<u64>, Part)>,
    /// The first child that is not loaded.
    next: usize,
}

impl Frame {
    fn new(node: Arc<Node>, wanted: Range<u64>) -> Frame {
        let next = file_of(&node).map_or(0, |file| file.ends.partition_point(|end| *end <= wanted.start));
        Frame { node, wanted, loaded: VecDeque::new(), next }
    }
}

/// Gathers the bytes of a read: one piece is handed on as it is, several are copied together.
struct Answer {
    one: Bytes,
    many: Vec<u8>,
    capacity: usize,
}

impl Answer {
    fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
        } else if self.one.is_empty() && self.many.is_empty() {
            self.one = piece;
        } else {
            if self.many.is_empty() {
                self.many = Vec::with_capacity(self.capacity);
                self.many.extend_from_slice(&self.one);
                self.one = Bytes::new();
            }
            self.many.extend_from_slice(&piece);
        }
    }

    fn finish(self) -> Bytes {
        if self.many.is_empty() { self.one } else { self.many.into() }
    }
}

/// The part of `data`, which begins at `start` of something, that lies in `wanted` of it.
fn cut(data: &Bytes, start: u64, wanted: &Range<u64>) -> Bytes {
    let from = wanted.start.saturating_sub(start).min(data.len() as u64) as usize;
    let to = wanted.end.saturating_sub(start).min(data.len() as u64) as usize;
    if from < to { data.slice(from..to) } else { Bytes::new() }
}

/// Reads up to `len` bytes from `offset` of the dag-pb file at `location`; fewer where it ends.
pub(super) async fn read(
    tree: &Tree,
    location: &Location,
    offset: u64,
    len: usize,
    priority: Priority,
) -> Result<Bytes, TreeError> {
    let file = &location.cid;
    let root = tree.node(file, location.root(), priority).await?;
    let root_file = match &*root {
        Node::File(_, node) => node,
        Node::Directory(..) | Node::Shard(..) => return Err(TreeError::IsADirectory { cid: file.clone() }),
        Node::Symlink(..) | Node::Ipld(_) => return Err(TreeError::NotAFile { cid: file.clone() }),
    };
    check(file, file, root_file, None)?;
    let wanted = offset..offset.saturating_add(len as u64).min(root_file.size());
    let mut answer = Answer {
        one: cut(&root_file.data, 0, &wanted),
        many: Vec::new(),
        capacity: wanted.end.saturating_sub(wanted.start) as usize,
    };
    let mut stack = vec![Frame::new(root, wanted)];
    while let Some(frame) = stack.last_mut() {
        if let Some((span, part)) = frame.loaded.pop_front() {
            let start = frame.wanted.start.saturating_sub(span.start);
            let wanted = start..frame.wanted.end.min(span.end) - span.start;
            match part {
                Part::Leaf(data) => answer.push(data),
                Part::Inner(node) => {
                    if stack.len() == MAX_FILE_DEPTH {
                        return Err(TreeError::Limit {
                            cid: file.clone(),
                            what: "the depth of the file's tree, in levels,",
                            limit: MAX_FILE_DEPTH as u64,
                        });
                    }
                    if let Some(inner) = file_of(&node) {
                        answer.push(cut(&inner.data, 0, &wanted));
                    }
                    stack.push(Frame::new(node, wanted));
                }
            }
            continue;
        }
        let Some(node) = file_of(&frame.node) else {
            stack.pop();
            continue;
        };
        // Children of no bytes have nothing to say, however many they are.
        let batch: Vec<usize> = (frame.next..node.children.len())
            .take_while(|index| node.span(*index).start < frame.wanted.end)
            .filter(|index| !node.span(*index).is_empty())
            .take(READ_CONCURRENCY)
            .collect();
        let Some(last) = batch.last() else {
            stack.pop();
            continue;
        };
        frame.next = last + 1;
        let load = |index: usize| {
            let span = node.span(index);
            let cid = &node.children[index];
            let wanted = frame.wanted.start.saturating_sub(span.start)..frame.wanted.end.min(span.end) - span.start;
            async move { Ok((span.clone(), load(tree, location, cid, span.end - span.start, wanted, priority).await?)) }
        };
        let loaded: Vec<Result<_, TreeError>> =
            if let [index] = batch[..] { vec![load(index).await] } else { join_all(batch.into_iter().map(load)).await };
        frame.loaded = loaded.into_iter().collect::<Result<_, _>>()?;
    }
    Ok(answer.finish())
}

/// Loads a child that is claimed to hold `claimed` bytes of the file at `location`, of which `wanted` are.
async fn load(
    tree: &Tree,
    location: &Location,
    cid: &Cid,
    claimed: u64,
    wanted: Range<u64>,
    priority: Priority,
) -> Result<Part, TreeError> {
    let file = &location.cid;
    if cid.codec() != codec::DAG_PB {
        let part = leaf(tree, cid, location.root(), wanted, priority).await?;
        let found = part.block_bytes;
        if found != claimed {
            return Err(TreeError::Lies { file: file.clone(), cid: cid.clone(), claimed, found });
        }
        return Ok(Part::Leaf(part.data));
    }
    let node = tree.node(cid, location.root(), priority).await?;
    let Some(inner) = file_of(&node) else {
        return Err(TreeError::dag(cid)(DagError::malformed("UnixFS", "part of a file that is no file")));
    };
    check(file, cid, inner, Some(claimed))?;
    Ok(if inner.is_leaf() { Part::Leaf(cut(&inner.data, 0, &wanted)) } else { Part::Inner(node) })
}

/// The bytes `wanted` of a block that is all data, fewer where it ends.
///
/// A reader that jumps about in a large leaf gets what it asks for, and nothing else is read: not from the disk, and not
/// into the RAM tier, out of which it would push what somebody may need. Who begins at the beginning of a leaf goes on as
/// a rule, and what is read ahead is read to be kept: for both the leaf is read whole, once, and the rest of it is answered
/// from RAM.
pub(super) async fn leaf(
    tree: &Tree,
    cid: &Cid,
    root: &Cid,
    wanted: Range<u64>,
    priority: Priority,
) -> Result<BlockPart, TreeError> {
    let len = wanted.end.saturating_sub(wanted.start);
    let is_jump = priority == Priority::Demand && wanted.start > 0 && len <= MAX_PARTIAL_READ_BYTES;
    if is_jump && let Some(part) = tree.fetch().local_range(cid, wanted.clone()) {
        return Ok(part);
    }
    let block = tree.block(cid, root, priority).await?;
    Ok(BlockPart { data: cut(block.data(), 0, &wanted), block_bytes: block.data().len() as u64 })
}

/// Holds a node against what it and its parent claim of it.
fn check(file: &Cid, cid: &Cid, node: &FileNode, claimed: Option<u64>) -> Result<(), TreeError> {
    let found = node.size();
    match claimed.filter(|claim| *claim != found).or(node.false_claim) {
        Some(claimed) => Err(TreeError::Lies { file: file.clone(), cid: cid.clone(), claimed, found }),
        None => Ok(()),
    }
}
