//! What an import tells while it runs.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::node::{Link, Metadata};
use super::sources::join;
use crate::block::Cid;
use crate::dag::unixfs::Mtime;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// What the scan that runs ahead has found so far.
    Totals {
        /// Files and symbolic links.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// A part of a large file was kept.
    Progress {
        /// The file's path from its root.
        path: Vec<u8>,
        /// The bytes of it that are kept.
        bytes: u64,
    },
    /// A file, directory or symbolic link was kept.
    Added(AddedEntry),
}

/// A file, directory or symbolic link that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedEntry {
    /// Its path from its root, which it begins with. Empty for the directory of `--wrap-with-directory`; the CID as text
    /// for a file without a name.
    pub path: Vec<u8>,
    /// Its CID.
    pub cid: Cid,
    /// The bytes of all of its blocks.
    pub dag_bytes: u64,
    /// The bytes of the file: 0 for anything else.
    pub file_bytes: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// The mode that is stored with it.
    pub mode: Option<u32>,
    /// The time of last change that is stored with it.
    pub mtime: Option<(i64, u32)>,
}

/// Takes the events of an import, on the thread that runs it.
pub trait Progress {
    /// Takes an event. [`ControlFlow::Break`] stops the import: nothing is pinned then.
    fn event(&mut self, event: Event) -> ControlFlow<()>;

    /// Whether [`Event::Totals`] are wanted, which cost a second walk.
    fn wants_totals(&self) -> bool {
        false
    }
}

/// Ignores all events.
impl Progress for () {
    fn event(&mut self, _event: Event) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(Event) -> ControlFlow<()>> Progress for F {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        self(event)
    }
}

impl AddedEntry {
    pub(super) fn new(path: Vec<u8>, link: &Link, metadata: Metadata, directory: bool) -> AddedEntry {
        AddedEntry {
            path,
            cid: link.cid.clone(),
            dag_bytes: link.dag_bytes,
            file_bytes: link.file_bytes,
            directory,
            mode: metadata.mode,
            mtime: metadata.mtime.map(|Mtime { seconds, nanoseconds }| (seconds, nanoseconds)),
        }
    }
}

/// A directory that was kept, until it is told: kubo tells directories after all files of their root.
pub(super) struct Listing {
    pub name: Vec<u8>,
    pub link: Link,
    pub metadata: Metadata,
    /// The directories in it, in the order of its links.
    pub children: Vec<Listing>,
}

impl Listing {
    /// The entries of this directory and all below it, children first.
    pub fn into_entries(self) -> impl Iterator<Item = AddedEntry> {
        // Each frame: the directory's own entry, and its children that are still to be told.
        let mut path = vec![(self.name.clone(), self)].into_iter().map(Frame::new).collect::<Vec<_>>();
        std::iter::from_fn(move || {
            loop {
                let frame = path.last_mut()?;
                let Some(child) = frame.children.next() else {
                    return path.pop().map(|frame| frame.entry);
                };
                let below = join(&[&frame.entry.path, &child.name]);
                path.push(Frame::new((below, child)));
            }
        })
    }
}

struct Frame {
    entry: AddedEntry,
    children: std::vec::IntoIter<Listing>,
}

impl Frame {
    fn new((path, listing): (Vec<u8>, Listing)) -> Frame {
        let entry = AddedEntry::new(path, &listing.link, listing.metadata, true);
        Frame { entry, children: listing.children.into_iter() }
    }
}
