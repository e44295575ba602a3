//! The DAG seen as a filesystem: paths, directories, files by offset, and inodes.
//!
//! The tree knows nothing of the kernel. A [`Location`] is a thing in the DAG; [`Tree::resolve`] finds one by its path,
//! [`Tree::lookup`] by its name in a directory, [`Tree::list`] goes through a directory from any cursor, [`Tree::read`]
//! reads a file by offset. [`Inodes`] numbers locations for whoever needs numbers.
//!
//! Every function is `async` and ready at the first poll where the blocks it needs are on this machine: a FUSE thread
//! polls once and answers, and only a miss needs a runtime. No lock is held across I/O, nothing recurses, and nothing is
//! allocated by a number that a block claims.
//!
//! What a node says of sizes is a claim. A listing shows claims where nothing better is at hand (the size of a raw leaf
//! is its link's Tsize, so that listing fetches directories only); a read holds every block against them.

mod attr;
mod coverage;
mod directory;
mod error;
mod file;
mod inode;
mod ipld;
mod node;
mod root;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::attr::{Attr, FileKind};
pub use self::coverage::Coverage;
pub use self::error::TreeError;
pub use self::inode::{Inode, Inodes, ROOT_INODE};
use self::node::{Node, NodeCache};
use self::root::RootState;
use crate::block::{Block, Cid, codec};
use crate::dag::{DagError, hamt};
use crate::fetch::{Fetch, FetchError, Priority};
use crate::limits::{LISTING_CONCURRENCY, MAX_DIRECTORY_DEPTH};
use crate::store::StoreError;

/// The DAG as a filesystem. Cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Tree {
    fetch: Fetch,
    inner: Arc<Inner>,
}

struct Inner {
    nodes: NodeCache,
    hidden_names: AtomicU64,
    root: Mutex<RootState>,
}

/// A thing in the DAG: the node that a block is, or one within it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The block.
    pub cid: Cid,
    /// The path within a block of the IPLD data model: keys and indexes with `/` between them. `None` for the whole block.
    pub within: Option<Arc<str>>,
    root: Root,
}

/// The root that something was reached by, where it is another block: what is fetched for it belongs to that root. It makes
/// nothing another thing.
#[derive(Clone, Debug, Default)]
struct Root(Option<Arc<Cid>>);

impl PartialEq for Root {
    fn eq(&self, _: &Root) -> bool {
        true
    }
}

impl Eq for Root {}

impl std::hash::Hash for Root {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

impl Location {
    /// The node that the block is, as a root.
    pub fn new(cid: Cid) -> Location {
        Location { cid, within: None, root: Root(None) }
    }

    /// The node that the block `cid` is, reached by `root`.
    pub fn below(root: &Arc<Cid>, cid: Cid) -> Location {
        Location { cid, within: None, root: Root(Some(root.clone())) }
    }

    /// The root that it was reached by.
    pub fn root(&self) -> &Cid {
        self.root.0.as_deref().unwrap_or(&self.cid)
    }

    /// The node that the block `cid` is, which this leads to.
    fn to(&self, cid: Cid) -> Location {
        Location { cid, within: None, root: self.root_of_children() }
    }

    fn root_of_children(&self) -> Root {
        Root(Some(self.root.0.clone().unwrap_or_else(|| Arc::new(self.cid.clone()))))
    }

    /// The same, as one that leads to many.
    fn into_parent(self) -> Location {
        Location { root: self.root_of_children(), ..self }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.within {
            Some(path) => write!(f, "{}/{path}", self.cid),
            None => self.cid.fmt(f),
        }
    }
}

/// A thing and what is known of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The thing.
    pub location: Location,
    /// What it is.
    pub attr: Attr,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name: a valid one, in any encoding.
    pub name: Bytes,
    /// What it names.
    pub location: Location,
    /// The size in bytes that the link claims for the DAG below, where it does.
    pub tsize: Option<u64>,
    /// What it is, where the directory itself says so.
    pub attr: Option<Attr>,
    /// [`Tree::list`] from here goes on with the next name. At least [`FIRST_CURSOR`], and below 2^63.
    pub cursor: u64,
}

/// The least cursor of an entry: what is below means the beginning, and is free for names that a directory does not hold.
pub const FIRST_CURSOR: u64 = 3;

impl Tree {
    /// The tree over what `fetch` finds.
    pub fn new(fetch: Fetch) -> Tree {
        let (nodes, hidden_names, root) = (NodeCache::new(), AtomicU64::new(0), Mutex::new(RootState::new()));
        Tree { fetch, inner: Arc::new(Inner { nodes, hidden_names, root }) }
    }

    /// The same tree, whose reads wait another time after their last progress.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Tree {
        Tree { fetch: self.fetch.with_timeout(timeout), ..self }
    }

    /// Where the blocks come from.
    pub fn fetch(&self) -> &Fetch {
        &self.fetch
    }

    /// How many names listings have left out, because no file can have them or no lookup finds them.
    pub fn hidden_names(&self) -> u64 {
        self.inner.hidden_names.load(Ordering::Relaxed)
    }

    /// Finds `path`: a CID or a name of this repository, and names below it, as in `bafy…/train/7.jpg`; a leading `/` or
    /// `/ipfs/` is allowed. Symbolic links on the way are not followed.
    pub async fn resolve(&self, path: &[u8]) -> Result<Entry, TreeError> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let path = path.strip_prefix(b"ipfs/").unwrap_or(path);
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let root = names.next().unwrap_or_default();
        let mut location = Location::new(self.root_cid(root)?);
        let mut tsize = None;
        for (depth, name) in names.enumerate() {
            if depth == MAX_DIRECTORY_DEPTH {
                return Err(TreeError::TooDeep { limit: MAX_DIRECTORY_DEPTH });
            }
            (location, tsize) = self.child(&location, name).await?;
        }
        let attr = self.attr(&location, tsize, Priority::Demand).await?;
        Ok(Entry { location, attr })
    }

    /// Finds `name` in `directory`.
    pub async fn lookup(&self, directory: &Location, name: &[u8]) -> Result<Entry, TreeError> {
        let (location, tsize) = self.child(directory, name).await?;
        let attr = self.attr(&location, tsize, Priority::Demand).await?;
        Ok(Entry { location, attr })
    }

    /// What is known of `location`, whose link claims `tsize`. A raw block that is not here is not fetched where its link
    /// claims a size; anything else is read once and remembered.
    pub async fn attr(&self, location: &Location, tsize: Option<u64>, priority: Priority) -> Result<Attr, TreeError> {
        if let Some(attr) = self.known(location, tsize)? {
            return Ok(attr);
        }
        let attr = self.learn(location, priority).await?;
        if location.within.is_none() {
            self.remember(vec![(location.cid.clone(), attr.to_facts())]);
        }
        Ok(attr)
    }

    /// [`Tree::attr`] of many entries: what is not known is fetched together. An entry that cannot be had fails alone.
    pub async fn attrs(&self, entries: &[Listed]) -> Vec<Result<Attr, TreeError>> {
        let known = |entry: &Listed| match entry.attr {
            Some(attr) => Ok(Some(attr)),
            None => self.known(&entry.location, entry.tsize),
        };
        let mut attrs: Vec<Result<Option<Attr>, TreeError>> = entries.iter().map(known).collect();
        let unknown: Vec<usize> = (0..entries.len()).filter(|index| matches!(attrs[*index], Ok(None))).collect();
        let mut facts = Vec::new();
        for batch in unknown.chunks(LISTING_CONCURRENCY) {
            let learn = |index: &usize| self.learn(&entries[*index].location, Priority::Demand);
            let learned = futures::future::join_all(batch.iter().map(learn)).await;
            for (index, attr) in batch.iter().zip(learned) {
                let location = &entries[*index].location;
                if let (None, Ok(attr)) = (&location.within, &attr) {
                    facts.push((location.cid.clone(), attr.to_facts()));
                }
                attrs[*index] = attr.map(Some);
            }
        }
        if !facts.is_empty() {
            self.remember(facts);
        }
        // Each is known by now, or failed.
        attrs.into_iter().filter_map(Result::transpose).collect()
    }

    /// Reads up to `len` bytes from `offset` of a file; fewer only where it ends. The bytes are the block's own memory
    /// where one leaf holds them all.
    pub async fn read(&self, file: &Location, offset: u64, len: usize, priority: Priority) -> Result<Bytes, TreeError> {
        let (file, node) = self.settle(file, priority).await?;
        let data = match node {
            Some(node) => node.contents().ok_or(TreeError::IsADirectory { cid: file.cid })?,
            None if file.cid.codec() == codec::DAG_PB => {
                return file::read(self, &file, offset, len, priority).await;
            }
            None => {
                let wanted = offset..offset.saturating_add(len as u64);
                return Ok(file::leaf(self, &file.cid, file.root(), wanted, priority).await?.data);
            }
        };
        let start = offset.min(data.len() as u64) as usize;
        Ok(data.slice(start..start.saturating_add(len).min(data.len())))
    }

    /// The target of a symbolic link.
    pub async fn read_link(&self, link: &Location) -> Result<Bytes, TreeError> {
        let (link, _) = self.settle(link, Priority::Demand).await?;
        if link.cid.codec() == codec::DAG_PB
            && let Node::Symlink(_, target) = &*self.node(&link.cid, link.root(), Priority::Demand).await?
        {
            return Ok(target.clone());
        }
        Err(TreeError::NotASymlink { cid: link.cid })
    }

    /// The block `cid`, which belongs to `root`.
    async fn block(&self, cid: &Cid, root: &Cid, priority: Priority) -> Result<Block, FetchError> {
        self.fetch.get_for(Some(root), cid, priority).await
    }

    /// The block `cid` of dag-pb or the data model, decoded; a shard is the first of its trie.
    async fn node(&self, cid: &Cid, root: &Cid, priority: Priority) -> Result<Arc<Node>, TreeError> {
        self.node_at(cid, root, hamt::Place::ROOT, priority).await
    }

    /// The shard `cid` at its place in a trie.
    async fn shard(&self, cid: &Cid, root: &Cid, place: hamt::Place) -> Result<Arc<Node>, TreeError> {
        match self.node_at(cid, root, place, Priority::Demand).await? {
            node if matches!(&*node, Node::Shard(..)) => Ok(node),
            _ => Err(TreeError::dag(cid)(DagError::malformed("HAMT", "a child shard that is none"))),
        }
    }

    async fn node_at(
        &self,
        cid: &Cid,
        root: &Cid,
        place: hamt::Place,
        priority: Priority,
    ) -> Result<Arc<Node>, TreeError> {
        if let Some(node) = self.inner.nodes.get(cid, place) {
            return Ok(node);
        }
        let block = self.block(cid, root, priority).await?;
        self.decode(&block, place)
    }

    /// The dag-pb block `cid`, decoded, where it is on this machine.
    fn local_node(&self, cid: &Cid) -> Result<Option<Arc<Node>>, TreeError> {
        if let Some(node) = self.inner.nodes.get(cid, hamt::Place::ROOT) {
            return Ok(Some(node));
        }
        let Some(block) = self.fetch().local(cid)? else { return Ok(None) };
        self.decode(&block, hamt::Place::ROOT).map(Some)
    }

    fn decode(&self, block: &Block, place: hamt::Place) -> Result<Arc<Node>, TreeError> {
        let node = Arc::new(Node::decode(block, place)?);
        if let Node::Directory(_, directory) = &*node
            && directory.dropped() > 0
        {
            self.inner.hidden_names.fetch_add(directory.dropped() as u64, Ordering::Relaxed);
            tracing::warn!(cid = %block.cid(), names = directory.dropped(), "names that no file can have are not shown");
        }
        self.inner.nodes.keep(block.cid(), &node, block.data().len());
        Ok(node)
    }

    fn is_local(&self, cid: &Cid) -> bool {
        cid.identity_data().is_some() || self.fetch().store().has(cid)
    }

    /// What can be said of `location` without reading its block.
    fn known(&self, location: &Location, tsize: Option<u64>) -> Result<Option<Attr>, TreeError> {
        let store_error = |source: StoreError| FetchError::Store { cid: location.cid.clone(), source };
        if location.cid.codec() == codec::DAG_PB
            && let Some(node) = self.inner.nodes.get(&location.cid, hamt::Place::ROOT)
        {
            return Ok(node.attr());
        }
        if location.cid.codec() == codec::DAG_PB || (location.is_ipld() && location.within.is_none()) {
            let facts = self.fetch().store().facts(&location.cid).map_err(store_error)?;
            return Ok(facts.as_deref().and_then(Attr::from_facts));
        }
        if location.is_ipld() {
            return Ok(None);
        }
        if let Some(data) = location.cid.identity_data() {
            return Ok(Some(Attr::raw_file(data.len() as u64)));
        }
        let size = self.fetch().store().size(&location.cid).map_err(store_error)?;
        if let (Some(size), Some(tsize)) = (size, tsize)
            && size != tsize
        {
            tracing::warn!(cid = %location.cid, tsize, size, "a link claims a wrong size for this block");
        }
        Ok(size.or(tsize).map(Attr::raw_file))
    }

    /// Reads what [`Tree::known`] does not know.
    async fn learn(&self, location: &Location, priority: Priority) -> Result<Attr, TreeError> {
        let (location, node) = self.settle(location, priority).await?;
        if let Some(node) = node {
            return Ok(ipld::attr_of(&node));
        }
        if location.cid.codec() == codec::DAG_PB
            && let Some(attr) = self.node(&location.cid, location.root(), priority).await?.attr()
        {
            return Ok(attr);
        }
        let block = self.block(&location.cid, location.root(), priority).await?;
        Ok(Attr::raw_file(block.data().len() as u64))
    }

    fn remember(&self, facts: Vec<(Cid, Vec<u8>)>) {
        if let Err(error) = self.fetch().store().remember(facts) {
            // They are learned again the next time.
            tracing::warn!(%error, "cannot remember what a listing learned");
        }
    }
}
