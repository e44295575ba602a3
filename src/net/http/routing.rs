//! Delegated routing: asking a server who has a block, instead of asking the network oneself.
//!
//! `GET /routing/v1/providers/{cid}` as the HTTP routing specification has it, with the filters of IPIP-484: only providers that
//! speak a protocol of ours are asked for. A server that streams (NDJSON) is read as it goes, one that answers with one JSON object at
//! its end. All servers are asked side by side. An answer is a hint and nothing more: it is bounded, a record that cannot be read
//! is passed over, and what a provider sends is hashed like everything else.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::BytesMut;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::endpoint::{client, parse};
use super::pace::{Pace, innermost};
use super::{GatewayConfigError, GatewayError};
use crate::block::Cid;
use crate::limits::{
    GATEWAY_ANSWER, MAX_ROUTED_PROVIDERS, MAX_ROUTING_BYTES, MAX_ROUTING_RECORD_BYTES, ROUTING_ANSWER,
};
use crate::net;

/// What is asked for: providers that peers of ours can talk to.
const FILTER: &str = "filter-protocols=unknown,transport-bitswap";

/// Somebody who has a block, as a router says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The peer's ID, as text.
    pub peer: String,
    /// Its addresses, as text; maybe none.
    pub addresses: Vec<String>,
    /// The protocols that it is said to speak; maybe none.
    pub protocols: Vec<String>,
}

/// The routers that are asked. Cheap to clone.
#[derive(Clone)]
pub struct Routers(Arc<Vec<Router>>);

struct Router {
    base: Url,
    name: String,
    client: Client,
}

impl Routers {
    /// The routers at these addresses.
    pub fn new(urls: &[String]) -> Result<Routers, GatewayConfigError> {
        let router = |text: &String| {
            let base = parse(text)?;
            Ok(Router { client: client(&base)?, name: base.as_str().trim_end_matches('/').to_owned(), base })
        };
        Ok(Routers(Arc::new(urls.iter().map(router).collect::<Result<_, _>>()?)))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has `cid`, as the routers answer; each provider once for each router that names it. A router that fails is logged
    /// and left out. Dropped, it stops.
    pub fn providers(&self, cid: &Cid) -> impl Stream<Item = Provider> + Send + 'static {
        let streams = (0..self.0.len()).map(|at| {
            let (sender, receiver) = mpsc::channel(16);
            let (routers, cid) = (self.clone(), cid.clone());
            let asking = async move {
                let router = &routers.0[at];
                let answer = tokio::time::timeout(ROUTING_ANSWER, router.ask(&cid, &sender)).await;
                match answer {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(router = router.name, %cid, %error, "no answer from a router"),
                    Err(_) => tracing::debug!(router = router.name, %cid, "a router took too long"),
                }
            };
            // The answer is read as far as somebody reads its providers.
            let asking = stream::once(asking).filter_map(|()| std::future::ready(None));
            let providers = stream::unfold(receiver, |mut receiver| async move {
                receiver.recv().await.map(|provider| (provider, receiver))
            });
            stream::select(asking.boxed(), providers.boxed())
        });
        stream::select_all(streams)
    }
}

impl net::Router for Routers {
    fn name(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|router| router.name.as_str()).collect();
        names.join(", ")
    }

    fn find_providers(&self, cid: &Cid) -> BoxStream<'static, net::Provider> {
        let provider = |provider: Provider| async move {
            let peer = provider.peer.parse().ok()?;
            let addresses = provider.addresses.iter().filter_map(|address| address.parse().ok()).collect();
            Some(net::Provider { peer, addresses })
        };
        self.providers(cid).filter_map(provider).boxed()
    }
}

impl Router {
    async fn ask(&self, cid: &Cid, providers: &mpsc::Sender<Provider>) -> Result<(), GatewayError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/routing/v1/providers/{cid}", self.base.path().trim_end_matches('/')));
        url.set_query(Some(FILTER));
        let request = self.client.get(url).header(ACCEPT, "application/x-ndjson, application/json;q=0.9").send();
        let response = match tokio::time::timeout(GATEWAY_ANSWER, request).await {
            Err(_) => return Err(GatewayError::Silent(GATEWAY_ANSWER)),
            Ok(Err(error)) => return Err(GatewayError::Connect(innermost(&error))),
            Ok(Ok(response)) => response,
        };
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(()),
            status => return Err(GatewayError::Status { status, retry_after: None }),
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        match kind.as_str() {
            "application/x-ndjson" => read_lines(response, providers).await,
            "application/json" => read_whole(response, providers).await,
            _ => Err(GatewayError::ContentType { found: kind, wanted: "application/x-ndjson" }),
        }
    }
}

async fn read_lines(response: Response, providers: &mpsc::Sender<Provider>) -> Result<(), GatewayError> {
    let mut body = Pace::new(response);
    let mut pending = BytesMut::new();
    let mut sent = Sent::default();
    loop {
        let piece = body.next().await?;
        let is_end = piece.is_none();
        pending.extend_from_slice(&piece.unwrap_or_default());
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1);
            if !sent.send(provider_of(&line), providers).await {
                return Ok(());
            }
        }
        if is_end {
            sent.send(provider_of(&pending), providers).await;
            return Ok(());
        }
        if pending.len() > MAX_ROUTING_RECORD_BYTES || body.bytes() > MAX_ROUTING_BYTES as u64 {
            return Err(body.broke_off("it is longer than any honest answer"));
        }
    }
}

async fn read_whole(response: Response, providers: &mpsc::Sender<Provider>) -> Result<(), GatewayError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        providers: Option<Vec<serde_json::Value>>,
    }
    let mut body = Pace::new(response);
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await? {
        whole.extend_from_slice(&piece);
        if whole.len() > MAX_ROUTING_BYTES {
            return Err(body.broke_off("it is longer than any honest answer"));
        }
    }
    let answer: Answer = serde_json::from_slice(&whole).map_err(|error| GatewayError::Wrong(error.to_string()))?;
    let mut sent = Sent::default();
    for record in answer.providers.unwrap_or_default() {
        if !sent.send(provider(record), providers).await {
            break;
        }
    }
    Ok(())
}

/// The peers that were handed on.
#[derive(Default)]
struct Sent(HashSet<String>);

impl Sent {
    /// Hands a provider on, where it is one and new; false where no more are wanted.
    async fn send(&mut self, provider: Option<Provider>, providers: &mpsc::Sender<Provider>) -> bool {
        let Some(provider) = provider else { return true };
        if !self.0.insert(provider.peer.clone()) {
            return true;
        }
        providers.send(provider).await.is_ok() && self.0.len() < MAX_ROUTED_PROVIDERS
    }
}

fn provider_of(line: &[u8]) -> Option<Provider> {
    provider(serde_json::from_slice(line.trim_ascii()).ok()?)
}

/// The provider that a record names: of the schema `peer`, or of its elder `bitswap`.
fn provider(record: serde_json::Value) -> Option<Provider> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Record {
        schema: String,
        #[serde(rename = "ID")]
        id: Option<String>,
        #[serde(default)]
        addrs: Option<Vec<String>>,
        #[serde(default)]
        protocols: Option<Vec<String>>,
        protocol: Option<String>,
    }
    let record: Record = serde_json::from_value(record).ok()?;
    if !matches!(record.schema.as_str(), "peer" | "bitswap") {
        return None;
    }
    let mut protocols = record.protocols.unwrap_or_default();
    protocols.extend(record.protocol);
    Some(Provider { peer: record.id?, addresses: record.addrs.unwrap_or_default(), protocols })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemas_are_read_and_anything_else_is_passed_over() {
        let line =
            br#"{"Schema":"peer","ID":"12D3KooW","Addrs":["/ip4/1.2.3.4/tcp/4001"],"Protocols":["transport-bitswap"]}"#;
        let expected = Provider {
            peer: "12D3KooW".into(),
            addresses: vec!["/ip4/1.2.3.4/tcp/4001".into()],
            protocols: vec!["transport-bitswap".into()],
        };
        assert_eq!(provider_of(line), Some(expected));
        let old = br#"{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"Qm","Addrs":null}"#;
        assert_eq!(provider_of(old).unwrap().protocols, ["transport-bitswap"]);
        for none in [&b""[..], b"{}", b"[1]", br#"{"Schema":"ipns","ID":"x"}"#, br#"{"Schema":"peer"}"#, b"\xff"] {
            assert_eq!(provider_of(none), None);
        }
    }
}
