//! The protobuf wire format, as much of it as dag-pb and UnixFS use
//! (<https://protobuf.dev/programming-guides/encoding/>).

use std::ops::Range;

use super::DagError;

/// One field of a message: its number and what it holds.
pub(super) enum Value {
    Varint(u64),
    Fixed32(u32),
    Fixed64,
    /// The range of the bytes in the message.
    Bytes(Range<usize>),
}

/// Reads the fields of `message[range]` one after the other; ranges in values are ranges of `message`.
pub(super) struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
    format: &'static str,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8], range: Range<usize>, format: &'static str) -> Fields<'a> {
        Fields { message, at: range.start, end: range.end, format }
    }

    /// The next field, or `None` at the end of the message.
    pub fn next(&mut self) -> Result<Option<(u64, Value)>, DagError> {
        if self.at == self.end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).map_err(|_| self.malformed("a length past the end"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let range = self.take(4)?;
                let mut bytes = [0; 4];
                bytes.copy_from_slice(&self.message[range]);
                Value::Fixed32(u32::from_le_bytes(bytes))
            }
            wire_type => return Err(self.malformed(format!("wire type {wire_type}"))),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// Where the next field begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Reads a varint of up to 64 bits. Protobuf allows more bytes than needed, and so do we.
    pub fn varint(&mut self) -> Result<u64, DagError> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let range = self.take(1)?;
            let byte = self.message[range.start];
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a varint over 64 bits"))
    }

    fn take(&mut self, len: usize) -> Result<Range<usize>, DagError> {
        if self.end - self.at < len {
            return Err(self.malformed("cut short"));
        }
        let range = self.at..self.at + len;
        self.at = range.end;
        Ok(range)
    }

    pub fn malformed(&self, why: impl Into<String>) -> DagError {
        DagError::malformed(self.format, why)
    }
}

/// How many bytes `value` takes as a varint.
pub(super) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

pub(super) fn put_bytes_field(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
