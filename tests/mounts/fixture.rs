//! What the tests of mounts share: a repository in a temporary directory, DAGs made by hand, and a mount that is always
//! taken down.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::config::StoreConfig;
use cidfs::dag::pb::{self, PbLink};
use cidfs::dag::unixfs::{Kind, UnixFs};
use cidfs::dag::{hamt, ipld};
use cidfs::fetch::Fetch;
use cidfs::fuse::{Mount, MountOptions};
use cidfs::store::Store;
use cidfs::tree::Tree;

/// A repository and a directory to mount on.
pub struct Fixture {
    pub store: Store,
    pub tree: Tree,
    directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), &StoreConfig::default()).unwrap();
        std::fs::create_dir(directory.path().join("mount")).unwrap();
        Fixture { tree: Tree::new(Fetch::new(store.clone())), store, directory }
    }

    /// The same with nothing in RAM, after `change` had the directory of the store to itself.
    pub fn reopened_after(self, change: impl FnOnce(&Path)) -> Fixture {
        let Fixture { store, tree, directory } = self;
        drop((store, tree));
        let path = directory.path().join("store");
        change(&path);
        let store = Store::open(&path, &StoreConfig::default()).unwrap();
        Fixture { tree: Tree::new(Fetch::new(store.clone())), store, directory }
    }

    /// The directory, in which nobody has the store open any more.
    pub fn into_directory(self) -> tempfile::TempDir {
        self.directory
    }

    /// The directory for anything else that a test needs.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    /// Mounts with the options of `list`. Needs root and /dev/fuse, and fails without them.
    pub fn mount(&self, list: &str) -> Mount {
        let mut options = MountOptions::default();
        options.parse(list).unwrap();
        cidfs::fuse::mount(&self.mountpoint(), self.tree.clone(), &options)
            .expect("tests of mounts need root and /dev/fuse")
    }

    /// Where `path` below the root `cid` lies in the mount.
    pub fn at(&self, cid: &Cid, path: &str) -> PathBuf {
        let root = self.mountpoint().join(cid.to_string());
        if path.is_empty() { root } else { root.join(path) }
    }

    pub fn put(&self, codec: u64, data: impl Into<Bytes>) -> Link {
        let block = Block::new(codec, HashFunction::Sha2_256, data.into());
        self.store.put(&block).unwrap();
        let size = block.data().len() as u64;
        Link { cid: block.cid().clone(), size, tsize: size }
    }

    pub fn raw(&self, data: &[u8]) -> Link {
        self.put(codec::RAW, data.to_vec())
    }

    /// A block of `codec`, dag-json or dag-cbor, from the text of dag-json.
    pub fn ipld(&self, codec: u64, json: &str) -> Link {
        let node = ipld::Node::decode(codec::DAG_JSON, &Bytes::copy_from_slice(json.as_bytes())).unwrap();
        self.put(codec, node.encode(codec).unwrap())
    }

    /// A dag-pb node with these links and this `UnixFS` message.
    pub fn node(&self, unixfs: &UnixFs, links: &[(&[u8], &Link)]) -> Link {
        let links_of = links.iter().map(|(name, link)| PbLink { cid: link.cid.clone(), name, tsize: Some(link.tsize) });
        let node = self.put(codec::DAG_PB, pb::encode(links_of, Some(&unixfs.encode())));
        let below: u64 = links.iter().map(|(_, link)| link.tsize).sum();
        Link { size: unixfs.filesize.unwrap_or(0), tsize: node.size + below, ..node }
    }

    pub fn directory(&self, entries: &[(&str, &Link)]) -> Link {
        let links: Vec<(&[u8], &Link)> = entries.iter().map(|(name, link)| (name.as_bytes(), *link)).collect();
        self.node(&UnixFs::new(Kind::Directory), &links)
    }

    /// A dag-pb file with `data` of its own before its parts.
    pub fn file(&self, data: &[u8], parts: &[Link]) -> Link {
        let mut unixfs = UnixFs::new(Kind::File);
        unixfs.data = (!data.is_empty()).then(|| Bytes::copy_from_slice(data));
        unixfs.blocksizes = parts.iter().map(|part| part.size).collect();
        unixfs.filesize = Some(data.len() as u64 + unixfs.blocksizes.iter().sum::<u64>());
        let links: Vec<(&[u8], &Link)> = parts.iter().map(|part| (&b""[..], part)).collect();
        self.node(&unixfs, &links)
    }

    /// A file of raw leaves of `leaf_bytes` each, `width` links a node.
    pub fn chunked(&self, data: &[u8], leaf_bytes: usize, width: usize) -> Link {
        let mut level: Vec<Link> = data.chunks(leaf_bytes).map(|chunk| self.raw(chunk)).collect();
        while level.len() > 1 {
            level = level.chunks(width).map(|parts| self.file(b"", parts)).collect();
        }
        level.pop().unwrap_or_else(|| self.raw(b""))
    }

    /// A HAMT of these entries, with shards of `fanout` slots.
    pub fn hamt(&self, fanout: usize, entries: &[(&[u8], &Link)]) -> Link {
        self.hamt_shard(fanout, 0, entries)
    }

    fn hamt_shard(&self, fanout: usize, consumed: u32, entries: &[(&[u8], &Link)]) -> Link {
        let width = fanout.trailing_zeros();
        let mut slots: BTreeMap<usize, Vec<(&[u8], &Link)>> = BTreeMap::new();
        for (name, link) in entries {
            let slot = hamt::hash_name(name).slot(consumed, width).expect("names of tests do not collide");
            slots.entry(slot).or_default().push((name, link));
        }
        let filled: Vec<(usize, &[u8], Link)> = slots
            .into_iter()
            .map(|(slot, entries)| match entries[..] {
                [(name, link)] => (slot, name, link.clone()),
                _ => (slot, &b""[..], self.hamt_shard(fanout, consumed + width, &entries)),
            })
            .collect();
        self.shard(fanout, &filled)
    }

    /// One shard with what its slots hold: a name and a link, or no name and a child shard.
    pub fn shard(&self, fanout: usize, slots: &[(usize, &[u8], Link)]) -> Link {
        let links = slots
            .iter()
            .map(|(slot, name, link)| (*slot, PbLink { cid: link.cid.clone(), name, tsize: Some(link.tsize) }));
        let node = self.put(codec::DAG_PB, hamt::encode(fanout, links, None, None).unwrap());
        Link { tsize: node.tsize + slots.iter().map(|(_, _, link)| link.tsize).sum::<u64>(), ..node }
    }

    pub fn symlink(&self, target: &[u8]) -> Link {
        let mut unixfs = UnixFs::new(Kind::Symlink);
        unixfs.data = Some(Bytes::copy_from_slice(target));
        self.node(&unixfs, &[])
    }
}

/// A node to link to.
#[derive(Clone, Debug)]
pub struct Link {
    pub cid: Cid,
    /// The bytes of the file that it holds.
    pub size: u64,
    pub tsize: u64,
}

/// Bytes that differ from place to place, the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// The result of a future that must be ready at its first poll, as all of the tree's are where every block is local.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("every block is local, and the tree wants to wait"),
    }
}
