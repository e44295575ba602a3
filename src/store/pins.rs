//! Pins and names: what must stay, and what the mount's root lists.

use std::sync::atomic::Ordering;

use super::db::Change;
use super::{Store, StoreError};
use crate::block::Cid;
use crate::limits::MAX_ROOT_NAME_BYTES;

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

impl Store {
    /// Pins `cid`, or changes its pin. The caller has made sure that its blocks are here, and [holds](Store::writer) them.
    /// Returns once the blocks and the pin's row are durable; a pin that was refused leaves no trace.
    pub fn pin(&self, cid: &Cid, kind: PinKind, name: &str) -> Result<Pin, StoreError> {
        self.sync()?;
        let pin = Pin { cid: cid.clone(), kind, name: name.to_owned() };
        self.core().change(Change::Pin(pin.clone()))?;
        self.core().watch.pinned(&pin);
        Ok(pin)
    }

    /// Removes a pin; false where there was none. Durable on return.
    pub fn unpin(&self, cid: &Cid) -> Result<bool, StoreError> {
        let existed = self.core().change(Change::Unpin(cid.clone()))?;
        // There is something to evict now.
        self.core().futile_evictions.lock().clear();
        Ok(existed)
    }

    /// All pins, in the order of their CIDs.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.core().db.pins()
    }

    /// The pin of a root, where it is one.
    pub fn pinned(&self, cid: &Cid) -> Result<Option<Pin>, StoreError> {
        self.core().db.pin(cid)
    }

    /// Gives a root a name, under which the mount's root lists it; a name that is taken then points here. Durable on
    /// return. A name keeps no block: pin the root for that.
    pub fn name(&self, name: &str, cid: &Cid) -> Result<(), StoreError> {
        check_name(name)?;
        self.core().change(Change::Name(name.to_owned(), cid.clone())).map(drop)
    }

    /// Removes a name; false where there was none. Durable on return.
    pub fn unname(&self, name: &str) -> Result<bool, StoreError> {
        self.core().change(Change::Unname(name.to_owned()))
    }

    /// All names and their roots, in the order of the names.
    pub fn names(&self) -> Result<Vec<(String, Cid)>, StoreError> {
        self.core().db.names()
    }
}

impl Store {
    /// A number that moves on with every change of a pin or a name, and with nothing else: what was learned of them holds
    /// for as long as it stays. Ask before reading them.
    pub fn roots_generation(&self) -> u64 {
        self.core().roots_generation.load(Ordering::Acquire)
    }
}

/// A name is shown as a file's name, beside the CIDs.
fn check_name(name: &str) -> Result<(), StoreError> {
    let why = match name {
        "" => "it is empty",
        "." | ".." => "it means a directory",
        _ if name.contains('/') => "it has a /",
        _ if name.contains('\0') => "it has a NUL",
        _ if name.len() > MAX_ROOT_NAME_BYTES => "it is longer than 255 bytes",
        _ if name.parse::<Cid>().is_ok() => "it is a CID",
        _ => return Ok(()),
    };
    Err(StoreError::InvalidName { name: name.to_owned(), why })
}
