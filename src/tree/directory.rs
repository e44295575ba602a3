//! Directories: a name in one, and the names of one from any cursor.
//!
//! A plain directory is one node, and its cursor an index. A HAMT is a trie over the hashes of the names: a lookup goes
//! down by the hash and reads one shard a level; a listing goes through the shards depth first, which is the order of the
//! hashes, and its cursor is a position in that order, so that it can begin anywhere without what comes before. Neither
//! holds more than a page of names and one node a level.
//!
//! A shard that breaks the format is left out of a listing, and said so; one that is not here ends the listing with an
//! error, for a short list that looks whole would be a lie.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::join_all;

use super::ipld;
use super::node::Node;
use super::{FIRST_CURSOR, Listed, Location, Tree, TreeError};
use crate::block::Cid;
use crate::dag::directory::is_valid_name;
use crate::dag::hamt::{self, Found, Position, Shard, Slot};
use crate::fetch::Priority;
use crate::limits::{MAX_SHARDS_PER_PAGE, READ_CONCURRENCY};

/// What is still to come of the listing of a HAMT.
enum Coming {
    Entry(Listed),
    Shard(Cid, hamt::Place),
}

impl Tree {
    /// The next entries of `directory` after `cursor`, at most `limit` of them and none at the end. Entries come in an
    /// order that never changes.
    pub async fn list(&self, directory: &Location, cursor: u64, limit: usize) -> Result<Vec<Listed>, TreeError> {
        let (directory, node) = self.settle(directory, Priority::Demand).await?;
        let directory = directory.into_parent();
        if let Some(node) = node {
            return self.list_ipld(&directory, &node, cursor, limit);
        }
        let node = self.directory(&directory).await?;
        match &*node {
            Node::Directory(_, plain) => {
                let first = cursor.saturating_sub(FIRST_CURSOR - 1) as usize;
                let rest = plain.entries().iter().zip(FIRST_CURSOR..).skip(first).take(limit);
                Ok(rest
                    .map(|(entry, cursor)| Listed {
                        name: entry.name.clone(),
                        location: directory.to(entry.cid.clone()),
                        tsize: entry.tsize,
                        attr: None,
                        cursor,
                    })
                    .collect())
            }
            Node::Shard(_, root) => self.list_hamt(&directory, root, cursor, limit).await,
            _ => Err(TreeError::NotADirectory { cid: directory.cid.clone() }),
        }
    }

    /// Where `name` in `directory` leads, and the size that its link claims.
    pub(super) async fn child(&self, directory: &Location, name: &[u8]) -> Result<(Location, Option<u64>), TreeError> {
        let (directory, node) = self.settle(directory, Priority::Demand).await?;
        let no_entry = || TreeError::no_entry(&directory, name);
        if !is_valid_name(name) {
            return Err(no_entry());
        }
        if let Some(node) = node {
            return Ok((ipld::child_of(&directory, &node, name)?, None));
        }
        let node = self.directory(&directory).await?;
        match &*node {
            Node::Directory(_, plain) => {
                let entry = plain.get(name).ok_or_else(no_entry)?;
                Ok((directory.to(entry.cid.clone()), entry.tsize))
            }
            Node::Shard(..) => {
                let hash = hamt::hash_name(name);
                let mut node = node.clone();
                // Each step takes bits of the hash, so there are few.
                loop {
                    let Node::Shard(_, shard) = &*node else { return Err(no_entry()) };
                    match shard.find(name, hash) {
                        Found::Entry(link) => return Ok((directory.to(link.cid), link.tsize)),
                        Found::Nothing => return Err(no_entry()),
                        Found::Shard(cid, place) => node = self.shard(&cid, directory.root(), place).await?,
                    }
                }
            }
            _ => Err(TreeError::NotADirectory { cid: directory.cid.clone() }),
        }
    }

    async fn list_hamt(
        &self,
        directory: &Location,
        root: &Shard,
        cursor: u64,
        limit: usize,
    ) -> Result<Vec<Listed>, TreeError> {
        // The cursor of an entry is the position after it. The few positions below the first cursor hold names only
        // where somebody made them collide.
        let from = if cursor < FIRST_CURSOR { Position::START } else { Position::from_u64(cursor) };
        let mut listed = Vec::new();
        let mut stack = Vec::new();
        let mut shards = 0;
        self.push_slots(directory, root, from, &mut stack);
        while listed.len() < limit {
            match stack.pop() {
                None => break,
                Some(Coming::Entry(entry)) => listed.push(entry),
                Some(Coming::Shard(cid, place)) => {
                    shards += 1;
                    if shards > MAX_SHARDS_PER_PAGE && listed.is_empty() {
                        return Err(TreeError::Limit {
                            cid: directory.cid.clone(),
                            what: "the number of shards without a name",
                            limit: MAX_SHARDS_PER_PAGE as u64,
                        });
                    }
                    if shards > MAX_SHARDS_PER_PAGE {
                        break;
                    }
                    if !self.is_local(&cid) {
                        self.want_shards(directory, &cid, &stack).await;
                    }
                    match self.shard(&cid, directory.root(), place).await {
                        Ok(node) => {
                            if let Node::Shard(_, shard) = &*node {
                                self.push_slots(directory, shard, from, &mut stack);
                            }
                        }
                        Err(error @ TreeError::Dag { .. }) => {
                            tracing::warn!(%directory, %error, "a shard is left out of the listing");
                        }
                        // What was found is handed over; the next call meets the error first.
                        Err(_) if !listed.is_empty() => break,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(listed)
    }

    /// Pushes what `shard` holds from `from` on, the first on top.
    fn push_slots(&self, directory: &Location, shard: &Shard, from: Position, stack: &mut Vec<Coming>) {
        let bottom = stack.len();
        let mut hidden = 0;
        for slot in shard.slots(from) {
            match slot {
                // The slot that `from` falls into may hold the entry that `from` comes after.
                Slot::Entry(_, position) if position < from => {}
                Slot::Entry(link, position) if is_valid_name(link.name) => stack.push(Coming::Entry(Listed {
                    name: shard.bytes().slice_ref(link.name),
                    location: directory.to(link.cid),
                    tsize: link.tsize,
                    attr: None,
                    cursor: position.next().as_u64().max(FIRST_CURSOR),
                })),
                Slot::Shard(cid, place) => stack.push(Coming::Shard(cid, place)),
                Slot::Entry(..) | Slot::Stray(_) => hidden += 1,
            }
        }
        if hidden > 0 {
            self.inner.hidden_names.fetch_add(hidden, Ordering::Relaxed);
            tracing::warn!(%directory, names = hidden, "names that cannot be looked up are not shown");
        }
        stack[bottom..].reverse();
    }

    /// Asks for the shard `first` and those that come next in one go. What fails here fails again when it is needed.
    async fn want_shards(&self, directory: &Location, first: &Cid, stack: &[Coming]) {
        let shards = stack.iter().rev().filter_map(|coming| match coming {
            Coming::Shard(cid, _) => Some(cid),
            Coming::Entry(_) => None,
        });
        let next = std::iter::once(first).chain(shards).take(READ_CONCURRENCY);
        join_all(next.map(|cid| self.block(cid, directory.root(), Priority::Demand))).await;
    }

    async fn directory(&self, location: &Location) -> Result<Arc<Node>, TreeError> {
        if location.cid.codec() != crate::block::codec::DAG_PB {
            return Err(TreeError::NotADirectory { cid: location.cid.clone() });
        }
        self.node(&location.cid, location.root(), Priority::Demand).await
    }
}
