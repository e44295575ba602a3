//! `cidfs/plan`: the order in which a job will read a dataset.
//!
//! The directory and the sampler's arguments stand in the query; an order that is handed over is the body, a path a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::body::BodyReader;
use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Pieces, Stream, stream};
use crate::daemon::Daemon;
use crate::limits::MAX_PLAN_PATH_BYTES;
use crate::prefetch::plan::{Batches, Dataset, Drawn, Files, Order, Plan, Sampler, SamplerKind};

/// What makes a plan.
struct Wanted {
    directory: String,
    /// `None` where the order is the body.
    sampler: Option<Sampler>,
    files: Option<Files>,
    epoch: u64,
}

/// `cidfs/plan?arg=PATH&order=BOOL&sampler=NAME&seed=N&epoch=N&rank=N&world=N&…&print=BOOL`: the order in which a directory
/// will be read. With `print` it is answered, a path a line.
pub async fn plan(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&query)?;
    let order = BodyReader::after(Bytes::new(), body);
    stream(Stream::Text, caller, move |emit| {
        let plan = wanted.make(&daemon, order)?;
        print(&plan, wanted.epoch, emit)
    })
    .await
}

impl Wanted {
    fn read(query: &Query) -> Result<Wanted, ApiError> {
        let directory = path::plain(query.argument("directory")?).to_owned();
        let order = query.flag("order", false)?;
        let sampler = sampler(query)?;
        if order == sampler.is_some() {
            return Err(ApiError::usage("either an order or a sampler is required"));
        }
        let files = match query.text("files") {
            None => None,
            Some("all") => Some(Files::All),
            Some("images") => Some(Files::Images),
            Some(other) => return Err(ApiError::usage(format!("files takes all or images, not {other:?}"))),
        };
        Ok(Wanted { directory, sampler, files, epoch: query.number("epoch")?.unwrap_or_default() })
    }

    fn make(&self, daemon: &Daemon, order: BodyReader) -> Result<Plan, ApiError> {
        let runtime = Handle::current();
        let tree = daemon.tree();
        let root = path::cid(daemon, self.directory.split('/').next().unwrap_or_default())?;
        let (dataset, order) = if let Some(sampler) = &self.sampler {
            sampler.check()?;
            let (dataset, _) = runtime.block_on(Dataset::list(tree, &self.directory, self.files))?;
            (dataset, Order::Drawn(sampler.clone()))
        } else {
            let mut paths = runtime.block_on(Dataset::of_paths(tree, &self.directory))?;
            for_lines(order, |line| Ok(runtime.block_on(paths.push(line))?))?;
            (paths.finish(), Order::Listed)
        };
        Ok(Plan { root, directory: self.directory.clone(), dataset: Arc::new(dataset), order })
    }
}

/// The sampler of a query, where it names one.
fn sampler(query: &Query) -> Result<Option<Sampler>, ApiError> {
    let Some(name) = query.text("sampler") else { return Ok(None) };
    let kind = match name {
        "torch-distributed" => SamplerKind::Distributed {
            rank: query.number("rank")?.unwrap_or(0),
            world: query.number("world")?.unwrap_or(1),
            drop_last: query.flag("sampler-drop-last", false)?,
        },
        "torch-random" => SamplerKind::Random {
            generator: match query.text("generator") {
                None | Some("given") => Drawn::Given,
                Some("default") => Drawn::Default,
                Some(other) => {
                    return Err(ApiError::usage(format!("generator takes given or default, not {other:?}")));
                }
            },
            reseeded: query.flag("reseeded", false)?,
            persistent_workers: query.flag("persistent-workers", false)?,
        },
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
    Ok(Some(Sampler { kind, seed: seed as u64, shuffle: query.flag("shuffle", true)?, batches }))
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
