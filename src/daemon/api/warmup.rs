//! `cidfs/warmup`: trees brought to this machine before they are read.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;

use super::body::BodyReader;
use super::path;
use super::plan::for_lines;
use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Stream, json as reply_json, stream};
use crate::block::Cid;
use crate::daemon::{Daemon, Role};
use crate::fetch::Fetch;
use crate::limits::MAX_PLAN_FILES;
use crate::prefetch::warmup::{self, Depth, Evicted, Progress, Tier, WarmupError};

/// One line of the answer.
#[derive(Debug, Deserialize, Serialize)]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// The end of a warmup, or of a check.
    Done(Progress),
    /// What an eviction did.
    Evicted(Evicted),
    /// It goes on in the background, under this number.
    Background(u64),
}

/// Between two words on how far it is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Bring,
    Check,
    Evict,
}

/// `cidfs/warmup?arg=PATH&list=BOOL&action=NAME&metadata-only=BOOL&tier=NAME&background=BOOL`. With `list`, the body has the paths
/// below PATH that are meant, one a line.
pub async fn warmup(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let path = path::plain(query.argument("path")?).to_owned();
    let action = match query.text("action") {
        None | Some("bring") => Action::Bring,
        Some("check") => Action::Check,
        Some("evict") => Action::Evict,
        Some(other) => return Err(ApiError::usage(format!("action takes bring, check or evict, not {other:?}"))),
    };
    let tier = match query.text("tier") {
        None | Some("disk") => Tier::Disk,
        Some("ram") => Tier::Ram,
        Some(other) => return Err(ApiError::usage(format!("tier takes disk or ram, not {other:?}"))),
    };
    let depth = if query.flag("metadata-only", false)? { Depth::Metadata } else { Depth::Whole };
    let background = query.flag("background", false)?;
    if action == Action::Evict && depth == Depth::Metadata {
        return Err(ApiError::usage("metadata alone cannot be evicted: what is below it could not be found any more"));
    }
    if background && action != Action::Bring {
        return Err(ApiError::usage("a check and an eviction are not done in the background"));
    }
    if background && daemon.role() == Role::Verb {
        return Err(ApiError::new(
            "no daemon runs that could go on in the background: start one with `cidfs mount` or `cidfs daemon`",
        ));
    }
    let list = query.flag("list", false)?.then(|| BodyReader::after(Bytes::new(), body));
    stream(Stream::Json, caller, move |emit| {
        let runtime = Handle::current();
        let roots = roots(&daemon, &path, list)?;
        // What is fetched belongs to the root that the path begins with.
        let root = path::cid(&daemon, path.split('/').next().unwrap_or_default())?;
        let fetch = daemon.fetch().session(&root);
        match action {
            Action::Bring => bring(&daemon, fetch, &path, roots, (depth, tier), background, emit),
            Action::Check => {
                let mut telling = Telling::new(emit);
                let done = runtime.block_on(warmup::check(&fetch, roots, depth, &mut |now| telling.tell(now)))?;
                emit.json(&Line::Done(done))
            }
            Action::Evict => {
                let mut telling = Telling::new(emit);
                let done = runtime.block_on(warmup::evict(&fetch, roots, &mut |now| telling.tell(now)))?;
                emit.json(&Line::Evicted(done))
            }
        }
    })
    .await
}

/// `cidfs/warmup/stop?arg=PATH` or `cidfs/warmup/stop`: stops the warmups of a path, or all.
pub async fn stop(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let path = query.arguments().first().map(|path| path::plain(path).to_owned());
    reply_json(move || Ok(json!({ "Stopped": daemon.warmups().stop(path.as_deref()) }))).await
}

/// What is at `path`, or at the paths of a list below it.
fn roots(daemon: &Daemon, path: &str, list: Option<BodyReader>) -> Result<Vec<Cid>, ApiError> {
    let Some(list) = list else { return Ok(vec![path::cid(daemon, path)?]) };
    let runtime = Handle::current();
    let mut roots = Vec::new();
    for_lines(list, |line| {
        if roots.len() == MAX_PLAN_FILES {
            return Err(ApiError::new(format!("the list has more than {MAX_PLAN_FILES} paths")));
        }
        let whole = [path.as_bytes(), b"/", line].concat();
        let found = runtime.block_on(daemon.tree().resolve(&whole));
        let shown = || String::from_utf8_lossy(&whole).into_owned();
        let found = found.map_err(|error| ApiError::from(error).context(format!("cannot resolve {}", shown())))?;
        roots.push(found.location.cid);
        Ok(())
    })?;
    Ok(roots)
}

fn bring(
    daemon: &Daemon,
    fetch: Fetch,
    path: &str,
    roots: Vec<Cid>,
    (depth, tier): (Depth, Tier),
    background: bool,
    emit: &Emit,
) -> Result<(), ApiError> {
    let runtime = Handle::current();
    let job = daemon.warmups().begin(path)?;
    if background {
        emit.json(&Line::Background(job.id()))?;
        let (stopping, runtime_of_job, path) = (daemon.stopping().clone(), runtime.clone(), path.to_owned());
        runtime.spawn_blocking(move || {
            let result = runtime_of_job.block_on(warmup::bring(&fetch, roots, depth, tier, &mut |now| {
                if stopping.is_cancelled() { ControlFlow::Break(()) } else { job.note(now) }
            }));
            match &result {
                Ok(done) if done.missing == 0 => tracing::info!(path, bytes = done.bytes, "warmed up"),
                Ok(done) => tracing::warn!(
                    path,
                    missing = done.missing,
                    first = done.first_missing.first(),
                    "warmed up in part"
                ),
                Err(WarmupError::Stopped) => tracing::info!(path, "the warmup was stopped"),
                Err(error) => tracing::warn!(path, %error, "the warmup failed"),
            }
            job.finish(&result);
        });
        return Ok(());
    }
    let mut telling = Telling::new(emit);
    let result = runtime.block_on(warmup::bring(&fetch, roots, depth, tier, &mut |now| {
        if daemon.stopping().is_cancelled() || job.note(now).is_break() {
            return ControlFlow::Break(());
        }
        telling.tell(now)
    }));
    job.finish(&result);
    emit.json(&Line::Done(result?))
}

/// Tells the client how far it is, not more often than it wants to know.
struct Telling<'a> {
    emit: &'a Emit,
    told: Instant,
}

impl Telling<'_> {
    fn new(emit: &Emit) -> Telling<'_> {
        Telling { emit, told: Instant::now() }
    }

    fn tell(&mut self, progress: &Progress) -> ControlFlow<()> {
        if self.emit.is_gone() {
            return ControlFlow::Break(());
        }
        if self.told.elapsed() < TELL_EVERY {
            return ControlFlow::Continue(());
        }
        self.told = Instant::now();
        match self.emit.json(&Line::Progress(progress.clone())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
