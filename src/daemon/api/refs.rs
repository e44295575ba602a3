//! `refs` and `refs/local`: the links of nodes, and all blocks that are here.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Stream, stream};
use crate::block::{Cid, codec};
use crate::daemon::Daemon;
use crate::dag::links;
use crate::dag::pb::PbNode;
use crate::fetch::Priority;
use crate::limits::MAX_WALK_DEPTH;

/// A line of the answer, as kubo has it: both fields are always there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ref {
    /// The link, in the form that was asked for.
    #[serde(rename = "Ref")]
    pub text: String,
    /// Why the walk of one root ended early.
    pub err: String,
}

/// `refs?arg=PATH…&recursive=BOOL&unique=BOOL&edges=BOOL&format=TEXT&max-depth=N`.
pub async fn refs(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let mut format = query.text("format").unwrap_or("<dst>").to_owned();
    if query.flag("edges", false)? {
        if format != "<dst>" {
            return Err(ApiError::new("using format argument with edges is not allowed"));
        }
        "<src> -> <dst>".clone_into(&mut format);
    }
    let depth = query.number::<i64>("max-depth")?.unwrap_or(-1);
    let depth = if query.flag("recursive", false)? { usize::try_from(depth).ok() } else { Some(1) };
    let unique = query.flag("unique", false)?;
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    stream(Stream::Json, caller, move |emit| {
        let roots = paths.iter().map(|path| path::cid(&daemon, path)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = HashMap::new();
        for root in roots {
            let mut walk = Walk { daemon: &daemon, emit, format: &format, depth, unique, seen: &mut seen };
            if let Err(error) = walk.run(&root) {
                emit.json(&Ref { text: String::new(), err: error.message().to_owned() })?;
            }
        }
        Ok(())
    })
    .await
}

struct Walk<'a> {
    daemon: &'a Daemon,
    emit: &'a Emit,
    format: &'a str,
    depth: Option<usize>,
    unique: bool,
    /// With `unique`, at which depth each CID was seen.
    seen: &'a mut HashMap<Cid, usize>,
}

impl Walk<'_> {
    /// Walks depth first, with a stack of its own: a node, its links with their names, and the next of them.
    fn run(&mut self, root: &Cid) -> Result<(), ApiError> {
        let mut stack = vec![(root.clone(), self.links(root)?)];
        while let Some((source, rest)) = stack.last_mut() {
            let Some((name, link)) = rest.next() else {
                stack.pop();
                continue;
            };
            let source = source.clone();
            let depth = stack.len();
            let (deeper, shown) = self.visit(&link, depth);
            if !deeper && !shown {
                continue;
            }
            // What is shown is here: its block is had before.
            let below = self.links(&link)?;
            if shown {
                let text = self
                    .format
                    .replace("<src>", &source.to_string())
                    .replace("<dst>", &link.to_string())
                    .replace("<linkname>", &String::from_utf8_lossy(&name));
                self.emit.json(&Ref { text, err: String::new() })?;
            }
            if deeper {
                if depth >= MAX_WALK_DEPTH {
                    return Err(ApiError::new(format!("{link} is over {MAX_WALK_DEPTH} links deep")));
                }
                stack.push((link, below));
            }
        }
        Ok(())
    }

    /// Whether to go below a link at `depth`, and whether to show it.
    fn visit(&mut self, link: &Cid, depth: usize) -> (bool, bool) {
        if self.depth.is_some_and(|most| depth > most) {
            return (false, false);
        }
        let deeper = self.depth.is_none_or(|most| depth < most);
        if !self.unique {
            return (deeper, true);
        }
        match self.seen.get(link) {
            // With a bound, a node that is met nearer to the root than before has more below it to show.
            Some(before) if self.depth.is_none() || *before <= depth => (false, false),
            before => {
                let is_new = before.is_none();
                self.seen.insert(link.clone(), depth);
                (deeper, is_new)
            }
        }
    }

    /// The links of a block and, where it is dag-pb, their names.
    fn links(&self, cid: &Cid) -> Result<std::vec::IntoIter<(Bytes, Cid)>, ApiError> {
        let block = Handle::current().block_on(self.daemon.fetch().get(cid, Priority::Demand))?;
        let all = if cid.codec() == codec::DAG_PB {
            let node = PbNode::decode(block.data().clone())?;
            node.links().map(|link| (node.bytes().slice_ref(link.name), link.cid)).collect::<Vec<_>>()
        } else {
            links(cid, block.data())?.into_iter().map(|link| (Bytes::new(), link)).collect()
        };
        Ok(all.into_iter())
    }
}
