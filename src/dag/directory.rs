//! Directories in one dag-pb node, as validated entries.
//!
//! A decoded [`Directory`] has no bad names in it: links whose name is empty, `.` or `..`, holds `/` or NUL, or is longer
//! than [`MAX_NAME_BYTES`] are dropped, and of two links with one name the first in the block's order stays. Both are
//! counted, so that whoever lists the directory can say that something is not shown. Names need not be UTF-8.
//!
//! Entries keep the block's order, which makes an index a stable cursor; [`Directory::get`] finds a name by binary
//! search, whatever that order is.

use bytes::Bytes;

use super::pb::PbNode;
use crate::block::Cid;
use crate::limits::MAX_NAME_BYTES;

/// A name in a directory and what it links to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name: 1 to 255 bytes, none of them `/` or NUL, and neither `.` nor `..`. Shares the block's memory.
    pub name: Bytes,
    /// The child.
    pub cid: Cid,
    /// The claimed size of the child's whole DAG, in bytes of blocks: for a raw leaf the size of the file.
    pub tsize: Option<u64>,
}

/// The entries of a directory that is one node.
#[derive(Clone, Debug)]
pub struct Directory {
    entries: Vec<DirectoryEntry>,
    /// Indexes into `entries` in the order of the names; `None` where `entries` are in that order already.
    by_name: Option<Vec<u32>>,
    dropped: usize,
}

impl Directory {
    /// Reads the links of `node`. What the node's `UnixFS` data says is the caller's to check.
    pub fn from_node(node: &PbNode) -> Directory {
        let mut entries = Vec::new();
        let mut dropped = 0;
        for link in node.links() {
            if is_valid_name(link.name) {
                // The name borrows from the block, so this shares its memory.
                entries.push(DirectoryEntry {
                    name: node.bytes().slice_ref(link.name),
                    cid: link.cid,
                    tsize: link.tsize,
                });
            } else {
                dropped += 1;
            }
        }
        if entries.is_sorted_by(|a, b| a.name < b.name) {
            return Directory { entries, by_name: None, dropped };
        }
        // Stable, so that of equal names the first in the block comes first, and stays.
        let mut by_name: Vec<u32> = (0..entries.len() as u32).collect();
        by_name.sort_by(|a, b| entries[*a as usize].name.cmp(&entries[*b as usize].name));
        let mut duplicate = vec![false; entries.len()];
        for pair in by_name.windows(2) {
            duplicate[pair[1] as usize] = entries[pair[0] as usize].name == entries[pair[1] as usize].name;
        }
        let duplicates = duplicate.iter().filter(|is| **is).count();
        if duplicates == 0 {
            return Directory { entries, by_name: Some(by_name), dropped };
        }
        let mut is_duplicate = duplicate.into_iter();
        entries.retain(|_| !is_duplicate.next().unwrap_or(false));
        let mut by_name: Vec<u32> = (0..entries.len() as u32).collect();
        by_name.sort_by(|a, b| entries[*a as usize].name.cmp(&entries[*b as usize].name));
        Directory { entries, by_name: Some(by_name), dropped: dropped + duplicates }
    }

    /// The entries in the block's order.
    pub fn entries(&self) -> &[DirectoryEntry] {
        &self.entries
    }

    /// The entry with this name.
    pub fn get(&self, name: &[u8]) -> Option<&DirectoryEntry> {
        let index = match &self.by_name {
            None => self.entries.binary_search_by(|entry| entry.name[..].cmp(name)).ok()?,
            Some(order) => {
                let at = order.binary_search_by(|index| self.entries[*index as usize].name[..].cmp(name)).ok()?;
                order[at] as usize
            }
        };
        Some(&self.entries[index])
    }

    /// How many links of the node are not shown.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

/// Whether `name` can be a name in a directory, as Linux has it.
pub fn is_valid_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};
    use crate::dag::pb::{PbLink, encode};

    fn cid(seed: u8) -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&[seed]))
    }

    fn directory(names: &[&[u8]]) -> Directory {
        let links = names.iter().zip(0..).map(|(name, seed)| PbLink { cid: cid(seed), name, tsize: Some(1) });
        Directory::from_node(&PbNode::decode(encode(links, Some(b"\x08\x01")).into()).unwrap())
    }

    fn names(directory: &Directory) -> Vec<&[u8]> {
        directory.entries().iter().map(|entry| &entry.name[..]).collect()
    }

    #[test]
    fn bad_names_are_dropped_and_counted() {
        let long = [b'x'; 256];
        let directory = directory(&[b"", b".", b"..", b"a/b", b"a\0b", &long, b"\xff\xfe", b"...", &long[..255]]);
        assert_eq!(names(&directory), [b"\xff\xfe", &b"..."[..], &long[..255]]);
        assert_eq!(directory.dropped(), 6);
    }

    #[test]
    fn of_duplicate_names_the_first_wins() {
        let directory = directory(&[b"b", b"a", b"b", b"c", b"a", b"b"]);
        assert_eq!(names(&directory), [b"b", b"a", b"c"]);
        assert_eq!(directory.dropped(), 3);
        assert_eq!(directory.get(b"b").unwrap().cid, cid(0));
        assert_eq!(directory.get(b"a").unwrap().cid, cid(1));
    }

    #[test]
    fn every_name_is_found_in_any_order_of_links() {
        for order in [[&b"a"[..], b"b", b"c"], [b"c", b"a", b"b"]] {
            let directory = directory(&order);
            assert_eq!(names(&directory), order);
            for (name, seed) in order.iter().zip(0..) {
                assert_eq!(directory.get(name).unwrap().cid, cid(seed));
            }
            assert!(directory.get(b"d").is_none() && directory.get(b"").is_none());
        }
    }
}
