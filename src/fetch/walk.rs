//! Walks whole DAGs: every distinct block once, a node before what it links to, in the order of its links.
//!
//! That is the order in which a CAR has its blocks and a root is read. A [`Walk`] remembers 16 bytes for each block that it
//! has seen, and holds the nodes on the way from the root to where it is, but no more than [`MAX_WALK_BYTES`] of them: on
//! the way back what was let go is fetched again, at most once for each block below it. It does not recurse.
//!
//! Where blocks come from afar, what comes next is fetched ahead ([`ahead`]).
//!
//! Blocks that cannot have links are named, not fetched: whoever walks decides whether to read them, or only to ask
//! whether they are here. An error does not end a walk: the next step goes on behind the block that could not be had, so
//! that a caller may list all that is missing.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;

use super::ahead::{self, Ahead, Coming};
use super::depth::Depth;
use super::{Fetch, FetchError, Priority};
use crate::block::{Block, Cid};
use crate::dag::{self, DagError, Link, Links};
use crate::limits::{MAX_WALK_BYTES, MAX_WALK_DEPTH};
use crate::store::StoreError;

/// Why a DAG cannot be walked, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A block could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A block is not a node of its codec, so its links are not known.
    #[error("cannot read the links of block {cid}: {source}")]
    Node {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        source: DagError,
    },
    /// The DAG goes on below the limit.
    #[error("block {cid} is {MAX_WALK_DEPTH} levels below the root, and links further down")]
    TooDeep {
        /// The block at the limit.
        cid: Cid,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WalkError {
    /// The block that could not be had or read.
    pub fn cid(&self) -> Option<&Cid> {
        match self {
            WalkError::Fetch(FetchError::NotFound { cid, .. } | FetchError::Store { cid, .. })
            | WalkError::Node { cid, .. }
            | WalkError::TooDeep { cid } => Some(cid),
            WalkError::Store(_) => None,
        }
    }
}

/// A step of a [`Walk`].
#[derive(Clone, Debug)]
pub enum Visit {
    /// A block that may have links. They are visited next.
    Node(Block),
    /// The CID of a block that cannot have links; it was not looked for.
    Leaf(Cid),
}

impl Visit {
    /// The block's CID.
    pub fn cid(&self) -> &Cid {
        match self {
            Visit::Node(block) => block.cid(),
            Visit::Leaf(cid) => cid,
        }
    }
}

/// Where a walk gets its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// From this machine alone.
    Local,
    /// From wherever they are; what comes next is fetched ahead.
    Anywhere,
}

/// A walk over the DAGs of some roots.
pub struct Walk {
    path: Path,
    depth: Depth,
    seen: Seen,
}

/// Roots that a walk has not begun with yet.
#[derive(Clone, Default)]
pub(super) struct Roots {
    all: Arc<[Cid]>,
    next: usize,
}

impl Iterator for Roots {
    type Item = Cid;

    fn next(&mut self) -> Option<Cid> {
        let root = self.all.get(self.next).cloned()?;
        self.next += 1;
        Some(root)
    }
}

impl Walk {
    /// A walk over the DAGs below `roots`, one after the other; what several share is visited once.
    pub fn new(fetch: &Fetch, reach: Reach, roots: Vec<Cid>) -> Walk {
        Walk::as_deep(fetch, reach, roots, Depth::Whole)
    }

    /// The same, but only to what is wanted: nothing else is visited, nor fetched ahead.
    pub fn as_deep(fetch: &Fetch, reach: Reach, roots: Vec<Cid>, depth: Depth) -> Walk {
        let roots = Roots { all: roots.into(), next: 0 };
        let path = Path { roots, ahead: Ahead::new(depth), ..Path::new(fetch, reach) };
        Walk { path, depth, seen: Seen::default() }
    }

    /// The next block, or `None` at the end. Ready at the first poll where what it reads is on this machine. After an
    /// error the walk goes on behind the block that it is about.
    pub async fn next(&mut self) -> Result<Option<Visit>, WalkError> {
        loop {
            let cid = match self.path.next_link().await? {
                Some((_, link)) => link.cid,
                None => match self.path.roots.next() {
                    Some(root) => {
                        self.path.begin(&root);
                        root
                    }
                    None => return Ok(None),
                },
            };
            if !self.depth.wants(&cid) || !self.seen.insert(&cid) {
                continue;
            }
            if !dag::can_link(cid.codec()) {
                return Ok(Some(Visit::Leaf(cid)));
            }
            let block = self.path.fetch(&cid).await?;
            if self.depth.goes_below(&block) {
                self.path.enter(&block)?;
            }
            return Ok(Some(Visit::Node(block)));
        }
    }

    /// A leaf, from where the walk gets its blocks.
    pub async fn fetch(&mut self, cid: &Cid) -> Result<Block, FetchError> {
        self.path.fetch(cid).await
    }

    /// How many distinct blocks were met.
    pub fn met(&self) -> usize {
        self.seen.len()
    }
}

/// The nodes on the way from a root to where a walk is.
pub(super) struct Path {
    fetch: Fetch,
    /// Whether `fetch` is of a session that is none of ours.
    is_bound: bool,
    reach: Reach,
    roots: Roots,
    ahead: Ahead,
    open: Vec<Open>,
    /// The bytes of the blocks that are held, and how many nodes from the root on are not.
    held_bytes: usize,
    let_go: usize,
}

/// A node some of whose links were not followed yet.
struct Open {
    cid: Cid,
    /// Where its next link is.
    at: usize,
    /// Its links and the bytes that they hold, unless they were let go.
    links: Option<(Links, usize)>,
}

impl Path {
    pub fn new(fetch: &Fetch, reach: Reach) -> Path {
        Path {
            fetch: fetch.clone(),
            is_bound: fetch.session.is_some(),
            reach,
            roots: Roots::default(),
            ahead: Ahead::default(),
            open: Vec::new(),
            held_bytes: 0,
            let_go: 0,
        }
    }

    /// Begins with a root: what is fetched is its, unless the caller has said whose it is.
    pub fn begin(&mut self, root: &Cid) {
        if !self.is_bound {
            self.fetch = self.fetch.session(root);
            self.ahead.end();
        }
    }

    /// How many nodes there are above where the walk is.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The block that the walk has come to.
    pub async fn fetch(&mut self, cid: &Cid) -> Result<Block, FetchError> {
        if self.reach == Reach::Anywhere {
            let open = self.open.iter().rev().filter_map(|open| open.links.as_ref());
            let links = open.map(|(links, _)| Coming::Links(links.clone()));
            // What belongs to another root is asked for as that root's.
            let path = links.chain(self.is_bound.then(|| Coming::Roots(self.roots.clone())));
            return ahead::fetch(&mut self.ahead, &self.fetch, cid, path).await;
        }
        self.again(cid).await
    }

    /// A block that the walk has been at before.
    async fn again(&self, cid: &Cid) -> Result<Block, FetchError> {
        match self.reach {
            Reach::Anywhere => self.fetch.get(cid, Priority::Background).await,
            Reach::Local => self
                .fetch
                .local(cid)?
                .ok_or_else(|| FetchError::NotFound { cid: cid.clone(), tried: "only this machine was asked".into() }),
        }
    }

    /// Goes down into a block: its links are next.
    pub fn enter(&mut self, block: &Block) -> Result<(), WalkError> {
        let cid = block.cid().clone();
        let links = Links::decode(&cid, block.data()).map_err(|source| WalkError::Node { cid: cid.clone(), source })?;
        let at = links.position();
        if links.clone().next().is_none() {
            return Ok(());
        }
        if self.ahead.is_active() {
            self.ahead.enter(&self.fetch, block, &links);
        }
        if self.open.len() >= MAX_WALK_DEPTH {
            return Err(WalkError::TooDeep { cid });
        }
        self.held_bytes += block.data().len();
        self.open.push(Open { cid, at, links: Some((links, block.data().len())) });
        // The node that is read next stays, however large it is.
        while self.held_bytes > MAX_WALK_BYTES && self.let_go + 1 < self.open.len() {
            let open = &mut self.open[self.let_go];
            if let Some((links, len)) = open.links.take() {
                open.at = links.position();
                self.held_bytes -= len;
            }
            self.let_go += 1;
        }
        Ok(())
    }

    /// The next link of the deepest node that has one left, with the node's CID; goes up past those that have none.
    pub async fn next_link(&mut self) -> Result<Option<(Cid, Link)>, WalkError> {
        while let Some(open) = self.open.last() {
            if open.links.is_none() {
                let (cid, at) = (open.cid.clone(), open.at);
                let again = match self.again(&cid).await {
                    Ok(block) => Links::decode(&cid, block.data())
                        .map(|links| (links.from_position(at), block.data().len()))
                        .map_err(|source| WalkError::Node { cid, source }),
                    Err(error) => Err(error.into()),
                };
                match again {
                    Ok((links, len)) => {
                        self.held_bytes += len;
                        self.let_go = self.open.len() - 1;
                        if let Some(open) = self.open.last_mut() {
                            open.links = Some((links, len));
                        }
                    }
                    Err(error) => {
                        self.leave();
                        return Err(error);
                    }
                }
            }
            let Some(open) = self.open.last_mut() else { break };
            if let Some(link) = open.links.as_mut().and_then(|(links, _)| links.next()) {
                return Ok(Some((open.cid.clone(), link)));
            }
            self.leave();
        }
        Ok(None)
    }

    fn leave(&mut self) {
        if let Some(Open { links: Some((_, len)), .. }) = self.open.pop() {
            self.held_bytes -= len;
        }
        self.let_go = self.let_go.min(self.open.len());
    }
}

/// The CIDs that were met, as fingerprints of 128 bits under keys of this walk's own, so that nobody can make two that
/// collide.
#[derive(Default)]
pub(super) struct Seen {
    fingerprints: HashSet<u128, BuildHasherDefault<Fingerprinted>>,
    keys: (RandomState, RandomState),
}

impl Seen {
    /// Whether `cid` is new.
    pub fn insert(&mut self, cid: &Cid) -> bool {
        let fingerprint = fingerprint(&self.keys, cid);
        self.fingerprints.insert(fingerprint)
    }

    pub fn len(&self) -> usize {
        self.fingerprints.len()
    }
}

pub(super) fn fingerprint(keys: &(RandomState, RandomState), cid: &Cid) -> u128 {
    u128::from(keys.0.hash_one(cid)) << 64 | u128::from(keys.1.hash_one(cid))
}

/// Takes a fingerprint for its own hash.
#[derive(Default)]
pub(super) struct Fingerprinted(u64);

impl Hasher for Fingerprinted {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}

#[cfg(test)]
mod tests;
