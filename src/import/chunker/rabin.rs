//! The Rabin chunker: a fingerprint modulo an irreducible polynomial over a window of 16 bytes, started anew for each
//! chunk. Arithmetic is on polynomials over GF(2): a bit is a coefficient, and adding is exclusive or.

/// The polynomial of IPFS, of degree 53.
const POLYNOMIAL: u64 = 17_437_180_132_763_653;
const DEGREE: u32 = POLYNOMIAL.ilog2();
/// The bytes that the fingerprint covers.
pub const WINDOW_BYTES: usize = 16;

/// The sizes of chunks in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// No chunk is shorter, but the last. At least [`WINDOW_BYTES`].
    pub min: usize,
    /// The size that is aimed at; of it only the logarithm counts.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
}

pub fn cut(bounds: Bounds, data: &[u8]) -> usize {
    let data = &data[..data.len().min(bounds.max)];
    let mask = (1_u64 << bounds.average.ilog2()) - 1;
    let mut window = [0_u8; WINDOW_BYTES];
    let mut digest = 0_u64;
    let mut position = 0;
    let mut slide = |byte: u8| {
        digest ^= TABLES.leaving[usize::from(std::mem::replace(&mut window[position], byte))];
        position = (position + 1) % WINDOW_BYTES;
        let index = (digest >> (DEGREE - 8)) as usize;
        digest = (digest << 8 | u64::from(byte)) ^ TABLES.reduce[index];
        digest
    };
    // Each chunk begins with a byte of 1, so that leading zeros count.
    slide(1);
    let begin = bounds.min - WINDOW_BYTES;
    for (index, byte) in data.iter().enumerate().skip(begin) {
        let len = index + 1;
        if slide(*byte) & mask == 0 && len >= bounds.min {
            return len;
        }
    }
    data.len()
}

struct Tables {
    /// What a byte adds to the fingerprint when it is the oldest of the window.
    leaving: [u64; 256],
    /// What clears the eight bits above the degree and adds their remainder, by those bits.
    reduce: [u64; 256],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut tables = Tables { leaving: [0; 256], reduce: [0; 256] };
    let mut byte = 0;
    while byte < 256 {
        let mut fingerprint = remainder(byte as u64);
        let mut index = 1;
        while index < WINDOW_BYTES {
            fingerprint = remainder(fingerprint << 8);
            index += 1;
        }
        tables.leaving[byte] = fingerprint;
        let shifted = (byte as u64) << DEGREE;
        tables.reduce[byte] = remainder(shifted) | shifted;
        byte += 1;
    }
    tables
}

const fn remainder(mut value: u64) -> u64 {
    while value != 0 && value.ilog2() >= DEGREE {
        value ^= POLYNOMIAL << (value.ilog2() - DEGREE);
    }
    value
}
