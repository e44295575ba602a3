//! Reads a CAR from its beginning to its end.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;

use super::{CarError, FORMAT, V2_PRAGMA, V2Header};
use crate::block::{Block, BlockError, Cid, codec, read_varint};
use crate::dag::DagError;
use crate::dag::ipld::{Node, Value};
use crate::limits::{MAX_CAR_HEADER_BYTES, MAX_CAR_SECTION_BYTES, MAX_CID_BYTES};

/// A CAR, version 1 or 2, that is being read. It need not be seekable.
#[derive(Debug)]
pub struct CarReader<R> {
    source: Source<R>,
    version: u8,
    roots: Vec<Cid>,
    /// Where the CARv1 payload begins.
    payload: u64,
    header: Option<V2Header>,
}

/// A block as it lies in a CAR: nobody has hashed it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The block's CID.
    pub cid: Cid,
    /// The block's bytes.
    pub data: Bytes,
    /// Where the section begins, in bytes from the beginning of the CARv1 payload: the offset that an index has.
    pub offset: u64,
}

impl<R: Read> CarReader<R> {
    /// Reads the header of a CAR.
    pub fn new(source: R) -> Result<CarReader<R>, CarError> {
        let mut source = Source { inner: BufReader::with_capacity(1 << 16, source), at: 0, end: u64::MAX };
        let (bytes, version, roots) = read_header(&mut source)?;
        if version == 1 {
            return Ok(CarReader { source, version: 1, roots, payload: 0, header: None });
        }
        let mut fixed = [0; V2Header::LEN];
        fixed[0] = V2_PRAGMA[0];
        if bytes.len() + 1 != V2_PRAGMA.len() {
            return Err(source.malformed("a CARv2 that does not begin as one"));
        }
        fixed[1..V2_PRAGMA.len()].copy_from_slice(&bytes);
        let rest = source.bytes(V2Header::LEN - V2_PRAGMA.len())?;
        fixed[V2_PRAGMA.len()..].copy_from_slice(&rest);
        let header = V2Header::decode(&fixed).map_err(|error| CarError::Format { at: 0, error })?;
        source.skip(header.data_offset - V2Header::LEN as u64)?;
        source.end = header.data_offset + header.data_size;
        let (_, version, roots) = read_header(&mut source)?;
        if version != 1 {
            return Err(source.malformed(format!("a CARv2 around a CARv{version}")));
        }
        Ok(CarReader { source, version: 2, roots, payload: header.data_offset, header: Some(header) })
    }

    /// 1 or 2.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The roots that the header names. They need not be in the CAR.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The header of a CARv2.
    pub fn v2_header(&self) -> Option<&V2Header> {
        self.header.as_ref()
    }

    /// The next section, or `None` at the end of the blocks. Sections of no bytes are padding and are passed over.
    pub fn next_section(&mut self) -> Result<Option<Section>, CarError> {
        loop {
            let start = self.source.at;
            let Some(len) = self.source.varint()? else { return Ok(None) };
            if len > self.source.end - self.source.at {
                return Err(self.source.malformed("a section that ends after the CARv2 payload"));
            }
            if len > MAX_CAR_SECTION_BYTES as u64 {
                return Err(self.too_large(start, len)?);
            }
            if len == 0 {
                continue;
            }
            let bytes = self.source.bytes(len as usize)?;
            let (cid, cid_len) = Cid::read(&bytes).map_err(|error| CarError::Format {
                at: start,
                error: DagError::malformed(FORMAT, error.to_string()),
            })?;
            let data = Bytes::from(bytes).slice(cid_len..);
            return Ok(Some(Section { cid, data, offset: start - self.payload }));
        }
    }

    /// The next block, hashed, or `None` at the end of the blocks.
    pub fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        let Some(Section { cid, data, offset }) = self.next_section()? else { return Ok(None) };
        let at = self.payload + offset;
        Block::verify(cid, data).map(Some).map_err(|error| CarError::Block { at, error })
    }

    /// Reads on behind the blocks of a CARv2, over its index, so that who writes to a pipe may finish. Without an index
    /// there is nothing to read.
    pub fn drain(mut self) -> io::Result<()> {
        if self.header.is_some_and(|header| header.index_offset != 0) {
            io::copy(&mut self.source.inner, &mut io::sink())?;
        }
        Ok(())
    }

    /// What to say of a section that is over the limit: its CID is not.
    fn too_large(&mut self, at: u64, len: u64) -> Result<CarError, CarError> {
        let bytes = self.source.bytes(MAX_CID_BYTES)?;
        let error = match Cid::read(&bytes) {
            Ok((cid, cid_len)) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX) - cid_len;
                return Ok(CarError::Block { at, error: BlockError::TooLarge { cid, len } });
            }
            Err(_) => DagError::Limit { what: "a section's size in bytes".into(), limit: MAX_CAR_SECTION_BYTES as u64 },
        };
        Ok(CarError::Format { at, error })
    }
}

/// Reads a CARv1 header: its bytes, its version, and its roots.
fn read_header<R: Read>(source: &mut Source<R>) -> Result<(Vec<u8>, u8, Vec<Cid>), CarError> {
    let Some(len) = source.varint()? else { return Err(CarError::Truncated { at: source.at }) };
    if len > MAX_CAR_HEADER_BYTES as u64 {
        let error = DagError::Limit { what: "the header's size in bytes".into(), limit: MAX_CAR_HEADER_BYTES as u64 };
        return Err(CarError::Format { at: source.at, error });
    }
    if len == 0 {
        return Err(source.malformed("no header: is this a CAR?"));
    }
    let bytes = source.bytes(len as usize)?;
    let node = Node::decode(codec::DAG_CBOR, &Bytes::copy_from_slice(&bytes))
        .map_err(|error| source.malformed(format!("its header is not dag-cbor ({error}): is this a CAR?")))?;
    let version = match node.child("version").as_ref().map(Node::value) {
        Some(Value::Integer(1)) => 1,
        Some(Value::Integer(2)) => return Ok((bytes, 2, Vec::new())),
        _ => return Err(source.malformed("its header has no version, or one that is not known")),
    };
    let roots = node.child("roots").filter(|roots| matches!(roots.value(), Value::List(_)));
    let roots = roots.ok_or_else(|| source.malformed("its header has no roots"))?;
    let mut cids = Vec::new();
    for (_, root) in roots.children() {
        let Value::Link(cid) = root.value() else { return Err(source.malformed("a root that is not a link")) };
        cids.push(cid);
    }
    Ok((bytes, version, cids))
}

/// Counts what is read, and stops at the end of a CARv2's payload.
#[derive(Debug)]
struct Source<R> {
    inner: BufReader<R>,
    at: u64,
    end: u64,
}

impl<R: Read> Source<R> {
    fn malformed(&self, why: impl Into<String>) -> CarError {
        CarError::Format { at: self.at, error: DagError::malformed(FORMAT, why) }
    }

    /// Reads `len` bytes, which the caller has held against a limit.
    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, CarError> {
        let mut bytes = Vec::with_capacity(len);
        let wanted = (len as u64).min(self.end - self.at);
        self.at += (&mut self.inner).take(wanted).read_to_end(&mut bytes)? as u64;
        if bytes.len() < len { Err(CarError::Truncated { at: self.at }) } else { Ok(bytes) }
    }

    fn skip(&mut self, len: u64) -> Result<(), CarError> {
        let skipped = io::copy(&mut (&mut self.inner).take(len), &mut io::sink())?;
        self.at += skipped;
        if skipped < len { Err(CarError::Truncated { at: self.at }) } else { Ok(()) }
    }

    /// Reads a varint, or `None` where there is nothing left to read.
    fn varint(&mut self) -> Result<Option<u64>, CarError> {
        let mut bytes = [0; 9];
        for len in 1..=bytes.len() {
            let next = if self.at < self.end { self.inner.fill_buf()?.first().copied() } else { None };
            let Some(byte) = next else {
                return if len == 1 { Ok(None) } else { Err(CarError::Truncated { at: self.at }) };
            };
            self.inner.consume(1);
            self.at += 1;
            bytes[len - 1] = byte;
            if byte & 0x80 == 0 {
                return match read_varint(&bytes[..len]) {
                    Ok((value, _)) => Ok(Some(value)),
                    Err(_) => Err(self.malformed("a length that is no varint: is this a CAR?")),
                };
            }
        }
        Err(self.malformed("a length over 63 bits: is this a CAR?"))
    }
}
