//! Trustless gateways as a source of blocks.
//!
//! Blocks come one by one. A walk of a whole DAG may ask for all of it in one request ([`Source::fetch_dag`]): then a block that is
//! announced in the CAR under way is not asked for a second time, as long as the CAR moves on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use lru::LruCache;
use parking_lot::Mutex;

use super::Priority;
use super::source::{Request, Source, SourceError, Take};
use crate::block::{Block, Cid};
use crate::limits::MAX_FETCH_SESSIONS;
use crate::net::http::{Announced, Gateways, HealthReport, NoGateway, Watch};

/// The name of the source.
pub const NAME: &str = "gateways";

/// Gateways as a source.
pub struct GatewaySource {
    gateways: Gateways,
    head_start: Duration,
    /// CARs under way.
    cars: Mutex<Vec<Arc<Announced>>>,
    progress: Mutex<LruCache<Cid, Instant>>,
}

impl GatewaySource {
    /// These gateways, which are asked when others have had `head_start`.
    pub fn new(gateways: Gateways, head_start: Duration) -> GatewaySource {
        GatewaySource {
            gateways,
            head_start,
            cars: Mutex::default(),
            progress: Mutex::new(LruCache::new(MAX_FETCH_SESSIONS)),
        }
    }

    /// How each gateway does.
    pub fn health(&self) -> Vec<HealthReport> {
        self.gateways.health()
    }

    /// Waits while `cid` is on its way in a CAR.
    async fn while_coming(&self, request: &Request) {
        let coming = || self.cars.lock().iter().find(|car| car.is_coming(&request.cid)).cloned();
        let mut car = coming();
        if car.is_some() {
            request.note("", "waiting: it is on its way in a CAR");
        }
        while let Some(under_way) = car {
            // Where it comes, this is dropped.
            under_way.while_coming(&request.cid).await;
            car = coming();
        }
        // Where it has come just now, this ends here, before anybody is asked.
        tokio::task::yield_now().await;
    }
}

/// A request, as the gateways see it.
struct Watched<'a> {
    request: &'a Request,
    source: &'a GatewaySource,
}

impl Watch for Watched<'_> {
    fn progress(&self, bytes: usize) {
        self.request.progress(bytes);
        if let Some(session) = &self.request.session {
            let mut progress = self.source.progress.lock();
            match progress.get_mut(session) {
                Some(at) => *at = Instant::now(),
                None => drop(progress.put(session.clone(), Instant::now())),
            }
        }
    }

    fn note(&self, gateway: &str, said: String) {
        self.request.note(gateway, said);
    }

    fn brought_by(&self, gateway: &str) {
        self.request.brought_by(gateway);
    }

    fn is_urgent(&self) -> bool {
        self.request.priority() == Priority::Demand
    }
}

/// Ends a CAR also where who wanted it has gone.
struct UnderWay {
    source: Arc<GatewaySource>,
    announced: Arc<Announced>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.announced.end();
        self.source.cars.lock().retain(|car| !Arc::ptr_eq(car, &self.announced));
    }
}

fn error_of(error: &NoGateway) -> SourceError {
    let text = error.to_string();
    if error.not_there { SourceError::NotThere(text) } else { SourceError::Failed(text) }
}

impl Source for GatewaySource {
    fn name(&self) -> &str {
        NAME
    }

    fn head_start(&self) -> Duration {
        self.head_start
    }

    fn fetch(&self, request: Request) -> BoxFuture<'_, Result<Block, SourceError>> {
        async move {
            self.while_coming(&request).await;
            let watched = Watched { request: &request, source: self };
            self.gateways.block(&request.cid, &watched).await.map_err(|error| error_of(&error))
        }
        .boxed()
    }

    fn last_progress(&self, session: Option<&Cid>) -> Option<Instant> {
        self.progress.lock().peek(session?).copied()
    }

    fn fetch_dag(
        self: Arc<Self>,
        request: Request,
        root: &Block,
        take: Take,
    ) -> Option<BoxFuture<'static, Result<(), SourceError>>> {
        if !self.gateways.send_cars() {
            return None;
        }
        let announced = Announced::new(root);
        self.cars.lock().push(announced.clone());
        let under_way = UnderWay { source: self.clone(), announced };
        Some(
            async move {
                let watched = Watched { request: &request, source: &self };
                let take = move |block, gateway: &str| take(block, &format!("{NAME} {gateway}"));
                let dag = self.gateways.dag(&request.cid, &watched, &under_way.announced, take).await;
                dag.map(drop).map_err(|error| error_of(&error))
            }
            .boxed(),
        )
    }
}
