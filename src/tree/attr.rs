//! What a listing shows of a node: its kind, size, permissions and time; and how that is remembered.
//!
//! Facts of a block never change, so the database keeps them: a directory whose children were read once is listed again
//! without reading any of them.

use crate::dag::unixfs::{Kind, Mtime, UnixFs};

/// What a name in the tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A directory: plain, HAMT, or an IPLD map or list.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// What is known of a node without reading its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The size in bytes: of a file's content, of a link's target; 0 for a directory.
    pub size: u64,
    /// The time of the last change; the epoch where none is recorded.
    pub mtime: Mtime,
    /// The lower 12 bits of the mode.
    pub permissions: u16,
    /// What it is.
    pub kind: FileKind,
}

/// The first byte of remembered facts; another one is another encoding, and the facts are learned again.
const FACTS_VERSION: u8 = 1;

impl Attr {
    /// A regular file of raw bytes.
    pub(super) fn raw_file(size: u64) -> Attr {
        Attr { size, mtime: Mtime::default(), permissions: 0o444, kind: FileKind::File }
    }

    /// What a `UnixFS` node says of itself. `None` for a kind that is no file.
    pub(super) fn of_unixfs(node: &UnixFs) -> Option<Attr> {
        let data_len = node.data.as_ref().map_or(0, |data| data.len() as u64);
        let (kind, size) = match node.kind {
            Kind::Directory | Kind::HamtShard => (FileKind::Directory, 0),
            Kind::Symlink => (FileKind::Symlink, data_len),
            Kind::File | Kind::Raw => {
                let parts = || node.blocksizes.iter().fold(data_len, |sum, size| sum.saturating_add(*size));
                (FileKind::File, node.filesize.unwrap_or_else(parts))
            }
            Kind::Metadata => return None,
        };
        Some(Attr { size, mtime: node.mtime.unwrap_or_default(), permissions: node.permissions(), kind })
    }

    /// The facts as [`crate::store::Store::remember`] keeps them.
    pub(super) fn to_facts(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.push(FACTS_VERSION);
        out.push(match self.kind {
            FileKind::Directory => b'd',
            FileKind::File => b'f',
            FileKind::Symlink => b'l',
        });
        out.extend_from_slice(&self.permissions.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.size.to_le_bytes());
        out
    }

    /// Reads what [`Attr::to_facts`] wrote; `None` where another version did.
    pub(super) fn from_facts(facts: &[u8]) -> Option<Attr> {
        if facts.len() != 24 || facts[0] != FACTS_VERSION {
            return None;
        }
        let kind = match facts[1] {
            b'd' => FileKind::Directory,
            b'f' => FileKind::File,
            b'l' => FileKind::Symlink,
            _ => return None,
        };
        let permissions = u16::from_le_bytes(facts[2..4].try_into().ok()?);
        let nanoseconds = u32::from_le_bytes(facts[4..8].try_into().ok()?);
        let seconds = i64::from_le_bytes(facts[8..16].try_into().ok()?);
        let size = u64::from_le_bytes(facts[16..].try_into().ok()?);
        Some(Attr { size, mtime: Mtime { seconds, nanoseconds }, permissions, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_go_both_ways_and_other_versions_are_not_believed() {
        for kind in [FileKind::Directory, FileKind::File, FileKind::Symlink] {
            let attr = Attr {
                size: u64::MAX - 7,
                mtime: Mtime { seconds: -5, nanoseconds: 999_999_999 },
                permissions: 0o4751,
                kind,
            };
            let facts = attr.to_facts();
            assert_eq!(Attr::from_facts(&facts), Some(attr));
            let mut later = facts.clone();
            later[0] += 1;
            assert_eq!(Attr::from_facts(&later), None);
            assert_eq!(Attr::from_facts(&facts[1..]), None);
        }
    }
}
