//! Where blocks come from that are not on this machine: one trait, whatever is behind it.
//!
//! A [`Source`] brings one block, or says why it cannot. A lie is impossible: a [`Block`] exists only if its bytes hash to its
//! CID. Several sources are raced for each block: each starts when its head start is over (or when everybody before it has
//! given up), and the first block wins; the others are dropped, and a source that is dropped must stop what it does.
//!
//! A source that has nobody left to ask says so at once rather than wait: then others start early, and the reader learns it
//! soon. It never has a deadline of its own for the whole: who waits has one, counted from the last progress, so a source
//! tells of every piece that arrives ([`Request::progress`]), and of what it asked of whom ([`Request::note`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::Priority;
use super::recent::Log;
use crate::block::{Block, Cid};

/// Brings blocks from somewhere.
pub trait Source: Send + Sync + 'static {
    /// What people call it: `peers`, `gateways`.
    fn name(&self) -> &str;

    /// How long others have had nothing to show when this one is asked, too. The one with the shortest is asked at once.
    fn head_start(&self) -> Duration {
        Duration::ZERO
    }

    /// Brings a block. Dropped, it stops.
    fn fetch(&self, request: Request) -> BoxFuture<'_, Result<Block, SourceError>>;

    /// When something last arrived for the session of a root (or for no session), where the source knows it: blocks that
    /// come in one after the other keep those alive that wait behind them.
    fn last_progress(&self, _session: Option<&Cid>) -> Option<Instant> {
        None
    }

    /// Brings as much as it can of the DAG below the block `_root` in one go, where it has a way to: every block is handed to
    /// `take`, which may block. From now on until it ends, [`Source::fetch`] of a block that is on its way waits for it. `None`
    /// where it has no way.
    fn fetch_dag(
        self: Arc<Self>,
        _request: Request,
        _root: &Block,
        _take: Take,
    ) -> Option<BoxFuture<'static, Result<(), SourceError>>> {
        None
    }
}

/// Takes blocks that arrive unasked for, and who sent them, on a thread that may block. False where nobody wants more.
pub type Take = Arc<dyn Fn(Block, &str) -> bool + Send + Sync>;

/// Why a source did not bring a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Everybody who was asked has said that they have not the block, or there is nobody to ask.
    #[error("{0}")]
    NotThere(String),
    /// Somebody may have the block, and could not be asked, or broke off.
    #[error("{0}")]
    Failed(String),
}

/// A block that somebody waits for, as a source sees it. Clones are of the same request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The block.
    pub cid: Cid,
    /// The root that is being read: blocks of one root come from the same places.
    pub session: Option<Cid>,
    priority: watch::Receiver<Priority>,
    log: Arc<Log>,
    source: Arc<str>,
}

impl Request {
    pub(super) fn new(log: Arc<Log>, priority: watch::Receiver<Priority>, source: &str) -> Request {
        Request { cid: log.cid.clone(), session: log.session.clone(), priority, log, source: source.into() }
    }

    /// How much it is wanted now.
    pub fn priority(&self) -> Priority {
        *self.priority.borrow()
    }

    /// Returns when it is wanted more than the last time that this was asked of this clone, with how much.
    pub async fn raised(&mut self) -> Priority {
        match self.priority.changed().await {
            Ok(()) => *self.priority.borrow_and_update(),
            // Nobody waits any more: the request is about to be dropped.
            Err(_) => std::future::pending().await,
        }
    }

    /// So many bytes have arrived: whoever waits does so on.
    pub fn progress(&self, bytes: usize) {
        self.log.progress(bytes as u64);
    }

    /// Takes down what was asked of `whom`, or what `whom` answered, for `cidfs why`. Empty for the source itself.
    pub fn note(&self, whom: &str, said: impl Into<String>) {
        self.log.note(&self.source, whom, said.into());
    }

    /// Takes down who sent the block.
    pub fn brought_by(&self, whom: &str) {
        self.log.brought_by(&self.source, whom);
    }
}
