//! Who this repository is to others: an ed25519 key, and the peer ID that is made of its public half.
//!
//! The file `identity.key` (0600) holds the private key in libp2p's encoding (a protobuf of the type and the key: see
//! <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>), made when it is first asked for. A copy of the
//! repository is the same peer: two of them must not be on one network.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use multibase::Base;

use crate::block::{Cid, Multihash};

/// What stands before the 64 bytes of a private ed25519 key (its seed and its public key) in libp2p's encoding.
const PRIVATE_HEAD: [u8; 4] = [0x08, 0x01, 0x12, 0x40];
/// What stands before the 32 bytes of a public ed25519 key.
const PUBLIC_HEAD: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
/// The codec of a peer ID that is written as a CID.
const LIBP2P_KEY: u64 = 0x72;

/// The key of a repository.
pub struct Identity {
    key: SigningKey,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot use the identity in {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} is not an ed25519 key of libp2p: move it away and a new identity is made")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The identity of the repository at `repository`; a new one where there is none yet. The caller has the lock.
pub fn load_or_make(repository: &Path) -> Result<Identity, IdentityError> {
    let path = repository.join("identity.key");
    let io = |source| IdentityError::Io { path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(bytes) => Identity::from_bytes(&bytes).ok_or(IdentityError::Malformed { path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut seed = [0; 32];
            File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed)).map_err(io)?;
            let identity = Identity { key: SigningKey::from_bytes(&seed) };
            // Whole or not at all: half a key would be a new error at each start.
            let fresh = path.with_extension("new");
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&fresh).map_err(io)?;
            file.write_all(&identity.to_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
            std::fs::rename(&fresh, &path).map_err(io)?;
            Ok(identity)
        }
        Err(error) => Err(io(error)),
    }
}

impl Identity {
    fn from_bytes(bytes: &[u8]) -> Option<Identity> {
        let pair: &[u8; 64] = bytes.strip_prefix(&PRIVATE_HEAD)?.try_into().ok()?;
        Some(Identity { key: SigningKey::from_keypair_bytes(pair).ok()? })
    }

    /// The private key in libp2p's encoding: what the file holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&PRIVATE_HEAD[..], &self.key.to_keypair_bytes()].concat()
    }

    /// The public key in libp2p's encoding.
    pub fn public_key(&self) -> Vec<u8> {
        [&PUBLIC_HEAD[..], self.key.verifying_key().as_bytes()].concat()
    }

    /// The peer ID as kubo's `--peerid-base` names encodings: `b58mh` is the plain form (`12D3Koo…`); a multibase's letter or
    /// name gives a CID in it. `None` for an encoding that does not exist.
    pub fn peer_id(&self, encoding: &str) -> Option<String> {
        // Keys this short are their own identity hash.
        let hash = Multihash::wrap(0, &self.public_key()).ok()?;
        encode(Cid::new_v1(LIBP2P_KEY, &hash).multihash(), encoding)
    }
}

/// A peer ID, given as its multihash, in an encoding: see [`Identity::peer_id`].
pub fn encode(peer: &[u8], encoding: &str) -> Option<String> {
    let base = match encoding {
        "b58mh" => return Some(Base::Base58Btc.encode(peer)),
        "base36" => Base::Base36Lower,
        "base32" => Base::Base32Lower,
        "base58btc" => Base::Base58Btc,
        letter => Base::from_code(letter.parse().ok()?).ok()?,
    };
    // Version 1, and the codec's number, stand before it.
    Some(multibase::encode(base, [&[1, LIBP2P_KEY as u8], peer].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_made_once_and_kept_private() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let first = load_or_make(directory.path()).unwrap();
        let second = load_or_make(directory.path()).unwrap();
        assert_eq!(first.peer_id("b58mh"), second.peer_id("b58mh"));
        let mode = std::fs::metadata(directory.path().join("identity.key")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(first.peer_id("b58mh"), load_or_make(other.path()).unwrap().peer_id("b58mh"));
    }

    #[test]
    fn the_peer_id_is_what_libp2p_makes_of_the_key() {
        // The test vector of the libp2p peer ID specification.
        let key = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d1ed1e8fae2c4a144b8be8fd4b47bf\
                   3d3b34b871c3cacf6010f0e42d474fce27e";
        let bytes: Vec<u8> =
            (0..key.len()).step_by(2).map(|at| u8::from_str_radix(&key[at..at + 2], 16).unwrap()).collect();
        let identity = Identity::from_bytes(&bytes).unwrap();
        assert_eq!(identity.to_bytes(), bytes);
        assert!(identity.peer_id("b58mh").unwrap().starts_with("12D3KooW"));
        assert!(identity.peer_id("k").unwrap().starts_with("k51qzi5uqu5"));
        assert_eq!(identity.peer_id("nothing"), None);
    }

    #[test]
    fn what_is_no_key_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("identity.key"), "mine").unwrap();
        assert!(matches!(load_or_make(directory.path()), Err(IdentityError::Malformed { .. })));
        assert_eq!(std::fs::read(directory.path().join("identity.key")).unwrap(), b"mine");
    }
}
