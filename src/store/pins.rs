//! Pins and names: what must stay, and what the mount's root lists.

use std::collections::BTreeMap;

use super::{Store, StoreError};
use crate::block::Cid;

/// What a pin keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// The block and everything below it.
    Recursive,
    /// The block alone.
    Direct,
}

/// A pin that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The root.
    pub cid: Cid,
    /// What it keeps.
    pub kind: PinKind,
    /// The user's name for it: empty where there is none.
    pub name: String,
}

#[derive(Default)]
pub(super) struct Tables {
    pins: BTreeMap<Cid, Pin>,
    facts: BTreeMap<Cid, Vec<u8>>,
}

impl Store {
    /// Pins `cid`, or changes its pin. The caller has made sure that its blocks are here. Returns once the blocks and the
    /// pin's row are durable.
    pub fn pin(&self, cid: &Cid, kind: PinKind, name: &str) -> Result<Pin, StoreError> {
        self.sync()?;
        let pin = Pin { cid: cid.clone(), kind, name: name.to_owned() };
        self.inner.tables.write().pins.insert(cid.clone(), pin.clone());
        Ok(pin)
    }

    /// Removes a pin; false where there was none. Durable on return.
    pub fn unpin(&self, cid: &Cid) -> Result<bool, StoreError> {
        Ok(self.inner.tables.write().pins.remove(cid).is_some())
    }

    /// All pins, in the order of their CIDs.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        Ok(self.inner.tables.read().pins.values().cloned().collect())
    }

    /// What was remembered of a block (its kind, size, mode: the tree's own encoding), so that a listing need not read it.
    pub fn facts(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.tables.read().facts.get(cid).cloned())
    }

    /// Remembers facts of blocks. Not durable at once: a fact that is lost is learned again.
    pub fn remember(&self, facts: Vec<(Cid, Vec<u8>)>) -> Result<(), StoreError> {
        self.inner.tables.write().facts.extend(facts);
        Ok(())
    }
}
