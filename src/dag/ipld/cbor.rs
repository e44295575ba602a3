//! CBOR, as much of it as the data model uses, read in place.
//!
//! [`check`] is the strict decoder of dag-cbor blocks. The other readers take what it passed, or what [`super::json`]
//! wrote, whose heads may be longer than need be and whose keys are in any order; on anything else they return `None` or
//! nonsense, and never panic.

use super::Value;
use crate::block::Cid;
use crate::dag::DagError;
use crate::limits::MAX_IPLD_DEPTH;

const FORMAT: &str = "dag-cbor";

pub(super) const UNSIGNED: u8 = 0;
pub(super) const NEGATIVE: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const TEXT: u8 = 3;
pub(super) const LIST: u8 = 4;
pub(super) const MAP: u8 = 5;
pub(super) const TAG: u8 = 6;
pub(super) const SIMPLE: u8 = 7;

/// The one tag of dag-cbor: bytes that are a zero byte and a CID.
const LINK_TAG: u64 = 42;

const FALSE: u64 = 20;
const TRUE: u64 = 21;
const NULL: u64 = 22;

/// How the argument of a head is written: itself up to 23, or in 1, 2, 4 or 8 bytes that follow.
const IN_ONE_BYTE: u8 = 24;
const IN_FOUR_BYTES: u8 = 26;
const IN_EIGHT_BYTES: u8 = 27;

/// What every value begins with.
pub(super) struct Head {
    pub major: u8,
    /// The low five bits of the first byte.
    info: u8,
    pub argument: u64,
    /// Where the head ends.
    pub end: usize,
}

/// Reads the head at `at`; `None` where it is cut short or has an indefinite length.
pub(super) fn head(bytes: &[u8], at: usize) -> Option<Head> {
    let first = *bytes.get(at)?;
    let (major, info) = (first >> 5, first & 0x1f);
    let start = at + 1;
    let (argument, end) = match info {
        0..IN_ONE_BYTE => (u64::from(info), start),
        IN_ONE_BYTE..=IN_EIGHT_BYTES => {
            let end = start + (1 << (info - IN_ONE_BYTE));
            let argument = bytes.get(start..end)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            (argument, end)
        }
        _ => return None,
    };
    Some(Head { major, info, argument, end })
}

impl Head {
    fn is_shortest(&self) -> bool {
        match self.info {
            0..IN_ONE_BYTE => true,
            IN_ONE_BYTE => self.argument >= u64::from(IN_ONE_BYTE),
            _ => self.argument >> (4 << (self.info - IN_ONE_BYTE)) != 0,
        }
    }

    /// The bytes that the head announces.
    fn contents<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let len = usize::try_from(self.argument).ok()?;
        bytes.get(self.end..self.end.checked_add(len)?)
    }
}

/// Checks that `bytes` are one value in the canonical form of dag-cbor: heads of the least length, text in UTF-8, map
/// keys that ascend (the shorter first), finite floats of 64 bits, no tag but that of links.
pub(super) fn check(bytes: &[u8], allow_links: bool) -> Result<(), DagError> {
    let malformed = |why: &str, at: usize| DagError::malformed(FORMAT, format!("{why} at byte {at}"));
    let mut at = 0;
    let mut open = Vec::<Open>::new();
    loop {
        while open.last().is_some_and(|container| container.left == 0) {
            open.pop();
        }
        match open.last_mut() {
            None if at != 0 => break,
            None => {}
            Some(container) => {
                container.left -= 1;
                if container.is_map {
                    let (key, end) = text(bytes, at).ok_or_else(|| malformed("a map key that is not canonical", at))?;
                    let after = container.last_key.is_none_or(|last| (last.len(), last) < (key.len(), key));
                    if !after {
                        return Err(malformed("a map key out of order", at));
                    }
                    container.last_key = Some(key);
                    at = end;
                }
            }
        }
        let start = at;
        let head = head(bytes, at).ok_or_else(|| malformed("a head that is cut short or of indefinite length", at))?;
        at = head.end;
        if head.major == SIMPLE {
            match (head.info, head.argument) {
                (0..IN_ONE_BYTE, FALSE | TRUE | NULL) => {}
                (IN_EIGHT_BYTES, bits) if f64::from_bits(bits).is_finite() => {}
                _ => return Err(malformed("a simple value that dag-cbor does not have", start)),
            }
            continue;
        }
        if !head.is_shortest() {
            return Err(malformed("a number that is not in its shortest form", start));
        }
        match head.major {
            UNSIGNED | NEGATIVE => {}
            BYTES => at += head.contents(bytes).ok_or_else(|| malformed("bytes cut short", start))?.len(),
            TEXT => at = text(bytes, start).ok_or_else(|| malformed("text cut short or not in UTF-8", start))?.1,
            TAG if allow_links && head.argument == LINK_TAG => {
                let shortest = self::head(bytes, at).is_some_and(|head| head.is_shortest());
                let link = link(bytes, at).filter(|_| shortest);
                at = link.ok_or_else(|| malformed("a link that is not a CID", start))?.1;
            }
            LIST | MAP => {
                if open.len() >= MAX_IPLD_DEPTH {
                    return Err(DagError::too_deep(FORMAT));
                }
                // The length is a claim: a false one ends with the bytes.
                open.push(Open { is_map: head.major == MAP, left: head.argument, last_key: None });
            }
            _ => return Err(malformed("a tag that is not a link's", start)),
        }
    }
    if at == bytes.len() { Ok(()) } else { Err(malformed("bytes that follow the value", at)) }
}

/// A container whose items are being read.
struct Open<'a> {
    is_map: bool,
    left: u64,
    last_key: Option<&'a [u8]>,
}

/// The text at `at` with a head of the least length, and where it ends.
fn text(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let head = head(bytes, at).filter(|head| head.major == TEXT && head.is_shortest())?;
    let text = head.contents(bytes)?;
    std::str::from_utf8(text).ok()?;
    Some((text, head.end + text.len()))
}

/// The link whose tag ends at `at`, and where it ends.
fn link(bytes: &[u8], at: usize) -> Option<(Cid, usize)> {
    let head = head(bytes, at).filter(|head| head.major == BYTES)?;
    let (0, cid) = head.contents(bytes)?.split_first()? else { return None };
    Some((Cid::from_link(cid).ok()?, head.end + 1 + cid.len()))
}

/// The value at `at`, and where it ends; a container ends where its items begin.
pub(super) fn value(bytes: &[u8], at: usize) -> Option<(Value<'_>, usize)> {
    let head = head(bytes, at)?;
    Some(match head.major {
        UNSIGNED => (Value::Integer(i128::from(head.argument)), head.end),
        NEGATIVE => (Value::Integer(-1 - i128::from(head.argument)), head.end),
        BYTES => (Value::Bytes(head.contents(bytes)?), head.end + head.argument as usize),
        TEXT => (Value::Text(std::str::from_utf8(head.contents(bytes)?).ok()?), head.end + head.argument as usize),
        LIST => (Value::List(head.argument), head.end),
        MAP => (Value::Map(head.argument), head.end),
        TAG => {
            let (cid, end) = link(bytes, head.end)?;
            (Value::Link(cid), end)
        }
        _ => match head.argument {
            bits if head.info == IN_EIGHT_BYTES => (Value::Float(f64::from_bits(bits)), head.end),
            FALSE => (Value::Bool(false), head.end),
            TRUE => (Value::Bool(true), head.end),
            _ => (Value::Null, head.end),
        },
    })
}

/// Where the value at `at` ends, with all that it contains.
pub(super) fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut left = 1_u64;
    while left > 0 {
        let head = head(bytes, at)?;
        at = head.end;
        left -= 1;
        match head.major {
            BYTES | TEXT => at += head.contents(bytes)?.len(),
            LIST => left = left.checked_add(head.argument)?,
            MAP => left = left.checked_add(head.argument.checked_mul(2)?)?,
            TAG => left += 1,
            _ => {}
        }
    }
    Some(at)
}

/// Writes a head of the least length.
pub(super) fn put_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let (info, len) = match argument {
        0..24 => (argument as u8, 0),
        24..0x100 => (IN_ONE_BYTE, 1),
        0x100..0x1_0000 => (IN_ONE_BYTE + 1, 2),
        0x1_0000..0x1_0000_0000 => (IN_FOUR_BYTES, 4),
        _ => (IN_EIGHT_BYTES, 8),
    };
    out.push(major << 5 | info);
    out.extend(&bytes[8 - len..]);
}

/// Writes a scalar, or the head of a container.
pub(super) fn put(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Null => put_head(out, SIMPLE, NULL),
        Value::Bool(false) => put_head(out, SIMPLE, FALSE),
        Value::Bool(true) => put_head(out, SIMPLE, TRUE),
        Value::Integer(number) if *number >= 0 => put_head(out, UNSIGNED, *number as u64),
        Value::Integer(number) => put_head(out, NEGATIVE, (-1 - number) as u64),
        Value::Float(number) => {
            out.push(SIMPLE << 5 | IN_EIGHT_BYTES);
            out.extend(number.to_bits().to_be_bytes());
        }
        Value::Text(text) => {
            put_head(out, TEXT, text.len() as u64);
            out.extend(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            put_head(out, BYTES, bytes.len() as u64);
            out.extend(*bytes);
        }
        Value::Link(cid) => {
            put_head(out, TAG, LINK_TAG);
            put_head(out, BYTES, cid.as_bytes().len() as u64 + 1);
            out.push(0);
            out.extend(cid.as_bytes());
        }
        Value::List(len) => put_head(out, LIST, *len),
        Value::Map(len) => put_head(out, MAP, *len),
    }
}

/// Bytes as a value.
pub(super) fn of_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 9);
    put(&mut out, &Value::Bytes(bytes));
    out
}

/// Writes the head of a container whose length is not known yet, for [`set_len`].
pub(super) fn put_open(out: &mut Vec<u8>, major: u8) {
    out.extend([major << 5 | IN_FOUR_BYTES, 0, 0, 0, 0]);
}

/// Sets the length of the container that [`put_open`] began at `at`.
pub(super) fn set_len(out: &mut [u8], at: usize, len: u32) {
    out[at + 1..at + 5].copy_from_slice(&len.to_be_bytes());
}
