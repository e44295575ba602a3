//! `/api/v0/id`, `/api/v0/version`, `/api/v0/shutdown`: this cidfs itself.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;
use super::reply::{ApiError, blocking, json_response};
use crate::daemon::{Daemon, identity};

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

/// `id`: who this repository is. Without a network there are neither addresses nor protocols.
pub async fn id(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let identity = blocking(move || Ok(identity::load_or_make(daemon.repository().path())?)).await?;
    let encoding = query.text("peerid-base").unwrap_or("b58mh");
    let own = identity
        .peer_id(encoding)
        .ok_or_else(|| ApiError::new(format!("unknown peer ID encoding {encoding:?}: b58mh, k, or a multibase")))?;
    let same = |other: &String| other == &own || Some(other) == identity.peer_id("b58mh").as_ref();
    if query.arguments().first().is_some_and(|other| !same(other)) {
        return Err(ApiError::new("this release has no network: it can tell its own identity only"));
    }
    let key = multibase::Base::Base64Pad.encode(identity.public_key());
    Ok(json_response(&json!({
        "ID": own,
        "PublicKey": key,
        "Addresses": null,
        "AgentVersion": agent(),
        "Protocols": null,
    })))
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
