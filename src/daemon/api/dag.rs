//! `dag/get`, `dag/put`, `dag/resolve`: nodes in the IPLD data model.

use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, State};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Handle;

use super::block::{Naming, hash};
use super::path::plain;
use super::put::Put;
use super::query::Query;
use super::reply::{ApiError, Caller, Stream, stream};
use crate::block::{Block, Cid, codec};
use crate::daemon::Daemon;
use crate::dag::ipld::{Node, Value};
use crate::fetch::Priority;
use crate::limits::MAX_DIRECTORY_DEPTH;
use crate::tree::Location;

/// A CID as dag-json has it.
#[derive(Clone, Debug, Serialize)]
pub struct CidLink {
    #[serde(rename = "/")]
    text: String,
}

impl From<&Cid> for CidLink {
    fn from(cid: &Cid) -> CidLink {
        CidLink { text: cid.to_string() }
    }
}

fn codec_of(query: &Query, option: &str, default: &str) -> Result<u64, ApiError> {
    let name = query.text(option).filter(|name| !name.is_empty()).unwrap_or(default);
    codec::from_name(name).ok_or_else(|| ApiError::new(format!("unknown multicodec: {name:?}")))
}

fn block(daemon: &Daemon, cid: &Cid) -> Result<Block, ApiError> {
    Ok(Handle::current().block_on(daemon.fetch().get(cid, Priority::Demand))?)
}

/// The last block on the way of a path, and what of the path lies within it.
fn resolve_path(daemon: &Daemon, text: &str) -> Result<(Cid, Vec<String>), ApiError> {
    let mut names = plain(text).split('/').filter(|name| !name.is_empty());
    let root = names.next().unwrap_or_default();
    let mut cid: Cid = root.parse().map_err(|error| ApiError::new(format!("invalid path {text:?}: {error}")))?;
    let names: Vec<String> = names.map(str::to_owned).collect();
    if names.len() > MAX_DIRECTORY_DEPTH {
        return Err(ApiError::new(format!("the path is over {MAX_DIRECTORY_DEPTH} levels deep")));
    }
    let mut rest = &names[..];
    while let Some(name) = rest.first() {
        if cid.codec() == codec::DAG_PB {
            // A path through dag-pb is one of names in UnixFS directories.
            let directory = Location::new(cid.clone());
            let entry = Handle::current().block_on(daemon.tree().lookup(&directory, name.as_bytes()))?;
            cid = entry.location.cid;
            rest = &rest[1..];
            continue;
        }
        let node = Node::decode(cid.codec(), block(daemon, &cid)?.data())?;
        let (found, left) = node.resolve(rest);
        match found.value() {
            Value::Link(link) => {
                cid = link;
                rest = left;
            }
            _ if left.is_empty() => break,
            _ => return Err(ApiError::new(format!("key not found: {:?} in {cid}", left[0]))),
        }
    }
    Ok((cid, rest.to_vec()))
}

/// `dag/resolve?arg=PATH`: the last block on the way of a path, and the rest of the path within it.
pub async fn resolve(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let path = query.argument("ref")?.to_owned();
    super::reply::json(move || {
        let (cid, rest) = resolve_path(&daemon, &path)?;
        let remainder = rest.iter().fold(String::new(), |text, name| text + "/" + name);
        Ok(json!({ "Cid": CidLink::from(&cid), "RemPath": remainder }))
    })
    .await
}

/// `dag/get?arg=PATH&output-codec=NAME`: a node, or a part of one, in a codec.
pub async fn get(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let path = query.argument("ref")?.to_owned();
    let output = codec_of(&query, "output-codec", "dag-json")?;
    stream(Stream::Text, caller, move |emit| {
        let (cid, rest) = resolve_path(&daemon, &path)?;
        let node = Node::decode(cid.codec(), block(&daemon, &cid)?.data())
            .map_err(|error| ApiError::from(error).context(&cid))?;
        let (node, _) = node.resolve(&rest);
        emit.bytes(Bytes::from(node.encode(output)?))
    })
    .await
}

/// `dag/put?input-codec=NAME&store-codec=NAME&hash=NAME&pin=BOOL`: keeps each file of the request as a node.
pub async fn put(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let input = codec_of(&query, "input-codec", "dag-json")?;
    let store = codec_of(&query, "store-codec", "dag-cbor")?;
    let naming = Naming { v0: false, codec: store, hash: hash(query.text("hash"))?, length: None };
    let pin = query.flag("pin", false)?;
    let make = move |data: Bytes| naming.block(Node::decode(input, &data)?.encode(store)?.into());
    let put = Put { daemon, files: multipart, argument: "object data", pin };
    put.answer(caller, make, |block| json!({ "Cid": CidLink::from(block.cid()) })).await
}
