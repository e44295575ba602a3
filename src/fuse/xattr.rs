//! Extended attributes: what cidfs says of a file beyond stat.
//!
//! - `ipfs.cid`: the CID, under the name that kubo gives it; `getfattr -n ipfs.cid FILE` prints it.
//! - `user.cidfs.cached_bytes`: how many bytes of the file's content are on this machine.
//! - `user.cidfs.blocks`: of how many different blocks the file consists, as far as the nodes above them are on this
//!   machine.
//!
//! `getfattr -d` shows those of the `user` namespace. Numbers are in decimal.

use std::sync::Arc;

use fuser::{Errno, ReplyXattr};

use super::shared::Shared;
use crate::tree::{Location, TreeError};

/// An extended attribute that cidfs has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    Cid,
    CachedBytes,
    Blocks,
}

const ALL: [(Attribute, &str); 3] = [
    (Attribute::Cid, "ipfs.cid"),
    (Attribute::CachedBytes, "user.cidfs.cached_bytes"),
    (Attribute::Blocks, "user.cidfs.blocks"),
];

impl Attribute {
    pub fn from_name(name: &[u8]) -> Option<Attribute> {
        ALL.iter().find(|(_, known)| known.as_bytes() == name).map(|(attribute, _)| *attribute)
    }

    /// Its value for what is at `location`. Counting may read nodes from the disk: it takes a thread that may wait.
    pub async fn value(self, shared: Arc<Shared>, location: Location) -> Result<String, TreeError> {
        if self == Attribute::Cid {
            return Ok(location.cid.to_string());
        }
        let tree = shared.tree.clone();
        let coverage = shared.runtime.spawn_blocking(move || tree.coverage(&location)).await;
        // The runtime ends before a task only where the mount does.
        let coverage = coverage.map_err(|_| TreeError::Stopping)??;
        Ok(match self {
            Attribute::Blocks => coverage.blocks.to_string(),
            _ => coverage.cached_bytes.to_string(),
        })
    }
}

/// The names as listxattr(2) has them, each with its NUL.
pub(super) fn names() -> Vec<u8> {
    ALL.iter().flat_map(|(_, name)| name.bytes().chain([0])).collect()
}

/// Answers a request that has room for `size` bytes; 0 asks for the length alone.
pub(super) fn send(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
