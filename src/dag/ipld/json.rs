//! dag-json: JSON in which `{"/": "<CID>"}` is a link and `{"/": {"bytes": "<base64>"}}` is bytes.
//!
//! [`decode`] takes any JSON (RFC 8259): white space and the order of keys are free, as every reader of dag-json has
//! them. What it refuses is what has no one meaning: a key twice, an integer over 64 bits, a float that is not finite,
//! and maps that begin like a link or bytes and are neither.

use super::encode::Token;
use super::{Value, cbor};
use crate::block::Cid;
use crate::dag::DagError;
use crate::limits::MAX_IPLD_DEPTH;

const FORMAT: &str = "dag-json";

/// Rewrites one JSON value as CBOR. `reserved` says whether the key `/` has its meaning in dag-json.
pub(super) fn decode(text: &[u8], reserved: bool) -> Result<Vec<u8>, DagError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| DagError::malformed(FORMAT, format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut open = Vec::<Open>::new();
    // The keys of all open maps, as ranges of `out`: a map's own from its `first_key` on.
    let mut keys = Vec::<(u32, u32)>::new();
    let mut done = false;
    while !done {
        let first = reader.next_token();
        // A container that has just begun has no value before its first item.
        let mut entered = false;
        match first {
            Some(b'{') => {
                if let Some(value) = if reserved { reader.reserved()? } else { None } {
                    value.put(&mut out);
                } else {
                    reader.at += 1;
                    open.push(Open { is_map: true, head: out.len(), len: 0, first_key: keys.len() });
                    cbor::put_open(&mut out, cbor::MAP);
                    entered = true;
                }
            }
            Some(b'[') => {
                reader.at += 1;
                open.push(Open { is_map: false, head: out.len(), len: 0, first_key: keys.len() });
                cbor::put_open(&mut out, cbor::LIST);
                entered = true;
            }
            Some(b'"') => cbor::put(&mut out, &Value::Text(&reader.string()?)),
            Some(b'-' | b'0'..=b'9') => cbor::put(&mut out, &reader.number()?),
            _ => cbor::put(&mut out, &reader.literal()?),
        }
        if open.len() > MAX_IPLD_DEPTH {
            return Err(DagError::too_deep(FORMAT));
        }
        // What follows the value: the next item, or the end of one or more containers.
        loop {
            let next = reader.next_token();
            let Some(container) = open.last_mut() else {
                done = true;
                break;
            };
            let ends = next == Some(if container.is_map { b'}' } else { b']' });
            if !entered {
                container.len += 1;
                if next == Some(b',') {
                    reader.at += 1;
                } else if !ends {
                    return Err(reader.malformed("neither a comma nor the end of a map or list"));
                }
            }
            if ends {
                reader.at += 1;
                check_distinct(&out, &mut keys[container.first_key..])
                    .map_err(|key| reader.malformed(format!("a map with the key {key:?} twice")))?;
                keys.truncate(container.first_key);
                cbor::set_len(&mut out, container.head, container.len);
                open.pop();
                entered = false;
                continue;
            }
            if container.is_map {
                if reader.next_token() != Some(b'"') {
                    return Err(reader.malformed("a map without a key"));
                }
                let key = reader.string()?;
                reader.expect(b':')?;
                cbor::put(&mut out, &Value::Text(&key));
                keys.push(((out.len() - key.len()) as u32, out.len() as u32));
            }
            break;
        }
    }
    if reader.at == text.len() { Ok(out) } else { Err(reader.malformed("something after the value")) }
}

/// A container whose items are being read.
struct Open {
    is_map: bool,
    /// Where its head is in the output.
    head: usize,
    len: u32,
    first_key: usize,
}

fn check_distinct(out: &[u8], keys: &mut [(u32, u32)]) -> Result<(), String> {
    let key = |range: &(u32, u32)| &out[range.0 as usize..range.1 as usize];
    keys.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    match keys.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
        Some(pair) => Err(String::from_utf8_lossy(key(&pair[0])).into_owned()),
        None => Ok(()),
    }
}

/// What a map with the reserved key stands for.
enum Reserved {
    Link(Cid),
    Bytes(Vec<u8>),
}

impl Reserved {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Reserved::Link(cid) => cbor::put(out, &Value::Link(cid.clone())),
            Reserved::Bytes(bytes) => cbor::put(out, &Value::Bytes(bytes)),
        }
    }
}

/// Reads JSON token by token.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn malformed(&self, why: impl std::fmt::Display) -> DagError {
        DagError::malformed(FORMAT, format!("{why} at byte {}", self.at))
    }

    /// The first byte of the next token, which stays to be read.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), DagError> {
        if self.next_token() != Some(byte) {
            return Err(self.malformed(format!("no {:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads the string whose opening quote is next.
    fn string(&mut self) -> Result<std::borrow::Cow<'static, str>, DagError> {
        let start = self.at;
        let mut end = start + 1;
        loop {
            match self.text.get(end) {
                None => return Err(self.malformed("text without an end")),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        let string: String = serde_json::from_slice(&self.text[start..=end])
            .map_err(|_| self.malformed("text with a control character or a bad escape"))?;
        self.at = end + 1;
        Ok(string.into())
    }

    /// Reads the number that is next: an integer, unless it has a point or an exponent.
    fn number(&mut self) -> Result<Value<'static>, DagError> {
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        // The bytes of a number are ASCII.
        let number = std::str::from_utf8(&rest[..len]).unwrap_or_default();
        let value = match parts_of(number) {
            Some(Parts::Integer) => {
                let range = -(1_i128 << 64)..1_i128 << 64;
                number.parse().ok().filter(|number| range.contains(number)).map(Value::Integer)
            }
            // Rust rounds to the nearest float, so what is written is read as the same one.
            Some(Parts::Float) => number.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
            None => None,
        };
        let value = value.ok_or_else(|| self.malformed("a number that is malformed or out of range"))?;
        self.at += len;
        Ok(value)
    }

    fn literal(&mut self) -> Result<Value<'static>, DagError> {
        for (word, value) in [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.malformed("no value"))
    }

    /// Reads the map whose brace is next, if it is a link or bytes. Where it is a map like any other, it stays to be
    /// read.
    fn reserved(&mut self) -> Result<Option<Reserved>, DagError> {
        let start = self.at;
        let found = self.reserved_from_brace()?;
        if found.is_none() {
            self.at = start;
        }
        Ok(found)
    }

    fn reserved_from_brace(&mut self) -> Result<Option<Reserved>, DagError> {
        if !self.opens_with("/")? {
            return Ok(None);
        }
        match self.next_token() {
            Some(b'"') => {
                let text = self.string()?;
                self.expect(b'}')?;
                let cid = Cid::from_link_text(&text).map_err(|error| self.malformed(error))?;
                Ok(Some(Reserved::Link(cid)))
            }
            Some(b'{') => {
                if !self.opens_with("bytes")? || self.next_token() != Some(b'"') {
                    return Ok(None);
                }
                let text = self.string()?;
                self.expect(b'}')?;
                self.expect(b'}')?;
                let base = if text.ends_with('=') { multibase::Base::Base64Pad } else { multibase::Base::Base64 };
                let bytes = base.decode(&*text).map_err(|_| self.malformed("bytes that are not base64"))?;
                Ok(Some(Reserved::Bytes(bytes)))
            }
            _ => Ok(None),
        }
    }

    /// Whether the brace that is next is followed by this key. Reads both, and the colon, if it is.
    fn opens_with(&mut self, key: &str) -> Result<bool, DagError> {
        self.at += 1;
        if self.next_token() != Some(b'"') || self.string()? != key {
            return Ok(false);
        }
        self.expect(b':')?;
        Ok(true)
    }
}

/// What a number has beside its sign and its digits.
enum Parts {
    Integer,
    /// A point or an exponent.
    Float,
}

/// Checks a number by the grammar of JSON, which has less than Rust reads: no `.5`, `1.`, or `01`.
fn parts_of(number: &str) -> Option<Parts> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.strip_prefix('-').unwrap_or(number);
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (number, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_well_formed = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    is_well_formed.then_some(if fraction.is_none() && exponent.is_none() { Parts::Integer } else { Parts::Float })
}

/// Writes a token of dag-json.
pub(super) fn put(out: &mut Vec<u8>, token: &Token<'_>) {
    match token {
        Token::Item { first } => {
            if !first {
                out.push(b',');
            }
        }
        Token::Key(key) => {
            put_string(out, key);
            out.push(b':');
        }
        Token::End { is_map } => out.push(if *is_map { b'}' } else { b']' }),
        Token::Value(value) => match value {
            Value::Null => out.extend(b"null"),
            Value::Bool(value) => out.extend(value.to_string().as_bytes()),
            Value::Integer(number) => out.extend(number.to_string().as_bytes()),
            Value::Float(number) => {
                // A finite float is always written, and always with a point or an exponent.
                let _ = serde_json::to_writer(&mut *out, number);
            }
            Value::Text(text) => put_string(out, text),
            Value::Bytes(bytes) => {
                out.extend(b"{\"/\":{\"bytes\":\"");
                out.extend(multibase::Base::Base64.encode(bytes).as_bytes());
                out.extend(b"\"}}");
            }
            Value::Link(cid) => {
                out.extend(b"{\"/\":\"");
                out.extend(cid.to_string().as_bytes());
                out.extend(b"\"}");
            }
            Value::List(_) => out.push(b'['),
            Value::Map(_) => out.push(b'{'),
        },
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    // Writing text to memory does not fail.
    let _ = serde_json::to_writer(&mut *out, text);
}
