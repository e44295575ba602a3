//! The root of a mount: what is pinned, by its CID. Any other CID is found by asking for it.
//!
//! Unlike everything below it, the root changes. A name's cursor is a hash of the name, so that a listing that is under way
//! while pins come and go shows every name that stays, once.

use bytes::Bytes;

use super::{Entry, FIRST_CURSOR, Listed, Location, Tree, TreeError};
use crate::block::Cid;
use crate::fetch::Priority;

impl Tree {
    /// What `name` is in the root of a mount. No CID and no name of the repository is answered at once.
    pub async fn root_lookup(&self, name: &[u8]) -> Result<Entry, TreeError> {
        let not_a_cid = || TreeError::NotACid { text: String::from_utf8_lossy(name).into_owned() };
        let cid: Cid = std::str::from_utf8(name).ok().and_then(|text| text.parse().ok()).ok_or_else(not_a_cid)?;
        let location = Location::new(cid);
        let attr = self.attr(&location, None, Priority::Demand).await?;
        Ok(Entry { location, attr })
    }

    /// The next names of the root of a mount after `cursor`, at most `limit`.
    pub fn root_list(&self, cursor: u64, limit: usize) -> Result<Vec<Listed>, TreeError> {
        let mut names = Vec::new();
        for pin in self.fetch().store().pins()? {
            let name = Bytes::from(pin.cid.to_string());
            names.push(Listed {
                cursor: cursor_of(&name),
                name,
                location: Location::new(pin.cid),
                tsize: None,
                attr: None,
            });
        }
        names.retain(|listed| listed.cursor > cursor);
        names.sort_by_key(|listed| listed.cursor);
        names.dedup_by(|a, b| a.name == b.name);
        names.truncate(limit);
        Ok(names)
    }
}

fn cursor_of(name: &[u8]) -> u64 {
    let hash = blake3::hash(name);
    let number = hash.as_bytes()[..8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    (number >> 1).max(FIRST_CURSOR)
}
