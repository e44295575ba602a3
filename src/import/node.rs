//! Nodes and their blocks: how bytes get their CID, and what kubo writes into the nodes of files, directories and links.

use bytes::Bytes;

use super::ImportError;
use super::buffers::Buffer;
use crate::block::{Block, Cid, HashFunction, codec};
use crate::dag::pb::{self, PbLink};
use crate::dag::unixfs::{Kind, Mtime, UnixFs, leaf_frame};
use crate::limits::{MAX_BLOCK_BYTES, MAX_IDENTITY_DIGEST_BYTES};

/// How a block gets its CID.
#[derive(Clone, Copy, Debug)]
pub(super) struct CidFormat {
    /// 0 or 1. Raw leaves have `CIDv1` always.
    pub version: u8,
    pub hash: HashFunction,
    /// Blocks of at most so many bytes go into their CIDs.
    pub inline_limit: Option<usize>,
}

impl CidFormat {
    /// Hashes `data` into a block of `codec`.
    pub fn block(&self, codec: u64, data: Bytes) -> Result<Block, ImportError> {
        if data.len() > MAX_BLOCK_BYTES {
            return Err(ImportError::BlockTooLarge { bytes: data.len() });
        }
        if self.inline_limit.is_some_and(|limit| data.len() <= limit) {
            return Ok(Block::new(codec, HashFunction::Identity, data));
        }
        if self.hash == HashFunction::Identity && data.len() > MAX_IDENTITY_DIGEST_BYTES {
            return Err(ImportError::options(format!(
                "--hash=identity: a block of {} bytes does not fit into a CID, which holds {MAX_IDENTITY_DIGEST_BYTES}",
                data.len()
            )));
        }
        Ok(if self.version == 0 && codec == codec::DAG_PB {
            Block::new_v0(data)
        } else {
            Block::new(codec, self.hash, data)
        })
    }
}

/// What a node stores beside its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub mode: Option<u32>,
    pub mtime: Option<Mtime>,
}

impl Metadata {
    pub fn is_empty(self) -> bool {
        self == Metadata::default()
    }
}

/// Go's time of year 1 is its "no time", so kubo stores nothing for it.
pub(super) fn mtime_or_none(mtime: Mtime) -> Option<Mtime> {
    let year_1 = Mtime { seconds: -62_135_596_800, nanoseconds: 0 };
    (mtime != year_1).then_some(mtime)
}

/// A link to the root of a DAG that has been built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub cid: Cid,
    /// The bytes of file below it.
    pub file_bytes: u64,
    /// The bytes of all blocks below it, itself included: the Tsize of links to it.
    pub dag_bytes: u64,
}

/// A leaf of a file: its block, and how many bytes of the file it holds.
#[derive(Debug)]
pub(super) struct Leaf {
    pub block: Block,
    pub file_bytes: u64,
}

impl Leaf {
    pub fn link(&self) -> Link {
        Link { cid: self.block.cid().clone(), file_bytes: self.file_bytes, dag_bytes: self.block.data().len() as u64 }
    }
}

/// A node of a file over the nodes or leaves of `links`.
pub(super) fn file_node(format: &CidFormat, links: &[Link], metadata: Metadata) -> Result<(Block, Link), ImportError> {
    let file_bytes = links.iter().map(|link| link.file_bytes).sum();
    let message = UnixFs {
        filesize: Some(file_bytes),
        blocksizes: links.iter().map(|link| link.file_bytes).collect(),
        mode: metadata.mode,
        mtime: metadata.mtime,
        ..UnixFs::new(Kind::File)
    };
    let pb_links = links.iter().map(|link| PbLink { cid: link.cid.clone(), name: b"", tsize: Some(link.dag_bytes) });
    let block = format.block(codec::DAG_PB, pb::encode(pb_links, Some(&message.encode())).into())?;
    let dag_bytes = block.data().len() as u64 + links.iter().map(|link| link.dag_bytes).sum::<u64>();
    let link = Link { cid: block.cid().clone(), file_bytes, dag_bytes };
    Ok((block, link))
}

/// A dag-pb node that holds bytes of a file and no links. It is made in the buffer that the bytes are in.
pub(super) fn data_node(
    format: &CidFormat,
    kind: Kind,
    mut data: Buffer,
    metadata: Metadata,
) -> Result<Leaf, ImportError> {
    let len = data.data().len();
    let bytes = if len == 0 {
        let message = UnixFs { filesize: Some(0), mode: metadata.mode, mtime: metadata.mtime, ..UnixFs::new(kind) };
        pb::encode([], Some(&message.encode())).into()
    } else {
        let (head, tail) = leaf_frame(kind, len, metadata.mode, metadata.mtime);
        data.freeze_between(&head, &tail)
    };
    Ok(Leaf { block: format.block(codec::DAG_PB, bytes)?, file_bytes: len as u64 })
}

/// The node of a symbolic link.
pub(super) fn symlink_node(
    format: &CidFormat,
    target: Vec<u8>,
    metadata: Metadata,
) -> Result<(Block, Link), ImportError> {
    let message = UnixFs { data: Some(target.into()), mtime: metadata.mtime, ..UnixFs::new(Kind::Symlink) };
    let block = format.block(codec::DAG_PB, pb::encode([], Some(&message.encode())).into())?;
    let link = Link { cid: block.cid().clone(), file_bytes: 0, dag_bytes: block.data().len() as u64 };
    Ok((block, link))
}
