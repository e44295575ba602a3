//! How much of a file is on this machine.
//!
//! The walk reads nodes that are here and fetches none. It visits each different block once, so a file that names one
//! block a thousand times costs one visit, and it refuses to count more than [`MAX_COUNTED_BLOCKS`].

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use futures::FutureExt;

use super::node::{Node, file_of};
use super::{Attr, FileKind, Location, Tree, TreeError};
use crate::block::{Cid, codec};
use crate::fetch::{FetchError, Priority};
use crate::limits::MAX_COUNTED_BLOCKS;

/// Below this size a node is read to see what it is.
const LARGE_LEAF_BYTES: u64 = 16 * 1024;

/// How much of a file is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Bytes of the content that are on this machine.
    pub cached_bytes: u64,
    /// Different blocks that the file consists of, as far as the nodes that name them are here.
    pub blocks: u64,
}

impl Tree {
    /// Counts what is here of the file at `location`. A directory counts as one block without content. Blocks the thread
    /// while nodes are read.
    pub fn coverage(&self, location: &Location) -> Result<Coverage, TreeError> {
        if location.is_ipld() {
            let is_file = |attr: &Attr| attr.kind == FileKind::File;
            // Ready at once, or something on the way is not here.
            let attr = self.attr(location, None, Priority::Background).now_or_never().transpose()?;
            let cached_bytes = attr.filter(is_file).map_or(0, |attr| attr.size);
            return Ok(Coverage { cached_bytes, blocks: 1 });
        }
        let mut seen = Seen { tree: self, bytes: HashMap::new() };
        let cached_bytes = match seen.visit(&location.cid, None)? {
            Visit::Known(bytes) => bytes,
            Visit::Inner(root) => seen.walk(location.cid.clone(), root)?,
        };
        Ok(Coverage { cached_bytes, blocks: seen.bytes.len() as u64 })
    }
}

/// The different blocks that were met, and how many bytes of content are here of each and below it.
struct Seen<'a> {
    tree: &'a Tree,
    bytes: HashMap<Cid, u64>,
}

enum Visit {
    Known(u64),
    /// An inner node, to be walked.
    Inner(std::sync::Arc<Node>),
}

impl Seen<'_> {
    /// Walks the file below `root` with a stack of its own: nodes, the next child of each, and the sum so far.
    fn walk(&mut self, root: Cid, node: std::sync::Arc<Node>) -> Result<u64, TreeError> {
        let own = |node: &Node| file_of(node).map_or(0, |file| file.own_data().len() as u64);
        let sum = own(&node);
        let mut stack = vec![(root, node, 0, sum)];
        loop {
            let Some((_, node, next, sum)) = stack.last_mut() else { return Ok(0) };
            let child = file_of(node).and_then(|file| file.child(*next));
            *next += 1;
            if let Some((child, claimed)) = child {
                let child = child.clone();
                match self.visit(&child, Some(claimed))? {
                    Visit::Known(bytes) => *sum = sum.saturating_add(bytes),
                    Visit::Inner(node) => {
                        let sum = own(&node);
                        stack.push((child, node, 0, sum));
                    }
                }
            } else if let Some((cid, _, _, done)) = stack.pop() {
                self.bytes.insert(cid, done);
                match stack.last_mut() {
                    Some((_, _, _, sum)) => *sum = sum.saturating_add(done),
                    None => return Ok(done),
                }
            }
        }
    }

    /// What is known of a block that is claimed to hold `claimed` bytes of the file, without reading it where possible.
    fn visit(&mut self, cid: &Cid, claimed: Option<u64>) -> Result<Visit, TreeError> {
        let count = self.bytes.len();
        let slot = match self.bytes.entry(cid.clone()) {
            Slot::Occupied(seen) => return Ok(Visit::Known(*seen.get())),
            Slot::Vacant(slot) => slot,
        };
        if count == MAX_COUNTED_BLOCKS {
            return Err(TreeError::Limit {
                cid: cid.clone(),
                what: "the number of blocks to count",
                limit: MAX_COUNTED_BLOCKS as u64,
            });
        }
        let size = match cid.identity_data() {
            Some(data) => Some(data.len() as u64),
            None => {
                self.tree.fetch().store().size(cid).map_err(|source| FetchError::Store { cid: cid.clone(), source })?
            }
        };
        let Some(size) = size else {
            slot.insert(0);
            return Ok(Visit::Known(0));
        };
        if cid.codec() != codec::DAG_PB {
            slot.insert(size);
            return Ok(Visit::Known(size));
        }
        // A large node that is as large as the content that it stands for holds the content itself: not worth reading.
        if let Some(claimed) = claimed.filter(|claimed| (LARGE_LEAF_BYTES..=size).contains(claimed)) {
            slot.insert(claimed);
            return Ok(Visit::Known(claimed));
        }
        // Counted before its children are, so that the limit holds; the sum follows.
        slot.insert(0);
        let Some(node) = self.tree.local_node(cid)? else { return Ok(Visit::Known(0)) };
        Ok(match file_of(&node) {
            Some(file) if file.is_leaf() => {
                let bytes = file.own_data().len() as u64;
                self.bytes.insert(cid.clone(), bytes);
                Visit::Known(bytes)
            }
            Some(_) => Visit::Inner(node),
            None => Visit::Known(0),
        })
    }
}
