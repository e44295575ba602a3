//! The root of a mount: what is pinned, by its CID, and what has a name. Any other CID is found by asking for it.
//!
//! Unlike everything below it, the root changes. A name's cursor is a hash of the name, so that a listing that is under way
//! while pins come and go shows every name that stays, once; and [`Tree::root_changed`] says when it was last different, so
//! that whoever keeps a listing knows when to drop it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Entry, FIRST_CURSOR, Listed, Location, Tree, TreeError};
use crate::block::Cid;
use crate::dag::directory::is_valid_name;
use crate::fetch::Priority;

/// What the root held when it was last looked at.
pub(super) struct RootState {
    /// The store's generation of pins and names that this is of.
    generation: Option<u64>,
    hash: u64,
    changed: SystemTime,
}

impl RootState {
    pub fn new() -> RootState {
        RootState { generation: None, hash: 0, changed: SystemTime::now() }
    }
}

impl Tree {
    /// What `name` is in the root of a mount: a CID, or a name of this repository. Anything else is answered at once.
    pub async fn root_lookup(&self, name: &[u8]) -> Result<Entry, TreeError> {
        let location = Location::new(self.root_cid(name)?);
        let attr = self.attr(&location, None, Priority::Demand).await?;
        Ok(Entry { location, attr })
    }

    /// The CID that `name` is, or that the repository gives this name to.
    pub(super) fn root_cid(&self, name: &[u8]) -> Result<Cid, TreeError> {
        let not_a_cid = || TreeError::NotACid { text: String::from_utf8_lossy(name).into_owned() };
        let name = std::str::from_utf8(name).map_err(|_| not_a_cid())?;
        if let Ok(cid) = name.parse() {
            return Ok(cid);
        }
        let mut names = self.fetch().store().names()?.into_iter();
        names.find(|(known, _)| known == name).map(|(_, cid)| cid).ok_or_else(not_a_cid)
    }

    /// The next names of the root of a mount after `cursor`, at most `limit`.
    pub fn root_list(&self, cursor: u64, limit: usize) -> Result<Vec<Listed>, TreeError> {
        let mut listed: Vec<Listed> = self
            .roots()?
            .into_iter()
            .map(|(name, cid)| {
                let cursor = cursor_of(name.as_bytes());
                Listed { cursor, name: Bytes::from(name), location: Location::new(cid), tsize: None, attr: None }
            })
            .filter(|listed| listed.cursor > cursor)
            .collect();
        listed.sort_by(|a, b| (a.cursor, &a.name).cmp(&(b.cursor, &b.name)));
        listed.dedup_by(|a, b| a.name == b.name);
        listed.truncate(limit);
        Ok(listed)
    }

    /// When the root's names or what they lead to last changed, as far as anybody has looked. Pins and names are read where
    /// there was a change since the last time, and only then.
    pub fn root_changed(&self) -> Result<SystemTime, TreeError> {
        let generation = Some(self.fetch().store().roots_generation());
        {
            let state = self.inner.root.lock();
            if state.generation == generation {
                return Ok(state.changed);
            }
        }
        let mut hasher = DefaultHasher::new();
        self.roots()?.hash(&mut hasher);
        let hash = hasher.finish();
        let mut state = self.inner.root.lock();
        if state.hash != hash {
            // Later than before, whatever the clock says.
            let changed = SystemTime::now().max(state.changed + Duration::from_nanos(1));
            *state = RootState { generation, hash, changed };
        }
        state.generation = generation;
        Ok(state.changed)
    }

    fn roots(&self) -> Result<Vec<(String, Cid)>, TreeError> {
        let store = self.fetch().store();
        let mut roots = store.names()?;
        roots.retain(|(name, _)| is_valid_name(name.as_bytes()));
        roots.extend(store.pins()?.into_iter().map(|pin| (pin.cid.to_string(), pin.cid)));
        Ok(roots)
    }
}

fn cursor_of(name: &[u8]) -> u64 {
    let hash = blake3::hash(name);
    let number = hash.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (number >> 1).max(FIRST_CURSOR)
}
