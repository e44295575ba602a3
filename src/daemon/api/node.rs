//! `/api/v0/id`, `/api/v0/ping`, `/api/v0/version`, `/api/v0/shutdown`: this cidfs itself, and other nodes.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use tokio::runtime::Handle;

use super::query::Query;
use super::reply::{ApiError, Caller, Stream, blocking, json_response, stream};
use super::swarm::{self, Identity};
use crate::daemon::{Daemon, identity};
use crate::net::{Multiaddr, address};

/// The layout of the repository, counted up when a new one cannot be read by older versions.
pub const REPOSITORY_VERSION: &str = "1";

/// How we call ourselves to others.
pub fn agent() -> String {
    format!("cidfs/{}", env!("CARGO_PKG_VERSION"))
}

/// The answer of `version`, as kubo has it. There is no Go, and no commit, in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The version of cidfs.
    pub version: String,
    /// The commit it was built from: empty.
    pub commit: String,
    /// The version of the repository's layout.
    pub repo: String,
    /// The machine, as Go calls it: `amd64/linux`.
    pub system: String,
    /// Always empty.
    pub golang: String,
}

impl Version {
    /// That of this program.
    pub fn current() -> Version {
        let machine = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
            repo: REPOSITORY_VERSION.to_owned(),
            system: format!("{machine}/{}", std::env::consts::OS),
            golang: String::new(),
        }
    }
}

/// `id?arg=PEER&peerid-base=BASE`: who this repository is, or who a peer says that it is. Without a node there are neither
/// addresses nor protocols.
pub async fn id(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = daemon.net().cloned();
    let caller = daemon.clone();
    let identity = blocking(move || Ok(identity::load_or_make(daemon.repository().path())?)).await?;
    let encoding = query.text("peerid-base").unwrap_or("b58mh");
    let bad_encoding = || ApiError::new(format!("unknown peer ID encoding {encoding:?}: b58mh, k, or a multibase"));
    let own = identity.peer_id(encoding).ok_or_else(bad_encoding)?;
    let same = |other: &String| other == &own || Some(other) == identity.peer_id("b58mh").as_ref();
    if let Some(other) = query.arguments().first().filter(|other| !same(other)) {
        let peer = swarm::peer(other)?;
        let told = swarm::node(&caller)?.identify(peer).await?;
        let id = identity::encode(&peer.to_bytes(), encoding).ok_or_else(bad_encoding)?;
        return Ok(json_response(&Identity::of(peer, id, &told)));
    }
    let mut answer = Identity {
        id: own,
        public_key: multibase::Base::Base64Pad.encode(identity.public_key()),
        agent_version: agent(),
        ..Identity::default()
    };
    if let Some(net) = net {
        let own = net.own().await?;
        answer.addresses = Some(own.addresses.iter().map(|it| address::join(it, net.peer_id()).to_string()).collect());
        answer.protocols = Some(own.protocols);
    }
    Ok(json_response(&answer))
}

/// A word of `ping`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pong {
    /// Whether it is no bad news.
    pub success: bool,
    /// How long the peer took, in nanoseconds; 0 where the word is none about that.
    pub time: u64,
    /// Words for people.
    pub text: String,
}

/// `ping?arg=PEER&count=N`: how long a peer takes to answer, once a second.
pub async fn ping(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let text = query.argument("peer ID")?;
    let peer = swarm::peer(text.rsplit_once("/p2p/").map_or(text, |(_, peer)| peer))?;
    let count = query.number::<u32>("count")?.unwrap_or(10);
    if peer == net.peer_id() {
        return Err(ApiError::new("can't ping self"));
    }
    stream(Stream::Json, caller, move |emit| {
        let run = Handle::current();
        run.block_on(net.connect(&Multiaddr::empty().with(libp2p::multiaddr::Protocol::P2p(peer))))?;
        emit.json(&Pong { success: true, time: 0, text: format!("PING {peer}.") })?;
        let (mut total, mut answers) = (Duration::ZERO, 0);
        for round in 0..count {
            if round > 0 {
                run.block_on(tokio::time::sleep(Duration::from_secs(1)));
            }
            match run.block_on(net.ping(peer)) {
                Ok(took) => {
                    (total, answers) = (total + took, answers + 1);
                    emit.json(&Pong { success: true, time: took.as_nanos() as u64, text: String::new() })?;
                }
                Err(error) => emit.json(&Pong { success: false, time: 0, text: error.to_string() })?,
            }
        }
        if answers == 0 {
            return Err(ApiError::new("ping failed"));
        }
        let average = (total / answers).as_secs_f64() * 1000.0;
        emit.json(&Pong { success: true, time: 0, text: format!("Average latency: {average:.2}ms") })
    })
    .await
}

/// `version`.
pub async fn version() -> Response {
    json_response(&Version::current())
}

/// `shutdown`: tells the daemon to end. The answer comes before it has.
pub async fn shutdown(State(daemon): State<Daemon>) -> Response {
    daemon.stop();
    json_response(&json!({}))
}
