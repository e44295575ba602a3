//! `/api/v0/cidfs/…`: what kubo has no call for.

use std::path::{Path, PathBuf};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::query::Query;
use super::reply::{ApiError, Caller, Stream, json as reply_json, json_response, stream};
use crate::config::{Raw, Setting};
use crate::daemon::mounts::{self, MountReport};
use crate::daemon::warmups::WarmupReport;
use crate::daemon::{Daemon, Role};
use crate::metrics::{self, NetworkFigures, StoreFigures};
use crate::net::Net;
use crate::prefetch::RootReport;

/// `cidfs/mount?arg=MOUNTPOINT&options=LIST&wait=BOOL`: mounts, and answers when the mount does. With `wait`, the answer ends
/// when the mount is gone.
pub async fn mount(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    if daemon.role() == Role::Verb {
        return Err(ApiError::new("a mount needs a daemon"));
    }
    let mountpoint = absolute(query.argument("mountpoint")?)?;
    let mut options = mounts::options(daemon.config());
    options.copies_dir = Some(daemon.repository().path().to_owned());
    for list in query.texts("options") {
        options.parse(list).map_err(|error| ApiError::usage(error.to_string()))?;
    }
    if !query.flag("wait", false)? {
        return reply_json(move || Ok(daemon.mounts().mount(&daemon, &mountpoint, options)?)).await;
    }
    stream(Stream::Json, caller, move |emit| {
        let report = daemon.mounts().mount(&daemon, &mountpoint, options)?;
        emit.json(&report)?;
        let Some(over) = daemon.mounts().over(&report.mountpoint) else { return Ok(()) };
        tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                () = over.cancelled() => {}
                () = daemon.stopping().cancelled() => {}
                () = emit.gone() => {}
            }
        });
        Ok(())
    })
    .await
}

/// `cidfs/umount?arg=MOUNTPOINT…` or `cidfs/umount?all=true`: unmounts, and answers with what it unmounted. What this daemon
/// has not mounted is left out.
pub async fn umount(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let paths: Vec<PathBuf> = if query.flag("all", false)? {
        daemon.mounts().list().into_iter().map(|mount| mount.mountpoint).collect()
    } else {
        query.some_arguments("mountpoint")?.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?
    };
    reply_json(move || {
        let mut unmounted = Vec::new();
        for path in paths {
            if daemon.mounts().unmount(&path)? {
                unmounted.push(path);
            }
        }
        Ok(json!({ "Unmounted": unmounted }))
    })
    .await
}

/// `cidfs/mounts`: what is mounted.
pub async fn mounts(State(daemon): State<Daemon>) -> Response {
    json_response(&json!({ "Mounts": daemon.mounts().list() }))
}

fn absolute(path: &str) -> Result<PathBuf, ApiError> {
    let path = Path::new(path);
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(ApiError::usage("the mountpoint must be an absolute path"))
    }
}

/// What `cidfs status` tells.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Its repository.
    pub repository: PathBuf,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// Its resident memory, in bytes.
    pub resident_bytes: u64,
    /// Whether it ends with its last mount.
    pub ends_with_last_mount: bool,
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// What is wrong, for people.
    pub problems: Vec<String>,
    /// What is mounted.
    pub mounts: Vec<MountReport>,
    /// Warmups that are at work, and the last ones that have ended.
    pub warmups: Vec<WarmupReport>,
    /// What is brought ahead of readers, root by root.
    #[serde(default)]
    pub prefetch: Vec<RootReport>,
    /// What is kept, tier by tier.
    pub store: StoreReport,
    /// The node; `None` where there is none.
    #[serde(default)]
    pub network: Option<NetworkFigures>,
}

/// What the store holds of what it may hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoreReport {
    /// The memory that the RAM tier takes, in bytes.
    pub ram_bytes: u64,
    /// What it may take.
    pub ram_budget_bytes: u64,
    /// Blocks in the RAM tier.
    pub ram_blocks: u64,
    /// What the NVMe tier takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// What it may take; `None` where that is not limited.
    pub disk_budget_bytes: Option<u64>,
    /// Blocks on the NVMe tier.
    pub disk_blocks: u64,
    /// What the filesystem has left, in bytes.
    pub available_bytes: u64,
    /// The memory of the index, in bytes.
    pub index_bytes: u64,
    /// Pins.
    pub pins: u64,
    /// Damaged records that were dropped since the start.
    pub damaged: u64,
    /// Segment files.
    pub segments: u64,
    /// What of the NVMe tier is dead records, in bytes.
    pub dead_bytes: u64,
    /// What was counted since the start.
    #[serde(flatten)]
    pub counted: StoreFigures,
}

/// `cidfs/status`: what is mounted, what is cached, and whether all is well.
pub async fn status(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    reply_json(move || report(&daemon)).await
}

fn report(daemon: &Daemon) -> Result<Status, ApiError> {
    let stat = daemon.store().stat()?;
    let mut problems = daemon.store().health();
    if let Some(net) = daemon.net() {
        problems.extend(net.problems());
    }
    if stat.damaged > 0 {
        problems.push(format!("{} damaged blocks were dropped: run `cidfs verify`", stat.damaged));
    }
    let store = StoreReport {
        ram_bytes: stat.ram_bytes,
        ram_budget_bytes: stat.ram_budget_bytes,
        ram_blocks: stat.ram_blocks,
        disk_bytes: stat.disk_bytes,
        disk_budget_bytes: Some(stat.disk_budget_bytes).filter(|budget| *budget != u64::MAX),
        disk_blocks: stat.blocks,
        available_bytes: stat.available_bytes,
        index_bytes: stat.index_bytes,
        pins: daemon.store().pins()?.len() as u64,
        damaged: stat.damaged,
        segments: stat.segments,
        dead_bytes: stat.dead_bytes,
        counted: stat.counted,
    };
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        repository: daemon.repository().path().to_owned(),
        uptime_seconds: daemon.started().elapsed().as_secs(),
        resident_bytes: resident_bytes(),
        ends_with_last_mount: daemon.role() == Role::Mounts,
        healthy: problems.is_empty(),
        problems,
        mounts: daemon.mounts().list(),
        warmups: daemon.warmups().list(),
        prefetch: daemon.mounts().prefetch_report(),
        store,
        network: daemon.net().map(Net::figures),
    })
}

/// `GET /metrics`: the figures of the moment for Prometheus.
pub async fn metrics(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    let page = super::reply::blocking(move || {
        let status = report(&daemon)?;
        let store = status.store;
        let requests = status.mounts.iter().flat_map(|mount| {
            let mountpoint = mount.mountpoint.display().to_string();
            mount.requests.iter().map(move |(kind, count)| (mountpoint.clone(), kind.clone(), *count))
        });
        Ok(metrics::page(&metrics::Figures {
            uptime_seconds: status.uptime_seconds,
            resident_bytes: status.resident_bytes,
            ram_bytes: (store.ram_bytes, store.ram_budget_bytes),
            disk_bytes: (store.disk_bytes, store.disk_budget_bytes.unwrap_or(u64::MAX)),
            blocks: (store.ram_blocks, store.disk_blocks),
            index_bytes: store.index_bytes,
            segments: store.segments,
            dead_bytes: store.dead_bytes,
            available_bytes: store.available_bytes,
            store: store.counted,
            damaged: store.damaged,
            pins: store.pins,
            hidden_names: daemon.tree().hidden_names(),
            healthy: status.healthy,
            mounts: status.mounts.len() as u64,
            requests: requests.collect(),
            prefetch: daemon.mounts().prefetch_totals(),
            network: status.network,
        }))
    })
    .await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(axum::http::header::CONTENT_TYPE, kind)], page).into_response())
}

/// The resident memory of this process, in bytes; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024
}

/// `cidfs/config`: the settings that this process runs with.
pub async fn config(State(daemon): State<Daemon>) -> Response {
    let settings: Vec<Value> = daemon.settings().iter().map(|setting| Value::Object(setting_json(setting))).collect();
    json_response(&settings)
}

/// `cidfs/config/reload`: reads the settings file again, and says what has changed.
pub async fn reload(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    reply_json(move || Ok(daemon.reload_settings()?)).await
}

/// A setting as JSON: `Key`, `Value`, and `Source`.
pub fn setting_json(setting: &Setting) -> Map<String, Value> {
    let value = match &setting.value {
        Raw::Many(texts) => json!(texts),
        // Numbers and truth values are those that parse as such and are written bare in the file.
        Raw::One(text) if setting.key.is_bare() => text.parse().unwrap_or_else(|_| json!(text)),
        Raw::One(text) => json!(text),
    };
    let mut map = Map::new();
    map.insert("Key".into(), json!(setting.key.path()));
    map.insert("Value".into(), value);
    map.insert("Source".into(), json!(setting.source.to_string()));
    map
}
