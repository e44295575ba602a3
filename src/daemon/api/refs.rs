//! `refs` and `refs/local`: the links of nodes, and all blocks that are here.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Stream, stream};
use crate::block::CidForm;
use crate::daemon::Daemon;
use crate::fetch::refs::{Edge, Refs};

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
    let form = query.cid_form()?;
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    stream(Stream::Json, caller, move |emit| {
        let roots = paths.iter().map(|path| path::cid(&daemon, path)).collect::<Result<Vec<_>, _>>()?;
        let mut walk = Refs::new(daemon.fetch()).max_depth(depth);
        if unique {
            walk = walk.unique();
        }
        for root in roots {
            walk.start(&root);
            loop {
                match Handle::current().block_on(walk.next()) {
                    Ok(Some(edge)) => emit.json(&Ref { text: shown(&edge, &format, form), err: String::new() })?,
                    Ok(None) => break,
                    Err(error) => {
                        emit.json(&Ref { text: String::new(), err: ApiError::from(error).message().to_owned() })?;
                        break;
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

fn shown(edge: &Edge, format: &str, form: CidForm) -> String {
    format
        .replace("<src>", &form.text(&edge.from))
        .replace("<dst>", &form.text(&edge.to))
        .replace("<linkname>", &String::from_utf8_lossy(&edge.name))
}
