//! Every link of a block, whatever its codec.

use bytes::Bytes;

use super::DagError;
use super::ipld::Node;
use super::pb::PbNode;
use crate::block::{Cid, codec};

/// The links of a block in its order, each as often as it occurs. A block of raw bytes, of plain CBOR or JSON, or of a
/// codec that cidfs does not know has none.
pub fn links(cid: &Cid, data: &Bytes) -> Result<Vec<Cid>, DagError> {
    match cid.codec() {
        codec::DAG_PB => Ok(PbNode::decode(data.clone())?.links().map(|link| link.cid).collect()),
        codec @ (codec::DAG_CBOR | codec::DAG_JSON) => Ok(Node::decode(codec, data)?.links().collect()),
        _ => Ok(Vec::new()),
    }
}
