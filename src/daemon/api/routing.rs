//! `routing/…`: who has what, and where peers are. Answers are kubo's: a stream of events, of which ours are those that bring
//! something.

use axum::extract::State;
use axum::response::Response;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::query::Query;
use super::reply::{ApiError, Caller, Emit, Stream, stream};
use super::{path, swarm};
use crate::daemon::Daemon;
use crate::fetch::walk::{Reach, Walk};
use crate::net::Provider;

/// The number of an event that names a peer which was found.
pub const FINAL_PEER: u8 = 2;
/// The number of an event that names a provider.
pub const PROVIDER: u8 = 4;

/// An event of a search.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Event {
    /// More words: none here.
    #[serde(rename = "Extra")]
    pub extra: String,
    /// Who was asked: not told here.
    #[serde(rename = "ID")]
    pub id: String,
    /// What was found.
    #[serde(rename = "Responses")]
    pub responses: Option<Vec<Found>>,
    /// What happened: see [`PROVIDER`] and [`FINAL_PEER`].
    #[serde(rename = "Type")]
    pub kind: u8,
}

/// A peer that was found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Found {
    /// Where.
    #[serde(rename = "Addrs")]
    pub addrs: Vec<String>,
    /// Who.
    #[serde(rename = "ID")]
    pub id: String,
}

impl Event {
    fn of(kind: u8, provider: &Provider) -> Event {
        let addrs = provider.addresses.iter().map(ToString::to_string).collect();
        let found = Found { addrs, id: provider.peer.to_string() };
        Event { responses: Some(vec![found]), kind, ..Event::default() }
    }
}

/// Returns what `work` gives, unless nobody reads any more.
fn while_read<T>(emit: &Emit, work: impl Future<Output = T>) -> Option<T> {
    Handle::current().block_on(async {
        tokio::select! {
            done = work => Some(done),
            () = emit.gone() => None,
        }
    })
}

/// `routing/findprovs?arg=CID…&num-providers=N`: those who provide a block, as they are found.
pub async fn findprovs(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let wanted = query.number::<usize>("num-providers")?.unwrap_or(20);
    let paths = query.some_arguments("key")?.to_vec();
    if wanted == 0 {
        return Err(ApiError::usage("option num-providers takes a number above 0"));
    }
    stream(Stream::Json, caller, move |emit| {
        for text in paths {
            let cid = path::cid(&daemon, &text)?;
            let mut providers = net.find_providers(&cid).take(wanted);
            while let Some(Some(provider)) = while_read(emit, providers.next()) {
                emit.json(&Event::of(PROVIDER, &provider))?;
            }
        }
        Ok(())
    })
    .await
}

/// `routing/findpeer?arg=PEER…`: where a peer is.
pub async fn findpeer(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let peers: Vec<_> =
        query.some_arguments("peerID")?.iter().map(|text| swarm::peer(text)).collect::<Result<_, _>>()?;
    stream(Stream::Json, caller, move |emit| {
        for peer in peers {
            let Some(found) = while_read(emit, net.find_peer(peer)) else { break };
            emit.json(&Event::of(FINAL_PEER, &found?))?;
        }
        Ok(())
    })
    .await
}

/// `routing/provide?arg=CID…&recursive=BOOL`: announces that blocks are here. Nothing is answered but that it was done.
pub async fn provide(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let paths = query.some_arguments("key")?.to_vec();
    let recursive = query.flag("recursive", false)?;
    stream(Stream::Json, caller, move |emit| {
        for text in paths {
            let root = path::cid(&daemon, &text)?;
            if !daemon.store().has(&root) {
                return Err(ApiError::new(format!("block {root} is not here: only what is here can be announced")));
            }
            let mut walk = Walk::new(daemon.fetch(), Reach::Local, vec![root]);
            while let Some(visit) = Handle::current().block_on(walk.next())? {
                let Some(done) = while_read(emit, net.provide(visit.cid())) else { return Ok(()) };
                done?;
                if !recursive {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}
