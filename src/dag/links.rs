//! Every link of a block, whatever its codec.
//!
//! A block of raw bytes, of plain CBOR or JSON, or of a codec that cidfs does not know has none.

use bytes::Bytes;

use super::DagError;
use super::ipld::Node;
use super::pb::PbNode;
use crate::block::{Cid, codec};

/// Whether blocks of this codec may have links: others need not be read for them.
pub fn can_link(codec: u64) -> bool {
    matches!(codec, codec::DAG_PB | codec::DAG_CBOR | codec::DAG_JSON)
}

/// The links of a block in its order, each as often as it occurs.
pub fn links(cid: &Cid, data: &Bytes) -> Result<Vec<Cid>, DagError> {
    Ok(Links::decode(cid, data)?.map(|link| link.cid).collect())
}

/// A link of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The block that is linked to.
    pub cid: Cid,
    /// The link's name, where the codec gives it one: dag-pb does, and it may be empty.
    pub name: Vec<u8>,
    /// What the DAG that is linked to comes to, in bytes, where the codec claims it: dag-pb may. Never checked.
    pub tsize: Option<u64>,
}

/// The links of a block, read from its bytes one by one: they cost no memory beyond the block.
#[derive(Clone, Debug)]
pub struct Links {
    node: Linked,
    at: usize,
}

#[derive(Clone, Debug)]
enum Linked {
    Nothing,
    Pb(PbNode),
    Ipld(Node),
}

impl Links {
    /// Reads a block.
    pub fn decode(cid: &Cid, data: &Bytes) -> Result<Links, DagError> {
        let node = match cid.codec() {
            codec::DAG_PB => Linked::Pb(PbNode::decode(data.clone())?),
            codec @ (codec::DAG_CBOR | codec::DAG_JSON) => Linked::Ipld(Node::decode(codec, data)?),
            _ => Linked::Nothing,
        };
        let at = if let Linked::Pb(node) = &node { node.links().position() } else { 0 };
        Ok(Links { node, at })
    }

    /// Where the next link is, for [`Links::from_position`].
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes on from a position that [`Links::position`] gave for the same block.
    #[must_use]
    pub fn from_position(self, at: usize) -> Links {
        Links { at, ..self }
    }
}

impl Iterator for Links {
    type Item = Link;

    fn next(&mut self) -> Option<Link> {
        match &self.node {
            Linked::Nothing => None,
            Linked::Pb(node) => {
                let (link, end) = node.link_at(self.at)?;
                self.at = end;
                Some(Link { cid: link.cid, name: link.name.to_vec(), tsize: link.tsize })
            }
            Linked::Ipld(node) => {
                let (cid, end) = node.link_from(self.at)?;
                self.at = end;
                Some(Link { cid, name: Vec::new(), tsize: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::HashFunction;
    use crate::dag::pb::{self, PbLink};

    fn cid(seed: u8) -> Cid {
        Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&[seed]))
    }

    fn blocks() -> Vec<(Cid, Bytes)> {
        let of =
            |codec: u64, data: Vec<u8>| (Cid::new_v1(codec, &HashFunction::Sha2_256.digest(&data)), Bytes::from(data));
        let pb_links = [1, 2, 1].map(|seed| PbLink { cid: cid(seed), name: b"name", tsize: None });
        let json = format!(r#"{{"a":[{{"/":"{}"}},{{"/":"{}"}}],"b":{{"/":"{}"}}}}"#, cid(1), cid(2), cid(1));
        let node = Node::decode(codec::DAG_JSON, &Bytes::from(json.clone())).unwrap();
        vec![
            of(codec::DAG_PB, pb::encode(pb_links, Some(b"data"))),
            of(codec::DAG_JSON, json.into()),
            of(codec::DAG_CBOR, node.encode(codec::DAG_CBOR).unwrap()),
        ]
    }

    #[test]
    fn links_of_every_codec_come_in_order_and_as_often_as_they_occur() {
        for (name, data) in blocks() {
            assert_eq!(links(&name, &data).unwrap(), [cid(1), cid(2), cid(1)], "{name}");
            assert!(can_link(name.codec()));
            assert!(links(&name.with_codec(codec::RAW), &data).unwrap().is_empty());
            assert!(links(&name.with_codec(0x1234), &data).unwrap().is_empty());
        }
        assert!(!can_link(codec::RAW) && !can_link(codec::CBOR) && !can_link(0x1234));
    }

    #[test]
    fn links_go_on_from_any_position() {
        for (name, data) in blocks() {
            let mut links = Links::decode(&name, &data).unwrap();
            let whole: Vec<_> = links.clone().collect();
            for index in 0..whole.len() {
                let again = Links::decode(&name, &data).unwrap().from_position(links.position());
                assert_eq!(again.collect::<Vec<_>>(), whole[index..]);
                links.next();
            }
            assert_eq!(links.from_position(usize::MAX).next(), None);
        }
    }

    #[test]
    fn a_block_that_is_not_of_its_codec_has_an_error_and_no_links() {
        for (name, _) in blocks() {
            assert!(links(&name, &Bytes::from_static(b"\xff")).is_err());
        }
    }
}
