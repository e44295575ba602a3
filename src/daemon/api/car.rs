//! `dag/export`, `dag/import`, and `dag/stat`: whole DAGs.

use axum::extract::{Multipart, State};
use axum::response::Response;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::body::BodyReader;
use super::dag::CidLink;
use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Pieces, Stream, stream};
use crate::block::CidForm;
use crate::daemon::Daemon;
use crate::fetch::car::{Import, Missing, export as export_car};
use crate::fetch::stat::{DagStat, dag_stat};

/// `dag/export?arg=CID&local-only=BOOL`: a DAG as a CARv1.
pub async fn export(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let root = query.argument("root")?.to_owned();
    let missing = if query.flag("local-only", false)? { Missing::LeaveOut } else { Missing::Fail };
    stream(Stream::Car, caller, move |emit| {
        let root = path::cid(&daemon, &root)?;
        let mut out = Pieces::new(emit);
        Handle::current().block_on(export_car(daemon.fetch(), &root, missing, &mut out, |_| ()))?;
        Ok(std::io::Write::flush(&mut out)?)
    })
    .await
}

/// `dag/import?pin-roots=BOOL&stats=BOOL&local-only=BOOL`: takes in CARs of both versions, and pins their roots.
pub async fn import(
    State(daemon): State<Daemon>,
    query: Query,
    caller: Caller,
    multipart: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Result<Response, ApiError> {
    let stats = query.flag("stats", false)?;
    let local_only = query.flag("local-only", false)?;
    if local_only && query.has("pin-roots") && query.flag("pin-roots", true)? {
        return Err(ApiError::new("local-only and pin-roots cannot both be: a part of a DAG cannot be pinned"));
    }
    let pin_roots = query.flag("pin-roots", !local_only)?;
    let mut multipart = multipart.map_err(|_| ApiError::usage("file argument 'path' is required"))?;
    let runtime = Handle::current();
    stream(Stream::Json, caller, move |emit| {
        let mut import = Import::new(daemon.fetch());
        let mut any = false;
        while let Some(field) = runtime.block_on(multipart.next_field())? {
            any = true;
            let (sender, reader) = BodyReader::channel();
            std::thread::scope(|scope| -> Result<(), ApiError> {
                let import = &mut import;
                let reading = scope.spawn(move || import.read(reader, |_| ()));
                let pumped = runtime.block_on(super::add::pump(field, sender));
                reading.join().map_err(|_| ApiError::new("internal error: the import broke off"))??;
                pumped
            })?;
        }
        if !any {
            return Err(ApiError::usage("file argument 'path' is required"));
        }
        let imported = runtime.block_on(import.finish(pin_roots))?;
        if pin_roots {
            for (root, pinned) in &imported.roots {
                let error = pinned.as_ref().err().map(ToString::to_string).unwrap_or_default();
                emit.json(&json!({ "Root": { "Cid": CidLink::from(root), "PinErrorMsg": error } }))?;
            }
        }
        if stats {
            let count = imported.count;
            emit.json(&json!({ "Stats": { "BlockCount": count.blocks, "BlockBytesCount": count.bytes } }))?;
        }
        Ok(())
    })
    .await
}

/// `dag/stat?arg=CID…&progress=BOOL`: how large DAGs are, each block counted once.
pub async fn stat(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let progress = query.flag("progress", true)?;
    let paths = query.some_arguments("root")?.to_vec();
    let form = query.cid_form()?;
    stream(Stream::Json, caller, move |emit| {
        let roots = paths.iter().map(|path| path::cid(&daemon, path)).collect::<Result<Vec<_>, _>>()?;
        let mut gone = Ok(());
        let stat = Handle::current().block_on(dag_stat(daemon.fetch(), &roots, |stat| {
            if progress && gone.is_ok() {
                gone = emit.json(&stat_line(stat, form, false));
            }
        }))?;
        gone?;
        emit.json(&stat_line(&stat, form, true))
    })
    .await
}

/// The figures as kubo has them: what is not known before the end is left out until then, and so is what is zero.
fn stat_line(stat: &DagStat, form: CidForm, done: bool) -> Value {
    let roots = stat
        .roots
        .iter()
        .map(|root| json!({ "Cid": form.text(&root.cid), "Size": root.size, "NumBlocks": root.blocks }));
    let roots: Vec<Value> = roots.collect();
    let mut line = Map::new();
    if done {
        line.insert("UniqueBlocks".into(), json!(stat.unique_blocks));
    }
    line.insert("TotalSize".into(), json!(stat.total_size));
    if done {
        if stat.shared_size > 0 {
            line.insert("SharedSize".into(), json!(stat.shared_size));
        }
        // As Go writes it: the shortest digits of a single-precision number.
        let ratio: Option<serde_json::Number> = stat.ratio().to_string().parse().ok();
        line.insert("Ratio".into(), json!(ratio));
    }
    line.insert("DagStats".into(), Value::Array(roots));
    Value::Object(line)
}
