//! The links of DAGs as a list: what `ipfs refs` prints.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, RandomState};

use super::Fetch;
use super::walk::{Fingerprinted, Path, Reach, WalkError, fingerprint};
use crate::block::Cid;
use crate::dag;

/// One link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The block that has the link.
    pub from: Cid,
    /// The block that is linked to.
    pub to: Cid,
    /// The link's name: empty where the codec gives it none.
    pub name: Vec<u8>,
}

/// The links of the DAGs below some roots, depth first.
///
/// As with kubo, every block that is named was had, and without [`Refs::unique`] a block that is linked to often is named,
/// and gone into, as often: in some DAGs for ever.
pub struct Refs {
    path: Path,
    root: Option<Cid>,
    /// How many levels to go down.
    max_depth: Option<usize>,
    /// The least depth at which each block was met, where each is to be named once.
    seen: Option<HashMap<u128, usize, BuildHasherDefault<Fingerprinted>>>,
    keys: (RandomState, RandomState),
    fetch: Fetch,
}

impl Refs {
    /// A list that has nothing before [`Refs::start`], and then the links of the root itself.
    pub fn new(fetch: &Fetch) -> Refs {
        Refs {
            path: Path::new(fetch, Reach::Anywhere),
            root: None,
            max_depth: Some(1),
            seen: None,
            keys: Default::default(),
            fetch: fetch.clone(),
        }
    }

    /// Goes down so many levels; `None` is to the end.
    #[must_use]
    pub fn max_depth(mut self, levels: Option<usize>) -> Refs {
        self.max_depth = levels;
        self
    }

    /// Names each block once.
    #[must_use]
    pub fn unique(mut self) -> Refs {
        self.seen = Some(HashMap::default());
        self
    }

    /// Begins with a root; what was named for another one counts as named.
    pub fn start(&mut self, root: &Cid) {
        self.path = Path::new(&self.fetch, Reach::Anywhere);
        self.path.begin(root);
        self.root = Some(root.clone());
    }

    /// The next link, or `None` at the end. After an error there is no more to be had from this root.
    pub async fn next(&mut self) -> Result<Option<Edge>, WalkError> {
        let next = self.advance().await;
        if next.is_err() {
            self.path = Path::new(&self.fetch, Reach::Anywhere);
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Edge>, WalkError> {
        if let Some(root) = self.root.take() {
            let block = self.path.fetch(&root).await?;
            self.path.enter(&block)?;
        }
        while let Some((from, link)) = self.path.next_link().await? {
            let (goes_in, is_named) = self.meet(&link.cid);
            if goes_in && dag::can_link(link.cid.codec()) {
                let block = self.path.fetch(&link.cid).await?;
                self.path.enter(&block)?;
            } else if is_named && !self.fetch.store().has(&link.cid) {
                self.path.fetch(&link.cid).await?;
            }
            if is_named {
                return Ok(Some(Edge { from, to: link.cid, name: link.name }));
            }
        }
        Ok(None)
    }

    /// Whether to go into a block that was met at the walk's depth, and whether to name it.
    fn meet(&mut self, cid: &Cid) -> (bool, bool) {
        let depth = self.path.depth();
        let (over, at) = self.max_depth.map_or((false, false), |most| (depth > most, depth == most));
        if over {
            return (false, false);
        }
        let Some(seen) = &mut self.seen else { return (!at, true) };
        match seen.entry(fingerprint(&self.keys, cid)) {
            Entry::Occupied(known) if self.max_depth.is_none() || *known.get() <= depth => (false, false),
            // It was met further down, so not all below it was.
            Entry::Occupied(mut known) => {
                known.insert(depth);
                (!at, false)
            }
            Entry::Vacant(new) => {
                new.insert(depth);
                (!at, true)
            }
        }
    }
}
