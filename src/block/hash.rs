//! Hash functions and multihashes.
//!
//! A [`Multihash`] is `<code><length><digest>`, both numbers as unsigned varints
//! (<https://github.com/multiformats/multihash>). Digests may be truncated, as Go's implementation allows, but never
//! below [`MIN_DIGEST_BYTES`].

use sha2::Digest as _;
use sha3::digest::ExtendableOutput as _;
use smallvec::SmallVec;

use super::cid::{CidError, read_varint, write_varint};
use crate::limits::{MAX_DIGEST_BYTES, MAX_IDENTITY_DIGEST_BYTES, MIN_DIGEST_BYTES};

/// A digest with the code of the function that made it, in its binary form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Multihash(SmallVec<[u8; 36]>);

impl Multihash {
    /// Wraps a digest that the function `code` made. Refuses lengths out of bounds, and codes of over 63 bits, which no
    /// multihash holds.
    pub fn wrap(code: u64, digest: &[u8]) -> Result<Multihash, CidError> {
        check_length(code, digest.len())?;
        if i64::try_from(code).is_err() {
            return Err(CidError::Varint);
        }
        let mut bytes = SmallVec::new();
        write_varint(&mut bytes, code);
        write_varint(&mut bytes, digest.len() as u64);
        bytes.extend_from_slice(digest);
        Ok(Multihash(bytes))
    }

    /// Reads a multihash that fills `bytes` exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Multihash, CidError> {
        let parts = read_multihash(bytes)?;
        parts.check_length()?;
        if parts.end == bytes.len() { Ok(Multihash(SmallVec::from_slice(bytes))) } else { Err(CidError::Trailing) }
    }

    /// The binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Where the digest lies in a multihash.
pub(super) struct MultihashParts {
    code: u64,
    pub digest_start: usize,
    pub end: usize,
}

impl MultihashParts {
    /// Refuses a digest that is too long, or too short to be trusted.
    pub fn check_length(&self) -> Result<(), CidError> {
        check_length(self.code, self.end - self.digest_start)
    }
}

/// Reads the multihash that `bytes` begins with, with a digest of any length.
pub(super) fn read_multihash(bytes: &[u8]) -> Result<MultihashParts, CidError> {
    let (code, code_len) = read_varint(bytes)?;
    let (len, len_len) = read_varint(&bytes[code_len..])?;
    let len = usize::try_from(len).map_err(|_| CidError::DigestLength { code, len: usize::MAX })?;
    let digest_start = code_len + len_len;
    if bytes.len() - digest_start < len {
        return Err(CidError::Truncated);
    }
    Ok(MultihashParts { code, digest_start, end: digest_start + len })
}

fn check_length(code: u64, len: usize) -> Result<(), CidError> {
    let allowed = match HashFunction::from_code(code) {
        Some(HashFunction::Identity) => 0..=MAX_IDENTITY_DIGEST_BYTES,
        Some(function) => MIN_DIGEST_BYTES..=function.digest_bytes(),
        None => 0..=MAX_DIGEST_BYTES,
    };
    if allowed.contains(&len) { Ok(()) } else { Err(CidError::DigestLength { code, len }) }
}

/// A hash function that cidfs can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashFunction {
    /// The data itself, at most [`MAX_IDENTITY_DIGEST_BYTES`] of it.
    Identity,
    /// SHA-1, as git uses it.
    Sha1,
    /// SHA-256, the default of IPFS.
    Sha2_256,
    /// SHA-512.
    Sha2_512,
    /// SHA-256 of SHA-256, as Bitcoin uses it.
    DoubleSha2_256,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
    /// Keccak-256, as Ethereum uses it.
    Keccak256,
    /// Keccak-512.
    Keccak512,
    /// SHAKE256 with a digest of 64 bytes.
    Shake256,
    /// BLAKE2b with a digest of so many bytes (20 to 64).
    Blake2b(u8),
    /// BLAKE2s with a digest of so many bytes (20 to 32).
    Blake2s(u8),
    /// BLAKE3 with its default digest of 32 bytes.
    Blake3,
}

/// The multicodec code of blake2b-8; blake2b-N has the code of N/8 - 1 more.
const BLAKE2B_BASE: u64 = 0xb200;
/// The multicodec code before blake2s-8.
const BLAKE2S_BASE: u64 = 0xb240;

impl HashFunction {
    /// The function with this multicodec code.
    pub fn from_code(code: u64) -> Option<HashFunction> {
        Some(match code {
            0x00 => HashFunction::Identity,
            0x11 => HashFunction::Sha1,
            0x12 => HashFunction::Sha2_256,
            0x13 => HashFunction::Sha2_512,
            0x56 => HashFunction::DoubleSha2_256,
            0x17 => HashFunction::Sha3_224,
            0x16 => HashFunction::Sha3_256,
            0x15 => HashFunction::Sha3_384,
            0x14 => HashFunction::Sha3_512,
            0x1b => HashFunction::Keccak256,
            0x1d => HashFunction::Keccak512,
            0x19 => HashFunction::Shake256,
            0x1e => HashFunction::Blake3,
            0xb214..=0xb240 => HashFunction::Blake2b((code - BLAKE2B_BASE) as u8),
            0xb254..=0xb260 => HashFunction::Blake2s((code - BLAKE2S_BASE) as u8),
            _ => return None,
        })
    }

    /// The function's multicodec code.
    pub fn code(self) -> u64 {
        match self {
            HashFunction::Identity => 0x00,
            HashFunction::Sha1 => 0x11,
            HashFunction::Sha2_256 => 0x12,
            HashFunction::Sha2_512 => 0x13,
            HashFunction::DoubleSha2_256 => 0x56,
            HashFunction::Sha3_224 => 0x17,
            HashFunction::Sha3_256 => 0x16,
            HashFunction::Sha3_384 => 0x15,
            HashFunction::Sha3_512 => 0x14,
            HashFunction::Keccak256 => 0x1b,
            HashFunction::Keccak512 => 0x1d,
            HashFunction::Shake256 => 0x19,
            HashFunction::Blake2b(len) => BLAKE2B_BASE + u64::from(len),
            HashFunction::Blake2s(len) => BLAKE2S_BASE + u64::from(len),
            HashFunction::Blake3 => 0x1e,
        }
    }

    /// The function with this multicodec name, as `ipfs add --hash` takes it.
    pub fn from_name(name: &str) -> Option<HashFunction> {
        let sized = |prefix: &str, least: u16, most: u16| -> Option<u8> {
            let bits: u16 = name.strip_prefix(prefix)?.parse().ok()?;
            (bits.is_multiple_of(8) && (least..=most).contains(&bits)).then_some((bits / 8) as u8)
        };
        Some(match name {
            "identity" => HashFunction::Identity,
            "sha1" => HashFunction::Sha1,
            "sha2-256" => HashFunction::Sha2_256,
            "sha2-512" => HashFunction::Sha2_512,
            "dbl-sha2-256" => HashFunction::DoubleSha2_256,
            "sha3-224" => HashFunction::Sha3_224,
            "sha3-256" => HashFunction::Sha3_256,
            "sha3-384" => HashFunction::Sha3_384,
            "sha3-512" | "sha3" => HashFunction::Sha3_512,
            "keccak-256" => HashFunction::Keccak256,
            "keccak-512" => HashFunction::Keccak512,
            "shake-256" => HashFunction::Shake256,
            "blake3" => HashFunction::Blake3,
            _ => {
                if let Some(len) = sized("blake2b-", 160, 512) {
                    HashFunction::Blake2b(len)
                } else {
                    HashFunction::Blake2s(sized("blake2s-", 160, 256)?)
                }
            }
        })
    }

    /// The function's multicodec name.
    pub fn name(self) -> String {
        match self {
            HashFunction::Identity => "identity".into(),
            HashFunction::Sha1 => "sha1".into(),
            HashFunction::Sha2_256 => "sha2-256".into(),
            HashFunction::Sha2_512 => "sha2-512".into(),
            HashFunction::DoubleSha2_256 => "dbl-sha2-256".into(),
            HashFunction::Sha3_224 => "sha3-224".into(),
            HashFunction::Sha3_256 => "sha3-256".into(),
            HashFunction::Sha3_384 => "sha3-384".into(),
            HashFunction::Sha3_512 => "sha3-512".into(),
            HashFunction::Keccak256 => "keccak-256".into(),
            HashFunction::Keccak512 => "keccak-512".into(),
            HashFunction::Shake256 => "shake-256".into(),
            HashFunction::Blake2b(len) => format!("blake2b-{}", u16::from(len) * 8),
            HashFunction::Blake2s(len) => format!("blake2s-{}", u16::from(len) * 8),
            HashFunction::Blake3 => "blake3".into(),
        }
    }

    /// The length of the full digest in bytes; the most that [`HashFunction::Identity`] may carry.
    pub fn digest_bytes(self) -> usize {
        match self {
            HashFunction::Identity => MAX_IDENTITY_DIGEST_BYTES,
            HashFunction::Sha1 => 20,
            HashFunction::Sha3_224 => 28,
            HashFunction::Sha3_384 => 48,
            HashFunction::Sha2_512 | HashFunction::Sha3_512 | HashFunction::Keccak512 | HashFunction::Shake256 => 64,
            HashFunction::Sha2_256
            | HashFunction::DoubleSha2_256
            | HashFunction::Sha3_256
            | HashFunction::Keccak256
            | HashFunction::Blake3 => 32,
            HashFunction::Blake2b(len) | HashFunction::Blake2s(len) => usize::from(len),
        }
    }

    /// Hashes `data`. For [`HashFunction::Identity`] the caller bounds the data by [`MAX_IDENTITY_DIGEST_BYTES`].
    pub fn digest(self, data: &[u8]) -> Multihash {
        let mut bytes = SmallVec::new();
        write_varint(&mut bytes, self.code());
        self.with_digest(data, |digest| {
            write_varint(&mut bytes, digest.len() as u64);
            bytes.extend_from_slice(digest);
        });
        Multihash(bytes)
    }

    /// Whether `data` hashes to `digest`, which may be truncated, but not to less than can be trusted.
    pub(super) fn matches(self, digest: &[u8], data: &[u8]) -> bool {
        if check_length(self.code(), digest.len()).is_err() {
            return false;
        }
        self.with_digest(data, |full| full.get(..digest.len()) == Some(digest))
    }

    fn with_digest<T>(self, data: &[u8], take: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            HashFunction::Identity => take(data),
            HashFunction::Sha1 => take(&sha1::Sha1::digest(data)),
            HashFunction::Sha2_256 => take(&sha2::Sha256::digest(data)),
            HashFunction::Sha2_512 => take(&sha2::Sha512::digest(data)),
            HashFunction::DoubleSha2_256 => take(&sha2::Sha256::digest(sha2::Sha256::digest(data))),
            HashFunction::Sha3_224 => take(&sha3::Sha3_224::digest(data)),
            HashFunction::Sha3_256 => take(&sha3::Sha3_256::digest(data)),
            HashFunction::Sha3_384 => take(&sha3::Sha3_384::digest(data)),
            HashFunction::Sha3_512 => take(&sha3::Sha3_512::digest(data)),
            HashFunction::Keccak256 => take(&sha3::Keccak256::digest(data)),
            HashFunction::Keccak512 => take(&sha3::Keccak512::digest(data)),
            HashFunction::Shake256 => {
                let mut digest = [0; 64];
                sha3::Shake256::digest_xof(data, &mut digest);
                take(&digest)
            }
            HashFunction::Blake2b(len) => {
                take(blake2b_simd::Params::new().hash_length(usize::from(len)).hash(data).as_bytes())
            }
            HashFunction::Blake2s(len) => {
                take(blake2s_simd::Params::new().hash_length(usize::from(len)).hash(data).as_bytes())
            }
            HashFunction::Blake3 => take(blake3::hash(data).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<HashFunction> {
        (0..0x1_0000).filter_map(HashFunction::from_code).collect()
    }

    #[test]
    fn codes_and_names_go_both_ways() {
        assert_eq!(all().len(), 13 + 45 + 13);
        for function in all() {
            assert_eq!(HashFunction::from_code(function.code()), Some(function));
            assert_eq!(HashFunction::from_name(&function.name()), Some(function));
        }
        assert_eq!(HashFunction::from_name("blake2b-256").unwrap().code(), 0xb220);
        assert_eq!(HashFunction::from_name("blake2s-256").unwrap().code(), 0xb260);
        assert_eq!(HashFunction::from_name("blake2b-100"), None);
    }

    #[test]
    fn every_function_matches_its_own_digest_and_no_other_data() {
        for function in all() {
            let hash = function.digest(b"data");
            let parts = read_multihash(hash.as_bytes()).unwrap();
            let digest = &hash.as_bytes()[parts.digest_start..];
            if function != HashFunction::Identity {
                assert_eq!(digest.len(), function.digest_bytes());
            }
            assert!(function.matches(digest, b"data"));
            assert!(!function.matches(digest, b"Data"));
        }
    }

    #[test]
    fn a_digest_may_be_truncated_to_160_bits_and_no_further() {
        let full = HashFunction::Sha2_256.digest(b"data");
        let digest = &full.as_bytes()[2..];
        let short = Multihash::wrap(0x12, &digest[..20]).unwrap();
        assert!(HashFunction::Sha2_256.matches(&short.as_bytes()[2..], b"data"));
        assert!(Multihash::wrap(0x12, &digest[..19]).is_err());
        assert!(Multihash::wrap(1 << 63, digest).is_err());
    }
}
