//! `bitswap/…`: what goes to and fro between this node and its peers, as kubo tells of it.

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::query::Query;
use super::reply::{ApiError, json_response};
use super::swarm;
use crate::block::Cid;
use crate::daemon::Daemon;

/// The answer of `bitswap/stat`. The last four fields are not kubo's.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Stat {
    /// Blocks that we wait for.
    pub wantlist: Vec<Value>,
    /// Peers that are connected.
    pub peers: Vec<String>,
    /// Blocks that came.
    pub blocks_received: u64,
    /// Their bytes.
    pub data_received: u64,
    /// Blocks that came twice.
    pub dup_blks_received: u64,
    /// Their bytes.
    pub dup_data_received: u64,
    /// Messages that came.
    pub messages_received: u64,
    /// Blocks that went out.
    pub blocks_sent: u64,
    /// Their bytes.
    pub data_sent: u64,
    /// Roots that are being read.
    #[serde(default)]
    pub sessions: u64,
    /// Blocks that were asked of a second peer, since the first took long.
    #[serde(default)]
    pub hedges: u64,
    /// Times that a peer was put aside for its silence.
    #[serde(default)]
    pub timeouts: u64,
    /// Things that peers sent and should not have.
    #[serde(default)]
    pub faults: u64,
}

fn links(cids: &[Cid]) -> Vec<Value> {
    cids.iter().map(|cid| json!({ "/": cid.to_string() })).collect()
}

/// `bitswap/stat`.
pub async fn stat(State(daemon): State<Daemon>) -> Result<Response, ApiError> {
    let stat = swarm::node(&daemon)?.bitswap().stat();
    let mut peers: Vec<String> = stat.peers.iter().map(ToString::to_string).collect();
    peers.sort();
    Ok(json_response(&Stat {
        wantlist: links(&stat.wantlist),
        peers,
        blocks_received: stat.received_blocks,
        data_received: stat.received_bytes,
        dup_blks_received: stat.duplicate_blocks,
        dup_data_received: stat.duplicate_bytes,
        messages_received: stat.received_messages,
        blocks_sent: stat.sent_blocks,
        data_sent: stat.sent_bytes,
        sessions: stat.sessions as u64,
        hedges: stat.hedges,
        timeouts: stat.timeouts,
        faults: stat.faults,
    }))
}

/// `bitswap/wantlist?peer=PEER`: what we want; with a peer, what it wants of us.
pub async fn wantlist(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let peer = query.text("peer").filter(|peer| !peer.is_empty()).map(swarm::peer).transpose()?;
    let peer = peer.filter(|peer| *peer != net.peer_id());
    Ok(json_response(&json!({ "Keys": links(&net.bitswap().wantlist(peer)) })))
}

/// The answer of `bitswap/ledger`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ledger {
    /// The peer.
    pub peer: String,
    /// What it got for each byte that it gave.
    pub value: f64,
    /// Bytes that it got.
    pub sent: u64,
    /// Bytes that it gave.
    pub recv: u64,
    /// Messages with answers that it got.
    pub exchanged: u64,
}

/// `bitswap/ledger?arg=PEER`.
pub async fn ledger(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let net = swarm::node(&daemon)?;
    let peer = swarm::peer(query.argument("peer")?)?;
    let known = net.bitswap().ledger(peer);
    let (sent, recv, exchanged) = known.map_or((0, 0, 0), |it| (it.sent_bytes, it.received_bytes, it.exchanged));
    let value = sent as f64 / (recv + 1) as f64;
    Ok(json_response(&Ledger { peer: peer.to_string(), value, sent, recv, exchanged }))
}
