//! The formats of IPFS, pure: bytes in, nodes out, and back.
//!
//! Nothing here does I/O. Decoders borrow from the block's [`bytes::Bytes`] and copy nothing; none allocates by a number
//! that the input claims, and none recurses by the input's will. Each is fuzzed (`fuzz/`).
//!
//! - [`directory`]: the entries of a plain directory, with bad names dropped.
//! - [`pb`]: dag-pb, the node with data and links (<https://ipld.io/specs/codecs/dag-pb/spec/>).
//! - [`unixfs`]: UnixFS 1.5, what a dag-pb node's data says (<https://github.com/ipfs/specs/blob/main/UNIXFS.md>).
//! - [`hamt`]: one shard of a directory that is too large for one node (<https://specs.ipfs.tech/unixfs/>).
//! - [`ipld`]: dag-cbor and dag-json, and every block in the data model (<https://ipld.io/docs/data-model/>).
//! - [`car`]: blocks in a file or a stream (<https://ipld.io/specs/transport/car/>).
//! - [`links()`]: every link of a block, whatever its codec.

pub mod car;
pub mod directory;
pub mod hamt;
pub mod ipld;
mod links;
pub mod pb;
mod protobuf;
pub mod unixfs;

pub use self::links::{Link, Links, can_link, links};

use crate::limits::MAX_IPLD_DEPTH;

/// Why the bytes of a block are not a node of its codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// The bytes break the rules of the format.
    #[error("malformed {format}: {why}")]
    Malformed {
        /// The format by its usual name: `dag-pb`, UnixFS, `HAMT`, `dag-cbor`, `dag-json`, `CAR`.
        format: &'static str,
        /// Which rule.
        why: String,
    },
    /// A bound of [`crate::limits`] is crossed.
    #[error("{what} is over the limit of {limit}")]
    Limit {
        /// What was counted, with its unit.
        what: String,
        /// The bound.
        limit: u64,
    },
    /// A codec that nodes can be neither read nor written in.
    #[error("the codec {codec:#x} has no nodes that cidfs can read or write")]
    Codec {
        /// The multicodec code.
        codec: u64,
    },
}

impl DagError {
    pub(crate) fn malformed(format: &'static str, why: impl Into<String>) -> DagError {
        DagError::Malformed { format, why: why.into() }
    }

    /// A node of nested maps and lists, deeper than [`MAX_IPLD_DEPTH`].
    pub(crate) fn too_deep(format: &'static str) -> DagError {
        DagError::Limit { what: format!("the nesting of a {format} block"), limit: MAX_IPLD_DEPTH as u64 }
    }
}
