//! `cidfs/plan`: the order in which a job will read a dataset.
//!
//! The directory and the sampler's arguments stand in the query; an order that is handed over is the body, a path a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;
use tokio::runtime::Handle;

use super::body::BodyReader;
use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Pieces, Stream, json as reply_json, stream};
use crate::daemon::{Daemon, Role};
use crate::limits::{MAX_PLAN_PATH_BYTES, MAX_PLAN_RANKS};
use crate::prefetch::plan::dataset::inode_of;
use crate::prefetch::plan::{Batches, Dataset, Drawn, Files, Order, Plan, Sampler, SamplerKind};

/// What makes a plan.
struct Wanted {
    directory: String,
    /// Empty where the order is the body.
    samplers: Vec<Sampler>,
    files: Option<Files>,
    epoch: u64,
}

/// `cidfs/plan?arg=PATH&order=BOOL&sampler=NAME&seed=N&epoch=N&rank=N-N&world=N&…&print=BOOL`: the order in which a directory
/// will be read. With `print` it is answered, a path a line; else the mounts follow it.
pub async fn plan(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&query)?;
    let order = BodyReader::after(Bytes::new(), body);
    if query.flag("print", false)? {
        return stream(Stream::Text, caller, move |emit| {
            let plan = wanted.make(&daemon, order)?;
            print(&plan, wanted.epoch, emit)
        })
        .await;
    }
    if daemon.role() == Role::Verb {
        return Err(ApiError::new("a plan is followed by mounts, and none is here: `cidfs mount` first, or --print"));
    }
    reply_json(move || {
        let mut plan = wanted.make(&daemon, order)?;
        // An epoch that cannot be is said now, and not when it is due.
        plan.epoch(wanted.epoch)?;
        let directory = Handle::current().block_on(inode_of(daemon.tree(), &wanted.directory))?;
        if let Some(dataset) = Arc::get_mut(&mut plan.dataset) {
            dataset.forget_paths();
        }
        let (files, bytes) = (plan.dataset.len(), plan.dataset.bytes());
        daemon.plans().follow(plan, wanted.epoch, directory, &daemon.mounts().prefetches())?;
        Ok(json!({ "Directory": wanted.directory, "Files": files, "Bytes": bytes }))
    })
    .await
}

/// `cidfs/plan/ls`: the plans that are followed, and those that were.
pub async fn ls(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    reply_json(move || Ok(json!({ "Plans": daemon.plans().list() }))).await
}

/// `cidfs/plan/rm?arg=PATH` or `cidfs/plan/rm`: drops the plan for a directory, or all.
pub async fn rm(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let directory = query.arguments().first().map(|path| path::plain(path).to_owned());
    reply_json(move || {
        let dropped = daemon.plans().drop_for(directory.as_deref(), &daemon.mounts().prefetches());
        Ok(json!({ "Dropped": dropped }))
    })
    .await
}

impl Wanted {
    fn read(query: &Query) -> Result<Wanted, ApiError> {
        let directory = path::plain(query.argument("directory")?).to_owned();
        let order = query.flag("order", false)?;
        let samplers = samplers(query)?;
        if order != samplers.is_empty() {
            return Err(ApiError::usage("either an order or a sampler is required"));
        }
        let files = match query.text("files") {
            None => None,
            Some("all") => Some(Files::All),
            Some("images") => Some(Files::Images),
            Some(other) => return Err(ApiError::usage(format!("files takes all or images, not {other:?}"))),
        };
        Ok(Wanted { directory, samplers, files, epoch: query.number("epoch")?.unwrap_or_default() })
    }

    fn make(&self, daemon: &Daemon, order: BodyReader) -> Result<Plan, ApiError> {
        let runtime = Handle::current();
        let tree = daemon.tree();
        let root = path::cid(daemon, self.directory.split('/').next().unwrap_or_default())?;
        let (dataset, order) = if self.samplers.is_empty() {
            let mut paths = runtime.block_on(Dataset::of_paths(tree, &self.directory))?;
            for_lines(order, |line| Ok(runtime.block_on(paths.push(line))?))?;
            (paths.finish(), Order::Listed)
        } else {
            for sampler in &self.samplers {
                sampler.check()?;
            }
            let (dataset, _) = runtime.block_on(Dataset::list(tree, &self.directory, self.files))?;
            (dataset, Order::Drawn(self.samplers.clone()))
        };
        Ok(Plan { root, directory: self.directory.clone(), dataset: Arc::new(dataset), order })
    }
}

/// The ranks of a query: `2`, `0-7`, `0,4`.
fn ranks(text: &str) -> Option<Vec<u64>> {
    let mut ranks = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last - first >= MAX_PLAN_RANKS as u64 {
            return None;
        }
        ranks.extend(first..=last);
    }
    (ranks.len() <= MAX_PLAN_RANKS).then_some(ranks)
}

/// The samplers of a query, where it names one: one for each rank.
fn samplers(query: &Query) -> Result<Vec<Sampler>, ApiError> {
    let Some(name) = query.text("sampler") else { return Ok(Vec::new()) };
    let kinds = match name {
        "torch-distributed" => {
            let ranks = ranks(query.text("rank").unwrap_or("0")).ok_or_else(|| {
                ApiError::usage(format!("rank takes ranks like 2, 0-7 or 0,4: at most {MAX_PLAN_RANKS} of them"))
            })?;
            let (world, drop_last) = (query.number("world")?.unwrap_or(1), query.flag("sampler-drop-last", false)?);
            ranks.into_iter().map(|rank| SamplerKind::Distributed { rank, world, drop_last }).collect()
        }
        "torch-random" => {
            let generator = match query.text("generator") {
                None | Some("given") => Drawn::Given,
                Some("default") => Drawn::Default,
                Some(other) => {
                    return Err(ApiError::usage(format!("generator takes given or default, not {other:?}")));
                }
            };
            let reseeded = query.flag("reseeded", false)?;
            let persistent_workers = query.flag("persistent-workers", false)?;
            vec![SamplerKind::Random { generator, reseeded, persistent_workers }]
        }
        other => {
            return Err(ApiError::usage(format!("sampler takes torch-distributed or torch-random, not {other:?}")));
        }
    };
    let drop_last = query.flag("drop-last", false)?;
    let batches = query.number("batch-size")?.map(|size| Batches { size, drop_last });
    if drop_last && batches.is_none() {
        return Err(ApiError::usage("drop-last needs the batch-size that it goes by"));
    }
    // As Python takes them, who wants 64 bits of either sign.
    let seed: i128 = query.number("seed")?.unwrap_or_default();
    if seed < i128::from(i64::MIN) || seed > i128::from(u64::MAX) {
        return Err(ApiError::usage("option seed takes an integer of 64 bits"));
    }
    let shuffle = query.flag("shuffle", true)?;
    Ok(kinds.into_iter().map(|kind| Sampler { kind, seed: seed as u64, shuffle, batches }).collect())
}

/// Hands each line of `text` to `take`, without its end; empty ones are left out.
pub(super) fn for_lines(text: impl Read, mut take: impl FnMut(&[u8]) -> Result<(), ApiError>) -> Result<(), ApiError> {
    let mut text = BufReader::new(text);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_PLAN_PATH_BYTES as u64 + 1;
        if (&mut text).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_PLAN_PATH_BYTES {
            return Err(ApiError::new(format!("a path of the list is over {MAX_PLAN_PATH_BYTES} bytes")));
        }
        if !line.is_empty() {
            take(&line)?;
        }
    }
}

/// The order of an epoch, a path a line.
fn print(plan: &Plan, epoch: u64, emit: &Emit) -> Result<(), ApiError> {
    // An epoch without a file is an answer too.
    emit.bytes(Bytes::new())?;
    let mut out = Pieces::new(emit);
    for file in plan.epoch(epoch)? {
        let path = plan.dataset.path(file).unwrap_or_default();
        if path.contains(&b'\n') {
            let path = String::from_utf8_lossy(path);
            return Err(ApiError::new(format!("{path:?} has a line break in it, which a list of paths cannot hold")));
        }
        out.write_all(path)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
