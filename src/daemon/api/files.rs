//! `cat`, `ls`, and `get`: files and directories, read through the tree.

use std::io::Write;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;

use super::path::{self, plain};
use super::query::Query;
use super::reply::{ApiError, Caller, Pieces, Stream, stream, stream_of};
use super::time::rfc3339;
use crate::block::{CidForm, codec};
use crate::daemon::Daemon;
use crate::dag::pb::PbNode;
use crate::dag::unixfs::{Mtime, UnixFs};
use crate::fetch::Priority;
use crate::limits::{API_LISTING_ENTRIES, API_PIECE_BYTES, MAX_DIRECTORY_DEPTH};
use crate::tree::{Entry, FileKind, Listed, Location, Tree};

/// `cat?arg=PATH…&offset=N&length=N`: the bytes of files, one after another.
pub async fn cat(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let mut skip = query.number::<i64>("offset")?.unwrap_or_default();
    let length = query.number::<i64>("length")?;
    if skip < 0 {
        return Err(ApiError::new("cannot specify negative offset"));
    }
    if length.is_some_and(|length| length < 0) {
        return Err(ApiError::new("cannot specify negative length"));
    }
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    let files = daemon.clone();
    let entries = super::reply::blocking(move || {
        paths.iter().map(|path| readable(&files, path)).collect::<Result<Vec<_>, ApiError>>()
    })
    .await?;
    let mut left = length.unwrap_or(i64::MAX);
    let mut ranges = Vec::new();
    for entry in entries {
        let size = i64::try_from(entry.attr.size).unwrap_or(i64::MAX);
        let from = skip.min(size);
        skip -= from;
        let take = (size - from).min(left);
        left -= take;
        ranges.push((entry, from as u64, take as u64));
    }
    let total = ranges.iter().fold(0_u64, |sum, (_, _, take)| sum.saturating_add(*take));
    stream_of(Stream::Text, Some(total), caller, move |emit| {
        // An empty file is an answer too, and no error.
        emit.bytes(Bytes::new())?;
        for (entry, from, take) in ranges {
            read(daemon.tree(), &entry, from, take, |piece| emit.bytes(piece))?;
        }
        Ok(())
    })
    .await
}

/// The file or symbolic link at `path`.
fn readable(daemon: &Daemon, path: &str) -> Result<Entry, ApiError> {
    let entry = path::entry(daemon, path)?;
    match entry.attr.kind {
        FileKind::Directory => Err(ApiError::new("this dag node is a directory").context(path)),
        FileKind::File | FileKind::Symlink => Ok(entry),
    }
}

/// Hands `length` bytes of a file, or of a link's target, from `offset` to `take`.
fn read(
    tree: &Tree,
    entry: &Entry,
    mut offset: u64,
    length: u64,
    mut take: impl FnMut(Bytes) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let runtime = Handle::current();
    if entry.attr.kind == FileKind::Symlink {
        let target = runtime.block_on(tree.read_link(&entry.location))?;
        let end = (offset + length).min(target.len() as u64);
        return take(target.slice(offset as usize..end as usize));
    }
    let end = offset.saturating_add(length);
    while offset < end {
        let wanted = (end - offset).min(API_PIECE_BYTES as u64) as usize;
        let piece = runtime.block_on(tree.read(&entry.location, offset, wanted, Priority::Demand))?;
        if piece.is_empty() {
            return Err(ApiError::new(format!("{} ends at byte {offset}, and claims more", entry.location.cid)));
        }
        offset += piece.len() as u64;
        take(piece)?;
    }
    Ok(())
}

/// An entry of a listing, as kubo has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LsLink {
    /// The name.
    pub name: String,
    /// The CID.
    pub hash: String,
    /// The size of a file or of a link's target; 0 for a directory.
    pub size: u64,
    /// 1 for a directory, 2 for a file, 4 for a symbolic link, 0 where it was not asked for.
    #[serde(rename = "Type")]
    pub kind: u8,
    /// Where a link points.
    pub target: String,
    /// The mode in Go's bits; 0 where none is stored.
    pub mode: u32,
    /// The time of last change; the year 1 where none is stored.
    pub mod_time: String,
}

/// A directory, or a part of it, as kubo has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LsObject {
    /// The path that was asked for, as it was written.
    pub hash: String,
    /// Its entries.
    pub links: Vec<LsLink>,
}

/// The answer of `ls`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LsOutput {
    /// One for each path; with `stream=true` one with one entry.
    pub objects: Vec<LsObject>,
}

/// The bit of Go's file modes that says directory.
const GO_DIRECTORY: u32 = 1 << 31;

/// `ls?arg=PATH…&stream=BOOL&resolve-type=BOOL&size=BOOL`: the entries of directories.
pub async fn ls(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let streamed = query.flag("stream", false)?;
    let resolve = query.flag("resolve-type", true)? || query.flag("size", true)?;
    let form = query.cid_form()?;
    let paths = query.some_arguments("ipfs-path")?.to_vec();
    if streamed {
        return stream(Stream::Json, caller, move |emit| {
            for path in &paths {
                list(&daemon, path, (resolve, form), |links| {
                    links.into_iter().try_for_each(|link| {
                        let object = LsObject { hash: path.clone(), links: vec![link] };
                        emit.json(&LsOutput { objects: vec![object] })
                    })
                })?;
            }
            Ok(())
        })
        .await;
    }
    super::reply::json(move || {
        let mut objects = Vec::new();
        for path in paths {
            let mut all = Vec::new();
            list(&daemon, &path, (resolve, form), |links| {
                all.extend(links);
                Ok(())
            })?;
            all.sort_by(|a, b| a.name.cmp(&b.name));
            objects.push(LsObject { hash: path, links: all });
        }
        Ok(LsOutput { objects })
    })
    .await
}

/// Lists the directory at `path`, page by page; a file lists nothing.
fn list(
    daemon: &Daemon,
    path: &str,
    how: (bool, CidForm),
    mut take: impl FnMut(Vec<LsLink>) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let runtime = Handle::current();
    let entry = path::entry(daemon, path)?;
    if entry.attr.kind != FileKind::Directory {
        return Ok(());
    }
    let mut cursor = 0;
    loop {
        let page = runtime.block_on(daemon.tree().list(&entry.location, cursor, API_LISTING_ENTRIES))?;
        let Some(last) = page.last() else { return Ok(()) };
        cursor = last.cursor;
        take(page.iter().map(|listed| link(daemon, listed, how)).collect::<Result<_, _>>()?)?;
    }
}

fn link(daemon: &Daemon, listed: &Listed, (resolve, form): (bool, CidForm)) -> Result<LsLink, ApiError> {
    let mut link = LsLink {
        name: String::from_utf8_lossy(&listed.name).into_owned(),
        hash: form.text(&listed.location.cid),
        size: 0,
        kind: 0,
        target: String::new(),
        mode: 0,
        mod_time: rfc3339(None),
    };
    if !resolve {
        return Ok(link);
    }
    let runtime = Handle::current();
    let tree = daemon.tree();
    let attr = runtime
        .block_on(tree.attr(&listed.location, listed.tsize, Priority::Demand))
        .map_err(|error| ApiError::from(error).context(&link.name))?;
    link.size = attr.size;
    link.kind = match attr.kind {
        FileKind::Directory => 1,
        FileKind::File => 2,
        FileKind::Symlink => 4,
    };
    if attr.kind == FileKind::Symlink {
        let target = runtime.block_on(tree.read_link(&listed.location))?;
        link.target = String::from_utf8_lossy(&target).into_owned();
    }
    let (mode, mtime) = metadata(daemon, &listed.location)?;
    if let Some(mode) = mode {
        link.mode = mode | if attr.kind == FileKind::Directory { GO_DIRECTORY } else { 0 };
    }
    link.mod_time = rfc3339(mtime);
    Ok(link)
}

/// The mode and the time that are stored with a node, as far as they are.
fn metadata(daemon: &Daemon, location: &Location) -> Result<(Option<u32>, Option<Mtime>), ApiError> {
    if location.cid.codec() != codec::DAG_PB {
        return Ok((None, None));
    }
    let block = Handle::current().block_on(daemon.fetch().get(&location.cid, Priority::Demand))?;
    let node = PbNode::decode(block.data().clone())?;
    let Some(data) = node.data() else { return Ok((None, None)) };
    let unixfs = UnixFs::decode(&data)?;
    Ok((unixfs.mode.map(|mode| mode & 0o7777).filter(|mode| *mode != 0), unixfs.mtime))
}

/// `get?arg=PATH&archive=BOOL&compress=BOOL&compression-level=N`: a file or a whole directory as tar.
pub async fn get(State(daemon): State<Daemon>, query: Query, caller: Caller) -> Result<Response, ApiError> {
    let path = query.argument("ipfs-path")?.to_owned();
    let archive = query.flag("archive", false)?;
    let level = match query.number::<i64>("compression-level")? {
        Some(level @ 1..=9) => Some(level as u32),
        Some(_) => return Err(ApiError::new("compression level must be between 1 and 9")),
        None => query.flag("compress", false)?.then_some(6),
    };
    let asked = path.clone();
    let of = daemon.clone();
    let entry = super::reply::blocking(move || path::entry(&of, &asked)).await?;
    // As in kubo: the size is that of the DAG's files as its root claims it, for a progress bar, and no promise.
    let claimed = (entry.attr.kind == FileKind::File).then_some(entry.attr.size);
    let name = plain(&path).rsplit('/').next().unwrap_or_default().to_owned();
    let kind = if level.is_some() { Stream::Gzip } else { Stream::Tar };
    stream_of(kind, claimed, caller, move |emit| {
        let Some(level) = level else {
            return Ok(write_tar(&daemon, &entry, &name, Pieces::new(emit))?.flush()?);
        };
        let packed = GzEncoder::new(Pieces::new(emit), Compression::new(level));
        let packed = if !archive && entry.attr.kind == FileKind::File {
            // One file alone is compressed as it is.
            let mut packed = packed;
            read(daemon.tree(), &entry, 0, entry.attr.size, |piece| Ok(packed.write_all(&piece)?))?;
            packed
        } else {
            write_tar(&daemon, &entry, &name, packed)?
        };
        packed.finish()?.flush()?;
        Ok(())
    })
    .await
}

/// Writes a file, or a directory and all below it, as tar. Iterative: a path of the DAG may be deep.
fn write_tar<W: Write>(daemon: &Daemon, entry: &Entry, name: &str, out: W) -> Result<W, ApiError> {
    let runtime = Handle::current();
    let mut tar = tar::Builder::new(out);
    // Directories that are being listed: where each is, its path in the archive, and how far the listing came.
    let mut open: Vec<(Location, Vec<u8>, u64)> = Vec::new();
    append(daemon, &mut tar, entry, name.as_bytes())?;
    if entry.attr.kind == FileKind::Directory {
        open.push((entry.location.clone(), name.as_bytes().to_vec(), 0));
    }
    while let Some((directory, path, cursor)) = open.last_mut() {
        let page = runtime.block_on(daemon.tree().list(directory, *cursor, 1))?;
        let Some(listed) = page.into_iter().next() else {
            open.pop();
            continue;
        };
        *cursor = listed.cursor;
        let mut below = path.clone();
        below.push(b'/');
        below.extend_from_slice(&listed.name);
        let shown = || String::from_utf8_lossy(&below).into_owned();
        let attr = runtime
            .block_on(daemon.tree().attr(&listed.location, listed.tsize, Priority::Demand))
            .map_err(|error| ApiError::from(error).context(shown()))?;
        let entry = Entry { location: listed.location, attr };
        append(daemon, &mut tar, &entry, &below).map_err(|error| error.context(shown()))?;
        if entry.attr.kind == FileKind::Directory {
            if open.len() == MAX_DIRECTORY_DEPTH {
                return Err(ApiError::new(format!("{}: over {MAX_DIRECTORY_DEPTH} levels deep", shown())));
            }
            open.push((entry.location, below, 0));
        }
    }
    Ok(tar.into_inner()?)
}

fn append<W: Write>(daemon: &Daemon, tar: &mut tar::Builder<W>, entry: &Entry, path: &[u8]) -> Result<(), ApiError> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::OsStr::from_bytes(path);
    let (mode, mtime) = metadata(daemon, &entry.location)?;
    let mut header = tar::Header::new_ustar();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    // The archive has no times before 1970.
    header.set_mtime(mtime.map_or(now, |mtime| u64::try_from(mtime.seconds).unwrap_or_default()));
    header.set_uid(0);
    header.set_gid(0);
    match entry.attr.kind {
        FileKind::Directory => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(mode.unwrap_or(0o755));
            header.set_size(0);
            tar.append_data(&mut header, path, std::io::empty())?;
        }
        FileKind::Symlink => {
            let target = Handle::current().block_on(daemon.tree().read_link(&entry.location))?;
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            tar.append_link(&mut header, path, std::ffi::OsStr::from_bytes(&target))?;
        }
        FileKind::File => {
            header.set_mode(mode.unwrap_or(0o644));
            header.set_size(entry.attr.size);
            tar.append_data(
                &mut header,
                path,
                FileReader { tree: daemon.tree(), entry, offset: 0, piece: Bytes::new() },
            )?;
        }
    }
    Ok(())
}

/// A file of the tree as bytes that the archive reads.
struct FileReader<'a> {
    tree: &'a Tree,
    entry: &'a Entry,
    offset: u64,
    piece: Bytes,
}

impl std::io::Read for FileReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.piece.is_empty() && self.offset < self.entry.attr.size {
            let wanted = (self.entry.attr.size - self.offset).min(API_PIECE_BYTES as u64) as usize;
            let read = self.tree.read(&self.entry.location, self.offset, wanted, Priority::Demand);
            self.piece = Handle::current()
                .block_on(read)
                .map_err(|error| std::io::Error::other(ApiError::from(error).message().to_owned()))?;
            if self.piece.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.offset += self.piece.len() as u64;
        }
        std::io::Read::read(&mut bytes::Buf::reader(&mut self.piece), out)
    }
}

/// What `cidfs/stat` tells of one path.
pub async fn stat(State(daemon): State<Daemon>, query: Query) -> Result<Response, ApiError> {
    let path = query.argument("path")?.to_owned();
    let form = query.cid_form()?;
    super::reply::json(move || {
        let entry = path::entry(&daemon, &path)?;
        let coverage = daemon.tree().coverage(&entry.location)?;
        let (mode, mtime) = metadata(&daemon, &entry.location)?;
        let cid = &entry.location.cid;
        let block = daemon.store().size(cid)?.or_else(|| cid.identity_data().map(|data| data.len() as u64));
        Ok(json!({
            "Path": plain(&path),
            "Hash": form.text(cid),
            "Codec": codec::name(cid.codec()).map_or_else(|| format!("{:#x}", cid.codec()), str::to_owned),
            "Type": match entry.attr.kind {
                FileKind::Directory => "directory",
                FileKind::File => "file",
                FileKind::Symlink => "symlink",
            },
            "Size": entry.attr.size,
            "BlockSize": block,
            "Mode": mode.map(|mode| format!("{mode:04o}")),
            "ModTime": mtime.map(|mtime| rfc3339(Some(mtime))),
            "CachedBytes": coverage.cached_bytes,
            "Blocks": coverage.blocks,
        }))
    })
    .await
}
