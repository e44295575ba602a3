//! `cidfs/name/…`: roots by names of one's own, which the root of a mount lists.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::path;
use super::query::Query;
use super::reply::{ApiError, json as reply_json};
use crate::daemon::Daemon;

/// A named root.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NamedRoot {
    /// The name.
    pub name: String,
    /// The root.
    pub hash: String,
}

/// `cidfs/name/add?arg=NAME&arg=PATH`: gives what is at the path a name; a name that is taken then points there.
pub async fn add(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let (name, path) = match query.arguments() {
        [name, path] => (name.clone(), path.clone()),
        _ => return Err(ApiError::usage("two arguments are required: the name, and the CID or path")),
    };
    let form = query.cid_form()?;
    reply_json(move || {
        let cid = path::cid(&daemon, &path)?;
        daemon.store().name(&name, &cid)?;
        Ok(NamedRoot { name, hash: form.text(&cid) })
    })
    .await
}

/// `cidfs/name/rm?arg=NAME…`.
pub async fn rm(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let names = query.some_arguments("name")?.to_vec();
    reply_json(move || {
        for name in &names {
            if !daemon.store().unname(name)? {
                return Err(ApiError::new(format!("there is no name {name:?}: `cidfs name ls` lists them")));
            }
        }
        Ok(json!({ "Names": names }))
    })
    .await
}

/// `cidfs/name/ls`.
pub async fn ls(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let form = query.cid_form()?;
    reply_json(move || {
        let names = daemon.store().names()?.into_iter().map(|(name, cid)| NamedRoot { name, hash: form.text(&cid) });
        Ok(json!({ "Names": names.collect::<Vec<_>>() }))
    })
    .await
}
