//! `block/get`, `block/put`, `block/stat`: single blocks.

use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, State};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::path;
use super::put::{Put, too_large};
use super::query::Query;
use super::reply::{ApiError, Caller, Stream, stream};
use crate::block::{Block, Cid, CidForm, HashFunction, Multihash, codec};
use crate::daemon::Daemon;
use crate::fetch::Priority;
use crate::limits::MAX_BLOCK_BYTES;

/// A block's name and size, as kubo has them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockStat {
    /// The CID.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
}

impl BlockStat {
    fn of(block: &Block, form: CidForm) -> BlockStat {
        BlockStat { key: form.text(block.cid()), size: block.data().len() as u64 }
    }
}

/// The block at a path.
fn block(daemon: &Daemon, text: &str) -> Result<Block, ApiError> {
    let cid = path::cid(daemon, text)?;
    Ok(Handle::current().block_on(daemon.fetch().get(&cid, Priority::Demand))?)
}

/// `block/stat?arg=CID`.
pub async fn stat(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let text = query.argument("cid")?.to_owned();
    let form = query.cid_form()?;
    super::reply::json(move || Ok(BlockStat::of(&block(&daemon, &text)?, form))).await
}

/// `block/get?arg=CID`: the block's bytes.
pub async fn get(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let text = query.argument("cid")?.to_owned();
    stream(Stream::Block, caller, move |emit| emit.bytes(block(&daemon, &text)?.data().clone())).await
}

/// How the CIDs of blocks are made that clients bring.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// Whether it is a CIDv0.
    pub v0: bool,
    /// The codec of a CIDv1.
    pub codec: u64,
    /// The hash function.
    pub hash: HashFunction,
    /// How many bytes of the digest are kept; all where it is `None`.
    pub length: Option<usize>,
}

impl Naming {
    /// What `block/put` is asked for.
    fn of_block_put(query: &Query) -> Result<Naming, ApiError> {
        let format = query.text("format").filter(|format| !format.is_empty());
        let codec_name = query.text("cid-codec").filter(|name| !name.is_empty());
        if format.is_some() && codec_name.is_some_and(|name| name != "raw") {
            return Err(ApiError::new(
                "unable to use \"format\" (deprecated) and a custom \"cid-codec\" at the same time",
            ));
        }
        // The old option has names of its own for two codecs.
        let name = match format {
            Some("v0" | "protobuf") => "dag-pb",
            Some("cbor") => "dag-cbor",
            Some(format) => format,
            None => codec_name.unwrap_or("raw"),
        };
        let codec = codec::from_name(name).ok_or_else(|| ApiError::new(format!("unknown multicodec: {name:?}")))?;
        Naming { v0: format == Some("v0"), codec, hash: hash(query.text("mhtype"))?, length: length(query)? }.checked()
    }

    /// The same where it can name anything: a CIDv0 has one form only.
    pub fn checked(self) -> Result<Naming, ApiError> {
        let whole = self.length.is_none_or(|length| length == self.hash.digest_bytes());
        if self.v0 && !(self.hash == HashFunction::Sha2_256 && whole) {
            return Err(ApiError::new("a CIDv0 (format=v0) is of a whole sha2-256 digest only"));
        }
        Ok(self)
    }

    /// Names `data`.
    pub fn block(self, data: Bytes) -> Result<Block, ApiError> {
        if data.len() > MAX_BLOCK_BYTES {
            return Err(too_large());
        }
        let hash = self.hash.digest(&data);
        if self.v0 {
            return Ok(Block::new_v0(data));
        }
        let Some(length) = self.length else { return Ok(Block::new(self.codec, self.hash, data)) };
        let whole = Cid::new_v1(self.codec, &hash);
        let digest = whole
            .digest()
            .get(..length)
            .ok_or_else(|| ApiError::new(format!("mhlen={length}: the hash function has fewer bytes")))?;
        let cut = Multihash::wrap(self.hash.code(), digest)?;
        Ok(Block::verify(Cid::new_v1(self.codec, &cut), data)?)
    }
}

/// The hash function by its multicodec name; sha2-256 where none is given.
pub fn hash(name: Option<&str>) -> Result<HashFunction, ApiError> {
    match name.filter(|name| !name.is_empty()) {
        None => Ok(HashFunction::Sha2_256),
        Some(name) => HashFunction::from_name(name)
            .ok_or_else(|| ApiError::new(format!("unrecognized multihash function: {name}"))),
    }
}

fn length(query: &Query) -> Result<Option<usize>, ApiError> {
    Ok(query.number::<i64>("mhlen")?.and_then(|length| usize::try_from(length).ok()))
}

/// `block/put?cid-codec=NAME&mhtype=NAME&mhlen=N&pin=BOOL`: keeps each file of the request as a block.
pub async fn put(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    multipart: Result<Multipart, MultipartRejection>,
) -> Result<Response, ApiError> {
    let naming = Naming::of_block_put(&query)?;
    let pin = query.flag("pin", false)?;
    let put = Put { daemon, files: multipart, argument: "data", pin };
    let form = query.cid_form()?;
    put.answer(caller, move |data| naming.block(data), move |block| BlockStat::of(block, form)).await
}

/// A block that was removed, or why it was not, as kubo tells it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Removed {
    /// The CID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Why it is still here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// `block/rm?arg=CID…&force=BOOL&quiet=BOOL`: removes blocks that no pin needs, and tells of each.
pub async fn rm(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let (force, quiet) = (query.flag("force", false)?, query.flag("quiet", false)?);
    let paths = query.some_arguments("cid")?.to_vec();
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        let cids = paths.iter().map(|path| path::cid(&daemon, path)).collect::<Result<Vec<_>, _>>()?;
        for (cid, removed) in cids.iter().zip(daemon.store().remove(&cids)?) {
            let error = match removed {
                Ok(true) => String::new(),
                Ok(false) if force => String::new(),
                Ok(false) => format!("block {cid} is not here"),
                Err(error) => ApiError::from(error).message().to_owned(),
            };
            if !error.is_empty() || !quiet {
                emit.json(&Removed { hash: form.text(cid), error })?;
            }
        }
        Ok(())
    })
    .await
}
