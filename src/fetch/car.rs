//! CARs of whole DAGs, in and out, as streams.
//!
//! [`export`] writes what kubo's `dag export` writes: a CARv1 with the root in its header and every distinct block once,
//! depth first. [`Import`] reads CARs of both versions, from files or pipes, hashes every block, and keeps it; at the end
//! it pins the roots that are whole, as kubo's `dag import` does.

use std::collections::HashSet;
use std::io::{self, Read, Write};

use super::Fetch;
use super::pin::hold;
use super::walk::{Reach, Visit, Walk, WalkError};
use crate::block::Cid;
use crate::dag::car::{CarError, CarReader, CarWriter};
use crate::store::{PinKind, StoreError, Writer};

/// Why a DAG cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A block could not be had.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// What the CAR is written to failed, or nobody reads it any more.
    #[error("cannot write the CAR: {0}")]
    Write(#[source] io::Error),
}

/// What was exported or imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarCount {
    /// Blocks, each as often as it is in the CAR.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl CarCount {
    fn add(&mut self, len: usize) {
        self.blocks += 1;
        self.bytes += len as u64;
    }
}

/// What an export does about blocks that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It fails.
    Fail,
    /// It looks on this machine alone, and leaves them out, with all below them.
    LeaveOut,
}

/// Writes the DAG below `root` to `out` as a CARv1. Blocks the thread while it writes. `progress` is told of each block.
/// Where the root itself cannot be had, nothing is written.
pub async fn export<W: Write>(
    fetch: &Fetch,
    root: &Cid,
    missing: Missing,
    out: W,
    mut progress: impl FnMut(CarCount),
) -> Result<CarCount, ExportError> {
    let reach = if missing == Missing::Fail { Reach::Anywhere } else { Reach::Local };
    let mut walk = Walk::new(fetch, reach, vec![root.clone()]);
    let mut next = walk.next().await;
    if let Err(error) = next {
        return Err(error.into());
    }
    let mut car = CarWriter::new(out, std::slice::from_ref(root)).map_err(ExportError::Write)?;
    let mut count = CarCount::default();
    loop {
        let block = match next {
            Ok(None) => break,
            Ok(Some(Visit::Node(block))) => Ok(block),
            Ok(Some(Visit::Leaf(cid))) => walk.fetch(&cid).await.map_err(WalkError::from),
            Err(error) => Err(error),
        };
        match block {
            Ok(block) => {
                car.write(&block).map_err(ExportError::Write)?;
                count.add(block.data().len());
                progress(count);
            }
            Err(error) if missing == Missing::LeaveOut => tracing::debug!("left out of the CAR: {error}"),
            Err(error) => return Err(error.into()),
        }
        next = walk.next().await;
    }
    car.finish().map_err(ExportError::Write)?;
    Ok(count)
}

/// Why a CAR cannot be imported to its end. The blocks before the one that failed are kept.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The CAR is damaged, or reading it failed.
    #[error("the import failed {}: {source}", after.as_ref().map_or("at the beginning".into(), |cid| format!("after block {cid}")))]
    Car {
        /// The last good block.
        after: Option<Cid>,
        /// What is wrong.
        source: Box<CarError>,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An import of one or more CARs.
pub struct Import {
    fetch: Fetch,
    /// Holds what was read until the roots are pinned.
    writer: Writer,
    /// The roots in their order, and as a set.
    roots: Vec<Cid>,
    named: HashSet<Cid>,
    count: CarCount,
}

/// What [`Import::finish`] has pinned.
#[derive(Debug)]
pub struct Imported {
    /// What was read.
    pub count: CarCount,
    /// The roots that the headers name, each once, and why one was not pinned.
    pub roots: Vec<(Cid, Result<(), WalkError>)>,
}

impl Import {
    /// An import into the store of `fetch`.
    pub fn new(fetch: &Fetch) -> Import {
        Import {
            fetch: fetch.clone(),
            writer: fetch.store().writer(),
            roots: Vec::new(),
            named: HashSet::new(),
            count: CarCount::default(),
        }
    }

    /// Reads a CAR to its end and keeps its blocks. Blocks the thread. `progress` is told of each block.
    pub fn read(&mut self, source: impl Read, mut progress: impl FnMut(CarCount)) -> Result<(), ImportError> {
        let mut after = None;
        let failed =
            |after: &Option<Cid>, source: CarError| ImportError::Car { after: after.clone(), source: Box::new(source) };
        let mut car = CarReader::new(source).map_err(|error| failed(&after, error))?;
        for root in car.roots() {
            if self.named.insert(root.clone()) {
                self.roots.push(root.clone());
            }
        }
        while let Some(block) = car.next_block().map_err(|error| failed(&after, error))? {
            self.writer.put(&block)?;
            self.count.add(block.data().len());
            progress(self.count);
            after = Some(block.into_parts().0);
        }
        car.drain().map_err(|error| failed(&after, error.into()))
    }

    /// Pins the roots whose DAGs are here to the last block, from this CAR or from before, if `pin_roots` says so. What
    /// was read is durable on return.
    pub async fn finish(mut self, pin_roots: bool) -> Result<Imported, ImportError> {
        let mut roots = Vec::new();
        for root in std::mem::take(&mut self.roots) {
            let pinned = if pin_roots { self.pin(&root).await } else { Ok(()) };
            roots.push((root, pinned));
        }
        self.fetch.store().sync()?;
        Ok(Imported { count: self.count, roots })
    }

    async fn pin(&mut self, root: &Cid) -> Result<(), WalkError> {
        hold(&self.fetch, Reach::Local, root, PinKind::Recursive, &mut self.writer, |_| ()).await?;
        self.fetch.store().pin(root, PinKind::Recursive, "")?;
        Ok(())
    }
}
