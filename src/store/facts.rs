//! Facts of blocks: what the tree learned of them (kind, size, mode), so that a listing need not read them.
//!
//! They are written lazily, many in one transaction: a fact that is lost is learned again.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::db::Change;
use super::{Core, Store, StoreError};
use crate::block::Cid;
use crate::limits::MAX_PENDING_FACTS;

/// Facts that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Facts(Mutex<HashMap<Cid, Vec<u8>>>);

impl Store {
    /// What was remembered of a block (its kind, size, mode: the tree's own encoding), so that a listing need not read it.
    pub fn facts(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(fact) = self.core().facts.0.lock().get(cid) {
            return Ok(Some(fact.clone()));
        }
        self.core().db.facts(cid)
    }

    /// Remembers facts of blocks. Not durable at once: a fact that is lost is learned again.
    pub fn remember(&self, facts: Vec<(Cid, Vec<u8>)>) -> Result<(), StoreError> {
        let core = self.core();
        let waiting = {
            let mut pending = core.facts.0.lock();
            pending.extend(facts);
            pending.len()
        };
        if waiting > MAX_PENDING_FACTS {
            core.flush_facts()?;
        }
        Ok(())
    }
}

impl Core {
    /// Writes the facts that wait.
    pub(super) fn flush_facts(&self) -> Result<(), StoreError> {
        let written: Vec<(Cid, Vec<u8>)> =
            self.facts.0.lock().iter().map(|(cid, fact)| (cid.clone(), fact.clone())).collect();
        if written.is_empty() {
            return Ok(());
        }
        // They stay readable until the database has them.
        self.db.change(Change::Facts(written.clone()))?;
        let mut pending = self.facts.0.lock();
        for (cid, fact) in written {
            if pending.get(&cid) == Some(&fact) {
                pending.remove(&cid);
            }
        }
        if pending.is_empty() {
            pending.shrink_to_fit();
        }
        Ok(())
    }
}
