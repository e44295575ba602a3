//! dag-pb: a node is bytes of data and a list of links (<https://ipld.io/specs/codecs/dag-pb/spec/>).
//!
//! [`PbNode::decode`] checks the whole block once, CIDs included; what it returns borrows the block, and its links are
//! read again from the bytes as they are iterated, so a node costs no memory beyond its block. The field orders `Data,
//! Links` and `Links, Data` are both in the wild and both read; [`encode`] writes the canonical one, links first.

use std::ops::Range;

use bytes::Bytes;

use super::DagError;
use super::protobuf::{Fields, Value, put_bytes_field, put_varint, put_varint_field, varint_len};
use crate::block::Cid;

const FORMAT: &str = "dag-pb";

/// A dag-pb node over the bytes of its block.
#[derive(Clone, Debug)]
pub struct PbNode {
    bytes: Bytes,
    data: Option<Range<usize>>,
    /// Where the run of links begins and ends; other fields do not lie between links.
    links: Range<usize>,
    link_count: usize,
}

/// A link of a node, borrowed from its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PbLink<'a> {
    /// The child.
    pub cid: Cid,
    /// The name: empty where there is none, and any bytes at all.
    pub name: &'a [u8],
    /// The size that the child's whole DAG is claimed to have, in bytes of blocks. Never checked.
    pub tsize: Option<u64>,
}

impl PbNode {
    /// Checks `bytes` as one dag-pb node.
    pub fn decode(bytes: Bytes) -> Result<PbNode, DagError> {
        let mut fields = Fields::new(&bytes, 0..bytes.len(), FORMAT);
        let mut data = None;
        let mut links = None::<Range<usize>>;
        let mut link_count = 0;
        loop {
            let start = fields.position();
            let Some((field, value)) = fields.next()? else { break };
            match (field, value) {
                (1, Value::Bytes(range)) if data.is_none() => data = Some(range),
                (2, Value::Bytes(range)) => {
                    read_link(&bytes, range)?;
                    let run = links.get_or_insert(start..start);
                    if run.end != start {
                        return Err(fields.malformed("links on both sides of the data"));
                    }
                    run.end = fields.position();
                    link_count += 1;
                }
                (1, Value::Bytes(_)) => return Err(fields.malformed("two data fields")),
                (field, _) => return Err(fields.malformed(format!("field {field} of a wrong type or number"))),
            }
        }
        Ok(PbNode { data, links: links.unwrap_or(0..0), link_count, bytes })
    }

    /// The node's data, sharing the block's memory.
    pub fn data(&self) -> Option<Bytes> {
        self.data.clone().map(|range| self.bytes.slice(range))
    }

    /// How many links the node has.
    pub fn link_count(&self) -> usize {
        self.link_count
    }

    /// The links in the block's order.
    pub fn links(&self) -> Links<'_> {
        Links { bytes: &self.bytes, at: self.links.clone(), left: self.link_count }
    }

    /// The link that begins at `position`, which [`Links::position`] gave, and where the next one begins.
    pub(super) fn link_at(&self, position: usize) -> Option<(PbLink<'_>, usize)> {
        if position > self.links.end {
            return None;
        }
        let mut links = Links { bytes: &self.bytes, at: position..self.links.end, left: 1 };
        let link = links.next()?;
        Some((link, links.at.start))
    }

    /// The whole block.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// The links of a [`PbNode`].
#[derive(Clone, Debug)]
pub struct Links<'a> {
    bytes: &'a [u8],
    at: Range<usize>,
    left: usize,
}

impl Links<'_> {
    /// Where in the block the next link begins, for [`PbNode::link_at`].
    pub(super) fn position(&self) -> usize {
        self.at.start
    }
}

impl<'a> Iterator for Links<'a> {
    type Item = PbLink<'a>;

    fn next(&mut self) -> Option<PbLink<'a>> {
        // `PbNode::decode` has read these fields, so none of them fails.
        let mut fields = Fields::new(self.bytes, self.at.clone(), FORMAT);
        let Ok(Some((_, Value::Bytes(range)))) = fields.next() else { return None };
        self.at.start = fields.position();
        self.left = self.left.saturating_sub(1);
        read_link(self.bytes, range).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Links<'_> {}

fn read_link(bytes: &[u8], range: Range<usize>) -> Result<PbLink<'_>, DagError> {
    let mut fields = Fields::new(bytes, range, FORMAT);
    let mut cid = None;
    let mut name = None;
    let mut tsize = None;
    while let Some((field, value)) = fields.next()? {
        match (field, value) {
            (1, Value::Bytes(range)) if cid.is_none() && name.is_none() && tsize.is_none() => {
                cid = Some(Cid::from_link(&bytes[range]).map_err(|error| fields.malformed(error.to_string()))?);
            }
            (2, Value::Bytes(range)) if name.is_none() && tsize.is_none() => name = Some(&bytes[range]),
            (3, Value::Varint(value)) if tsize.is_none() => tsize = Some(value),
            (field, _) => return Err(fields.malformed(format!("link field {field} twice, out of order, or unknown"))),
        }
    }
    let cid = cid.ok_or_else(|| fields.malformed("a link without a CID"))?;
    Ok(PbLink { cid, name: name.unwrap_or_default(), tsize })
}

/// Encodes a node as kubo does: each link with its name (also an empty one) and its Tsize, then the data.
pub fn encode<'a>(links: impl IntoIterator<Item = PbLink<'a>>, data: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for link in links {
        put_varint(&mut out, 2 << 3 | 2);
        put_varint(&mut out, link_body_len(&link) as u64);
        put_bytes_field(&mut out, 1, link.cid.as_bytes());
        put_bytes_field(&mut out, 2, link.name);
        if let Some(tsize) = link.tsize {
            put_varint_field(&mut out, 3, tsize);
        }
    }
    if let Some(data) = data {
        put_bytes_field(&mut out, 1, data);
    }
    out
}

/// How many bytes a link takes in its node, its own tag and length included.
pub fn encoded_link_len(link: &PbLink<'_>) -> usize {
    let body = link_body_len(link);
    1 + varint_len(body as u64) + body
}

fn link_body_len(link: &PbLink<'_>) -> usize {
    let bytes_field = |len: usize| 1 + varint_len(len as u64) + len;
    bytes_field(link.cid.as_bytes().len())
        + bytes_field(link.name.len())
        + link.tsize.map_or(0, |tsize| 1 + varint_len(tsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    fn cid(seed: u8) -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&[seed]))
    }

    fn link(seed: u8, name: &[u8]) -> PbLink<'_> {
        PbLink { cid: cid(seed), name, tsize: Some(u64::from(seed) << 20) }
    }

    #[test]
    fn links_and_data_go_both_ways() {
        let links = [link(1, b"a"), link(2, b""), link(3, b"\xff\x00")];
        let bytes = Bytes::from(encode(links.clone(), Some(b"data")));
        assert_eq!(bytes.len(), links.iter().map(encoded_link_len).sum::<usize>() + 2 + 4);
        let node = PbNode::decode(bytes).unwrap();
        assert_eq!(node.links().collect::<Vec<_>>(), links);
        assert_eq!(node.link_count(), 3);
        assert_eq!(&node.data().unwrap()[..], b"data");
    }

    #[test]
    fn data_before_links_is_read_and_links_around_data_are_not() {
        let links = encode([link(1, b"a")], None);
        let data = encode([], Some(b"data"));
        let node = PbNode::decode(Bytes::from([data.clone(), links.clone()].concat())).unwrap();
        assert_eq!((node.link_count(), node.data().unwrap().len()), (1, 4));
        assert!(PbNode::decode(Bytes::from([links.clone(), data.clone(), links].concat())).is_err());
        assert!(PbNode::decode(Bytes::from([data.clone(), data].concat())).is_err());
    }

    #[test]
    fn an_empty_block_is_an_empty_node() {
        let node = PbNode::decode(Bytes::new()).unwrap();
        assert_eq!((node.data(), node.link_count(), node.links().count()), (None, 0, 0));
    }

    #[test]
    fn every_cut_of_a_node_is_an_error_or_a_shorter_node() {
        let bytes = Bytes::from(encode([link(1, b"a"), link(2, b"b")], Some(b"data")));
        for len in 0..bytes.len() {
            if let Ok(node) = PbNode::decode(bytes.slice(..len)) {
                assert!(node.links().count() <= 2);
            }
        }
    }
}
