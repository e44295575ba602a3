//! Chunkers: where a file is cut.
//!
//! A chunker is a pure function from the bytes at the start of a chunk to the length of that chunk ([`Chunker::cut`]),
//! so cuts never depend on how the bytes arrived. The boundaries are kubo's, bit for bit: `size-N` cuts at fixed sizes,
//! `rabin` and `buzhash` where the content says so.

mod buzhash;
mod rabin;

use std::str::FromStr;

use crate::limits::{MAX_BLOCK_BYTES, MAX_CHUNK_BYTES};

/// How a file is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunker {
    /// Every so many bytes.
    Size(usize),
    /// Where a Rabin fingerprint of the last 16 bytes has zeros in its low bits.
    Rabin(rabin::Bounds),
    /// Where a cyclic polynomial hash of the last 32 bytes has zeros in its low bits.
    Buzhash,
    /// Nowhere: what kubo makes of a `rabin` whose least size is under its window. A file over the size of a block fails.
    Whole,
}

impl Chunker {
    /// How many bytes [`Chunker::cut`] must see at once, unless the file ends before: the most that a chunk can have.
    pub fn lookahead(self) -> usize {
        match self {
            Chunker::Size(size) => size,
            Chunker::Rabin(bounds) => bounds.max,
            Chunker::Buzhash => buzhash::MAX_BYTES,
            Chunker::Whole => MAX_BLOCK_BYTES + 1,
        }
    }

    /// The size of every chunk, where it does not depend on the content.
    pub fn fixed_bytes(self) -> Option<usize> {
        match self {
            Chunker::Size(size) => Some(size),
            _ => None,
        }
    }

    /// The length of the chunk that `data` begins with. `data` is not empty, and has [`Chunker::lookahead`] bytes or is
    /// the rest of the file.
    pub fn cut(self, data: &[u8]) -> usize {
        match self {
            Chunker::Size(size) => size.min(data.len()),
            Chunker::Rabin(bounds) => rabin::cut(bounds, data),
            Chunker::Buzhash => buzhash::cut(data),
            Chunker::Whole => data.len(),
        }
    }
}

impl FromStr for Chunker {
    type Err = String;

    /// Reads a chunker as kubo's `--chunker` does, with the same limits.
    fn from_str(text: &str) -> Result<Chunker, String> {
        let parts: Vec<&str> = text.split('-').collect();
        match parts[0] {
            "default" if parts.len() == 1 => Ok(Chunker::Size(256 << 10)),
            "size" => {
                let [_, size] = parts[..] else {
                    return Err(format!("chunker {text:?}: expected size-N, with N in bytes"));
                };
                match number(text, size)? {
                    ..=0 => Err(format!("chunker {text:?}: the size must be greater than 0")),
                    size => Ok(Chunker::Size(at_most_a_chunk(text, size)?)),
                }
            }
            "buzhash" => Ok(Chunker::Buzhash),
            "rabin" => rabin(text, &parts),
            _ => Err(format!(
                "unrecognized chunker {text:?}: there are size-N, rabin, rabin-AVG, rabin-MIN-AVG-MAX and buzhash"
            )),
        }
    }
}

fn rabin(text: &str, parts: &[&str]) -> Result<Chunker, String> {
    let around = |average: usize| rabin::Bounds { min: average / 3, average, max: average + average / 2 };
    let bounds = match *parts {
        [_] => around(256 << 10),
        [_, average] => {
            let average = number(text, average)?;
            // kubo multiplies in single precision.
            at_most_a_chunk(text, (average as f32 * 1.5) as i64)?;
            around(usize::try_from(average).unwrap_or(0))
        }
        [_, min, average, max] => {
            let [min, average, max] =
                [("min", min), ("avg", average), ("max", max)].map(|(label, part)| match part.split_once(':') {
                    Some((found, _)) if found != label => {
                        Err(format!("chunker {text:?}: {found:?} stands where {label:?} must"))
                    }
                    _ => number(text, part.rsplit(':').next().unwrap_or(part)),
                });
            let (min, average, max) = (min?, average?, max?);
            if min < rabin::WINDOW_BYTES as i64 {
                return Err(format!("chunker {text:?}: the least size must be at least {}", rabin::WINDOW_BYTES));
            }
            if min >= average || average >= max {
                return Err(format!("chunker {text:?}: sizes must grow from least over average to most"));
            }
            rabin::Bounds { min: min as usize, average: average as usize, max: at_most_a_chunk(text, max)? }
        }
        _ => return Err(format!("chunker {text:?}: expected rabin, rabin-AVG or rabin-MIN-AVG-MAX")),
    };
    Ok(if bounds.min < rabin::WINDOW_BYTES { Chunker::Whole } else { Chunker::Rabin(bounds) })
}

fn number(text: &str, part: &str) -> Result<i64, String> {
    part.parse().map_err(|_| format!("chunker {text:?}: {part:?} is not a number"))
}

fn at_most_a_chunk(text: &str, size: i64) -> Result<usize, String> {
    usize::try_from(size)
        .ok()
        .filter(|size| *size <= MAX_CHUNK_BYTES)
        .ok_or_else(|| format!("chunker {text:?}: a chunk may have at most {MAX_CHUNK_BYTES} bytes"))
}
