//! What the paths of requests lead to.
//!
//! A path is a CID or the name of a root here, and names below it, with or without `/ipfs/` before it.

use tokio::runtime::Handle;

use super::reply::ApiError;
use crate::block::Cid;
use crate::daemon::Daemon;
use crate::tree::Entry;

/// A path in its plain form `<root>/a/b`: without `/ipfs/`, and without slashes around.
pub fn plain(text: &str) -> &str {
    let text = text.strip_prefix("ipfs://").unwrap_or(text);
    let text = text.strip_prefix("/ipfs/").or_else(|| text.strip_prefix("/ipld/")).unwrap_or(text);
    text.trim_matches('/')
}

/// What is at a path. Blocks the thread.
pub fn entry(daemon: &Daemon, text: &str) -> Result<Entry, ApiError> {
    let path = plain(text);
    Handle::current()
        .block_on(daemon.tree().resolve(path.as_bytes()))
        .map_err(|error| ApiError::from(error).context(format!("cannot resolve {text}")))
}

/// The CID at a path. A CID alone is not looked at, nor is its block. Blocks the thread.
pub fn cid(daemon: &Daemon, text: &str) -> Result<Cid, ApiError> {
    let path = plain(text);
    if !path.contains('/')
        && let Ok(cid) = path.parse()
    {
        return Ok(cid);
    }
    Ok(entry(daemon, text)?.location.cid)
}
