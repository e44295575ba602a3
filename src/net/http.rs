//! Trustless gateways and delegated routing: blocks, and who has them, over HTTP.
//!
//! [`Gateways`] asks any number of gateways for blocks (`?format=raw`) and for whole DAGs (`?format=car`), as the trustless gateway
//! specification has them. Nothing is trusted: a block is hashed before anybody sees it, a CAR's blocks one by one as they arrive, and
//! those only that belong to the DAG that was asked for. What a gateway sends is bounded before it is buffered, and one that is
//! silent, slow, broken or lying is put aside with a back-off while others are asked. Redirects are followed within the
//! gateway's own origin only, so that an answer never comes from a host that nobody configured; `http://` is spoken only where
//! the configuration says `http://`.
//!
//! - [`endpoint`]: one gateway: its connections, what is asked of it, and how it does (`health`).
//! - [`car`]: a CAR as it arrives. `pace`: how slowly a body may come.
//! - [`routing`]: delegated routing.

mod car;
mod endpoint;
mod health;
mod pace;
pub mod routing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;

pub use self::car::{Announced, DagSummary};
use self::endpoint::Endpoint;
pub use self::health::HealthReport;
use super::caps::Caps;
use crate::block::{Block, BlockError, Cid};
use crate::limits::{
    GATEWAY_ATTEMPTS, GATEWAY_BODY_BYTES, GATEWAY_HEDGES, GATEWAY_URGENT_BODY_BYTES, GATEWAY_WAIT, MAX_BLOCK_BYTES,
};

/// Why a gateway cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum GatewayConfigError {
    /// The setting is no address of a gateway.
    #[error("{text:?} is not the address of a gateway: {why}; one is like https://trustless-gateway.link")]
    Url {
        /// What was configured.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system's certificates, or something else that HTTP needs, are not there.
    #[error("cannot speak HTTP: {0}")]
    Client(String),
}

/// Why a gateway did not send what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// It says that it has not the block, or cannot find it.
    #[error("has it not (HTTP {status})")]
    NotThere {
        /// The status of the answer.
        status: u16,
    },
    /// It refuses, or has a problem of its own.
    #[error("HTTP {status}")]
    Status {
        /// The status of the answer.
        status: u16,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It sends us elsewhere.
    #[error("redirects to another host ({to}), which is not followed")]
    Redirect {
        /// Where to.
        to: String,
    },
    /// It answers with something else than was asked for.
    #[error("answered with {found}, not with {wanted}")]
    ContentType {
        /// What it sent.
        found: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// It cannot be reached.
    #[error("cannot be reached: {0}")]
    Connect(String),
    /// It took too long to answer.
    #[error("no answer in {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer broke off, or stopped to come.
    #[error("the answer broke off after {bytes} bytes: {why}")]
    BrokeOff {
        /// How much had come.
        bytes: u64,
        /// How.
        why: String,
    },
    /// The answer is longer than a block may be.
    #[error("sends more than the {MAX_BLOCK_BYTES} bytes that a block may have")]
    TooLarge,
    /// The answer is not what was asked for.
    #[error("sent something else: {0}")]
    Wrong(String),
}

impl From<BlockError> for GatewayError {
    fn from(error: BlockError) -> GatewayError {
        match error {
            BlockError::TooLarge { .. } => GatewayError::TooLarge,
            error => GatewayError::Wrong(error.to_string()),
        }
    }
}

/// What all gateways together had to say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .asked.join(", "))]
pub struct NoGateway {
    /// Whether every one of them said that it has not the block.
    pub not_there: bool,
    /// What each said.
    pub asked: Vec<String>,
}

/// Who watches a request: it is told what arrives and what is said, and tells how much it is wanted.
pub trait Watch: Send + Sync {
    /// Bytes have arrived.
    fn progress(&self, bytes: usize);
    /// A gateway was asked, or has answered.
    fn note(&self, gateway: &str, said: String);
    /// This gateway has sent the block.
    fn brought_by(&self, gateway: &str);
    /// Whether a reader waits.
    fn is_urgent(&self) -> bool;
}

/// The gateways that are asked.
pub struct Gateways {
    endpoints: Vec<Arc<Endpoint>>,
    shared: Arc<Shared>,
}

/// What requests to all gateways share.
struct Shared {
    caps: Arc<Caps>,
    /// The memory of bodies that are on their way, and that of those a reader waits for.
    bodies: Semaphore,
    urgent_bodies: Semaphore,
}

/// What one permit of [`Shared::bodies`] stands for, in bytes.
const PERMIT_BYTES: usize = 1024;

impl Shared {
    /// Room for a body of so many bytes.
    async fn room(&self, bytes: usize, is_urgent: bool) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let bodies = if is_urgent { &self.urgent_bodies } else { &self.bodies };
        // The semaphores are never closed.
        bodies.acquire_many(bytes.div_ceil(PERMIT_BYTES).max(1) as u32).await.ok()
    }
}

impl Gateways {
    /// The gateways at these addresses.
    pub fn new(urls: &[String], caps: Arc<Caps>) -> Result<Gateways, GatewayConfigError> {
        let endpoints = urls.iter().map(|url| Endpoint::new(url).map(Arc::new)).collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            caps,
            bodies: Semaphore::new(GATEWAY_BODY_BYTES / PERMIT_BYTES),
            urgent_bodies: Semaphore::new(GATEWAY_URGENT_BODY_BYTES / PERMIT_BYTES),
        });
        Ok(Gateways { endpoints, shared })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether any of them may send CARs.
    pub fn send_cars(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.sends_cars())
    }

    /// How each gateway does.
    pub fn health(&self) -> Vec<HealthReport> {
        self.endpoints.iter().map(|endpoint| endpoint.report()).collect()
    }

    /// Brings a block from whichever gateway is first: the one that should be quickest, and another one when it takes longer than
    /// it usually does.
    pub async fn block(&self, cid: &Cid, watch: &dyn Watch) -> Result<Block, NoGateway> {
        let mut tries: Vec<Try> = self.endpoints.iter().map(|_| Try::default()).collect();
        let mut running = FuturesUnordered::new();
        let mut may_hedge = true;
        loop {
            if running.is_empty() || may_hedge && running.len() < GATEWAY_HEDGES {
                may_hedge = false;
                match self.pick(&tries) {
                    Pick::Now(at) => {
                        tries[at].running = true;
                        tries[at].count += 1;
                        let endpoint = self.endpoints[at].clone();
                        let hedge_after = endpoint.hedge_after();
                        let shared = &self.shared;
                        running.push(async move { (at, endpoint.block(cid, shared, watch).await) });
                        tries[at].hedge_at = Some(Instant::now() + hedge_after);
                    }
                    Pick::At(then) if running.is_empty() && then <= Instant::now() + GATEWAY_WAIT => {
                        tokio::time::sleep_until(then.into()).await;
                        continue;
                    }
                    Pick::At(_) | Pick::Nobody if running.is_empty() => return Err(self.nobody(&tries)),
                    Pick::At(_) | Pick::Nobody => {}
                }
            }
            // The next gateway is asked when all that were have taken longer than they usually do.
            let hedge_at = tries.iter().filter(|tried| tried.running).filter_map(|tried| tried.hedge_at).max();
            let hedge = async {
                match hedge_at.filter(|_| running_may_grow(&tries)) {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((at, result)) = running.next() => {
                    let asked = &mut tries[at];
                    asked.running = false;
                    asked.hedge_at = None;
                    match result {
                        Ok(block) => return Ok(block),
                        Err(error) => {
                            watch.note(self.endpoints[at].name(), error.to_string());
                            asked.is_over = !is_passing(&error) || asked.count >= GATEWAY_ATTEMPTS;
                            asked.error = Some(error);
                        }
                    }
                }
                () = hedge => {
                    may_hedge = true;
                    for tried in &mut tries {
                        tried.hedge_at = None;
                    }
                }
            }
        }
    }

    /// Brings what it can of the DAG below `root`, from the gateway that should be quickest. Each block is handed to `take` on a
    /// thread that may block; where that says that it has enough, it ends. `announced` knows at every moment which blocks are
    /// still to come.
    pub async fn dag(
        &self,
        root: &Cid,
        watch: &dyn Watch,
        announced: &Arc<Announced>,
        take: impl FnMut(Block, &str) -> bool + Send + 'static,
    ) -> Result<DagSummary, NoGateway> {
        let candidates = self.endpoints.iter().filter(|endpoint| endpoint.sends_cars() && endpoint.aside().is_none());
        let best = candidates.min_by(|one, other| one.score().total_cmp(&other.score())).cloned();
        let Some(endpoint) = best else {
            return Err(NoGateway { not_there: false, asked: vec!["no gateway sends whole DAGs now".into()] });
        };
        endpoint.dag(root, &self.shared, watch, announced, take).await.map_err(|error| {
            watch.note(endpoint.name(), error.to_string());
            NoGateway {
                not_there: matches!(error, GatewayError::NotThere { .. }),
                asked: vec![format!("{} {error}", endpoint.name())],
            }
        })
    }

    /// Who is asked next.
    fn pick(&self, tries: &[Try]) -> Pick {
        let open = || {
            let both = self.endpoints.iter().zip(tries).enumerate();
            both.filter(|(_, (_, tried))| !tried.running && !tried.is_over).map(|(at, (endpoint, _))| (at, endpoint))
        };
        let now = open().filter(|(_, endpoint)| endpoint.aside().is_none());
        if let Some((at, _)) = now.min_by(|(_, one), (_, other)| one.score().total_cmp(&other.score())) {
            return Pick::Now(at);
        }
        open().filter_map(|(_, endpoint)| endpoint.aside()).min().map_or(Pick::Nobody, Pick::At)
    }

    fn nobody(&self, tries: &[Try]) -> NoGateway {
        let said = self.endpoints.iter().zip(tries).map(|(endpoint, tried)| match (&tried.error, endpoint.aside()) {
            (Some(error), _) if tried.count > 1 => format!("{} {error} ({} times)", endpoint.name(), tried.count),
            (Some(error), _) => format!("{} {error}", endpoint.name()),
            (None, _) => format!("{} is put aside: {}", endpoint.name(), endpoint.last_error()),
        });
        let not_there = tries.iter().all(|tried| matches!(tried.error, Some(GatewayError::NotThere { .. })));
        NoGateway { not_there, asked: said.collect() }
    }
}

/// How asking one gateway for one block went so far.
#[derive(Default)]
struct Try {
    count: u32,
    running: bool,
    /// It need not be asked again.
    is_over: bool,
    hedge_at: Option<Instant>,
    error: Option<GatewayError>,
}

fn running_may_grow(tries: &[Try]) -> bool {
    let running = tries.iter().filter(|tried| tried.running).count();
    running < GATEWAY_HEDGES && tries.iter().any(|tried| !tried.running && !tried.is_over)
}

enum Pick {
    /// This one.
    Now(usize),
    /// All are put aside; the first until then.
    At(Instant),
    Nobody,
}

/// Whether the same gateway may do better the next time.
fn is_passing(error: &GatewayError) -> bool {
    match error {
        GatewayError::NotThere { .. }
        | GatewayError::Redirect { .. }
        | GatewayError::ContentType { .. }
        | GatewayError::TooLarge
        | GatewayError::Wrong(_) => false,
        GatewayError::Status { status, .. } => *status >= 500 || *status == 429 || *status == 408,
        GatewayError::Connect(_) | GatewayError::Silent(_) | GatewayError::BrokeOff { .. } => true,
    }
}
