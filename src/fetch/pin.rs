//! Pins of whole DAGs: a recursive pin is of a DAG that is here to its last block.

use super::walk::{Reach, Visit, Walk, WalkError};
use super::{Fetch, FetchError, Priority};
use crate::block::Cid;
use crate::store::{Pin, PinKind, Writer};

/// Pins `cid`: makes sure that its blocks are here, fetching what is missing, and returns once blocks and pin are durable.
/// Nothing is pinned where a block cannot be had. `progress` is told the number of blocks so far.
pub async fn pin(
    fetch: &Fetch,
    cid: &Cid,
    kind: PinKind,
    name: &str,
    progress: impl FnMut(u64),
) -> Result<Pin, WalkError> {
    // What the writer was given, or found here, stays until it is dropped: nothing is evicted before it is pinned.
    let mut writer = fetch.store().writer();
    hold(fetch, Reach::Anywhere, cid, kind, &mut writer, progress).await?;
    Ok(fetch.store().pin(cid, kind, name)?)
}

/// Makes sure that every block that a pin of `cid` would keep is here, and has `writer` hold it. The number of blocks.
pub(super) async fn hold(
    fetch: &Fetch,
    reach: Reach,
    cid: &Cid,
    kind: PinKind,
    writer: &mut Writer,
    mut progress: impl FnMut(u64),
) -> Result<u64, WalkError> {
    if kind == PinKind::Direct {
        keep(fetch, reach, cid, writer).await?;
        return Ok(1);
    }
    // The writer keeps what comes, in the order of the walk.
    let mut walk = Walk::new(&fetch.unkept(), reach, vec![cid.clone()]);
    while let Some(visit) = walk.next().await? {
        match visit {
            Visit::Node(block) => writer.put(&block)?,
            Visit::Leaf(cid) => {
                if !writer.keep(&cid)? {
                    let block = walk.fetch(&cid).await?;
                    writer.put(&block)?;
                }
            }
        }
        progress(walk.met() as u64);
    }
    Ok(walk.met() as u64)
}

async fn keep(fetch: &Fetch, reach: Reach, cid: &Cid, writer: &mut Writer) -> Result<(), WalkError> {
    if writer.keep(cid)? {
        return Ok(());
    }
    if reach == Reach::Local {
        return Err(not_here(cid).into());
    }
    let block = fetch.get(cid, Priority::Background).await?;
    Ok(writer.put(&block)?)
}

/// Looks through the DAG below `root` for blocks that are not here or cannot be read as nodes, on this machine alone, and
/// hands each to `bad`. The number of blocks that were looked for.
///
/// Whether the bytes of leaves are still good is for `cidfs verify`, which hashes them.
///
/// # Errors
/// Only where the store cannot answer.
pub async fn check(fetch: &Fetch, root: &Cid, mut bad: impl FnMut(&Cid, WalkError)) -> Result<u64, WalkError> {
    let mut walk = Walk::new(fetch, Reach::Local, vec![root.clone()]);
    loop {
        match walk.next().await {
            Ok(None) => return Ok(walk.met() as u64),
            Ok(Some(Visit::Node(_))) => {}
            Ok(Some(Visit::Leaf(cid))) => {
                if !fetch.store().has(&cid) {
                    bad(&cid, not_here(&cid).into());
                }
            }
            Err(error) => match error.cid().cloned() {
                Some(cid) => bad(&cid, error),
                None => return Err(error),
            },
        }
    }
}

fn not_here(cid: &Cid) -> FetchError {
    FetchError::NotFound { cid: cid.clone(), tried: "only this machine was asked".into() }
}
