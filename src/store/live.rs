//! What pins keep alive: a walk over their DAGs that marks each record it reaches.
//!
//! The walk is iterative and its memory is bounded by the blocks that are here: two bits for each record, and 16 bytes
//! for each node that was found and is still to be read. A block that many parents link to is read once. What is missing
//! is reported and not an error: a pin may be incomplete after damage.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::index::Location;
use super::segment::Bitmap;
use super::{Core, Pin, PinKind, StoreError};
use crate::block::{Cid, codec};
use crate::dag;

/// Records that are reached from pins.
#[derive(Default)]
pub(super) struct Live {
    reached: HashMap<u32, Bitmap>,
    walked: HashMap<u32, Bitmap>,
    /// Nodes that were walked under another codec than the one they were put under.
    walked_otherwise: HashSet<(Location, u64)>,
    /// How many records were reached.
    pub blocks: u64,
    /// The bytes of their blocks.
    pub bytes: u64,
}

/// A node that was found and is still to be read.
struct Node {
    at: Location,
    codec: u64,
}

/// What a walk tells as it goes.
pub(super) trait Walk {
    /// A block was reached for the first time. May end the walk.
    fn reached(&mut self, live: &Live, cid: &Cid) -> ControlFlow<()>;
    /// A block that the pin needs is not here. May end the walk.
    fn missing(&mut self, cid: &Cid) -> ControlFlow<()>;
}

impl Live {
    /// Whether a record was reached.
    pub fn contains(&self, segment: u32, ordinal: u32) -> bool {
        self.reached.get(&segment).is_some_and(|bits| bits.contains(ordinal))
    }
}

impl Core {
    /// Marks what a pin keeps. `Break` where the walk was ended.
    pub(super) fn mark(&self, pin: &Pin, live: &mut Live, walk: &mut dyn Walk) -> Result<ControlFlow<()>, StoreError> {
        let mut nodes = Vec::new();
        if self.reach(&pin.cid, pin.kind == PinKind::Recursive, live, &mut nodes, walk)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        while let Some(node) = nodes.pop() {
            let (cid, data) = self.node(&node)?;
            let Some(data) = data else {
                if walk.missing(&cid).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            };
            let links = match dag::links(&cid, &data) {
                Ok(links) => links,
                // Nobody can follow what its links might have been.
                Err(error) => {
                    tracing::warn!("{cid}, which the pin {} needs, cannot be walked: {error}", pin.cid);
                    continue;
                }
            };
            // From the last, so that the first is the next to be read: that is the order on the disk.
            let first = nodes.len();
            for link in links {
                if self.reach(&link, true, live, &mut nodes, walk)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            nodes[first..].reverse();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Marks one block, and adds it to the nodes to be read where it has links to follow.
    fn reach(
        &self,
        cid: &Cid,
        follow: bool,
        live: &mut Live,
        nodes: &mut Vec<Node>,
        walk: &mut dyn Walk,
    ) -> Result<ControlFlow<()>, StoreError> {
        if cid.identity_data().is_some() {
            return Ok(ControlFlow::Continue(()));
        }
        let Some(found) = self.find(cid.multihash())? else { return Ok(walk.missing(cid)) };
        let Some(entry) = found.entry.entry() else { return Ok(ControlFlow::Continue(())) };
        let at = found.at;
        if live.reached.entry(at.segment).or_default().insert(entry.ordinal) {
            live.blocks += 1;
            live.bytes += u64::from(entry.data_len);
            if walk.reached(live, cid).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if follow && has_links(cid.codec()) {
            let usual = Cid::from_bytes(entry.cid).is_ok_and(|put| put.codec() == cid.codec());
            let is_new = if usual {
                live.walked.entry(at.segment).or_default().insert(entry.ordinal)
            } else {
                live.walked_otherwise.insert((at, cid.codec()))
            };
            if is_new {
                nodes.push(Node { at, codec: cid.codec() });
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The CID of a node that was found, and its bytes, unless it turns out to be damaged.
    fn node(&self, node: &Node) -> Result<(Cid, Option<Bytes>), StoreError> {
        // Nothing moves or drops segments during a walk; a table that has become unreadable must end it.
        let unreadable = || {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its table has changed");
            StoreError::io("read", &self.shelf.table_path(node.at.segment))(error)
        };
        let segment = self.segments.read().get(&node.at.segment).cloned().ok_or_else(unreadable)?;
        let found = segment.entry(node.at.position)?;
        let entry = found.entry().ok_or_else(unreadable)?;
        let cid = Cid::from_bytes(entry.cid).map_err(|_| unreadable())?;
        let cid = if cid.codec() == node.codec { cid } else { cid.with_codec(node.codec) };
        // Not through the RAM tier: a walk over everything would push out what readers use.
        let data = match segment.block(&entry, 0, entry.data_len as usize)? {
            Some((data, _)) => Some(data),
            None => self.get(&cid)?,
        };
        Ok((cid, data))
    }
}

/// Whether blocks of a codec can link to others.
pub(super) fn has_links(codec: u64) -> bool {
    matches!(codec, codec::DAG_PB | codec::DAG_CBOR | codec::DAG_JSON)
}
