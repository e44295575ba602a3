//! `pin/add`, `pin/rm`, `pin/ls`, `pin/update`, `pin/verify`: what must stay.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Stream, json as reply_json, stream};
use crate::block::{Cid, CidForm};
use crate::daemon::Daemon;
use crate::fetch::pin;
use crate::fetch::walk::{Reach, Walk};
use crate::limits::MAX_PIN_NAME_BYTES;
use crate::store::PinKind;

/// Between two words on how far a pin is: as often as kubo says it.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What was pinned or unpinned; with progress, how far it is. What is empty is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pins {
    /// The CIDs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// The blocks that were looked at so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub progress: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn kind(query: &Query) -> Result<PinKind, ApiError> {
    Ok(if query.flag("recursive", true)? { PinKind::Recursive } else { PinKind::Direct })
}

fn word(kind: PinKind) -> &'static str {
    match kind {
        PinKind::Recursive => "recursive",
        PinKind::Direct => "direct",
    }
}

fn checked_name(query: &Query) -> Result<String, ApiError> {
    let name = query.text("name").unwrap_or_default();
    if name.len() > MAX_PIN_NAME_BYTES {
        return Err(ApiError::new(format!("pin name is {} bytes (max {MAX_PIN_NAME_BYTES})", name.len())));
    }
    Ok(name.to_owned())
}

/// `pin/add?arg=PATH…&recursive=BOOL&name=NAME&progress=BOOL`.
pub async fn add(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let kind = kind(&query)?;
    let name = checked_name(&query)?;
    let form = query.cid_form()?;
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    if !query.flag("progress", false)? {
        return reply_json(move || add_all(&daemon, &paths, (kind, &name), form, |_| Ok(()))).await;
    }
    stream(Stream::Json, caller, move |emit| {
        let mut told = Instant::now();
        let mut blocks = 0;
        let pins = add_all(&daemon, &paths, (kind, &name), form, |progress| {
            blocks = progress;
            if told.elapsed() < PROGRESS_EVERY {
                return Ok(());
            }
            told = Instant::now();
            emit.json(&Pins { progress, ..Pins::default() })
        })?;
        emit.json(&Pins { progress: blocks, ..Pins::default() })?;
        emit.json(&pins)
    })
    .await
}

fn add_all(
    daemon: &Daemon,
    paths: &[String],
    (kind, name): (PinKind, &str),
    form: CidForm,
    mut progress: impl FnMut(u64) -> Result<(), ApiError>,
) -> Result<Pins, ApiError> {
    let mut pins = Vec::new();
    for text in paths {
        let cid = path::cid(daemon, text)?;
        let old = daemon.store().pinned(&cid)?;
        if kind == PinKind::Direct && old.is_some_and(|pin| pin.kind == PinKind::Recursive) {
            return Err(ApiError::new(format!("pin: {cid} already pinned recursively")));
        }
        let mut gone = Ok(());
        let pinned = Handle::current().block_on(async {
            let walk = pin::pin(daemon.fetch(), &cid, kind, name, |blocks| {
                if gone.is_ok() {
                    gone = progress(blocks);
                }
            });
            walk.await
        });
        pinned.map_err(|error| ApiError::from(error).context(format!("cannot pin {text}")))?;
        gone?;
        pins.push(form.text(&cid));
    }
    Ok(Pins { pins, progress: 0 })
}

/// `pin/rm?arg=PATH…&recursive=BOOL`.
pub async fn rm(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let kind = kind(&query)?;
    let form = query.cid_form()?;
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    reply_json(move || {
        let mut pins = Vec::new();
        for text in &paths {
            let cid = path::cid(&daemon, text)?;
            match daemon.store().pinned(&cid)? {
                None => return Err(ApiError::new("not pinned or pinned indirectly").context(text)),
                Some(pin) if pin.kind == PinKind::Recursive && kind == PinKind::Direct => {
                    return Err(ApiError::new(format!("{cid} is pinned recursively")));
                }
                Some(_) => daemon.store().unpin(&cid)?,
            };
            pins.push(form.text(&cid));
        }
        Ok(Pins { pins, progress: 0 })
    })
    .await
}

/// A pin in the list by CID.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PinType {
    /// `recursive`, `direct`, `indirect`, or `indirect through CID`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The pin's name, where names were asked for.
    pub name: String,
}

/// A pin in the streamed list. What is empty is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinLine {
    /// The CID.
    pub cid: String,
    /// The pin's name, where names were asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// As in [`PinType`].
    #[serde(rename = "Type")]
    pub kind: String,
}

/// The answer of `pin/ls`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinList {
    /// The pins by their CIDs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, PinType>,
}

/// What `pin/ls` is asked for.
#[allow(clippy::struct_excessive_bools)]
struct Wanted {
    recursive: bool,
    direct: bool,
    indirect: bool,
    names: bool,
    /// A part of the name.
    name: String,
    paths: Vec<String>,
    form: CidForm,
}

/// `pin/ls?arg=PATH…&type=TYPE&names=BOOL&name=PART&stream=BOOL`.
pub async fn ls(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let kind = query.text("type").unwrap_or("all");
    let is = |word: &str| kind == word || kind == "all";
    if !["all", "recursive", "direct", "indirect"].contains(&kind) {
        return Err(ApiError::new(format!(
            "invalid type '{kind}', must be one of {{direct, indirect, recursive, all}}"
        )));
    }
    let name = checked_name(&query)?;
    let wanted = Wanted {
        recursive: is("recursive"),
        direct: is("direct"),
        indirect: is("indirect"),
        names: query.flag("names", false)? || !name.is_empty(),
        name,
        paths: query.arguments().to_vec(),
        form: query.cid_form()?,
    };
    if query.flag("stream", false)? {
        return stream(Stream::Json, caller, move |emit| list(&daemon, &wanted, |line| emit.json(&line))).await;
    }
    reply_json(move || {
        let mut keys = BTreeMap::new();
        list(&daemon, &wanted, |line| {
            keys.insert(line.cid, PinType { kind: line.kind, name: line.name });
            Ok(())
        })?;
        Ok(PinList { keys })
    })
    .await
}

fn list(
    daemon: &Daemon,
    wanted: &Wanted,
    mut take: impl FnMut(PinLine) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let pins = daemon.store().pins()?;
    let shown = |name: &str| if wanted.names { name.to_owned() } else { String::new() };
    let is_wanted = |kind| if kind == PinKind::Recursive { wanted.recursive } else { wanted.direct };
    for text in &wanted.paths {
        let cid = path::cid(daemon, text)?;
        let pin = pins.iter().find(|pin| pin.cid == cid && is_wanted(pin.kind));
        let (kind, name) = match pin {
            Some(pin) => (word(pin.kind).to_owned(), shown(&pin.name)),
            None if wanted.indirect => match above(daemon, &cid)? {
                Some(root) => (format!("indirect through {}", wanted.form.text(&root)), String::new()),
                None => return Err(ApiError::new(format!("path '{text}' is not pinned"))),
            },
            None => return Err(ApiError::new(format!("path '{text}' is not pinned"))),
        };
        take(PinLine { cid: wanted.form.text(&cid), name, kind })?;
    }
    if !wanted.paths.is_empty() {
        return Ok(());
    }
    for pin in pins.iter().filter(|pin| is_wanted(pin.kind) && pin.name.contains(&wanted.name)) {
        let cid = wanted.form.text(&pin.cid);
        take(PinLine { cid, name: shown(&pin.name), kind: word(pin.kind).to_owned() })?;
    }
    // What hangs below a pin has no name.
    if wanted.indirect && wanted.name.is_empty() {
        let set: HashSet<&Cid> = pins.iter().map(|pin| &pin.cid).collect();
        let roots = pins.iter().filter(|pin| pin.kind == PinKind::Recursive).map(|pin| pin.cid.clone()).collect();
        let mut walk = Walk::new(daemon.fetch(), Reach::Local, roots);
        // A block that is missing has nothing to list, and `pin/verify` tells of it.
        loop {
            match Handle::current().block_on(walk.next()) {
                Ok(None) => break,
                Ok(Some(visit)) if !set.contains(visit.cid()) => {
                    let cid = wanted.form.text(visit.cid());
                    take(PinLine { cid, kind: "indirect".to_owned(), ..PinLine::default() })?;
                }
                Ok(Some(_)) => {}
                Err(error) if error.cid().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The first recursive pin that keeps `wanted`.
fn above(daemon: &Daemon, wanted: &Cid) -> Result<Option<Cid>, ApiError> {
    for pin in daemon.store().pins()?.into_iter().filter(|pin| pin.kind == PinKind::Recursive) {
        let mut walk = Walk::new(daemon.fetch(), Reach::Local, vec![pin.cid.clone()]);
        loop {
            match Handle::current().block_on(walk.next()) {
                Ok(None) => break,
                Ok(Some(visit)) if visit.cid() == wanted => return Ok(Some(pin.cid)),
                Ok(Some(_)) => {}
                Err(error) if error.cid().is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(None)
}

/// `pin/update?arg=FROM&arg=TO&unpin=BOOL`: pins TO as FROM was, and lets FROM go.
pub async fn update(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let from = query.argument("from-path")?.to_owned();
    let to = query.arguments().get(1).cloned().ok_or_else(|| ApiError::usage("argument \"to-path\" is required"))?;
    let unpin = query.flag("unpin", true)?;
    let form = query.cid_form()?;
    reply_json(move || {
        let (from, to) = (path::cid(&daemon, &from)?, path::cid(&daemon, &to)?);
        let old = daemon.store().pinned(&from)?.filter(|pin| pin.kind == PinKind::Recursive);
        let old = old.ok_or_else(|| ApiError::new("'from' cid was not recursively pinned already").context(&from))?;
        Handle::current().block_on(pin::pin(daemon.fetch(), &to, PinKind::Recursive, &old.name, |_| ()))?;
        if unpin && from != to {
            daemon.store().unpin(&from)?;
        }
        Ok(Pins { pins: vec![form.text(&from), form.text(&to)], progress: 0 })
    })
    .await
}

/// A block that a pin lacks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BadNode {
    /// The block.
    pub cid: String,
    /// What is wrong with it.
    pub err: String,
}

/// A pin that was checked. What is empty or false is left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinState {
    /// The pin.
    pub cid: String,
    /// Whether it is whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ok: bool,
    /// What it lacks: the first blocks of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_nodes: Vec<BadNode>,
}

/// Bad blocks that are told of one pin: a pin that lacks everything should not fill the memory.
const BAD_NODES: usize = 1000;

/// `pin/verify?verbose=BOOL&quiet=BOOL`: whether every recursive pin is whole. Whole pins are told with `verbose` only.
pub async fn verify(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let (verbose, quiet) = (query.flag("verbose", false)?, query.flag("quiet", false)?);
    if verbose && quiet {
        return Err(ApiError::new("the --verbose and --quiet options can not be used at the same time"));
    }
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        for pin in daemon.store().pins()?.into_iter().filter(|pin| pin.kind == PinKind::Recursive) {
            let mut state = PinState { cid: form.text(&pin.cid), ok: true, bad_nodes: Vec::new() };
            Handle::current().block_on(pin::check(daemon.fetch(), &pin.cid, |cid, error| {
                state.ok = false;
                if !quiet && state.bad_nodes.len() < BAD_NODES {
                    let err = ApiError::from(error).message().to_owned();
                    state.bad_nodes.push(BadNode { cid: form.text(cid), err });
                }
            }))?;
            if verbose || !state.ok {
                emit.json(&state)?;
            }
        }
        Ok(())
    })
    .await
}
