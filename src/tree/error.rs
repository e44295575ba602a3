//! Why a path, a listing or a read fails.

use crate::block::Cid;
use crate::dag::DagError;
use crate::fetch::FetchError;
use crate::store::StoreError;

/// What went wrong in the tree. Which errno a program sees for it is chosen in `fuse`.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The first part of a path is neither a CID nor a name of this repository.
    #[error("{text:?} is neither a CID nor a name here")]
    NotACid {
        /// What was given.
        text: String,
    },
    /// The directory was read, and has no such name.
    #[error("{directory} has no entry {name:?}")]
    NoEntry {
        /// The directory.
        directory: String,
        /// The name, as far as it is text.
        name: String,
    },
    /// A path goes on below a file, or a file is listed.
    #[error("{cid} is not a directory")]
    NotADirectory {
        /// The node.
        cid: Cid,
    },
    /// A directory is read like a file.
    #[error("{cid} is a directory")]
    IsADirectory {
        /// The node.
        cid: Cid,
    },
    /// Something that is neither a file nor a directory is read like a file.
    #[error("{cid} is not a file")]
    NotAFile {
        /// The node.
        cid: Cid,
    },
    /// Something else than a symbolic link is read as one.
    #[error("{cid} is not a symbolic link")]
    NotASymlink {
        /// The node.
        cid: Cid,
    },
    /// A block of the node could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The pins and names could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A block is not what its codec or its kind says.
    #[error("block {cid}: {source}")]
    Dag {
        /// The block.
        cid: Cid,
        /// What is wrong in it.
        source: DagError,
    },
    /// A file's nodes claim sizes that its leaves do not have. Nothing is served of what lies.
    #[error("file {file}: block {cid} is claimed to hold {claimed} bytes of it, but holds {found}")]
    Lies {
        /// The file.
        file: Cid,
        /// The block whose size is wrong.
        cid: Cid,
        /// The size in the claim, in bytes.
        claimed: u64,
        /// The size found, in bytes.
        found: u64,
    },
    /// A bound of [`crate::limits`] is crossed.
    #[error("{what} at {cid} is over the limit of {limit}")]
    Limit {
        /// Where.
        cid: Cid,
        /// What was counted, with its unit.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Nothing came for too long.
    #[error("gave up after {seconds} s")]
    Deadline {
        /// How long was waited.
        seconds: u64,
    },
    /// The mount is being taken down.
    #[error("the mount is being taken down")]
    Stopping,
    /// A path has more levels of directories than [`crate::limits::MAX_DIRECTORY_DEPTH`].
    #[error("the path is deeper than {limit} directories")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
}

impl TreeError {
    pub(super) fn no_entry(directory: &impl ToString, name: &[u8]) -> TreeError {
        TreeError::NoEntry { directory: directory.to_string(), name: String::from_utf8_lossy(name).into_owned() }
    }

    pub(super) fn dag(cid: &Cid) -> impl FnOnce(DagError) -> TreeError {
        let cid = cid.clone();
        move |source| TreeError::Dag { cid, source }
    }
}
