//! One way to a block: `get` by CID, wherever the block is.
//!
//! Identity CIDs carry their block; the store has the blocks of this machine; what it has not is fetched from [sources](source)
//! (peers, gateways), once for all who wait for it ([`flight`]), and kept for those who will. What is nowhere is an error that
//! says what was tried. A `get` is ready at its first poll where the block is on this machine, and then needs no runtime.
//!
//! A [`Fetch`] may be bound to the root that is being read ([`Fetch::session`]): blocks of one root come from the same places and
//! lie together in the store. Every read waits `fetch.timeout` after its last progress at most.
//!
//! - [`source`]: what blocks come from. [`flight`], `places`, `failures`, `keep`, `recent`: fetches on their way, how many run at
//!   once, what failed lately, what is written behind the readers' backs, what `cidfs why` tells.
//! - [`walk`]: every block of a DAG, once; [`depth`]: how much of it; `ahead`: what it will come to. [`bring`]: all of that, from
//!   wherever it is.
//! - [`pin`]: pins of whole DAGs, and whether they are still whole.
//! - [`car`]: DAGs to and from CARs.
//! - [`stat`] and [`refs`]: the sizes of DAGs, and their links as a list.

mod ahead;
pub mod bring;
pub mod car;
pub mod depth;
mod failures;
mod flight;
pub mod gateways;
mod keep;
pub mod peers;
pub mod pin;
mod places;
mod recent;
pub mod refs;
pub mod source;
pub mod stat;
pub mod walk;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;

use self::flight::{Bulk, Flights, Waiter};
pub use self::recent::{FetchReport, NoteReport};
use self::source::Source;
use crate::block::{Block, Cid};
use crate::config::FetchConfig;
use crate::store::{BlockPart, Store, StoreError};

/// Why a block could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody who was asked has the block, or has sent it in time.
    #[error("block {cid} is not here, and {tried}")]
    NotFound {
        /// The block.
        cid: Cid,
        /// What was tried, for people.
        tried: String,
    },
    /// The store failed.
    #[error("cannot read block {cid}")]
    Store {
        /// The block.
        cid: Cid,
        /// What the store said.
        source: StoreError,
    },
}

/// Who waits for a block: what is wanted more goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody yet.
    Background,
    /// A reader will, soon.
    ReadAhead,
    /// A reader does.
    Demand,
}

impl Priority {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Priority::Background => "background",
            Priority::ReadAhead => "read-ahead",
            Priority::Demand => "demand",
        }
    }
}

/// Fetches blocks. Cheap to clone.
#[derive(Clone)]
pub struct Fetch {
    store: Store,
    /// `None` where this machine alone is asked.
    flights: Option<Arc<Flights>>,
    session: Option<Cid>,
    timeout: Duration,
    /// Whether what is fetched is kept, or the caller keeps it.
    keeps: bool,
    /// Why there is nobody to ask, where there is nobody.
    alone: &'static str,
}

/// Why there is nobody to ask, where nobody said otherwise.
const OFF: &str = "there is nobody to ask: the network is off";

/// What was fetched since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchStat {
    /// Fetches that run, and that wait for their turn.
    pub in_flight: (u64, u64),
    /// Fetches that were begun.
    pub begun: u64,
    /// Requests that joined a fetch that was under way.
    pub joined: u64,
    /// Fetches that brought nothing.
    pub failed: u64,
    /// Fetches that were given up, since nobody wanted the block any more.
    pub dropped: u64,
    /// Requests for a block that had just failed.
    pub refused: u64,
    /// Blocks and bytes that came in, by whoever sent them, most first.
    pub brought: Vec<(String, u64, u64)>,
}

impl Fetch {
    /// Fetches from `store`, and from nowhere else.
    pub fn new(store: Store) -> Fetch {
        Fetch { store, flights: None, session: None, timeout: FetchConfig::default().timeout, keeps: true, alone: OFF }
    }

    /// Fetches from `store`, and from the sources that are [added](Fetch::add_source). Fetches run on `runtime`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn networked(store: Store, config: &FetchConfig, runtime: Handle) -> std::io::Result<Fetch> {
        let flights = Some(Flights::new(store.clone(), runtime)?);
        Ok(Fetch { store, flights, session: None, timeout: config.timeout, keeps: true, alone: OFF })
    }

    /// One more source for what is not here; fetches that are under way ask it, too. One that is not
    /// [networked](Fetch::networked) asks nobody, and goes on doing so.
    pub fn add_source(&self, source: &Arc<dyn Source>) {
        if let Some(flights) = &self.flights {
            flights.add_source(source);
        }
    }

    /// The same, for the DAG below `root`: what is fetched belongs to it.
    #[must_use]
    pub fn session(&self, root: &Cid) -> Fetch {
        Fetch { session: Some(root.clone()), ..self.clone() }
    }

    /// The same, with another time that a read waits after its last progress.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Fetch {
        Fetch { timeout, ..self.clone() }
    }

    /// The same, for a caller that keeps what it gets by itself.
    #[must_use]
    pub fn unkept(&self) -> Fetch {
        Fetch { keeps: false, ..self.clone() }
    }

    /// The same, with other words for why there is nobody to ask.
    #[must_use]
    pub fn alone(&self, why: &'static str) -> Fetch {
        Fetch { alone: why, ..self.clone() }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// How long a read waits after its last progress.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whether there is anybody to ask for what is not here.
    pub fn has_sources(&self) -> bool {
        self.flights.as_ref().is_some_and(|flights| !flights.sources().is_empty())
    }

    /// The block, where it is on this machine. Blocks the thread while the disk is read.
    pub fn local(&self, cid: &Cid) -> Result<Option<Block>, FetchError> {
        self.local_for(cid, Priority::Demand)
    }

    fn local_for(&self, cid: &Cid, priority: Priority) -> Result<Option<Block>, FetchError> {
        let found = match priority {
            Priority::Demand => self.store.get(cid),
            Priority::ReadAhead | Priority::Background => self.store.get_ahead(cid),
        };
        let found = found.map_err(|source| FetchError::Store { cid: cid.clone(), source })?;
        Ok(found.or_else(|| self.flights.as_ref()?.keeper.get(cid)))
    }

    /// The bytes `range` of the block, where it is on this machine and can be read: of a large block little more than them
    /// comes from the disk. Where it cannot, [`Fetch::get`] does what is to be done. Blocks the thread while the disk is
    /// read.
    pub fn local_range(&self, cid: &Cid, range: Range<u64>) -> Option<BlockPart> {
        self.store.get_range(cid, range).ok().flatten()
    }

    /// The block, wherever it is. Ready at the first poll where the block is on this machine, so that a caller that
    /// polls once answers without a runtime. Dropped, it asks nobody any more.
    pub async fn get(&self, cid: &Cid, priority: Priority) -> Result<Block, FetchError> {
        self.get_for(self.session.as_ref(), cid, priority).await
    }

    /// [`Fetch::get`], as a block of `root`'s DAG.
    pub async fn get_for(&self, root: Option<&Cid>, cid: &Cid, priority: Priority) -> Result<Block, FetchError> {
        let broken = match self.local_for(cid, priority) {
            Ok(Some(block)) => return Ok(block),
            Ok(None) => None,
            // A disk that fails is no error for the reader while somebody else has the block.
            Err(error) if self.has_sources() => Some(error),
            Err(error) => return Err(error),
        };
        match (self.join(root, cid, priority)?.wait().await, broken) {
            (Err(_), Some(error)) => Err(error),
            (result, _) => result,
        }
    }

    /// Has a block that is not here fetched, and returns at once.
    fn start(&self, cid: &Cid, priority: Priority) -> Result<Waiter, FetchError> {
        self.join(self.session.as_ref(), cid, priority)
    }

    /// Has the whole DAG below `root` sent in one go, if who brought the session's last block has a way to. Dropped, it stops.
    fn start_bulk(&self, root: &Block) -> Option<Bulk> {
        self.flights.as_ref()?.start_bulk(self.session.as_ref()?, root)
    }

    /// Whether a block is on this machine.
    fn is_here(&self, cid: &Cid) -> bool {
        self.store.has(cid) || self.flights.as_ref().is_some_and(|flights| flights.keeper.get(cid).is_some())
    }

    /// Blocks and bytes that came in for `root`, by who sent them, most first; of roots that were not read for long, none.
    pub fn brought(&self, root: &Cid) -> Vec<(String, u64, u64)> {
        self.flights.as_ref().map_or_else(Vec::new, |flights| flights.brought(root))
    }

    fn join(&self, root: Option<&Cid>, cid: &Cid, priority: Priority) -> Result<Waiter, FetchError> {
        let flights = self.flights.as_ref().filter(|flights| !flights.sources().is_empty());
        match flights {
            Some(flights) => flights.join(cid, root, priority, self.timeout, self.keeps),
            None => Err(FetchError::NotFound { cid: cid.clone(), tried: self.alone.into() }),
        }
    }

    /// A block has entered the store by another way: whoever waits for it has it now.
    pub fn arrived(&self, block: &Block) {
        if let Some(flights) = &self.flights {
            flights.arrived(block);
        }
    }

    /// Takes in a block that `whom` has sent without being asked for this very one: it is kept, and whoever waits for it has it.
    /// Blocks the thread while the disk is behind.
    pub fn take_in(&self, block: &Block, whom: &str) {
        if let Some(flights) = &self.flights {
            flights.take_in(block, self.session.as_ref(), whom);
        }
    }

    /// Blocks that could not be had may be had now: there is a new peer, or a new provider.
    pub fn forget_failures(&self) {
        if let Some(flights) = &self.flights {
            flights.failures.clear();
        }
    }

    /// Returns when what was fetched so far is in the store, as far as it is kept. It is not durable before
    /// [`Store::sync`].
    pub async fn settle(&self) {
        if let Some(flights) = &self.flights {
            flights.keeper.settle().await;
        }
    }

    /// What is known of the fetches of `cid`, and of those for it as a root: those under way and the recent ones. Those of the
    /// block itself come first, then the slowest.
    pub fn why(&self, cid: &Cid) -> Vec<FetchReport> {
        self.flights.as_ref().map_or_else(Vec::new, |flights| flights.about(cid))
    }

    /// What was fetched since the start.
    pub fn stat(&self) -> FetchStat {
        let Some(flights) = &self.flights else { return FetchStat::default() };
        let counters = &flights.counters;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let brought = counters.brought.lock();
        let mut brought: Vec<(String, u64, u64)> =
            brought.iter().map(|(whom, (blocks, bytes))| (whom.to_string(), *blocks, *bytes)).collect();
        brought.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        let (running, waiting) = flights.count();
        FetchStat {
            in_flight: (running as u64, waiting as u64),
            begun: count(&counters.begun),
            joined: count(&counters.joined),
            failed: count(&counters.failed),
            dropped: count(&counters.dropped),
            refused: count(&counters.refused),
            brought,
        }
    }
}
