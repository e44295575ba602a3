//! `repo/…`, `cidfs/gc`, `cidfs/verify`, and `refs/local`: the store as a whole.

use std::ops::ControlFlow;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::dag::CidLink;
use super::node::REPOSITORY_VERSION;
use super::query::Query;
use super::refs::Ref;
use super::reply::{ApiError, Caller, Emit, Stream, json as reply_json, json_response, stream};
use crate::block::{Cid, Multihash, codec};
use crate::daemon::Daemon;
use crate::store::{GcProgress, VerifyProgress};

/// `repo/stat?size-only=BOOL`, as kubo has it.
pub async fn stat(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let size_only = query.flag("size-only", false)?;
    reply_json(move || {
        let stat = daemon.store().stat()?;
        let (objects, path, version) = if size_only {
            (0, String::new(), String::new())
        } else {
            let path = daemon.repository().path().display().to_string();
            (stat.blocks, path, format!("cidfs@{REPOSITORY_VERSION}"))
        };
        Ok(json!({
            "RepoSize": stat.disk_bytes,
            "StorageMax": stat.disk_budget_bytes,
            "NumObjects": objects,
            "RepoPath": path,
            "Version": version,
        }))
    })
    .await
}

/// `repo/version`.
pub async fn version() -> Response {
    json_response(&json!({ "Version": REPOSITORY_VERSION }))
}

/// Ends long work when its client has gone.
fn flow(result: &Result<(), ApiError>) -> ControlFlow<()> {
    if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn still(emit: &Emit) -> ControlFlow<()> {
    if emit.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// `repo/gc?silent=BOOL&stream-errors=BOOL`: removes what no pin keeps, and tells each block.
pub async fn gc(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let silent = query.flag("silent", false)?;
    stream(Stream::Json, caller, move |emit| {
        daemon.store().gc(&mut |progress| match progress {
            GcProgress::Removed(cid) if !silent => flow(&emit.json(&json!({ "Key": CidLink::from(&cid) }))),
            _ => still(emit),
        })?;
        Ok(())
    })
    .await
}

/// A line of the answer of `cidfs/gc`.
#[derive(Debug, Deserialize, Serialize)]
pub enum GcLine {
    /// So many blocks were found to be kept.
    Marked(u64),
    /// This block was removed.
    Removed(String),
    /// What is left is being moved together.
    Compacting,
    /// The end.
    Done(GcDone),
}

/// What a gc did.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GcDone {
    /// The blocks that pins keep.
    pub kept_blocks: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The blocks that were removed.
    pub removed_blocks: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// How much less the store takes on the disk, in bytes.
    pub freed_bytes: u64,
}

/// `cidfs/gc`: as `repo/gc`, with how far it is and what came of it.
pub async fn gc_in_detail(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        let report = daemon.store().gc(&mut |progress| {
            flow(&emit.json(&match progress {
                GcProgress::Marked(blocks) => GcLine::Marked(blocks),
                GcProgress::Removed(cid) => GcLine::Removed(form.text(&cid)),
                GcProgress::Compacting => GcLine::Compacting,
            }))
        })?;
        emit.json(&GcLine::Done(GcDone {
            kept_blocks: report.kept_blocks,
            kept_bytes: report.kept_bytes,
            removed_blocks: report.removed_blocks,
            removed_bytes: report.removed_bytes,
            freed_bytes: report.freed_bytes,
        }))
    })
    .await
}

/// `repo/verify?drop=BOOL&heal=BOOL`: hashes every block, and tells of those that are damaged, as kubo has it.
pub async fn verify(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let drop = query.flag("drop", false)? || query.flag("heal", false)?;
    stream(Stream::Json, caller, move |emit| {
        let line = |text: &str, progress: u64| emit.json(&json!({ "Msg": text, "Progress": progress }));
        let done = if drop { ", removed" } else { "" };
        let report = daemon.store().verify(drop, &mut |progress| match progress {
            VerifyProgress::Read { blocks, .. } => flow(&line("", blocks)),
            VerifyProgress::Damaged(bad) => {
                flow(&line(&format!("block {} was corrupt ({}){done}", bad.cid, bad.why), 0))
            }
            VerifyProgress::WalkingPins => still(emit),
        })?;
        if report.damaged.is_empty() {
            return line("verify complete, all blocks validated.", 0);
        }
        Err(ApiError::new("verify complete, some blocks were corrupt"))
    })
    .await
}

/// A line of the answer of `cidfs/verify`.
#[derive(Debug, Deserialize, Serialize)]
pub enum VerifyLine {
    /// So much was read.
    #[serde(rename_all = "PascalCase")]
    Read {
        /// Blocks.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// All bytes that are to be read.
        total_bytes: u64,
    },
    /// A damaged record.
    #[serde(rename_all = "PascalCase")]
    Damaged {
        /// The block.
        hash: String,
        /// The file.
        segment: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A pin that lacks blocks.
    #[serde(rename_all = "PascalCase")]
    Incomplete {
        /// The pin.
        hash: String,
        /// Its name.
        name: String,
        /// How many blocks are known to be missing.
        missing: u64,
        /// The first of them.
        first: String,
    },
    /// The end.
    #[serde(rename_all = "PascalCase")]
    Done {
        /// The blocks that were read.
        blocks: u64,
        /// Their bytes.
        bytes: u64,
        /// Damaged records.
        damaged: u64,
        /// Those of them that were dropped.
        dropped: u64,
        /// Pins that lack blocks.
        incomplete: u64,
    },
}

/// `cidfs/verify?repair=BOOL`: hashes every block, walks every pin, and tells what it found; `repair` drops what is damaged.
pub async fn verify_in_detail(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
) -> Result<Response, ApiError> {
    let repair = query.flag("repair", false)?;
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        let report = daemon.store().verify(repair, &mut |progress| match progress {
            VerifyProgress::Read { blocks, bytes, total_bytes } => {
                flow(&emit.json(&VerifyLine::Read { blocks, bytes, total_bytes }))
            }
            VerifyProgress::Damaged(bad) => flow(&emit.json(&VerifyLine::Damaged {
                hash: form.text(&bad.cid),
                segment: bad.segment.display().to_string(),
                offset: bad.offset,
                why: bad.why,
            })),
            VerifyProgress::WalkingPins => still(emit),
        })?;
        for lacking in &report.incomplete {
            emit.json(&VerifyLine::Incomplete {
                hash: form.text(&lacking.pin.cid),
                name: lacking.pin.name.clone(),
                missing: lacking.missing,
                first: form.text(&lacking.first),
            })?;
        }
        emit.json(&VerifyLine::Done {
            blocks: report.blocks,
            bytes: report.bytes,
            damaged: report.damaged.len() as u64,
            dropped: report.dropped,
            incomplete: report.incomplete.len() as u64,
        })
    })
    .await
}

/// `refs/local` and `repo/ls`: every block that is here. As in kubo, each is named by its hash alone: a CIDv1 of raw.
pub async fn local(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        for block in daemon.store().blocks() {
            let (cid, _) = block?;
            let raw = Cid::new_v1(codec::RAW, &Multihash::from_bytes(cid.multihash())?);
            emit.json(&Ref { text: form.text(&raw), err: String::new() })?;
        }
        Ok(())
    })
    .await
}
