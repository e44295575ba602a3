//! Directories: entries in, one block or a HAMT out, by kubo's rules of when a directory is sharded.

use super::ImportError;
use super::layout::Put;
use super::node::{Link, Metadata};
use super::options::{DEFAULT_FANOUT, Settings, Sharding, SizeEstimation};
use crate::block::codec;
use crate::dag::hamt;
use crate::dag::pb::{self, PbLink};
use crate::dag::unixfs::{Kind, UnixFs};

/// An entry of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: Vec<u8>,
    pub link: Link,
}

impl Entry {
    fn pb(&self) -> PbLink<'_> {
        PbLink { cid: self.link.cid.clone(), name: &self.name, tsize: Some(self.link.dag_bytes) }
    }
}

/// A directory that has been made.
pub(super) struct Made {
    pub link: Link,
    /// Whether it is a HAMT.
    pub sharded: bool,
}

/// Makes the node or nodes of a directory. `entries` are put into the order of their names. `is_root` says that the
/// directory is in no other one.
pub(super) fn build(
    settings: &Settings,
    entries: &mut [Entry],
    metadata: Metadata,
    is_root: bool,
    put: &mut Put<'_>,
) -> Result<Made, ImportError> {
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(ImportError::SameName {
            name: String::from_utf8_lossy(&pair[0].name).into_owned(),
            first: pair[0].link.cid.to_string(),
            second: pair[1].link.cid.to_string(),
        });
    }
    let message = UnixFs { mode: metadata.mode, mtime: metadata.mtime, ..UnixFs::new(Kind::Directory) }.encode();
    let sharding = if is_root && metadata.is_empty() { of_root(settings.sharding) } else { settings.sharding };
    if is_sharded(&sharding, entries, &message)? {
        return shard(settings, sharding.fanout, entries, metadata, put);
    }
    let block = settings.cid.block(codec::DAG_PB, pb::encode(entries.iter().map(Entry::pb), Some(&message)).into())?;
    let dag_bytes = block.data().len() as u64 + entries.iter().map(|entry| entry.link.dag_bytes).sum::<u64>();
    let link = Link { cid: block.cid().clone(), file_bytes: 0, dag_bytes };
    put(block)?;
    Ok(Made { link, sharded: false })
}

/// The rules for the root. kubo's `--only-hash`, by which the vectors were made, makes the root before it looks at
/// `--max-directory-links` and `--max-hamt-fanout`, and so the first has no hold on it. A root that holds a mode or a time
/// is made later, by the rules of all other directories. (Without `--only-hash`, kubo 0.43 bounds the root too.)
fn of_root(sharding: Sharding) -> Sharding {
    if sharding.max_links == 0 {
        return sharding;
    }
    Sharding { max_links: 0, fanout: DEFAULT_FANOUT, ..sharding }
}

fn is_sharded(sharding: &Sharding, entries: &[Entry], message: &[u8]) -> Result<bool, ImportError> {
    let too_many = sharding.max_links != 0 && entries.len() > sharding.max_links;
    if sharding.threshold == 0 {
        if too_many {
            return Err(ImportError::options(format!(
                "a directory has {} entries, more than --max-directory-links={}, and --hamt-size-threshold=0 forbids to \
                 shard it",
                entries.len(),
                sharding.max_links
            )));
        }
        return Ok(false);
    }
    let bytes: usize = match sharding.estimation {
        SizeEstimation::Links => entries.iter().map(|entry| entry.name.len() + entry.link.cid.as_bytes().len()).sum(),
        SizeEstimation::Block => {
            pb::encode([], Some(message)).len()
                + entries.iter().map(|entry| pb::encoded_link_len(&entry.pb())).sum::<usize>()
        }
        SizeEstimation::Disabled => 0,
    };
    // An empty directory is never sharded, however little its own node may have.
    Ok(!entries.is_empty() && (too_many || bytes as u64 > sharding.threshold))
}

fn shard(
    settings: &Settings,
    fanout: usize,
    entries: &[Entry],
    metadata: Metadata,
    put: &mut Put<'_>,
) -> Result<Made, ImportError> {
    let hamt = hamt::build::Settings { fanout, mode: metadata.mode, mtime: metadata.mtime };
    let root = hamt::build::build(entries.iter().map(Entry::pb), hamt, &mut |bytes| {
        let block = settings.cid.block(codec::DAG_PB, bytes.into())?;
        let cid = block.cid().clone();
        put(block)?;
        Ok::<_, ImportError>(cid)
    })?;
    Ok(Made { link: Link { cid: root.cid, file_bytes: 0, dag_bytes: root.dag_bytes }, sharded: true })
}
