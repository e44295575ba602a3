//! Writes nodes: dag-cbor, dag-json, and dag-pb in both directions. Iterative, as the readers are.

use std::ops::Range;

use super::{Node, Value, cbor, json};
use crate::dag::DagError;
use crate::dag::pb::{self, PbLink, PbNode};

/// What [`emit`] hands over, in the order in which it is written.
pub(super) enum Token<'a> {
    /// A scalar or a link, or the beginning of a container.
    Value(Value<'a>),
    /// The next item of a container, which is its first or not.
    Item { first: bool },
    /// The key of the value that follows.
    Key(&'a str),
    /// The end of a container.
    End { is_map: bool },
}

/// A container whose items are being written.
enum Open {
    List {
        left: u64,
        first: bool,
    },
    /// The entries that are left, the next at the end.
    Map {
        entries: Vec<(Range<usize>, usize)>,
        first: bool,
        end: usize,
    },
}

/// An entry of a map: the text of its key, and where its value begins.
type Entry = (Range<usize>, usize);

/// The dag-cbor of a node: keys ascend by their length, then by their bytes.
pub(super) fn to_cbor(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    emit(
        bytes,
        |a, b| (a.len(), a).cmp(&(b.len(), b)),
        |token| match token {
            Token::Value(value) => cbor::put(&mut out, &value),
            Token::Key(key) => cbor::put(&mut out, &Value::Text(key)),
            Token::Item { .. } | Token::End { .. } => {}
        },
    );
    out
}

/// The dag-json of a node: keys ascend by their bytes, and there is no white space.
pub(super) fn to_json(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * bytes.len());
    emit(bytes, Ord::cmp, |token| json::put(&mut out, &token));
    out
}

/// Walks a value and all that it contains.
fn emit<'a>(
    bytes: &'a [u8],
    order: impl Fn(&'a [u8], &'a [u8]) -> std::cmp::Ordering,
    mut sink: impl FnMut(Token<'a>),
) {
    let mut at = 0;
    let mut open = Vec::<Open>::new();
    loop {
        // A value at `at`; the bytes were checked, so it is there.
        let Some((value, end)) = cbor::value(bytes, at) else { return };
        at = end;
        match value {
            Value::List(left) => open.push(Open::List { left, first: true }),
            Value::Map(len) => {
                let Some((mut entries, end)) = entries(bytes, at, len) else { return };
                entries.sort_by(|a, b| order(&bytes[b.0.clone()], &bytes[a.0.clone()]));
                open.push(Open::Map { entries, first: true, end });
            }
            _ => {}
        }
        sink(Token::Value(value));
        loop {
            match open.last_mut() {
                None => return,
                Some(Open::List { left: 0, .. }) => {
                    open.pop();
                    sink(Token::End { is_map: false });
                }
                Some(Open::List { left, first }) => {
                    *left -= 1;
                    sink(Token::Item { first: std::mem::take(first) });
                    break;
                }
                Some(Open::Map { entries, first, end }) => {
                    if let Some((key, value)) = entries.pop() {
                        sink(Token::Item { first: std::mem::take(first) });
                        sink(Token::Key(std::str::from_utf8(&bytes[key]).unwrap_or_default()));
                        at = value;
                        break;
                    }
                    at = *end;
                    open.pop();
                    sink(Token::End { is_map: true });
                }
            }
        }
    }
}

/// Keys and values of the map whose entries begin at `at`, and where the map ends.
fn entries(bytes: &[u8], mut at: usize, len: u64) -> Option<(Vec<Entry>, usize)> {
    let mut entries = Vec::new();
    for _ in 0..len {
        let key = cbor::head(bytes, at)?;
        let value = key.end + key.argument as usize;
        entries.push((key.end..value, value));
        at = cbor::skip(bytes, value)?;
    }
    Some((entries, at))
}

/// A dag-pb node in the data model: `{"Data": bytes, "Links": [{"Hash": link, "Name": text, "Tsize": integer}]}`. A name
/// that is not UTF-8 shows with replacement characters.
pub(super) fn from_pb(node: &PbNode) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * node.bytes().len());
    let data = node.data();
    cbor::put(&mut out, &Value::Map(1 + u64::from(data.is_some())));
    if let Some(data) = data {
        cbor::put(&mut out, &Value::Text("Data"));
        cbor::put(&mut out, &Value::Bytes(&data));
    }
    cbor::put(&mut out, &Value::Text("Links"));
    cbor::put(&mut out, &Value::List(node.link_count() as u64));
    for link in node.links() {
        cbor::put(&mut out, &Value::Map(2 + u64::from(link.tsize.is_some())));
        cbor::put(&mut out, &Value::Text("Hash"));
        cbor::put(&mut out, &Value::Link(link.cid));
        cbor::put(&mut out, &Value::Text("Name"));
        cbor::put(&mut out, &Value::Text(&String::from_utf8_lossy(link.name)));
        if let Some(tsize) = link.tsize {
            cbor::put(&mut out, &Value::Text("Tsize"));
            cbor::put(&mut out, &Value::Integer(i128::from(tsize)));
        }
    }
    out
}

/// A node of the form that [`from_pb`] gives, in dag-pb; links are sorted by name, as the specification has it.
pub(super) fn to_pb(node: &Node) -> Result<Vec<u8>, DagError> {
    let malformed = |why: &str| DagError::malformed("dag-pb", why);
    let mut data = None;
    let mut links = None;
    for (key, child) in node.children() {
        match (&*key, child.value()) {
            ("Data", Value::Bytes(bytes)) => data = Some(bytes.to_vec()),
            ("Links", Value::List(_)) => links = Some(child),
            (key, _) => return Err(malformed(&format!("it cannot hold a field {key:?}, or of that kind"))),
        }
    }
    let links = links.ok_or_else(|| malformed("no list of links"))?;
    let mut parts = Vec::new();
    for (_, link) in links.children() {
        let (mut cid, mut name, mut tsize) = (None, String::new(), None);
        for (key, child) in link.children() {
            match (&*key, child.value()) {
                ("Hash", Value::Link(link)) => cid = Some(link),
                ("Name", Value::Text(text)) => text.clone_into(&mut name),
                ("Tsize", Value::Integer(size)) => {
                    tsize = Some(u64::try_from(size).map_err(|_| malformed("a negative Tsize"))?);
                }
                (key, _) => return Err(malformed(&format!("a link cannot hold {key:?}, or of that kind"))),
            }
        }
        parts.push((cid.ok_or_else(|| malformed("a link without a Hash"))?, name, tsize));
    }
    parts.sort_by(|a, b| a.1.cmp(&b.1));
    let links =
        parts.iter().map(|(cid, name, tsize)| PbLink { cid: cid.clone(), name: name.as_bytes(), tsize: *tsize });
    Ok(pb::encode(links, data.as_deref()))
}
