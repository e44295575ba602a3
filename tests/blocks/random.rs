//! Blocks to test with.

#![allow(dead_code, reason = "each test uses what it needs")]

use bytes::Bytes;
use cidfs::block::{Block, HashFunction, codec};
use cidfs::dag::pb::{self, PbLink};

/// A raw block of `len` bytes that look random and differ by `seed`.
pub fn block(seed: u64, len: usize) -> Block {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(len);
    Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::from(data))
}

/// A dag-pb node that links to all of `children`.
pub fn node(children: &[Block]) -> Block {
    let links = children.iter().map(|child| PbLink { cid: child.cid().clone(), name: b"", tsize: None });
    Block::new(codec::DAG_PB, HashFunction::Sha2_256, pb::encode(links, None).into())
}
