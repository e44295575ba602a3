//! Blocks: bytes and the CID that they hash to.
//!
//! A [`Block`] exists only if its bytes hash to its CID, so no floor above checks it again. [`Block::verify`] takes
//! bytes from anywhere (a peer, a file, a gateway) and hashes them; [`Block::new`] names bytes of our own. The one
//! other way in belongs to the store, which hashed the block when it arrived and holds a checksum of each record
//! since: see [`Block::from_checked_record`].

mod cid;
mod form;
mod hash;

pub use self::cid::{Cid, CidError, codec};
pub(crate) use self::cid::{read_varint, write_varint};
pub use self::form::CidForm;
pub use self::hash::{HashFunction, Multihash};

use bytes::Bytes;

use crate::limits::MAX_BLOCK_BYTES;

/// Bytes that hash to their CID. Cheap to clone: the bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    data: Bytes,
}

/// Why bytes are not the block that a CID names.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The bytes hash to something else: they were damaged or forged on the way.
    #[error("the bytes given for block {cid} do not hash to it")]
    Mismatch {
        /// The CID that was asked for.
        cid: Cid,
    },
    /// The CID names a hash function that cidfs does not have.
    #[error("block {cid}: unsupported hash function {code:#x}")]
    UnsupportedHash {
        /// The CID that was asked for.
        cid: Cid,
        /// The function's multicodec code.
        code: u64,
    },
    /// The bytes are longer than [`MAX_BLOCK_BYTES`].
    #[error("block {cid} has {len} bytes, more than the {MAX_BLOCK_BYTES} that a block may have")]
    TooLarge {
        /// The CID that was asked for.
        cid: Cid,
        /// The length of the bytes.
        len: usize,
    },
}

impl Block {
    /// Hashes `data` with `hash` and names it with a CIDv1 of `codec` (one of [`codec`]'s or any other multicodec).
    pub fn new(codec: u64, hash: HashFunction, data: Bytes) -> Block {
        Block { cid: Cid::new_v1(codec, &hash.digest(&data)), data }
    }

    /// Hashes `data` with sha2-256 and names it with a CIDv0, which is always dag-pb.
    pub fn new_v0(data: Bytes) -> Block {
        Block { cid: Cid::new_v0(&HashFunction::Sha2_256.digest(&data)), data }
    }

    /// Hashes `data` and keeps it only if `cid` is its name.
    pub fn verify(cid: Cid, data: Bytes) -> Result<Block, BlockError> {
        if data.len() > MAX_BLOCK_BYTES {
            return Err(BlockError::TooLarge { len: data.len(), cid });
        }
        let code = cid.hash_code();
        let Some(hash) = HashFunction::from_code(code) else {
            return Err(BlockError::UnsupportedHash { cid, code });
        };
        if hash.matches(cid.digest(), &data) { Ok(Block { cid, data }) } else { Err(BlockError::Mismatch { cid }) }
    }

    /// The block that an identity CID carries inside itself, or `None` for any other CID.
    pub fn from_identity(cid: &Cid) -> Option<Block> {
        let data = Bytes::copy_from_slice(cid.identity_data()?);
        Some(Block { cid: cid.clone(), data })
    }

    /// Only for the store: a record that was hashed when it entered this machine and whose checksum held at this read.
    pub(crate) fn from_checked_record(cid: Cid, data: Bytes) -> Block {
        Block { cid, data }
    }

    /// The same block under another name: a CID with the same multihash. `None` where `cid` has another.
    pub fn renamed(&self, cid: &Cid) -> Option<Block> {
        (cid.multihash() == self.cid.multihash()).then(|| Block { cid: cid.clone(), data: self.data.clone() })
    }

    /// The same block in memory of its own, for one that lies in a buffer much larger than itself.
    #[must_use]
    pub fn compacted(self) -> Block {
        Block { cid: self.cid, data: Bytes::copy_from_slice(&self.data) }
    }

    /// The block's name.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The block's bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Takes the block apart.
    pub fn into_parts(self) -> (Cid, Bytes) {
        (self.cid, self.data)
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({}, {} bytes)", self.cid, self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_hash_to_the_cid_make_no_block() {
        let good = Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::from_static(b"good"));
        assert!(Block::verify(good.cid().clone(), Bytes::from_static(b"good")).is_ok());
        assert!(matches!(
            Block::verify(good.cid().clone(), Bytes::from_static(b"gooe")),
            Err(BlockError::Mismatch { .. })
        ));
    }

    #[test]
    fn a_block_over_the_limit_is_refused_before_it_is_hashed() {
        let cid = Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(b""));
        let data = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
        assert!(matches!(Block::verify(cid, data), Err(BlockError::TooLarge { .. })));
    }

    #[test]
    fn an_unknown_hash_function_is_named_in_the_error() {
        let unknown = Multihash::wrap(0x99_99, &[7; 32]).unwrap();
        let error = Block::verify(Cid::new_v1(codec::RAW, &unknown), Bytes::new()).unwrap_err();
        assert!(error.to_string().contains("unsupported hash function 0x9999"), "{error}");
    }

    #[test]
    fn a_block_is_renamed_to_a_cid_of_the_same_multihash_only() {
        let block = Block::new_v0(Bytes::from_static(b"data"));
        let renamed = block.renamed(&block.cid().with_codec(codec::RAW)).unwrap();
        assert_eq!((renamed.cid().codec(), renamed.data()), (codec::RAW, block.data()));
        assert!(block.renamed(Block::new_v0(Bytes::from_static(b"Data")).cid()).is_none());
    }

    #[test]
    fn an_identity_cid_carries_its_block() {
        let cid = Cid::new_v1(codec::RAW, &HashFunction::Identity.digest(b"inside"));
        assert_eq!(&Block::from_identity(&cid).unwrap().data()[..], b"inside");
        assert!(Block::verify(cid, Bytes::from_static(b"inside")).is_ok());
    }
}
