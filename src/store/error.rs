//! Why the store cannot do what was asked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::Cid;
use crate::limits::MAX_BLOCK_BYTES;

/// Why the store cannot do what was asked. Cheap to clone: those who share a flush share its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done: `read`, `write`, `flush`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The database of pins, names and facts failed.
    #[error("cannot {what} the database {}: {source}", path.display())]
    Database {
        /// What was being done.
        what: &'static str,
        /// The database's file.
        path: PathBuf,
        /// What the database said.
        source: Arc<redb::Error>,
    },
    /// The database cannot be read as one.
    #[error(
        "the database {} is damaged: {why}. It holds the pins; the blocks are in the segments beside it. Put a copy of \
         it back, or move it away to start without pins: then nothing is lost until the next gc",
        path.display()
    )]
    DatabaseDamaged {
        /// The database's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process has the store open.
    #[error("the store {} is in use by {}", dir.display(), pid.map_or("another process".into(), |pid| format!("process {pid}")))]
    InUse {
        /// The store's directory.
        dir: PathBuf,
        /// The process, where it said so.
        pid: Option<u32>,
    },
    /// The disk failed to flush what it had accepted, so what was written since may be lost, and nothing more is accepted.
    #[error("the store takes no more writes until it is opened again, since a flush failed: {why}")]
    FlushFailed {
        /// The failure.
        why: String,
    },
    /// The block is longer than a block may be.
    #[error("block {cid} has {len} bytes, more than the {MAX_BLOCK_BYTES} that a block may have")]
    TooLarge {
        /// The block.
        cid: Cid,
        /// Its length in bytes.
        len: usize,
    },
    /// The budget is used up by what may not be evicted.
    #[error(
        "the store is full: {used} bytes of {budget} are used ({why}), and nothing more can be evicted. Unpin something and \
         run gc, or raise store.disk_bytes"
    )]
    Full {
        /// What the segments take, in bytes.
        used: u64,
        /// What they may take, in bytes.
        budget: u64,
        /// Which budget it is.
        why: &'static str,
    },
    /// The name cannot be a file's name.
    #[error("{name:?} cannot be a name: {why}")]
    InvalidName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A pin lacks a node, and what hangs below it cannot be told from what nobody needs.
    #[error(
        "nothing is removed, since {missing}, which the pin {pin} needs, is not here: what hangs below it would be lost. Fetch \
         it or add it again, or remove the pin"
    )]
    IncompletePin {
        /// The pin's root.
        pin: Box<Cid>,
        /// The node.
        missing: Box<Cid>,
    },
    /// A writer put the block, or found it here, and has not ended yet.
    #[error("block {cid} is in use by an add or a pin that has not ended: try again when it has")]
    Held {
        /// The block.
        cid: Box<Cid>,
    },
    /// The caller ended what it had asked for.
    #[error("stopped")]
    Stopped,
    /// The block is needed by a pin.
    #[error("block {cid} is pinned: {pin} needs it")]
    Pinned {
        /// The block.
        cid: Box<Cid>,
        /// The pin's root.
        pin: Box<Cid>,
    },
}

impl StoreError {
    /// For `map_err` of I/O on a file.
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Whether the disk has no room, so that the same may succeed later.
    pub fn is_disk_full(&self) -> bool {
        let kind = match self {
            StoreError::Io { source, .. } => Some(source.kind()),
            StoreError::Database { source, .. } => match &**source {
                redb::Error::Io(source) => Some(source.kind()),
                _ => None,
            },
            StoreError::Full { .. } => return true,
            _ => None,
        };
        matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
