//! `cidfs/fetch` and `cidfs/why`: bringing whole DAGs here, and what was asked of whom.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::path;
use super::query::Query;
use super::reply::{ApiError, Caller, Stream, json as reply_json, stream};
use crate::daemon::Daemon;
use crate::fetch::FetchReport;
use crate::fetch::bring::{Progress, bring};
use crate::fetch::gateways::GatewaySource;
use crate::net::http::HealthReport;

/// Between two words on how far a fetch is.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How far a fetch is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Fetched {
    /// The root.
    pub cid: String,
    /// Whether all is here.
    pub done: bool,
    /// Blocks that are here.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the whole, as far as the root claims them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total_bytes: Option<u64>,
    /// How long it has taken, in milliseconds.
    pub milliseconds: u64,
    /// What came in meanwhile, by who sent it, most first.
    pub brought: Vec<Brought>,
}

/// What somebody sent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Brought {
    /// The source, and whom of it.
    pub whom: String,
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `cidfs/fetch?arg=PATH&progress=BOOL`: brings a whole DAG here. With progress a line every half a second; a last one when all is
/// here and durable. It ends with its client.
pub async fn fetch(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let progress = query.flag("progress", true)?;
    let path = query.argument("ipfs-path")?.to_owned();
    stream(Stream::Json, caller, move |emit| {
        // Who asks by hand does not want to hear of an earlier failure.
        daemon.fetch().forget_failures();
        let root = path::cid(&daemon, &path)?;
        let begun = Instant::now();
        let line = |state: &Progress, done: bool| Fetched {
            cid: root.to_string(),
            done,
            blocks: state.blocks,
            bytes: state.bytes,
            total_bytes: state.total_bytes,
            milliseconds: begun.elapsed().as_millis() as u64,
            brought: state
                .brought
                .iter()
                .map(|(whom, blocks, bytes)| Brought { whom: whom.clone(), blocks: *blocks, bytes: *bytes })
                .collect(),
        };
        // The last state, when it was told, and why nobody is told any more.
        let told = RefCell::new((Progress::default(), Instant::now(), Ok(())));
        let state = Handle::current().block_on(async {
            let bringing = bring(daemon.fetch(), &root, |state| {
                let mut told = told.borrow_mut();
                if told.1.elapsed() >= PROGRESS_EVERY {
                    told.0 = state.clone();
                    told.1 = Instant::now();
                    if progress {
                        told.2 = emit.json(&line(state, false));
                    }
                }
                told.2.is_ok() && !emit.is_gone()
            });
            let mut bringing = std::pin::pin!(bringing);
            let mut tick = tokio::time::interval(PROGRESS_EVERY);
            loop {
                tokio::select! {
                    biased;
                    () = emit.gone() => return Err(ApiError::new("the client has gone")),
                    result = &mut bringing => {
                        std::mem::replace(&mut told.borrow_mut().2, Ok(()))?;
                        return Ok(result?);
                    }
                    _ = tick.tick() => {
                        let told = told.borrow();
                        if progress && told.1.elapsed() >= PROGRESS_EVERY {
                            emit.json(&line(&told.0, false))?;
                        }
                    }
                }
            }
        })?;
        emit.json(&line(&state, true))
    })
    .await
}

/// What is known of how a block was, or is being, fetched.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Why {
    /// The block.
    pub cid: String,
    /// Whether it is here.
    pub is_here: bool,
    /// Its fetches, and those for it as a root.
    pub fetches: Vec<FetchReport>,
    /// How the gateways do.
    pub gateways: Vec<HealthReport>,
}

/// `cidfs/why?arg=CID`: what was asked of whom for a block, when, and with what answer.
pub async fn why(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let text = query.argument("cid")?.to_owned();
    reply_json(move || {
        let cid = path::cid(&daemon, &text)?;
        Ok(Why {
            cid: cid.to_string(),
            is_here: cid.identity_data().is_some() || daemon.store().has(&cid),
            fetches: daemon.fetch().why(&cid),
            gateways: daemon.gateways().map_or_else(Vec::new, GatewaySource::health),
        })
    })
    .await
}
