//! Blocks of dag-cbor and dag-json as directories and small files.
//!
//! Maps and lists are directories: a map's keys are the names, a list's items are named by their index from 0. Scalars are
//! files: text and bytes as they are, everything else as JSON writes it. Links are what they lead to. So a manifest of a
//! dataset can be walked with `cd` and read with `cat`. A key that no file can have for a name is not shown.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::node::Node;
use super::{Attr, FIRST_CURSOR, FileKind, Listed, Location, Tree, TreeError};
use crate::block::codec;
use crate::dag::directory::is_valid_name;
use crate::dag::ipld::{self, Value};
use crate::dag::unixfs::Mtime;
use crate::fetch::Priority;
use crate::limits::MAX_LINK_HOPS;

impl Location {
    /// Whether the block is one of the IPLD data model, which [`Tree::settle`] knows more of.
    pub(super) fn is_ipld(&self) -> bool {
        matches!(self.cid.codec(), codec::DAG_CBOR | codec::DAG_JSON)
    }

    /// The child `name` within the same block.
    fn join(&self, name: &str) -> Location {
        let within = match &self.within {
            Some(path) => format!("{path}/{name}").into(),
            None => name.into(),
        };
        Location { cid: self.cid.clone(), within: Some(within), root: self.root.clone() }
    }
}

impl Tree {
    /// Follows links from `location` until there is something else: a node of the data model, which is returned, or a
    /// block of another codec.
    pub(super) async fn settle(
        &self,
        location: &Location,
        priority: Priority,
    ) -> Result<(Location, Option<ipld::Node>), TreeError> {
        let mut location = location.clone();
        for _ in 0..MAX_LINK_HOPS {
            if !location.is_ipld() {
                return Ok((location, None));
            }
            let block = self.node(&location.cid, location.root(), priority).await?;
            let Node::Ipld(root) = &*block else { return Ok((location, None)) };
            let path: Vec<&str> = location.within.as_deref().map_or(Vec::new(), |path| path.split('/').collect());
            let (node, rest) = root.resolve(&path);
            if !rest.is_empty() {
                return Err(TreeError::no_entry(&location.cid, rest.join("/").as_bytes()));
            }
            match node.value() {
                Value::Link(cid) => location = location.to(cid),
                _ => return Ok((location, Some(node))),
            }
        }
        Err(TreeError::Limit {
            cid: location.cid,
            what: "the number of links that lead to links",
            limit: MAX_LINK_HOPS as u64,
        })
    }

    /// The next children of `node`, which is at `directory`, after `cursor`.
    pub(super) fn list_ipld(
        &self,
        directory: &Location,
        node: &ipld::Node,
        cursor: u64,
        limit: usize,
    ) -> Result<Vec<Listed>, TreeError> {
        if attr_of(node).kind != FileKind::Directory {
            return Err(TreeError::NotADirectory { cid: directory.cid.clone() });
        }
        let mut children = node.children();
        if cursor >= FIRST_CURSOR {
            children = children.from_position(cursor);
        }
        let mut listed = Vec::new();
        let mut hidden = 0;
        while listed.len() < limit {
            let Some((name, child)) = children.next() else { break };
            if !is_valid_name(name.as_bytes()) {
                hidden += 1;
                continue;
            }
            let (location, attr) = match child.value() {
                Value::Link(cid) => (directory.to(cid), None),
                _ => (directory.join(&name), Some(attr_of(&child))),
            };
            let name = Bytes::copy_from_slice(name.as_bytes());
            // A position after the first child is far above the first cursor.
            listed.push(Listed { name, location, tsize: None, attr, cursor: children.position() });
        }
        if hidden > 0 {
            self.inner.hidden_names.fetch_add(hidden, Ordering::Relaxed);
            tracing::warn!(%directory, names = hidden, "keys that no file can have for a name are not shown");
        }
        Ok(listed)
    }
}

/// Where `name` in `node`, which is at `directory`, leads.
pub(super) fn child_of(directory: &Location, node: &ipld::Node, name: &[u8]) -> Result<Location, TreeError> {
    if attr_of(node).kind != FileKind::Directory {
        return Err(TreeError::NotADirectory { cid: directory.cid.clone() });
    }
    let no_entry = || TreeError::no_entry(directory, name);
    let name = std::str::from_utf8(name).map_err(|_| no_entry())?;
    let child = node.child(name).ok_or_else(no_entry)?;
    Ok(match child.value() {
        Value::Link(cid) => directory.to(cid),
        _ => directory.join(name),
    })
}

/// What a node of the data model is as a file.
pub(super) fn attr_of(node: &ipld::Node) -> Attr {
    match node.contents() {
        Some(contents) => Attr::raw_file(contents.len() as u64),
        None => Attr { size: 0, mtime: Mtime::default(), permissions: 0o555, kind: FileKind::Directory },
    }
}
