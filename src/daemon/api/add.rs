//! `add`, as kubo has it, and `cidfs/add`, which takes the paths of files on this machine.
//!
//! `cidfs add` sends paths, and the import reads the files itself: nothing is copied through a socket. A client of kubo
//! sends the files, as multipart. A file that stands alone is imported as it arrives; a directory is put down in the
//! repository first (`uploads/`, removed afterwards), because its entries may come in any order.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::{Multipart, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};

use super::body::BodyReader;
use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Stream, stream};
use super::upload::{Part, Upload};
use crate::daemon::Daemon;
use crate::import::{self, Event, ImportOptions, KuboLines, Progress, Source};
use crate::limits::API_HEAD_BYTES;

/// One line of the answer of `cidfs/add`. Paths are bytes, as a file's name need not be UTF-8.
#[derive(Debug, Deserialize, Serialize)]
pub enum Line {
    /// Something that happened on the way.
    Event(Event),
    /// The end: the roots, in the order in which they were added, and pinned unless the options say otherwise.
    Roots(Vec<String>),
}

/// What `cidfs/add` is asked for: the first `head-bytes` bytes of its body, as JSON.
#[derive(Debug, Deserialize, Serialize)]
pub struct Head {
    /// The settings of the import.
    pub options: ImportOptions,
    /// Absolute paths of files and directories, as bytes.
    pub paths: Vec<Vec<u8>>,
    /// The name of a file whose bytes are the rest of the body, where there is one.
    pub stdin: Option<String>,
    /// Whether the totals of a scan ahead are wanted.
    pub totals: bool,
}

/// `cidfs/add?head-bytes=N`: imports what the [`Head`] says, and tells what happens.
pub async fn local(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let length = query.number("head-bytes")?.unwrap_or_default();
    if length > API_HEAD_BYTES {
        return Err(ApiError::usage(format!("the list of paths is over {API_HEAD_BYTES} bytes: add fewer at a time")));
    }
    let (head, rest) = split(body, length).await?;
    let head: Head = serde_json::from_slice(&head)
        .map_err(|error| ApiError::usage(format!("the head of the request cannot be read: {error}")))?;
    let mut sources = Vec::new();
    for path in head.paths {
        let path = PathBuf::from(OsString::from_vec(path));
        if !path.is_absolute() {
            return Err(ApiError::usage(format!("{} is not an absolute path", path.display())));
        }
        sources.push(Source::Path(path));
    }
    if let Some(name) = head.stdin {
        sources.push(Source::Stream { name, reader: Box::new(rest) });
    }
    if sources.is_empty() {
        return Err(ApiError::usage("nothing to add was given"));
    }
    let (options, wants_totals) = (head.options, head.totals);
    stream(Stream::Json, caller, move |emit| {
        let mut progress = Told { emit, wants_totals };
        let added = import::add(sources, &options, daemon.store(), &mut progress)?;
        emit.json(&Line::Roots(added.roots.iter().map(ToString::to_string).collect()))
    })
    .await
}

/// The first `length` bytes of a body, and the rest of it.
async fn split(mut body: Body, length: usize) -> Result<(Bytes, BodyReader), ApiError> {
    let mut head = BytesMut::new();
    while head.len() < length {
        let frame = body.frame().await.ok_or_else(|| ApiError::usage("the request ends within its head"))??;
        if let Ok(data) = frame.into_data() {
            head.extend_from_slice(&data);
        }
    }
    let rest = head.split_off(length);
    Ok((head.freeze(), BodyReader::after(rest.freeze(), body)))
}

/// The import's options: those of the query over the profile of the settings.
fn options(daemon: &Daemon, query: &Query) -> Result<ImportOptions, ApiError> {
    let mut options = ImportOptions::default();
    options.set("profile", daemon.config().import.profile.word())?;
    for (name, value) in query.options() {
        options.set(name, value).map_err(|error| ApiError::usage(error.to_string()))?;
    }
    Ok(options)
}

struct Told<'a> {
    emit: &'a Emit,
    wants_totals: bool,
}

impl Progress for Told<'_> {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        match self.emit.json(&Line::Event(event)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn wants_totals(&self) -> bool {
        self.wants_totals
    }
}

/// `add`: imports what the client sends, and tells it in kubo's words.
pub async fn kubo(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    multipart: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, ApiError> {
    let mut options = options(&daemon, &query)?;
    // What is left out is the client's to decide, before it sends: what it has sent is wanted.
    options.hidden = true;
    options.ignore.clear();
    for unsupported in ["nocopy", "fscache", "to-files"] {
        if query.has(unsupported) && query.flag(unsupported, true).unwrap_or(true) {
            return Err(ApiError::usage(format!("cidfs has no {unsupported}: it has neither a filestore nor MFS")));
        }
    }
    let progress = query.flag("progress", false)?;
    let silent = query.flag("silent", false)?;
    let form = query.cid_form()?;
    let mut multipart = multipart.map_err(|_| ApiError::usage("file argument 'path' is required"))?;
    let runtime = tokio::runtime::Handle::current();
    stream(Stream::Json, caller, move |emit| {
        let mut upload = Upload::new(daemon.repository().path());
        let mut told = KuboTold { emit, lines: KuboLines::new(progress, form), silent };
        let mut any = false;
        while let Some(field) = runtime.block_on(multipart.next_field())? {
            any = true;
            let part = Part::new(&field)?;
            if options.wrap_with_directory || !part.stands_alone() {
                upload.keep(&runtime, &part, field)?;
                continue;
            }
            let (sender, reader) = BodyReader::channel();
            let mut own = options.clone();
            part.apply_metadata(&mut own);
            let source = Source::Stream { name: part.name(), reader: Box::new(reader) };
            std::thread::scope(|scope| -> Result<(), ApiError> {
                let store = daemon.store();
                let told = &mut told;
                let import = scope.spawn(move || import::add(vec![source], &own, store, told));
                let pumped = runtime.block_on(pump(field, sender));
                let added = import.join().map_err(|_| ApiError::new("internal error: the import broke off"))?;
                added?;
                pumped
            })?;
        }
        if !any {
            return Err(ApiError::usage("file argument 'path' is required"));
        }
        let sources = upload.sources();
        if !sources.is_empty() {
            import::add(sources, &options, daemon.store(), &mut told)?;
        }
        Ok(())
    })
    .await
}

/// Hands the bytes of a part to the thread that imports it. An import that has failed takes no more; it says why itself.
pub async fn pump(
    mut field: axum::extract::multipart::Field<'_>,
    sender: tokio::sync::mpsc::Sender<std::io::Result<bytes::Bytes>>,
) -> Result<(), ApiError> {
    loop {
        match field.chunk().await {
            Ok(Some(piece)) => {
                if sender.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let _ = sender.send(Err(std::io::Error::other("the request broke off"))).await;
                return Err(error.into());
            }
        }
    }
}

struct KuboTold<'a> {
    emit: &'a Emit,
    lines: KuboLines,
    silent: bool,
}

impl Progress for KuboTold<'_> {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        // As in kubo, directories are told even so.
        let is_silent = self.silent && matches!(&event, Event::Added(entry) if !entry.directory);
        let lines = if is_silent { Vec::new() } else { self.lines.of(&event) };
        let sent = lines.iter().try_for_each(|line| self.emit.json(line));
        if sent.is_err() || self.emit.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
