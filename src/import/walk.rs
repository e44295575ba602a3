//! The walk: what is to be added, one step after the other, depth first, each directory in the order of its names.
//!
//! A directory is listed when the walk comes to it, and its entries are looked at one by one when their turn comes, so a
//! walk holds the names of the directories that it is in and no more. Depth is bounded by [`MAX_DIRECTORY_DEPTH`].

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ImportError;
use super::ignore::Filter;
use super::sources::{Root, RootKind};
use crate::dag::unixfs::Mtime;
use crate::limits::MAX_DIRECTORY_DEPTH;

/// What comes next.
pub(super) enum Step {
    /// A directory begins.
    Enter { name: Vec<u8>, path: PathBuf, stat: Stat },
    /// The directory that was entered last is complete.
    Leave,
    /// A regular file.
    File { name: Vec<u8>, path: PathBuf, follow: bool, bytes: u64 },
    /// Bytes from a pipe or a request.
    Stream { name: Vec<u8>, path: PathBuf, reader: Box<dyn Read + Send> },
    /// A symbolic link.
    Symlink { name: Vec<u8>, path: PathBuf, target: Vec<u8>, stat: Stat },
}

/// What the filesystem says of an entry, as far as it may be stored.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stat {
    pub mode: Option<u32>,
    pub mtime: Option<Mtime>,
}

impl Stat {
    pub fn of(metadata: &fs::Metadata) -> Stat {
        let mtime = Mtime { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 };
        Stat { mode: Some(metadata.mode()), mtime: Some(mtime) }
    }
}

/// What a walk leaves out and follows.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub filter: &'a Filter,
    pub follow_symlinks: bool,
    pub empty_directories: bool,
}

/// The walk over all roots.
pub(super) struct Walk<'a> {
    rules: Rules<'a>,
    roots: std::vec::IntoIter<Root>,
    /// The virtual directory around all roots, as far as it has come.
    wrap: Wrap,
    path: Vec<Frame>,
}

#[derive(PartialEq)]
enum Wrap {
    No,
    Before,
    Within,
}

/// A directory that the walk is in.
struct Frame {
    path: PathBuf,
    names: std::vec::IntoIter<(OsString, FileType)>,
}

impl<'a> Walk<'a> {
    pub fn new(roots: Vec<Root>, wrap: bool, rules: Rules<'a>) -> Walk<'a> {
        let wrap = if wrap { Wrap::Before } else { Wrap::No };
        Walk { rules, roots: roots.into_iter(), wrap, path: Vec::new() }
    }

    /// The next step; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Step>, ImportError> {
        while let Some(frame) = self.path.last_mut() {
            let Some((name, kind)) = frame.names.next() else {
                self.path.pop();
                return Ok(Some(Step::Leave));
            };
            let path = frame.path.join(&name);
            if let Some(step) = self.entry(name.into_vec(), path, kind)? {
                return Ok(Some(step));
            }
        }
        if self.wrap == Wrap::Before {
            self.wrap = Wrap::Within;
            return Ok(Some(Step::Enter { name: Vec::new(), path: PathBuf::new(), stat: Stat::default() }));
        }
        let Some(root) = self.roots.next() else {
            return Ok((std::mem::replace(&mut self.wrap, Wrap::No) == Wrap::Within).then_some(Step::Leave));
        };
        match root.kind {
            RootKind::Path(path) => {
                let metadata = fs::symlink_metadata(&path).map_err(|error| ImportError::io("read", &path, error))?;
                self.entry(root.name, path, metadata.file_type())
            }
            RootKind::Stream(reader) => Ok(Some(Step::Stream { name: root.name, path: root.shown, reader })),
        }
    }

    /// The step for one entry; `None` where it is left out.
    fn entry(&mut self, name: Vec<u8>, path: PathBuf, kind: FileType) -> Result<Option<Step>, ImportError> {
        let follow = self.rules.follow_symlinks && kind.is_symlink();
        let stat = || if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let metadata = stat().map_err(|error| ImportError::io("read", &path, error))?;
        let kind = metadata.file_type();
        if kind.is_file() {
            return Ok(Some(Step::File { name, path, follow, bytes: metadata.len() }));
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| ImportError::io("read", &path, error))?;
            let target = target.into_os_string().into_vec();
            return Ok(Some(Step::Symlink { name, path, target, stat: Stat::of(&metadata) }));
        }
        if !kind.is_dir() {
            return Err(ImportError::Special { path, kind: special(kind) });
        }
        if self.path.len() >= MAX_DIRECTORY_DEPTH {
            return Err(ImportError::TooDeep { path });
        }
        let names = list(&path, self.rules.filter)?;
        let at_top = self.path.is_empty() && self.wrap == Wrap::No;
        if names.is_empty() && !self.rules.empty_directories && !at_top {
            return Ok(None);
        }
        self.path.push(Frame { path: path.clone(), names: names.into_iter() });
        Ok(Some(Step::Enter { name, path, stat: Stat::of(&metadata) }))
    }
}

/// The names in a directory that are not left out, in the order of their bytes.
pub(super) fn list(path: &Path, filter: &Filter) -> Result<Vec<(OsString, FileType)>, ImportError> {
    let failed = |error| ImportError::io("list", path, error);
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !filter.excludes(name.as_bytes()) {
            names.push((name, entry.file_type().map_err(failed)?));
        }
    }
    names.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// What a file is that is no file, for people.
pub(super) fn special(kind: FileType) -> &'static str {
    if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "named pipe"
    } else if kind.is_block_device() {
        "block device"
    } else if kind.is_char_device() {
        "character device"
    } else {
        "file of an unknown kind"
    }
}
