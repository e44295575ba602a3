//! The settings of an import: what a user says, and what follows from it.
//!
//! [`ImportOptions`] holds what was said, flag by flag, under the names of kubo's `ipfs add`; it travels as JSON and as
//! the query of an RPC call. [`Settings::resolve`] lays it over the profile and applies the rules that tie settings
//! together, as kubo 0.43 has them: another hash than sha2-256 implies `CIDv1`, `CIDv1` implies raw leaves, metadata
//! forbids them. What contradicts itself is refused here, before a byte is read.

use serde::{Deserialize, Serialize};

use super::ImportError;
use super::chunker::Chunker;
use super::node::{CidFormat, Metadata, mtime_or_none};
use crate::block::HashFunction;
use crate::dag::unixfs::Mtime;
use crate::limits::{HAMT_FANOUT_MAX, HAMT_FANOUT_MIN, MAX_IDENTITY_DIGEST_BYTES, MAX_PIN_NAME_BYTES};

/// A named set of defaults (IPIP-499).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// What kubo does unasked: `CIDv0`, leaves in dag-pb, 256 KiB chunks, 174 links, directories sharded by the sum of
    /// their names and CIDs. What other flags imply, as `--cid-version=1` implies raw leaves, they imply here too.
    #[serde(rename = "unixfs-v0-2015")]
    UnixfsV0_2015,
    /// `CIDv1`, raw leaves, 1 MiB chunks, 1,024 links, directories sharded by the size of their block.
    #[default]
    #[serde(rename = "unixfs-v1-2025")]
    UnixfsV1_2025,
}

impl Profile {
    /// The profile's name, as `--profile` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::UnixfsV0_2015 => "unixfs-v0-2015",
            Profile::UnixfsV1_2025 => "unixfs-v1-2025",
        }
    }

    /// The profile of this name, or of the alias that kubo has for it.
    pub fn from_name(name: &str) -> Option<Profile> {
        match name {
            "unixfs-v0-2015" | "legacy-cid-v0" => Some(Profile::UnixfsV0_2015),
            "unixfs-v1-2025" => Some(Profile::UnixfsV1_2025),
            _ => None,
        }
    }
}

/// How the size of a directory is estimated, to decide whether it is sharded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeEstimation {
    /// The sum of the lengths of its names and CIDs.
    Links,
    /// The exact size of its block.
    Block,
    /// By size never: only `--max-directory-links` shards a directory.
    Disabled,
}

/// What the user asked for. A field that is `None` follows the profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
#[allow(clippy::struct_excessive_bools)] // Each is a flag of the command, and independent of the others.
pub struct ImportOptions {
    /// The defaults of all that is not said.
    pub profile: Profile,
    /// 0 or 1.
    pub cid_version: Option<i64>,
    /// The multicodec name of the hash function.
    pub hash: Option<String>,
    /// Whether leaves are plain bytes, without the dag-pb node around them.
    pub raw_leaves: Option<bool>,
    /// How files are cut: `size-N`, `rabin`, `rabin-AVG`, `rabin-MIN-AVG-MAX`, `buzhash`.
    pub chunker: Option<String>,
    /// Whether a file's tree is laid out for streaming instead of balanced.
    pub trickle: Option<bool>,
    /// The most links in a node of a file.
    pub max_file_links: Option<i64>,
    /// The most entries of a directory that is not sharded; 0 sets no bound.
    pub max_directory_links: Option<i64>,
    /// The number of slots of a shard: a power of two from 8 to 1,024.
    pub max_hamt_fanout: Option<i64>,
    /// The estimated size in bytes over which a directory is sharded; 0 shards none.
    pub hamt_size_threshold: Option<u64>,
    /// How that size is estimated.
    pub hamt_size_estimation: Option<SizeEstimation>,
    /// Whether small blocks are put into their CIDs.
    pub inline: bool,
    /// The largest block that [`ImportOptions::inline`] puts into a CID, in bytes.
    pub inline_limit: i64,
    /// Whether the mode of each file and directory is kept.
    pub preserve_mode: bool,
    /// Whether the time of last change of each file, directory and symbolic link is kept.
    pub preserve_mtime: bool,
    /// A mode for every file and directory, in the bits of Go's `os.FileMode`, as kubo reads it; 0 is none.
    pub mode: u32,
    /// A time of last change for everything, in seconds since 1970; 0 is none.
    pub mtime: i64,
    /// The nanoseconds of [`ImportOptions::mtime`].
    pub mtime_nsecs: u32,
    /// Whether all that is added is put into one directory.
    pub wrap_with_directory: bool,
    /// Whether files and directories below the given paths are added whose names begin with a dot.
    pub hidden: bool,
    /// Rules in the style of `.gitignore`, in order, that name what is left out below the given paths.
    pub ignore: Vec<String>,
    /// Whether empty directories are added.
    pub empty_dirs: bool,
    /// Whether a given path that is a symbolic link is followed.
    pub dereference_args: bool,
    /// Whether every symbolic link is followed.
    pub dereference_symlinks: bool,
    /// Whether CIDs are computed and nothing is kept.
    pub only_hash: bool,
    /// Whether each root is pinned.
    pub pin: bool,
    /// The pin's name.
    pub pin_name: Option<String>,
}

impl Default for ImportOptions {
    fn default() -> ImportOptions {
        ImportOptions {
            profile: Profile::default(),
            cid_version: None,
            hash: None,
            raw_leaves: None,
            chunker: None,
            trickle: None,
            max_file_links: None,
            max_directory_links: None,
            max_hamt_fanout: None,
            hamt_size_threshold: None,
            hamt_size_estimation: None,
            inline: false,
            inline_limit: 32,
            preserve_mode: false,
            preserve_mtime: false,
            mode: 0,
            mtime: 0,
            mtime_nsecs: 0,
            wrap_with_directory: false,
            hidden: false,
            ignore: Vec::new(),
            empty_dirs: true,
            dereference_args: false,
            dereference_symlinks: false,
            only_hash: false,
            pin: true,
            pin_name: None,
        }
    }
}

/// When a directory is sharded, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sharding {
    pub estimation: SizeEstimation,
    /// In bytes; 0 shards no directory at all.
    pub threshold: u64,
    /// 0 sets no bound.
    pub max_links: usize,
    pub fanout: usize,
}

/// What is stored of modes and times.
#[derive(Clone, Copy, Debug)]
pub(super) struct MetadataRules {
    preserve_mode: bool,
    preserve_mtime: bool,
    fixed_mode: u32,
    fixed_mtime: Option<Mtime>,
}

/// How nodes of a file hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayoutKind {
    Balanced,
    Trickle,
}

/// The settings that an import runs by.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub cid: CidFormat,
    pub raw_leaves: bool,
    pub chunker: Chunker,
    pub layout: LayoutKind,
    pub max_file_links: usize,
    pub sharding: Sharding,
    pub metadata: MetadataRules,
}

/// kubo's bound of links in a node of a file, where the user's is not positive.
const DEFAULT_FILE_LINKS: usize = 174;

/// The slots of a shard, in every profile.
pub(super) const DEFAULT_FANOUT: usize = 256;

impl Settings {
    pub fn resolve(options: &ImportOptions) -> Result<Settings, ImportError> {
        let v1 = options.profile == Profile::UnixfsV1_2025;
        let wants_metadata = options.preserve_mode || options.preserve_mtime || options.mode != 0 || options.mtime != 0;
        if options.mtime == 0 && options.mtime_nsecs != 0 {
            return Err(ImportError::options("--mtime-nsecs needs --mtime as well"));
        }
        if options.mtime_nsecs > 999_999_999 {
            return Err(ImportError::options("--mtime-nsecs must be from 0 to 999999999"));
        }
        if options.inline && options.inline_limit > MAX_IDENTITY_DIGEST_BYTES as i64 {
            return Err(ImportError::options(format!(
                "--inline-limit={} is more than the {MAX_IDENTITY_DIGEST_BYTES} bytes that a CID may hold",
                options.inline_limit
            )));
        }
        if options.pin_name.is_some() && (!options.pin || options.only_hash) {
            return Err(ImportError::options("--pin-name needs a pin: leave out --pin=false and --only-hash"));
        }
        if options.pin_name.as_ref().is_some_and(|name| name.len() > MAX_PIN_NAME_BYTES) {
            return Err(ImportError::options(format!("--pin-name has more than {MAX_PIN_NAME_BYTES} bytes")));
        }
        let (version, hash) = cid_format(options, v1)?;
        let raw_leaves = match options.raw_leaves {
            Some(true) if wants_metadata => {
                return Err(ImportError::options(
                    "--raw-leaves cannot be used with a mode or a time of last change: a raw leaf has no place for them",
                ));
            }
            _ if wants_metadata => false,
            Some(raw) => raw,
            None => v1 || version == 1,
        };
        let chunker = match options.chunker.as_deref() {
            None | Some("") => Chunker::Size(if v1 { 1 << 20 } else { 256 << 10 }),
            Some(text) => text.parse().map_err(ImportError::options::<String>)?,
        };
        let fanout = options.max_hamt_fanout.unwrap_or(DEFAULT_FANOUT as i64);
        let fanout = usize::try_from(fanout)
            .ok()
            .filter(|slots| slots.is_power_of_two() && (HAMT_FANOUT_MIN..=HAMT_FANOUT_MAX).contains(slots))
            .ok_or_else(|| {
                ImportError::options(format!(
                    "--max-hamt-fanout must be a power of 2 from {HAMT_FANOUT_MIN} to {HAMT_FANOUT_MAX}, not {fanout}"
                ))
            })?;
        let positive = |links: i64| usize::try_from(links).ok().filter(|links| *links > 0);
        let default_links = if v1 { 1024 } else { DEFAULT_FILE_LINKS };
        Ok(Settings {
            cid: CidFormat {
                version,
                hash,
                inline_limit: options.inline.then(|| usize::try_from(options.inline_limit).ok()).flatten(),
            },
            raw_leaves,
            chunker,
            layout: if options.trickle == Some(true) { LayoutKind::Trickle } else { LayoutKind::Balanced },
            max_file_links: options
                .max_file_links
                .map_or(default_links, |links| positive(links).unwrap_or(DEFAULT_FILE_LINKS)),
            sharding: Sharding {
                estimation: options.hamt_size_estimation.unwrap_or(if v1 {
                    SizeEstimation::Block
                } else {
                    SizeEstimation::Links
                }),
                threshold: options.hamt_size_threshold.unwrap_or(256 << 10),
                max_links: options.max_directory_links.and_then(positive).unwrap_or(0),
                fanout,
            },
            metadata: MetadataRules::new(options),
        })
    }
}

fn cid_format(options: &ImportOptions, v1: bool) -> Result<(u8, HashFunction), ImportError> {
    let hash = match &options.hash {
        None => HashFunction::Sha2_256,
        Some(name) if name.is_empty() => HashFunction::Sha2_256,
        Some(name) => HashFunction::from_name(&name.to_lowercase())
            .ok_or_else(|| ImportError::options(format!("unrecognized hash function {name:?}")))?,
    };
    // A negative version means "as the rest implies", as it does to kubo.
    let asked = options.cid_version.filter(|version| *version >= 0).or(v1.then_some(1));
    match (asked, hash) {
        (Some(0) | None, HashFunction::Sha2_256) => Ok((0, hash)),
        (Some(0), _) => Err(ImportError::options(format!(
            "CIDv0 has sha2-256 only: use --cid-version=1 with --hash={}",
            hash.name()
        ))),
        (Some(1) | None, _) => Ok((1, hash)),
        (Some(version), _) => Err(ImportError::options(format!("unknown CID version {version}: there are 0 and 1"))),
    }
}

impl MetadataRules {
    fn new(options: &ImportOptions) -> MetadataRules {
        let fixed_mtime = (options.mtime != 0)
            .then(|| mtime_or_none(Mtime { seconds: options.mtime, nanoseconds: options.mtime_nsecs }))
            .flatten();
        let fixed_mode = options.mode;
        MetadataRules {
            preserve_mode: options.preserve_mode && fixed_mode == 0,
            preserve_mtime: options.preserve_mtime && fixed_mtime.is_none(),
            fixed_mode,
            fixed_mtime,
        }
    }

    fn mtime(&self, own: Option<Mtime>) -> Option<Mtime> {
        if self.preserve_mtime { own.and_then(mtime_or_none) } else { self.fixed_mtime }
    }

    /// What the node of a file holds. A mode without permissions is not stored.
    pub fn file(&self, mode: Option<u32>, mtime: Option<Mtime>) -> Metadata {
        let mode = if self.preserve_mode { mode.map(|mode| mode & 0o7777) } else { go_permissions(self.fixed_mode) };
        Metadata { mode: mode.filter(|mode| *mode != 0), mtime: self.mtime(mtime) }
    }

    /// What the node of a directory holds. A mode without permissions is stored.
    pub fn directory(&self, mode: Option<u32>, mtime: Option<Mtime>) -> Metadata {
        let mode = if self.preserve_mode { mode.map(|mode| mode & 0o7777) } else { go_permissions(self.fixed_mode) };
        Metadata { mode, mtime: self.mtime(mtime) }
    }

    /// What the node of a symbolic link holds: a time at most.
    pub fn symlink(&self, mtime: Option<Mtime>) -> Metadata {
        Metadata { mode: None, mtime: self.mtime(mtime) }
    }
}

/// The permission bits of Go's `os.FileMode`, which has the set-uid, set-gid and sticky bits elsewhere than Unix: kubo
/// takes the number of `--mode` for one, so that 04755 is 0755 to it.
fn go_permissions(mode: u32) -> Option<u32> {
    (mode != 0).then_some((mode & 0x00c0_0000) >> 12 | (mode & 0x0010_0000) >> 11 | mode & 0o777)
}
