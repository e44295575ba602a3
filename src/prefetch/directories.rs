//! Directories whose files are being read, with the orders in which a reader may take them.
//!
//! Three orders are in use: that of the listing (`find`, `tar`), the names sorted (`ImageFolder`, shells), and the inode
//! numbers (`cp -r`, and `find` in large directories). In a plain directory the first two are one. A directory is read when
//! it is first needed, from blocks that its readers needed before, and kept while there is room; one that is larger than all
//! the room is not watched.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::block::codec;
use crate::dag::unixfs::Mtime;
use crate::limits::MAX_WATCHED_NAMES;
use crate::tree::{Attr, Entry, FileKind, Inodes, Listed, Location, Tree};

/// How many names are read at a time.
const PAGE_NAMES: usize = 1024;

/// An order of the files in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    /// That of the listing.
    Listed,
    /// By name.
    Named,
    /// By inode number.
    Numbered,
}

impl Sequence {
    /// All of them, the likelier first.
    pub const ALL: [Sequence; 3] = [Sequence::Listed, Sequence::Named, Sequence::Numbered];
}

/// A directory as it is listed.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its inode number.
    pub number: u64,
    /// Its path below the mountpoint.
    pub path: Arc<Path>,
    /// What it holds, in the order of the listing.
    children: Vec<Child>,
    /// Where each child is in `children`.
    places: HashMap<u64, u32>,
    named: Option<Permutation>,
    numbered: Option<Permutation>,
}

/// A file or a directory in a directory.
#[derive(Debug)]
pub(super) struct Child {
    /// Its inode number.
    pub number: u64,
    /// What it is.
    pub location: Location,
    /// A file's size in bytes, as far as the directory tells.
    pub size: u64,
    /// A directory's name.
    pub directory: Option<Box<[u8]>>,
}

/// Another order of the children, where it differs from the listing's.
#[derive(Debug)]
struct Permutation {
    /// The place in the listing of each position.
    places: Box<[u32]>,
    /// The position of each place.
    positions: Box<[u32]>,
}

impl Permutation {
    fn sorted(len: usize, compare: impl Fn(u32, u32) -> Ordering) -> Option<Permutation> {
        let mut places: Box<[u32]> = (0..len as u32).collect();
        if places.is_sorted_by(|a, b| compare(*a, *b) != Ordering::Greater) {
            return None;
        }
        places.sort_by(|a, b| compare(*a, *b));
        let mut positions = vec![0; len].into_boxed_slice();
        for (position, place) in places.iter().enumerate() {
            positions[*place as usize] = position as u32;
        }
        Some(Permutation { places, positions })
    }
}

impl Directory {
    /// Reads the directory `location`, whose inode number and path below the mountpoint these are. `None` where it cannot be
    /// read, or is too large to watch. Blocks the thread.
    pub fn read(
        tree: &Tree,
        runtime: &Handle,
        number: u64,
        path: Arc<Path>,
        location: &Location,
        wait: Wait,
    ) -> Option<Directory> {
        let mut spelled = Vec::new();
        let mut children = Vec::new();
        let mut cursor = 0;
        loop {
            let listed = wait.for_result(runtime, tree.list(location, cursor, PAGE_NAMES))?.ok()?;
            let Some(last) = listed.last() else { break };
            cursor = last.cursor;
            if children.len() + listed.len() > MAX_WATCHED_NAMES {
                return None;
            }
            let attrs = attrs(tree, runtime, &listed, wait)?;
            for (listed, attr) in listed.into_iter().zip(attrs) {
                // What cannot be had is met by the reader, not by us; links are not read by their inode.
                let Some(attr) = attr.filter(|attr| attr.kind != FileKind::Symlink) else { continue };
                let entry = Entry { location: listed.location, attr };
                let is_directory = attr.kind == FileKind::Directory;
                children.push(Child {
                    number: Inodes::number(number, &listed.name, &entry),
                    location: entry.location,
                    size: attr.size,
                    directory: is_directory.then(|| Box::from(&*listed.name)),
                });
                spelled.push(listed.name);
            }
        }
        let at = |place: u32| place as usize;
        let named = Permutation::sorted(children.len(), |a, b| spelled[at(a)].cmp(&spelled[at(b)]));
        let by_number = |a, b| children[at(a)].number.cmp(&children[at(b)].number);
        let numbered = Permutation::sorted(children.len(), by_number);
        let places = children.iter().zip(0..).map(|(child, place)| (child.number, place)).collect();
        Some(Directory { number, path, children, places, named, numbered })
    }

    /// How many names it holds.
    pub fn len(&self) -> u32 {
        self.children.len() as u32
    }

    /// Where the child with this inode number is in an order.
    pub fn position(&self, sequence: Sequence, number: u64) -> Option<u32> {
        let place = *self.places.get(&number)?;
        Some(self.permutation(sequence).map_or(place, |permutation| permutation.positions[place as usize]))
    }

    /// What is at a position of an order.
    pub fn child(&self, sequence: Sequence, position: u32) -> Option<&Child> {
        let place = match self.permutation(sequence) {
            Some(permutation) => *permutation.places.get(position as usize)?,
            None => position,
        };
        self.children.get(place as usize)
    }

    /// The path below the mountpoint of the directory `name` in it.
    pub fn path_of(&self, name: &[u8]) -> Arc<Path> {
        self.path.join(OsStr::from_bytes(name)).into()
    }

    fn permutation(&self, sequence: Sequence) -> Option<&Permutation> {
        match sequence {
            Sequence::Listed => None,
            Sequence::Named => self.named.as_ref(),
            Sequence::Numbered => self.numbered.as_ref(),
        }
    }
}

/// What is known of each name. A raw leaf is what its link claims: nothing is read for it.
fn attrs(tree: &Tree, runtime: &Handle, listed: &[Listed], wait: Wait) -> Option<Vec<Option<Attr>>> {
    let claimed = |listed: &Listed| {
        let is_leaf = listed.location.cid.codec() == codec::RAW && listed.location.within.is_none();
        let size = listed.tsize.filter(|_| is_leaf)?;
        Some(Attr { size, mtime: Mtime::default(), permissions: 0o444, kind: FileKind::File })
    };
    if let Some(attrs) = listed.iter().map(|listed| claimed(listed).map(Some)).collect() {
        return Some(attrs);
    }
    let attrs = wait.for_result(runtime, tree.attrs(listed))?;
    Some(attrs.into_iter().map(Result::ok).collect())
}

/// Whether blocks that are on other machines may be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// They may: readers will need them.
    Long,
    /// What is not here is left out.
    Never,
}

impl Wait {
    fn for_result<T>(self, runtime: &Handle, future: impl Future<Output = T>) -> Option<T> {
        match self {
            Wait::Long => Some(runtime.block_on(future)),
            Wait::Never => future.now_or_never(),
        }
    }
}

/// Directories that were read lately.
pub(super) struct Directories {
    tree: Tree,
    inodes: Arc<Inodes>,
    runtime: Handle,
    kept: Mutex<Kept>,
}

struct Kept {
    directories: LruCache<u64, Arc<Directory>>,
    names: usize,
}

impl Directories {
    pub fn new(tree: Tree, inodes: Arc<Inodes>, runtime: Handle) -> Directories {
        let kept = Kept { directories: LruCache::unbounded(), names: 0 };
        Directories { tree, inodes, runtime, kept: Mutex::new(kept) }
    }

    /// The directory with this inode number, which the kernel knows. Blocks the thread.
    pub fn known(&self, number: u64, wait: Wait) -> Option<Arc<Directory>> {
        if let Some(directory) = self.kept.lock().directories.get(&number) {
            return Some(directory.clone());
        }
        let path = self.inodes.path(number)?;
        let inode = self.inodes.get(number)?;
        self.read(number, path.into(), &inode.location, wait)
    }

    /// A directory in `parent`, which the kernel may not know yet. Blocks the thread.
    pub fn below(&self, parent: &Directory, child: &Child, wait: Wait) -> Option<Arc<Directory>> {
        if let Some(directory) = self.kept.lock().directories.get(&child.number) {
            return Some(directory.clone());
        }
        let path = parent.path_of(child.directory.as_deref()?);
        self.read(child.number, path, &child.location, wait)
    }

    /// The directory above one that the kernel knows.
    pub fn above(&self, number: u64, wait: Wait) -> Option<Arc<Directory>> {
        let parent = self.inodes.get(number)?.parent;
        (parent != crate::tree::ROOT_INODE).then(|| self.known(parent, wait)).flatten()
    }

    fn read(&self, number: u64, path: Arc<Path>, location: &Location, wait: Wait) -> Option<Arc<Directory>> {
        let directory = Directory::read(&self.tree, &self.runtime, number, path, location, wait)?;
        let directory = Arc::new(directory);
        let mut kept = self.kept.lock();
        kept.names += directory.children.len();
        if let Some((_, replaced)) = kept.directories.push(number, directory.clone()) {
            kept.names -= replaced.children.len();
        }
        while kept.names > MAX_WATCHED_NAMES {
            let Some((_, dropped)) = kept.directories.pop_lru() else { break };
            kept.names -= dropped.children.len();
        }
        Some(directory)
    }
}
