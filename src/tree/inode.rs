//! Inode numbers: which location the kernel means by a number, for as long as it may ask.
//!
//! A file's number comes from its CID, so that one file reached by two paths, or in two versions of a dataset, is one
//! inode and one copy in the page cache. A directory's comes from its path, for the kernel allows a directory one name
//! only. Both are hashes: the same on every mount and after every restart. Where two things hash to one number, the
//! second takes the next that is free.
//!
//! An entry lives from its first lookup until the kernel has forgotten every lookup; it costs about 170 bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Attr, Entry, FileKind, Location, TreeError};
use crate::limits::MAX_DIRECTORY_DEPTH;

/// The inode of a mount's root.
pub const ROOT_INODE: u64 = 1;

/// The least number of anything else; the one between is free for whoever uses the table.
const FIRST_INODE: u64 = 3;

/// What an inode number stands for.
#[derive(Clone, Debug)]
pub struct Inode {
    /// The thing.
    pub location: Location,
    /// What it is.
    pub attr: Attr,
    /// How many directories are above it, the mount's root included.
    pub depth: u16,
    /// The directory that it was last looked up in.
    pub parent: u64,
}

struct Record {
    number: u64,
    /// Two directories are one only if their paths are; 0 for everything else.
    path_hash: u64,
    lookups: u64,
    /// A directory's name; empty for everything else, which may have several.
    name: Box<[u8]>,
    inode: Inode,
}

/// The inodes that the kernel knows of one mount.
pub struct Inodes {
    shards: [Mutex<HashTable<Box<Record>>>; SHARDS],
}

/// Enough that FUSE threads rarely meet at one lock.
const SHARDS: usize = 16;

impl Inodes {
    /// No inode but the root, which is no entry of the table.
    pub fn new() -> Inodes {
        Inodes { shards: std::array::from_fn(|_| Mutex::new(HashTable::new())) }
    }

    /// The number of `entry`, which is `name` in the directory `parent` (its number and its depth), and counts one lookup
    /// by the kernel.
    pub fn look_up(&self, parent: u64, depth: u16, name: &[u8], entry: &Entry) -> Result<u64, TreeError> {
        if entry.attr.kind == FileKind::Directory && usize::from(depth) >= MAX_DIRECTORY_DEPTH {
            return Err(TreeError::TooDeep { limit: MAX_DIRECTORY_DEPTH });
        }
        let (mut number, path_hash) = hashes(parent, name, entry);
        loop {
            let mut shard = self.shard(number).lock();
            match shard.entry(number, |record| record.number == number, |record| record.number) {
                Slot::Vacant(slot) => {
                    let inode = Inode { location: entry.location.clone(), attr: entry.attr, depth: depth + 1, parent };
                    let name = if entry.attr.kind == FileKind::Directory { name.into() } else { Box::default() };
                    slot.insert(Box::new(Record { number, path_hash, lookups: 1, name, inode }));
                    return Ok(number);
                }
                Slot::Occupied(mut slot) => {
                    let record = slot.get_mut();
                    if record.path_hash == path_hash && record.inode.location == entry.location {
                        record.lookups += 1;
                        record.inode.parent = parent;
                        return Ok(number);
                    }
                }
            }
            number = (number + 1).max(FIRST_INODE) & (u64::MAX >> 1);
        }
    }

    /// The number that `entry` would get, were it looked up now and the number free: what a listing shows that counts no
    /// lookups.
    pub fn number(parent: u64, name: &[u8], entry: &Entry) -> u64 {
        hashes(parent, name, entry).0
    }

    /// What `number` stands for, if the kernel knows it.
    pub fn get(&self, number: u64) -> Option<Inode> {
        let shard = self.shard(number).lock();
        shard.find(number, |record| record.number == number).map(|record| record.inode.clone())
    }

    /// The directories above `number`, from its parent up to one in the mount's root, which is left out. Ends early where the
    /// kernel has forgotten one.
    pub fn ancestors(&self, number: u64) -> SmallVec<[u64; 8]> {
        let mut above = SmallVec::new();
        let mut at = number;
        while let Some(parent) = self.with(at, |record| record.inode.parent)
            && parent != ROOT_INODE
            && above.len() < MAX_DIRECTORY_DEPTH
        {
            above.push(parent);
            at = parent;
        }
        above
    }

    /// The path of a directory below the mount's root. `None` where it is none, or the kernel has forgotten it.
    pub fn path(&self, directory: u64) -> Option<PathBuf> {
        let mut names = Vec::new();
        let mut at = directory;
        while at != ROOT_INODE {
            let (name, parent) = self.with(at, |record| (record.name.clone(), record.inode.parent))?;
            if name.is_empty() || names.len() > MAX_DIRECTORY_DEPTH {
                return None;
            }
            names.push(name);
            at = parent;
        }
        Some(names.iter().rev().map(|name| OsStr::from_bytes(name)).collect())
    }

    fn with<T>(&self, number: u64, take: impl FnOnce(&Record) -> T) -> Option<T> {
        self.shard(number).lock().find(number, |record| record.number == number).map(|record| take(record))
    }

    /// Takes back `lookups` lookups of `number`.
    pub fn forget(&self, number: u64, lookups: u64) {
        let mut shard = self.shard(number).lock();
        if let Ok(mut slot) = shard.find_entry(number, |record| record.number == number) {
            slot.get_mut().lookups = slot.get().lookups.saturating_sub(lookups);
            if slot.get().lookups == 0 {
                slot.remove();
                if shard.len() < shard.capacity() / 8 {
                    shard.shrink_to(0, |record| record.number);
                }
            }
        }
    }

    /// How many inodes the kernel knows.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether the kernel knows none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, number: u64) -> &Mutex<HashTable<Box<Record>>> {
        // The table looks at the lowest and the highest bits; these are others.
        &self.shards[(number >> 40) as usize % SHARDS]
    }
}

impl Default for Inodes {
    fn default() -> Inodes {
        Inodes::new()
    }
}

/// The number to begin with, and the path's hash where the path matters.
fn hashes(parent: u64, name: &[u8], entry: &Entry) -> (u64, u64) {
    let cid = &entry.location.cid;
    let is_directory = entry.attr.kind == FileKind::Directory;
    // A digest is a hash already; that of an identity CID is whatever its maker liked.
    if !is_directory
        && entry.location.within.is_none()
        && cid.identity_data().is_none()
        && let Some(number) = cid.multihash().last_chunk()
    {
        return (inode_number(*number), 0);
    }
    let mut hasher = blake3::Hasher::new();
    if is_directory {
        hasher.update(&parent.to_le_bytes());
        hasher.update(name);
        hasher.update(b"/");
    }
    hasher.update(cid.as_bytes());
    if let Some(path) = &entry.location.within {
        hasher.update(path.as_bytes());
    }
    let mut numbers = [[0; 8]; 2];
    hasher.finalize_xof().fill(numbers.as_flattened_mut());
    (inode_number(numbers[0]), if is_directory { u64::from_be_bytes(numbers[1]) } else { 0 })
}

/// Positive as a signed number, which is how some programs hold it, and none of the numbers with a meaning.
fn inode_number(bytes: [u8; 8]) -> u64 {
    (u64::from_be_bytes(bytes) & (u64::MAX >> 1)).max(FIRST_INODE)
}
