//! Content identifiers, version 0 and 1 (<https://github.com/multiformats/cid>).
//!
//! A [`Cid`] keeps its canonical binary form: equal bytes are equal CIDs. Its numbers are parsed once, when it is made,
//! so that what is asked of it later cannot fail. The usual CIDv1 of sha2-256 is 36 bytes and lives inline.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use super::hash::{Multihash, read_multihash};
use crate::limits::MAX_IDENTITY_DIGEST_BYTES;

/// Multicodec codes of the block formats that cidfs reads.
pub mod codec {
    /// Plain bytes.
    pub const RAW: u64 = 0x55;
    /// dag-pb: protobuf nodes, the format of UnixFS.
    pub const DAG_PB: u64 = 0x70;
    /// dag-cbor.
    pub const DAG_CBOR: u64 = 0x71;
    /// dag-json.
    pub const DAG_JSON: u64 = 0x0129;
    /// Plain CBOR: no links.
    pub const CBOR: u64 = 0x51;
    /// Plain JSON: no links.
    pub const JSON: u64 = 0x0200;

    /// The multicodec name of a code, as the `ipfs` commands print and take it.
    pub fn name(code: u64) -> Option<&'static str> {
        NAMES.iter().find(|(_, known)| *known == code).map(|(name, _)| *name)
    }

    /// The code of a multicodec name.
    pub fn from_name(name: &str) -> Option<u64> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code)
    }

    const NAMES: [(&str, u64); 7] = [
        ("raw", RAW),
        ("dag-pb", DAG_PB),
        ("dag-cbor", DAG_CBOR),
        ("dag-json", DAG_JSON),
        ("cbor", CBOR),
        ("json", JSON),
        ("libp2p-key", 0x72),
    ];
}

/// The name of a block: a version, the codec of its bytes, and their multihash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid(SmallVec<[u8; 40]>);

/// Why text or bytes are no CID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// The text is in no multibase encoding that is known, or has a wrong character.
    #[error("not a CID: {0}")]
    Encoding(String),
    /// A version other than 0 and 1.
    #[error("not a CID: unknown version {0}")]
    Version(u64),
    /// The bytes end before the CID does.
    #[error("not a CID: cut short")]
    Truncated,
    /// Bytes follow the end of the CID.
    #[error("not a CID: bytes follow its end")]
    Trailing,
    /// A number that is not the shortest varint, or over 63 bits.
    #[error("not a CID: a malformed varint")]
    Varint,
    /// A digest that is too long, or too short to be trusted.
    #[error("not a CID: hash function {code:#x} with a digest of {len} bytes")]
    DigestLength {
        /// The hash function's code.
        code: u64,
        /// The digest's length.
        len: usize,
    },
}

/// A CIDv0 in binary begins with these bytes: sha2-256 and its length.
const V0_PREFIX: [u8; 2] = [0x12, 0x20];
/// The length of a CIDv0 in bytes.
const V0_BYTES: usize = 34;

impl Cid {
    /// A CIDv1.
    pub fn new_v1(codec: u64, hash: &Multihash) -> Cid {
        let mut bytes = SmallVec::new();
        write_varint(&mut bytes, 1);
        write_varint(&mut bytes, codec);
        bytes.extend_from_slice(hash.as_bytes());
        Cid(bytes)
    }

    /// A CIDv0: dag-pb and sha2-256, always.
    ///
    /// # Panics
    /// If `hash` is not a whole sha2-256 digest.
    pub fn new_v0(hash: &Multihash) -> Cid {
        let bytes = hash.as_bytes();
        assert!(bytes.starts_with(&V0_PREFIX) && bytes.len() == V0_BYTES, "a CIDv0 is of sha2-256");
        Cid(SmallVec::from_slice(bytes))
    }

    /// Reads a CID that fills `bytes` exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Cid, CidError> {
        Cid::from_link(bytes)?.checked()
    }

    /// Reads a link of a block. It may have a digest that no block is accepted for, so that one such link does not take
    /// the node that holds it, and all its other links, out of reach.
    pub(crate) fn from_link(bytes: &[u8]) -> Result<Cid, CidError> {
        match Cid::read_any(bytes)? {
            (cid, len) if len == bytes.len() => Ok(cid),
            _ => Err(CidError::Trailing),
        }
    }

    /// Reads the CID that `bytes` begins with, and says how many bytes it took.
    pub fn read(bytes: &[u8]) -> Result<(Cid, usize), CidError> {
        let (cid, len) = Cid::read_any(bytes)?;
        Ok((cid.checked()?, len))
    }

    fn checked(self) -> Result<Cid, CidError> {
        read_multihash(self.multihash())?.check_length()?;
        Ok(self)
    }

    fn read_any(bytes: &[u8]) -> Result<(Cid, usize), CidError> {
        let len = if bytes.starts_with(&V0_PREFIX) {
            V0_BYTES
        } else {
            let (version, version_len) = read_varint(bytes)?;
            if version != 1 {
                return Err(CidError::Version(version));
            }
            let (_, codec_len) = read_varint(&bytes[version_len..])?;
            let hash_start = version_len + codec_len;
            hash_start + read_multihash(&bytes[hash_start..])?.end
        };
        let bytes = bytes.get(..len).ok_or(CidError::Truncated)?;
        Ok((Cid(SmallVec::from_slice(bytes)), len))
    }

    /// The binary form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// 0 or 1.
    pub fn version(&self) -> u8 {
        u8::from(!self.is_v0())
    }

    /// The multicodec code of the block's format.
    pub fn codec(&self) -> u64 {
        if self.is_v0() {
            codec::DAG_PB
        } else {
            // The constructor read these numbers.
            read_varint(&self.0[1..]).map_or(0, |(codec, _)| codec)
        }
    }

    /// The multihash, in binary: what a block is stored and asked for by.
    pub fn multihash(&self) -> &[u8] {
        if self.is_v0() {
            &self.0
        } else {
            let codec_len = read_varint(&self.0[1..]).map_or(0, |(_, len)| len);
            &self.0[1 + codec_len..]
        }
    }

    /// The multicodec code of the hash function.
    pub fn hash_code(&self) -> u64 {
        read_varint(self.multihash()).map_or(0, |(code, _)| code)
    }

    /// The digest alone.
    pub fn digest(&self) -> &[u8] {
        let hash = self.multihash();
        read_multihash(hash).map_or(&[], |parts| &hash[parts.digest_start..])
    }

    /// The block itself, where the CID is an identity CID and carries it. A link of a block may carry more than an
    /// identity CID may hold; then there is no such block.
    pub fn identity_data(&self) -> Option<&[u8]> {
        (self.hash_code() == 0).then(|| self.digest()).filter(|data| data.len() <= MAX_IDENTITY_DIGEST_BYTES)
    }

    /// The same block under a CIDv1 with this codec.
    #[must_use]
    pub fn with_codec(&self, codec: u64) -> Cid {
        let mut bytes = SmallVec::new();
        write_varint(&mut bytes, 1);
        write_varint(&mut bytes, codec);
        bytes.extend_from_slice(self.multihash());
        Cid(bytes)
    }

    /// The CIDv1 of the same block.
    #[must_use]
    pub fn to_v1(&self) -> Cid {
        if self.is_v0() { self.with_codec(codec::DAG_PB) } else { self.clone() }
    }

    /// The CIDv0 of the same block, where there is one (dag-pb and sha2-256).
    pub fn to_v0(&self) -> Option<Cid> {
        let hash = self.multihash();
        let is_v0 = self.codec() == codec::DAG_PB && hash.starts_with(&V0_PREFIX) && hash.len() == V0_BYTES;
        is_v0.then(|| Cid(SmallVec::from_slice(hash)))
    }

    /// The CID as text in `base`. A CIDv0 has one text form only, and keeps it.
    pub fn to_text(&self, base: multibase::Base) -> String {
        if self.is_v0() { multibase::Base::Base58Btc.encode(&self.0) } else { multibase::encode(base, &self.0) }
    }

    fn is_v0(&self) -> bool {
        self.0[0] == V0_PREFIX[0]
    }
}

impl FromStr for Cid {
    type Err = CidError;

    /// Reads a CID as text: a CIDv0 in base58btc without a prefix, or a CIDv1 in any multibase.
    fn from_str(text: &str) -> Result<Cid, CidError> {
        Cid::from_link_text(text)?.checked()
    }
}

impl Cid {
    /// As [`Cid::from_link`], for a link that is text.
    pub(crate) fn from_link_text(text: &str) -> Result<Cid, CidError> {
        // 46 characters from "Qm" are a CIDv0, as the specification's decoding algorithm has it.
        if text.len() == 46 && text.starts_with("Qm") {
            let bytes =
                multibase::Base::Base58Btc.decode(text).map_err(|error| CidError::Encoding(error.to_string()))?;
            return Cid::from_link(&bytes);
        }
        if text.len() < 2 {
            return Err(CidError::Encoding("too short".into()));
        }
        let (_, bytes) = multibase::decode(text).map_err(|error| CidError::Encoding(error.to_string()))?;
        let cid = Cid::from_link(&bytes)?;
        if cid.is_v0() {
            return Err(CidError::Encoding("a CIDv0 takes no multibase prefix".into()));
        }
        Ok(cid)
    }
}

impl TryFrom<&[u8]> for Cid {
    type Error = CidError;

    fn try_from(bytes: &[u8]) -> Result<Cid, CidError> {
        Cid::from_bytes(bytes)
    }
}

impl fmt::Display for Cid {
    /// base58btc for version 0, base32 for version 1: the forms that every tool takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text(multibase::Base::Base32Lower))
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Cid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Cid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads the unsigned varint that `bytes` begins with: its value and its length. Refuses all but the shortest form
/// and values over 63 bits, as <https://github.com/multiformats/unsigned-varint> does.
pub(crate) fn read_varint(bytes: &[u8]) -> Result<(u64, usize), CidError> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || index == 0;
            return if shortest { Ok((value, index + 1)) } else { Err(CidError::Varint) };
        }
    }
    Err(if bytes.len() < 9 { CidError::Truncated } else { CidError::Varint })
}

/// Appends `value` as an unsigned varint.
pub(crate) fn write_varint<const N: usize>(bytes: &mut SmallVec<[u8; N]>, mut value: u64)
where
    [u8; N]: smallvec::Array<Item = u8>,
{
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::super::HashFunction;
    use super::*;

    const EMPTY_RAW: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    const EMPTY_DIRECTORY_V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    #[test]
    fn text_and_bytes_go_both_ways_in_every_multibase() {
        let cid: Cid = EMPTY_RAW.parse().unwrap();
        assert_eq!(cid, Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(b"")));
        for code in "0791fFvVtTbBcCUhkKRZzmMuUp🚀".chars() {
            let Ok(base) = multibase::Base::from_code(code) else { continue };
            let text = cid.to_text(base);
            assert_eq!(text.parse::<Cid>().unwrap(), cid, "{text}");
        }
        let v0: Cid = EMPTY_DIRECTORY_V0.parse().unwrap();
        assert_eq!((v0.version(), v0.codec(), v0.to_string().as_str()), (0, codec::DAG_PB, EMPTY_DIRECTORY_V0));
        assert_eq!(v0.to_v1().to_v0().unwrap(), v0);
        assert_eq!(v0.to_v1().multihash(), v0.multihash());
        assert_eq!(Cid::from_bytes(v0.as_bytes()).unwrap(), v0);
    }

    #[test]
    fn agrees_with_the_cid_crate_on_what_is_a_cid() {
        for text in [EMPTY_RAW, EMPTY_DIRECTORY_V0, "bafyaagykdeeaeeqtnfxgy2lomuqgiylhfvygeidgnfwgkcqycm", "bafkqaaa"] {
            let ours: Cid = text.parse().unwrap();
            let theirs: cid::CidGeneric<128> = text.parse().unwrap();
            assert_eq!(ours.as_bytes(), theirs.to_bytes());
            assert_eq!(ours.codec(), theirs.codec());
            assert_eq!(ours.multihash(), theirs.hash().to_bytes());
            assert_eq!(ours.digest(), theirs.hash().digest());
            assert_eq!(ours.to_string(), theirs.to_string());
        }
    }

    #[test]
    fn an_identity_digest_over_128_bytes_is_refused() {
        let cid = |len: usize| {
            let mut bytes = SmallVec::<[u8; 40]>::from_slice(&[1, 0x55, 0]);
            write_varint(&mut bytes, len as u64);
            bytes.resize(bytes.len() + len, 7);
            Cid::from_bytes(&bytes)
        };
        assert_eq!(cid(128).unwrap().identity_data().unwrap().len(), 128);
        assert!(matches!(cid(129), Err(CidError::DigestLength { len: 129, .. })));
    }

    #[test]
    fn names_that_are_no_cid_are_refused() {
        for text in [
            "",
            "b",
            ".git",
            "favicon.ico",
            "autorun.inf",
            "Qm",
            "bafy",
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0",
        ] {
            assert!(text.parse::<Cid>().is_err(), "{text}");
        }
        let v0_in_base32 =
            multibase::encode(multibase::Base::Base32Lower, EMPTY_DIRECTORY_V0.parse::<Cid>().unwrap().as_bytes());
        assert!(v0_in_base32.parse::<Cid>().is_err());
    }

    #[test]
    fn cut_or_padded_bytes_are_refused() {
        let cid: Cid = EMPTY_RAW.parse().unwrap();
        for len in 0..cid.as_bytes().len() {
            assert!(Cid::from_bytes(&cid.as_bytes()[..len]).is_err());
        }
        assert_eq!(Cid::from_bytes(&[cid.as_bytes(), &[0]].concat()), Err(CidError::Trailing));
        assert_eq!(Cid::read(&[cid.as_bytes(), &[9, 9]].concat()).unwrap(), (cid, 36));
        assert_eq!(Cid::from_bytes(&[2, 0x55, 0x12, 0x20]), Err(CidError::Version(2)));
        assert_eq!(Cid::from_bytes(&[0x81, 0x00, 0x55]), Err(CidError::Varint));
    }
}
