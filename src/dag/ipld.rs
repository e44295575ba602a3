//! The IPLD data model: maps, lists and scalars in blocks of dag-cbor and dag-json
//! (<https://ipld.io/docs/data-model/>, <https://ipld.io/specs/codecs/dag-cbor/spec/>,
//! <https://ipld.io/specs/codecs/dag-json/spec/>).
//!
//! A [`Node`] is one value over the bytes of its block. Decoding a dag-cbor block checks it once, from the first byte to
//! the last, and builds nothing: maps and lists are read from the bytes as they are walked, so a node costs no memory
//! beyond its block, however many items it has. A dag-json block is first rewritten as CBOR, which is about as long.
//! Neither decoder recurses; [`MAX_IPLD_DEPTH`] bounds the nesting.
//!
//! Decoding is strict: dag-cbor must be in its one canonical form, and dag-json may not use its reserved key `/` for
//! anything but links and bytes. The blocks of the other codecs have a view in the data model too, for `dag get`: a raw
//! block is bytes, a dag-pb node is a map of `Data` and `Links`.
//!
//! - [`Node::children`] lists a map or a list, from any position; [`Node::child`] finds one; [`Node::resolve`] walks a
//!   path as far as the block goes.
//! - [`Node::links`] are all links, however deep.
//! - [`Node::encode`] writes a node in any codec that can hold it.

mod cbor;
mod encode;
mod json;

use std::borrow::Cow;

use bytes::Bytes;

use super::DagError;
use super::pb::PbNode;
use crate::block::{Cid, codec};
use crate::limits::MAX_BLOCK_BYTES;
#[cfg(doc)]
use crate::limits::MAX_IPLD_DEPTH;

/// A value of the data model: a whole block, or a part of one.
#[derive(Clone, Debug)]
pub struct Node {
    /// One value in CBOR that [`cbor::check`] or [`json::decode`] has passed.
    bytes: Bytes,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer from -2^64 to 2^64 - 1.
    Integer(i128),
    /// A finite number.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A link.
    Link(Cid),
    /// A list of so many items.
    List(u64),
    /// A map of so many entries.
    Map(u64),
}

impl Node {
    /// Reads a block of dag-cbor, dag-json, dag-pb, raw, cbor or json.
    pub fn decode(codec: u64, data: &Bytes) -> Result<Node, DagError> {
        if data.len() > MAX_BLOCK_BYTES {
            return Err(DagError::Limit { what: "a block's size in bytes".into(), limit: MAX_BLOCK_BYTES as u64 });
        }
        let bytes = match codec {
            codec::DAG_CBOR | codec::CBOR => {
                cbor::check(data, codec == codec::DAG_CBOR)?;
                data.clone()
            }
            codec::DAG_JSON | codec::JSON => json::decode(data, codec == codec::DAG_JSON)?.into(),
            codec::DAG_PB => encode::from_pb(&PbNode::decode(data.clone())?).into(),
            codec::RAW => cbor::of_bytes(data).into(),
            _ => return Err(DagError::Codec { codec }),
        };
        Ok(Node { bytes })
    }

    /// What the node is.
    pub fn value(&self) -> Value<'_> {
        cbor::value(&self.bytes, 0).map_or(Value::Null, |(value, _)| value)
    }

    /// The children of a map, with their keys in the block's order, or of a list, with their indexes from 0 as decimal
    /// numbers. Empty for scalars and links.
    pub fn children(&self) -> Children<'_> {
        let (kind, left, at) = match cbor::head(&self.bytes, 0) {
            Some(head) if head.major == cbor::LIST => (Container::List, head.argument, head.end),
            Some(head) if head.major == cbor::MAP => (Container::Map, head.argument, head.end),
            _ => (Container::List, 0, 0),
        };
        Children { bytes: &self.bytes, kind, index: 0, left, at }
    }

    /// The child of a map with this key, or of a list at this index.
    pub fn child(&self, name: &str) -> Option<Node> {
        if let Value::List(_) = self.value() {
            let index: u64 = name.parse().ok()?;
            // "01" and "+1" are no names of items.
            (index.to_string() == name).then(|| self.children().skip_to(index).next())?.map(|(_, node)| node)
        } else {
            self.children().find(|(key, _)| key == name).map(|(_, node)| node)
        }
    }

    /// Walks `path` as far as this block goes: the last node that is there, and what is left of the path. Where that node
    /// is a link, the rest is for the block that it names; where it is anything else, the path leads nowhere.
    pub fn resolve<'p, S: AsRef<str>>(&self, path: &'p [S]) -> (Node, &'p [S]) {
        let mut node = self.clone();
        for (index, name) in path.iter().enumerate() {
            match node.child(name.as_ref()) {
                Some(child) => node = child,
                None => return (node, &path[index..]),
            }
        }
        (node, &[])
    }

    /// Every link in the node, however deep, in the block's order.
    pub fn links(&self) -> impl Iterator<Item = Cid> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (cid, end) = self.link_from(at)?;
            at = end;
            Some(cid)
        })
    }

    /// The first link at `at` or later, and where it ends; `at` is 0 or the end of another.
    pub(super) fn link_from(&self, mut at: usize) -> Option<(Cid, usize)> {
        loop {
            let (value, end) = cbor::value(&self.bytes, at)?;
            if let Value::Link(cid) = value {
                return Some((cid, end));
            }
            at = end;
        }
    }

    /// What a scalar holds when it is shown as a file: text and bytes as they are, other scalars as dag-json has them.
    /// `None` for maps, lists and links.
    pub fn contents(&self) -> Option<Bytes> {
        match self.value() {
            Value::Map(_) | Value::List(_) | Value::Link(_) => None,
            Value::Text(text) => Some(self.bytes.slice_ref(text.as_bytes())),
            Value::Bytes(bytes) => Some(self.bytes.slice_ref(bytes)),
            _ => Some(encode::to_json(&self.bytes).into()),
        }
    }

    /// Writes the node in a codec: dag-cbor and dag-json hold any node, cbor and json any without links (and, for json,
    /// without bytes), dag-pb a map of its own form, raw only bytes.
    pub fn encode(&self, codec: u64) -> Result<Vec<u8>, DagError> {
        let has_links = || self.links().next().is_some();
        match codec {
            codec::CBOR if has_links() => Err(DagError::malformed("cbor", "it cannot hold links")),
            codec::DAG_CBOR | codec::CBOR => Ok(encode::to_cbor(&self.bytes)),
            codec::JSON if has_links() || self.has_bytes() => {
                Err(DagError::malformed("json", "it can hold neither links nor bytes"))
            }
            codec::DAG_JSON | codec::JSON => Ok(encode::to_json(&self.bytes)),
            codec::DAG_PB => encode::to_pb(self),
            codec::RAW => match self.value() {
                Value::Bytes(bytes) => Ok(bytes.to_vec()),
                _ => Err(DagError::malformed("raw", "it can hold bytes alone")),
            },
            _ => Err(DagError::Codec { codec }),
        }
    }

    fn has_bytes(&self) -> bool {
        let mut at = 0;
        while let Some((value, next)) = cbor::value(&self.bytes, at) {
            if let Value::Bytes(_) = value {
                return true;
            }
            at = next;
        }
        false
    }
}

/// The header of a CARv1, in dag-cbor.
pub(super) fn car_header(roots: &[Cid]) -> Vec<u8> {
    let mut out = Vec::new();
    cbor::put(&mut out, &Value::Map(2));
    cbor::put(&mut out, &Value::Text("roots"));
    cbor::put(&mut out, &Value::List(roots.len() as u64));
    for root in roots {
        cbor::put(&mut out, &Value::Link(root.clone()));
    }
    cbor::put(&mut out, &Value::Text("version"));
    cbor::put(&mut out, &Value::Integer(1));
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    List,
    Map,
}

/// The children of a [`Node`]. Each step reads over one child, so a whole listing is linear in the block.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    bytes: &'a Bytes,
    kind: Container,
    index: u64,
    left: u64,
    at: usize,
}

impl Children<'_> {
    /// Where the next child is, for [`Children::from_position`]: ascending, and below 2^62.
    pub fn position(&self) -> u64 {
        // A block, and so the number of its items, is far below 2^31.
        self.index << 31 | self.at as u64
    }

    /// Goes on from a position that [`Children::position`] gave for the same node. From any other number, what follows
    /// may be nothing or nonsense, but no harm is done.
    #[must_use]
    pub fn from_position(mut self, position: u64) -> Self {
        let (index, at) = (position >> 31, (position & ((1 << 31) - 1)) as usize);
        if at >= self.at && at <= self.bytes.len() {
            self.left = (self.left + self.index).saturating_sub(index);
            (self.index, self.at) = (index, at);
        } else if position > self.position() {
            self.left = 0;
        }
        self
    }

    fn skip_to(mut self, index: u64) -> Self {
        while self.index < index && self.left > 0 {
            match cbor::skip(self.bytes, self.at) {
                Some(at) => self.at = at,
                None => self.left = 1,
            }
            self.index += 1;
            self.left -= 1;
        }
        self
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = (Cow<'a, str>, Node);

    fn next(&mut self) -> Option<(Cow<'a, str>, Node)> {
        self.left = self.left.checked_sub(1)?;
        let name = match self.kind {
            Container::List => Cow::Owned(self.index.to_string()),
            Container::Map => {
                let (Value::Text(key), end) = cbor::value(self.bytes, self.at)? else { return None };
                self.at = end;
                Cow::Borrowed(key)
            }
        };
        let end = cbor::skip(self.bytes, self.at)?;
        let node = Node { bytes: self.bytes.slice(self.at..end) };
        (self.at, self.index) = (end, self.index + 1);
        Some((name, node))
    }
}

#[cfg(test)]
mod tests;
