//! One gateway: its connections, what is asked of it, and how it does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::car::{Announced, DagSummary, receive};
use super::health::{Health, HealthReport};
use super::pace::{Pace, innermost};
use super::{GatewayConfigError, GatewayError, Shared, Watch};
use crate::block::{Block, Cid};
use crate::limits::{
    GATEWAY_ANSWER, GATEWAY_CONNECT, GATEWAY_EARLY_REQUESTS, GATEWAY_REDIRECTS, GATEWAY_REQUESTS, MAX_BLOCK_BYTES,
};

/// From this length on a block is hashed on a thread that may block: it takes longer than handing it over.
const LONG_TO_HASH: usize = 128 * 1024;
/// How long a request that nobody waits for yet waits in one go, before it looks whether somebody does now.
const LOOK_UP: Duration = Duration::from_millis(50);

/// One gateway.
pub(super) struct Endpoint {
    base: Url,
    name: String,
    client: Client,
    health: Mutex<Health>,
    requests: Semaphore,
    early: Semaphore,
}

/// A request to one gateway that counts as under way.
struct Counted<'a>(&'a Endpoint);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.health.lock().ended();
    }
}

/// A turn among the requests to one gateway, until it is dropped.
type Turn<'a> = (Counted<'a>, Option<SemaphorePermit<'a>>, Option<SemaphorePermit<'a>>);

impl Endpoint {
    pub fn new(text: &str) -> Result<Endpoint, GatewayConfigError> {
        let base = parse(text)?;
        Ok(Endpoint {
            name: base.as_str().trim_end_matches('/').to_owned(),
            client: client(&base)?,
            base,
            health: Mutex::default(),
            requests: Semaphore::new(GATEWAY_REQUESTS),
            early: Semaphore::new(GATEWAY_EARLY_REQUESTS),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn aside(&self) -> Option<Instant> {
        self.health.lock().aside()
    }

    pub fn score(&self) -> f64 {
        self.health.lock().score()
    }

    pub fn hedge_after(&self) -> Duration {
        self.health.lock().hedge_after()
    }

    pub fn last_error(&self) -> String {
        self.health.lock().last_error().to_owned()
    }

    pub fn sends_cars(&self) -> bool {
        !self.health.lock().no_cars
    }

    pub fn report(&self) -> HealthReport {
        self.health.lock().report(&self.name)
    }

    /// A block.
    pub async fn block(&self, cid: &Cid, shared: &Shared, watch: &dyn Watch) -> Result<Block, GatewayError> {
        let _turn = self.turn(watch).await;
        watch.note(&self.name, "asked".into());
        let began = Instant::now();
        let result = self.raw(cid, shared, watch).await;
        self.judge(began, result.as_ref().err());
        let block = result?;
        self.health.lock().brought(block.data().len());
        let milliseconds = began.elapsed().as_millis();
        watch.note(&self.name, format!("sent {} bytes in {milliseconds} ms", block.data().len()));
        watch.brought_by(&self.name);
        Ok(block)
    }

    async fn raw(&self, cid: &Cid, shared: &Shared, watch: &dyn Watch) -> Result<Block, GatewayError> {
        let response = self.ask(cid, "format=raw", RAW).await?;
        let length = response.content_length();
        if length.is_some_and(|length| length > MAX_BLOCK_BYTES as u64) {
            return Err(GatewayError::TooLarge);
        }
        let length = length.map_or(MAX_BLOCK_BYTES, |length| length as usize);
        let _room = shared.room(length, watch.is_urgent()).await;
        let mut body = Pace::new(response);
        let mut data = BytesMut::new();
        while let Some(piece) = body.next().await? {
            if data.len() + piece.len() > MAX_BLOCK_BYTES {
                return Err(GatewayError::TooLarge);
            }
            if data.is_empty() {
                data.reserve(length.max(piece.len()));
            }
            data.extend_from_slice(&piece);
            watch.progress(piece.len());
            shared.caps.down.take(piece.len() as u64).await;
        }
        verify(cid, data.freeze()).await
    }

    /// What can be had of the DAG below `root`.
    pub async fn dag(
        &self,
        root: &Cid,
        shared: &Shared,
        watch: &dyn Watch,
        announced: &Arc<Announced>,
        mut take: impl FnMut(Block, &str) -> bool + Send + 'static,
    ) -> Result<DagSummary, GatewayError> {
        let _turn = self.turn(watch).await;
        watch.note(&self.name, "asked for the whole DAG".into());
        let began = Instant::now();
        let name = self.name.clone();
        let received = async {
            let response = self.ask(root, "format=car&dag-scope=all&car-order=dfs&car-dups=n", CAR).await;
            let response = response.inspect_err(|error| {
                // What it refuses now it refuses the next time; blocks it may have.
                if matches!(error, GatewayError::Status { status: 400..500, .. } | GatewayError::ContentType { .. }) {
                    self.health.lock().no_cars = true;
                }
            })?;
            receive(response, &shared.caps, watch, announced, move |block| take(block, &name)).await
        };
        let (summary, error) = match received.await {
            Ok((summary, error)) => (summary, error),
            Err(error) => (DagSummary::default(), Some(error)),
        };
        let refuses = self.health.lock().no_cars;
        if !refuses {
            self.judge(began, error.as_ref());
        }
        let milliseconds = began.elapsed().as_millis();
        watch.note(&self.name, format!("sent {} blocks, {} bytes in {milliseconds} ms", summary.blocks, summary.bytes));
        match error {
            Some(error) if summary.blocks == 0 => Err(error),
            error => Ok(DagSummary { broke_off: error.map(|error| error.to_string()), ..summary }),
        }
    }

    /// Waits for its turn.
    async fn turn(&self, watch: &dyn Watch) -> Turn<'_> {
        self.health.lock().began();
        let counted = Counted(self);
        let mut early = None;
        while !watch.is_urgent() && early.is_none() {
            early = tokio::time::timeout(LOOK_UP, self.early.acquire()).await.ok().and_then(Result::ok);
        }
        // The semaphores are never closed.
        (counted, early, self.requests.acquire().await.ok())
    }

    /// The head of a good answer.
    async fn ask(&self, cid: &Cid, query: &str, accept: Accept) -> Result<Response, GatewayError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/ipfs/{cid}", self.base.path().trim_end_matches('/')));
        url.set_query(Some(query));
        let began = Instant::now();
        let request = self.client.get(url).header(ACCEPT, accept.header).send();
        let response = match tokio::time::timeout(GATEWAY_ANSWER, request).await {
            Err(_) => return Err(GatewayError::Silent(GATEWAY_ANSWER)),
            Ok(Err(error)) if error.is_connect() => return Err(GatewayError::Connect(innermost(&error))),
            Ok(Err(error)) => return Err(GatewayError::BrokeOff { bytes: 0, why: innermost(&error) }),
            Ok(Ok(response)) => response,
        };
        self.health.lock().answered(began.elapsed());
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match status {
            200 => {}
            300..400 => return Err(GatewayError::Redirect { to: header(LOCATION).unwrap_or("nowhere").to_owned() }),
            // 504 is how a gateway says that nobody whom it has asked has the block.
            404 | 410 | 451 | 504 => return Err(GatewayError::NotThere { status }),
            _ => {
                let retry_after = header(RETRY_AFTER).and_then(|text| text.parse().ok()).map(Duration::from_secs);
                return Err(GatewayError::Status { status, retry_after });
            }
        }
        let found = header(CONTENT_TYPE).unwrap_or_default();
        let kind = found.split(';').next().unwrap_or_default().trim();
        if !accept.takes.contains(&kind) {
            return Err(GatewayError::ContentType { found: found.to_owned(), wanted: accept.takes[0] });
        }
        Ok(response)
    }

    /// Takes note of how a request went.
    fn judge(&self, began: Instant, error: Option<&GatewayError>) {
        let mut health = self.health.lock();
        let Some(error) = error else { return };
        match error {
            GatewayError::NotThere { .. } => health.is_well(),
            GatewayError::Status { retry_after, .. } => health.failed(began, 1, *retry_after, error.to_string()),
            // It is broken or lies: there is little hope that it does better soon.
            GatewayError::Wrong(_) | GatewayError::TooLarge | GatewayError::Redirect { .. } => {
                health.failed(began, 4, None, error.to_string());
            }
            _ => health.failed(began, 1, None, error.to_string()),
        }
    }
}

/// What is asked for, and what is taken for it.
struct Accept {
    header: &'static str,
    takes: &'static [&'static str],
}

const RAW: Accept = Accept {
    header: "application/vnd.ipld.raw",
    // Plain file servers and some gateways say no more than that it is bytes.
    takes: &["application/vnd.ipld.raw", "application/octet-stream", ""],
};

const CAR: Accept =
    Accept { header: "application/vnd.ipld.car; version=1; order=dfs; dups=n", takes: &["application/vnd.ipld.car"] };

/// The block, hashed where it harms nobody.
async fn verify(cid: &Cid, data: Bytes) -> Result<Block, GatewayError> {
    if data.len() < LONG_TO_HASH {
        return Ok(Block::verify(cid.clone(), data)?);
    }
    let cid = cid.clone();
    match tokio::task::spawn_blocking(move || Block::verify(cid, data)).await {
        Ok(verified) => Ok(verified?),
        Err(error) => Err(GatewayError::BrokeOff { bytes: 0, why: error.to_string() }),
    }
}

/// An address of the configuration.
pub(super) fn parse(text: &str) -> Result<Url, GatewayConfigError> {
    let wrong = |why: &str| GatewayConfigError::Url { text: text.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it takes http:// or https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or a fragment"));
    }
    Ok(url)
}

/// A client for one host: it follows redirects within the host's origin, and to nowhere else.
pub(super) fn client(base: &Url) -> Result<Client, GatewayConfigError> {
    let origin = base.origin();
    let policy = Policy::custom(move |attempt| {
        if attempt.previous().len() > GATEWAY_REDIRECTS || attempt.url().origin() != origin {
            attempt.stop()
        } else {
            attempt.follow()
        }
    });
    let mut builder = Client::builder()
        .user_agent(concat!("cidfs/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(GATEWAY_CONNECT)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(GATEWAY_REQUESTS)
        .redirect(policy);
    let is_here = match base.host() {
        Some(url_host) => is_loopback(&url_host.to_string()),
        None => false,
    };
    if is_here {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| GatewayConfigError::Client(innermost(&error)))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_http_hosts() {
        for good in ["https://a.example", "http://127.0.0.1:8080", "https://a.example/gateway/", "http://[::1]:1/"] {
            parse(good).unwrap();
        }
        for bad in ["", "a.example", "ftp://a.example", "file:///etc/passwd", "https://", "https://a/?x", "http://a/#x"]
        {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("is not the address of a gateway"), "{bad}: {error}");
        }
        assert!(
            is_loopback("127.0.0.1") && is_loopback("[::1]") && is_loopback("localhost") && !is_loopback("a.example")
        );
    }
}
