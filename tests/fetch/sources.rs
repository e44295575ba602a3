//! What the tests of fetching share: a store in a temporary directory, and sources that behave as a test says.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::config::{FetchConfig, StoreConfig};
use cidfs::fetch::Fetch;
use cidfs::fetch::source::{Request, Source, SourceError};
use cidfs::store::Store;
use futures::FutureExt;
use futures::future::BoxFuture;

/// What a source does with a request.
pub type Answer = Pin<Box<dyn Future<Output = Result<Block, SourceError>> + Send>>;

/// A source that behaves as a test says.
pub struct Fake {
    name: String,
    head_start: Duration,
    answer: Box<dyn Fn(Request) -> Answer + Send + Sync>,
    /// When the session last got something.
    pub progress: Mutex<Option<Instant>>,
    pub asked: AtomicUsize,
    /// Requests that were dropped before they were answered.
    pub dropped: AtomicUsize,
    pub requests: Mutex<Vec<Request>>,
}

/// Counts what is dropped before it is disarmed.
struct Dropped<'a>(&'a AtomicUsize, bool);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(usize::from(!self.1), Ordering::SeqCst);
    }
}

impl Fake {
    pub fn new<F>(name: &str, answer: impl Fn(Request) -> F + Send + Sync + 'static) -> Fake
    where
        F: Future<Output = Result<Block, SourceError>> + Send + 'static,
    {
        Fake {
            name: name.into(),
            head_start: Duration::ZERO,
            answer: Box::new(move |request| answer(request).boxed()),
            progress: Mutex::default(),
            asked: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            requests: Mutex::default(),
        }
    }

    /// Has these blocks, and brings each after `delay`.
    pub fn having<'a>(name: &str, blocks: impl IntoIterator<Item = &'a Block>, delay: Duration) -> Fake {
        let blocks: HashMap<Cid, Block> =
            blocks.into_iter().map(|block| (block.cid().clone(), block.clone())).collect();
        Fake::new(name, move |request| {
            let block = blocks.get(&request.cid).cloned();
            async move {
                tokio::time::sleep(delay).await;
                block.ok_or_else(|| SourceError::NotThere("has it not".into()))
            }
        })
    }

    /// Never answers.
    pub fn silent(name: &str) -> Fake {
        Fake::new(name, |_| std::future::pending())
    }

    /// Always fails, at once.
    pub fn failing(name: &str) -> Fake {
        Fake::new(name, |_| async { Err(SourceError::Failed("broke off".into())) })
    }

    pub fn head_start(mut self, head_start: Duration) -> Fake {
        self.head_start = head_start;
        self
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

impl Source for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn head_start(&self) -> Duration {
        self.head_start
    }

    fn fetch(&self, request: Request) -> BoxFuture<'_, Result<Block, SourceError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.requests.lock().unwrap().push(request.clone());
        let answer = (self.answer)(request);
        async move {
            let mut guard = Dropped(&self.dropped, false);
            let result = answer.await;
            guard.1 = true;
            result
        }
        .boxed()
    }

    fn last_progress(&self, _: Option<&Cid>) -> Option<Instant> {
        *self.progress.lock().unwrap()
    }
}

/// A store of its own, and a fetch over it.
pub struct Local {
    pub store: Store,
    pub fetch: Fetch,
    pub directory: tempfile::TempDir,
}

impl Local {
    /// Reads wait `timeout` after their last progress. Call it in a runtime.
    pub fn new(timeout: Duration) -> Local {
        Local::with_store(timeout, &StoreConfig::default())
    }

    pub fn with_store(timeout: Duration, config: &StoreConfig) -> Local {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), config).unwrap();
        let config = FetchConfig { timeout, ..FetchConfig::default() };
        let fetch = Fetch::networked(store.clone(), &config, tokio::runtime::Handle::current()).unwrap();
        Local { store, fetch, directory }
    }

    pub fn with(self, source: Fake) -> (Local, Arc<Fake>) {
        let source = self.add(source);
        (self, source)
    }

    pub fn add(&self, source: Fake) -> Arc<Fake> {
        let source = Arc::new(source);
        let added: Arc<dyn Source> = source.clone();
        self.fetch.add_source(&added);
        source
    }
}

/// The leaf `number`.
pub fn leaf(number: u64) -> Block {
    sized(number, 100)
}

/// The leaf `number`, of so many bytes.
pub fn sized(number: u64, len: usize) -> Block {
    let mut data = vec![7; len];
    data[..8].copy_from_slice(&number.to_le_bytes());
    Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::from(data))
}

/// Waits until `is_so`, which an event elsewhere makes true soon.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
