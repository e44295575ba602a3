//! Writes CARs.

use std::io::{self, Write};

use smallvec::SmallVec;

use crate::block::{Block, Cid, write_varint};
use crate::dag::ipld;

/// A CARv1 that is being written.
#[derive(Debug)]
pub struct CarWriter<W> {
    out: W,
    at: u64,
}

/// The header of a CARv1, its length before it.
pub fn encode_header(roots: &[Cid]) -> Vec<u8> {
    let body = ipld::car_header(roots);
    let mut out = SmallVec::<[u8; 16]>::new();
    write_varint(&mut out, body.len() as u64);
    [out.as_slice(), &body].concat()
}

/// What comes before a block's bytes in its section: the section's length and the CID.
pub fn section_head(cid: &Cid, data_len: usize) -> SmallVec<[u8; 48]> {
    let mut out = SmallVec::new();
    write_varint(&mut out, (cid.as_bytes().len() + data_len) as u64);
    out.extend_from_slice(cid.as_bytes());
    out
}

impl<W: Write> CarWriter<W> {
    /// Writes the header.
    pub fn new(mut out: W, roots: &[Cid]) -> io::Result<CarWriter<W>> {
        let header = encode_header(roots);
        out.write_all(&header)?;
        Ok(CarWriter { out, at: header.len() as u64 })
    }

    /// Writes a block, and says where its section begins, in bytes from the beginning of the CAR.
    pub fn write(&mut self, block: &Block) -> io::Result<u64> {
        let start = self.at;
        let head = section_head(block.cid(), block.data().len());
        self.out.write_all(&head)?;
        self.out.write_all(block.data())?;
        self.at += (head.len() + block.data().len()) as u64;
        Ok(start)
    }

    /// How many bytes the CAR has so far.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether nothing is written: never, for there is a header.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Flushes, and gives back what was written to.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
