//! One way to a block: `get` by CID, wherever the block is.
//!
//! Identity CIDs carry their block; the store has the blocks of this machine. What is nowhere is an error that says what
//! was tried.
//!
//! - [`walk`]: every block of a DAG, once.
//! - [`pin`]: pins of whole DAGs, and whether they are still whole.
//! - [`car`]: DAGs to and from CARs.
//! - [`stat`] and [`refs`]: the sizes of DAGs, and their links as a list.

pub mod car;
pub mod pin;
pub mod refs;
pub mod stat;
pub mod walk;

use std::ops::Range;

use crate::block::{Block, Cid};
use crate::store::{BlockPart, Store, StoreError};

/// Why a block could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody who was asked has the block.
    #[error("block {cid} is not here, and {tried}")]
    NotFound {
        /// The block.
        cid: Cid,
        /// What was tried, for people.
        tried: String,
    },
    /// The store failed.
    #[error("cannot read block {cid}")]
    Store {
        /// The block.
        cid: Cid,
        /// What the store said.
        source: StoreError,
    },
}

/// Who waits for a block: what is wanted more goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody yet.
    Background,
    /// A reader will, soon.
    ReadAhead,
    /// A reader does.
    Demand,
}

/// Fetches blocks. Cheap to clone.
#[derive(Clone)]
pub struct Fetch {
    store: Store,
}

impl Fetch {
    /// Fetches from `store`.
    pub fn new(store: Store) -> Fetch {
        Fetch { store }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The block, where it is on this machine. Blocks the thread while the disk is read.
    pub fn local(&self, cid: &Cid) -> Result<Option<Block>, FetchError> {
        if let Some(block) = Block::from_identity(cid) {
            return Ok(Some(block));
        }
        self.store.get(cid).map_err(|source| FetchError::Store { cid: cid.clone(), source })
    }

    /// The bytes `range` of the block, where it is on this machine and can be read: of a large block little more than them
    /// comes from the disk. Where it cannot, [`Fetch::get`] does what is to be done. Blocks the thread while the disk is
    /// read.
    pub fn local_range(&self, cid: &Cid, range: Range<u64>) -> Option<BlockPart> {
        self.store.get_range(cid, range).ok().flatten()
    }

    /// The block, wherever it is. Ready at the first poll where the block is on this machine, so that a caller that
    /// polls once answers without a runtime.
    #[expect(clippy::unused_async, reason = "a block that is not here will be awaited from the network")]
    pub async fn get(&self, cid: &Cid, _priority: Priority) -> Result<Block, FetchError> {
        if let Some(block) = self.local(cid)? {
            return Ok(block);
        }
        Err(FetchError::NotFound { cid: cid.clone(), tried: "the network is off".into() })
    }
}
