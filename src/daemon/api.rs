//! The control API: the Kubo RPC API for what cidfs has, and `/api/v0/cidfs/…` for what kubo has not.
//!
//! Paths, arguments, and answers are those of kubo 0.43 (<https://docs.ipfs.tech/reference/kubo/rpc/>), so that its clients
//! work: everything is a POST; arguments come as `arg` in the query; an answer is JSON (one value, or a value a line),
//! or bytes. `docs/rpc.md` lists what there is and where it differs.
//!
//! A browser is refused, whatever page it shows: a request with an `Origin`, a `Referer`, or a browser's name in
//! `User-Agent` gets 403. Otherwise any page that its user visits could reach a TCP address of this API.
//!
//! Handlers parse, call one function of a floor below, and shape its answer. What blocks runs on threads for it
//! ([`reply::blocking`], [`reply::stream`]).

pub mod add;
pub mod bitswap;
pub mod block;
mod body;
mod car;
pub mod cidfs;
pub mod dag;
pub mod fetch;
pub mod files;
pub mod names;
pub mod node;
mod path;
pub mod pin;
pub mod plan;
mod put;
pub mod query;
pub mod refs;
pub mod reply;
pub mod repo;
pub mod routing;
pub mod swarm;
mod time;
mod upload;
pub mod warmup;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use std::sync::Arc;
use tokio::sync::Semaphore;

use self::query::Query;
use self::reply::ApiError;
use super::Daemon;
use crate::limits::API_MAX_REQUESTS;

/// Who can reach a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The owner of the repository: its socket, or the verb itself.
    Owner,
    /// Whoever reaches a TCP address. Calls that read files of this machine by their paths are left out.
    Network,
}

/// The API of `daemon`, for those whom `reach` lets in.
pub fn router(daemon: Daemon, reach: Reach) -> Router {
    let places = Arc::new(Semaphore::new(API_MAX_REQUESTS));
    let mut kubo = Router::new()
        .route("/add", post(add::kubo))
        .route("/block/get", post(block::get))
        .route("/block/put", post(block::put))
        .route("/block/stat", post(block::stat))
        .route("/block/rm", post(block::rm))
        .route("/dag/export", post(car::export))
        .route("/dag/import", post(car::import))
        .route("/dag/stat", post(car::stat))
        .route("/pin/add", post(pin::add))
        .route("/pin/rm", post(pin::rm))
        .route("/pin/ls", post(pin::ls))
        .route("/pin/update", post(pin::update))
        .route("/pin/verify", post(pin::verify))
        .route("/repo/stat", post(repo::stat))
        .route("/repo/gc", post(repo::gc))
        .route("/repo/verify", post(repo::verify))
        .route("/repo/version", post(repo::version))
        .route("/repo/ls", post(repo::local))
        .route("/refs/local", post(repo::local))
        .route("/cidfs/gc", post(repo::gc_in_detail))
        .route("/cidfs/verify", post(repo::verify_in_detail))
        .route("/dag/get", post(dag::get))
        .route("/dag/put", post(dag::put))
        .route("/dag/resolve", post(dag::resolve))
        .route("/refs", post(refs::refs))
        .route("/cidfs/name/add", post(names::add))
        .route("/cidfs/name/rm", post(names::rm))
        .route("/cidfs/name/ls", post(names::ls))
        .route("/cat", post(files::cat))
        .route("/ls", post(files::ls))
        .route("/get", post(files::get))
        .route("/id", post(node::id))
        .route("/ping", post(node::ping))
        .route("/swarm/peers", post(swarm::peers))
        .route("/swarm/connect", post(swarm::connect))
        .route("/swarm/disconnect", post(swarm::disconnect))
        .route("/swarm/addrs", post(swarm::addrs))
        .route("/swarm/addrs/local", post(swarm::addrs_local))
        .route("/swarm/addrs/listen", post(swarm::addrs_listen))
        .route("/swarm/peering/add", post(swarm::peering_add))
        .route("/swarm/peering/rm", post(swarm::peering_rm))
        .route("/swarm/peering/ls", post(swarm::peering_ls))
        .route("/bitswap/stat", post(bitswap::stat))
        .route("/bitswap/wantlist", post(bitswap::wantlist))
        .route("/bitswap/ledger", post(bitswap::ledger))
        .route("/routing/findprovs", post(routing::findprovs))
        .route("/routing/findpeer", post(routing::findpeer))
        .route("/routing/provide", post(routing::provide))
        .route("/version", post(node::version))
        .route("/shutdown", post(node::shutdown))
        .route("/cidfs/mount", post(cidfs::mount))
        .route("/cidfs/umount", post(cidfs::umount))
        .route("/cidfs/mounts", post(cidfs::mounts))
        .route("/cidfs/status", post(cidfs::status))
        .route("/cidfs/plan", post(plan::plan))
        .route("/cidfs/plan/ls", post(plan::ls))
        .route("/cidfs/plan/rm", post(plan::rm))
        .route("/cidfs/warmup", post(warmup::warmup))
        .route("/cidfs/warmup/stop", post(warmup::stop))
        .route("/cidfs/stat", post(files::stat))
        .route("/cidfs/fetch", post(fetch::fetch))
        .route("/cidfs/why", post(fetch::why))
        .route("/cidfs/config", post(cidfs::config))
        .route("/cidfs/config/reload", post(cidfs::reload));
    if reach == Reach::Owner {
        kubo = kubo.route("/cidfs/add", post(add::local));
    }
    Router::new()
        .nest("/api/v0", kubo)
        .route("/metrics", get(cidfs::metrics))
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(places, guard))
        .with_state(daemon)
}

/// Removes what uploads of earlier processes left behind in `repository`. The caller has its lock.
pub fn clean_uploads(repository: &std::path::Path) {
    upload::Upload::clean(repository);
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "404 page not found\n")
        .into_response()
}

/// Lets through what may come in, a bounded number at a time, and stops what takes longer than its client wants.
async fn guard(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/api/") {
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return (StatusCode::NO_CONTENT, [(header::ALLOW, "OPTIONS, POST")]).into_response(),
            _ => {
                let allow = [(header::ALLOW, "OPTIONS, POST")];
                return (StatusCode::METHOD_NOT_ALLOWED, allow, "405 - Method Not Allowed\n").into_response();
            }
        }
    }
    if is_browser(request.headers()) {
        tracing::warn!(path = request.uri().path(), "refused a request that a browser sent");
        return (StatusCode::FORBIDDEN, "403 - Forbidden\n").into_response();
    }
    // Closed never: the semaphore lives as long as the router.
    let _place = places.acquire().await;
    let (mut parts, body) = request.into_parts();
    let timeout = match <Query as axum::extract::FromRequestParts<()>>::from_request_parts(&mut parts, &()).await {
        Ok(query) => query.timeout(),
        Err(error) => Err(error),
    };
    let request = Request::from_parts(parts, body);
    let mut response = match timeout {
        Err(error) => error.into_response(),
        Ok(None) => next.run(request).await,
        Ok(Some(timeout)) => match tokio::time::timeout(timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::timeout().into_response(),
        },
    };
    let exposed = HeaderValue::from_static("X-Stream-Output, X-Chunked-Output, X-Content-Length");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_HEADERS, exposed.clone());
    response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    response
}

fn is_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN)
        || headers.contains_key(header::REFERER)
        || headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla"))
}
