//! `swarm/…`: the peers of the node, as kubo tells of them.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::query::Query;
use super::reply::{ApiError, json_response};
use crate::daemon::{Daemon, Role};
use crate::net::{Connection, Identified, Multiaddr, Net, PeerId, address};

/// The node of `daemon`, or why there is none.
pub(super) fn node(daemon: &Daemon) -> Result<Net, ApiError> {
    match daemon.net() {
        Some(net) => Ok(net.clone()),
        None if daemon.role() == Role::Verb => {
            Err(ApiError::new("this needs the network, which only a daemon has: start one with `cidfs daemon`"))
        }
        None => Err(ApiError::new("the network is off: the setting network.profile is offline")),
    }
}

/// A peer as people write it: `12D3Koo…`, `Qm…`, or a CID; `/p2p/…` before it is fine.
pub(super) fn peer(text: &str) -> Result<PeerId, ApiError> {
    let plain = text.trim_start_matches("/p2p/").trim_start_matches("/ipfs/");
    let from_cid = || PeerId::from_bytes(plain.parse::<crate::block::Cid>().ok()?.multihash()).ok();
    plain.parse().ok().or_else(from_cid).ok_or_else(|| ApiError::usage(format!("{text:?} is not a peer ID")))
}

fn multiaddr(text: &str) -> Result<Multiaddr, ApiError> {
    text.parse().map_err(|error| ApiError::usage(format!("{text:?} is not an address: {error}")))
}

/// The answer of `swarm/peers`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Peers {
    /// A line for each connection; `None` where there are none, as kubo has it.
    pub peers: Option<Vec<PeerLine>>,
}

/// One connection.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerLine {
    /// Where the peer is.
    pub addr: String,
    /// Who it is.
    pub peer: String,
    /// How long it took to answer last: `1.2ms`, or `n/a`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub latency: String,
    /// 1: it dialed us; 2: we dialed it; 0: not asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub direction: u8,
    /// What it told of itself; empty where that was not asked for.
    pub identify: Identity,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// Who a peer is: the answer of `id`, too.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Identity {
    /// The peer ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// The public key in base64.
    #[serde(rename = "PublicKey")]
    pub public_key: String,
    /// Where it can be reached.
    #[serde(rename = "Addresses")]
    pub addresses: Option<Vec<String>>,
    /// How it calls its program.
    #[serde(rename = "AgentVersion")]
    pub agent_version: String,
    /// What it speaks.
    #[serde(rename = "Protocols")]
    pub protocols: Option<Vec<String>>,
}

impl Identity {
    /// What a peer told of itself; `id` is its ID in the form that is wanted.
    pub fn of(peer: PeerId, id: String, told: &Identified) -> Identity {
        let mut protocols = told.protocols.clone();
        protocols.sort();
        Identity {
            id,
            public_key: multibase::Base::Base64Pad.encode(&told.public_key),
            addresses: Some(told.addresses.iter().map(|it| address::join(it, peer).to_string()).collect()),
            agent_version: told.agent.clone(),
            protocols: Some(protocols),
        }
    }
}

/// `swarm/peers?verbose=BOOL&latency=BOOL&direction=BOOL&identify=BOOL`.
pub async fn peers(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let all = query.flag("verbose", false)?;
    let latency = all || query.flag("latency", false)?;
    let direction = all || query.flag("direction", false)?;
    let identify = all || query.flag("identify", false)?;
    let line = |connection: Connection| PeerLine {
        addr: connection.address.to_string(),
        peer: connection.peer.to_string(),
        latency: match (latency, connection.latency) {
            (false, _) => String::new(),
            (true, None) => "n/a".into(),
            (true, Some(latency)) => format!("{latency:.3?}"),
        },
        direction: if direction { 2 - u8::from(connection.is_inbound) } else { 0 },
        identify: match &connection.identified {
            Some(told) if identify => Identity::of(connection.peer, connection.peer.to_string(), told),
            _ => Identity::default(),
        },
    };
    let mut lines: Vec<PeerLine> = node(&daemon)?.connections().await?.into_iter().map(line).collect();
    lines.sort_by(|one, other| (&one.peer, &one.addr).cmp(&(&other.peer, &other.addr)));
    Ok(json_response(&Peers { peers: Some(lines).filter(|lines| !lines.is_empty()) }))
}

/// Sentences, as several calls answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sentences {
    /// One for each thing that was done.
    pub strings: Vec<String>,
}

/// `swarm/connect?arg=ADDRESS…`.
pub async fn connect(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = node(&daemon)?;
    let mut strings = Vec::new();
    for text in query.some_arguments("address")? {
        let address = multiaddr(text)?;
        if address::split(&address).0.is_none() {
            return Err(ApiError::usage(format!("{text} does not end in /p2p/PEER")));
        }
        let peer = net.connect(&address).await?;
        strings.push(format!("connect {peer} success"));
    }
    Ok(json_response(&Sentences { strings }))
}

/// `swarm/disconnect?arg=ADDRESS…`.
pub async fn disconnect(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = node(&daemon)?;
    let mut strings = Vec::new();
    for text in query.some_arguments("address")? {
        let peer = match text.parse::<Multiaddr>() {
            Ok(address) => address::split(&address).0,
            Err(_) => None,
        };
        let peer = peer.map_or_else(|| self::peer(text), Ok)?;
        net.disconnect(peer).await?;
        strings.push(format!("disconnect {peer} success"));
    }
    Ok(json_response(&Sentences { strings }))
}

/// `swarm/addrs`: every peer whose addresses are known.
pub async fn addrs(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    let all = node(&daemon)?.addresses().await?;
    let texts = |addresses: Vec<Multiaddr>| addresses.iter().map(ToString::to_string).collect();
    let all: std::collections::BTreeMap<String, Vec<String>> =
        all.into_iter().map(|(peer, addresses)| (peer.to_string(), texts(addresses))).collect();
    Ok(json_response(&json!({ "Addrs": all })))
}

/// `swarm/addrs/local?id=BOOL`: what we tell others.
pub async fn addrs_local(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = node(&daemon)?;
    let own = net.own().await?.addresses;
    let with_id = query.flag("id", false)?;
    let text = |it: &Multiaddr| if with_id { address::join(it, net.peer_id()).to_string() } else { it.to_string() };
    Ok(json_response(&Sentences { strings: own.iter().map(text).collect() }))
}

/// `swarm/addrs/listen`: what we listen on.
pub async fn addrs_listen(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    let strings = node(&daemon)?.listening().await?.iter().map(ToString::to_string).collect();
    Ok(json_response(&Sentences { strings }))
}

/// What became of a peer that we shall stay connected to.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PeeringLine {
    /// The peer.
    #[serde(rename = "ID")]
    pub id: String,
    /// `success`.
    #[serde(rename = "Status")]
    pub status: String,
}

fn lines(lines: &[PeeringLine]) -> Response {
    use axum::response::IntoResponse;
    let text: String = lines.iter().map(|line| json!(line).to_string() + "\n").collect();
    ([(axum::http::header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// `swarm/peering/add?arg=ADDRESS…`: until the daemon ends; the setting `network.peering` is for ever.
pub async fn peering_add(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = node(&daemon)?;
    let mut done = Vec::new();
    for text in query.some_arguments("address")? {
        let id = net.peering_add(&multiaddr(text)?).await?.to_string();
        done.push(PeeringLine { id, status: "success".into() });
    }
    Ok(lines(&done))
}

/// `swarm/peering/rm?arg=PEER…`.
pub async fn peering_rm(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = node(&daemon)?;
    let mut done = Vec::new();
    for text in query.some_arguments("ID")? {
        let peer = peer(text)?;
        net.peering_remove(peer).await?;
        done.push(PeeringLine { id: peer.to_string(), status: "success".into() });
    }
    Ok(lines(&done))
}

/// `swarm/peering/ls`.
pub async fn peering_ls(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    let peers: Vec<_> = node(&daemon)?
        .peering()
        .await?
        .into_iter()
        .map(|provider| {
            let addresses: Vec<String> = provider.addresses.iter().map(ToString::to_string).collect();
            json!({ "ID": provider.peer.to_string(), "Addrs": addresses })
        })
        .collect();
    Ok(json_response(&json!({ "Peers": peers })))
}
