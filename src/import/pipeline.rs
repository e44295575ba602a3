//! The pipeline: one thread walks and keeps blocks, many read and hash.
//!
//! The thread that runs the import walks ahead and queues tasks, up to [`IMPORT_AHEAD_BYTES`] of files and
//! [`IMPORT_AHEAD_ENTRIES`] entries; then it takes the oldest entry, waits for its blocks, and puts them into the store.
//! So tasks end in any order on all cores, and blocks are kept in the one order in which they will be read: files as
//! their directory lists them, leaves before the nodes above them, a directory after all that is in it. Whatever fails
//! first in that order is the error, each time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;

use super::buffers::Buffers;
use super::events::{AddedEntry, EntryPath, Event, Listing, Progress};
use super::file::{self, Built, Splitter};
use super::layout::{Tree, leaf_of_slice};
use super::node::{Leaf, Link, Metadata, symlink_node};
use super::options::{LayoutKind, Settings};
use super::pool::{Pool, Promise};
use super::read::OpenFile;
use super::scan::Totals;
use super::sources::join;
use super::walk::{Stat, Step, Walk};
use super::{ImportError, directory};
use crate::block::{Block, Cid, HashFunction};
use crate::dag::hamt::hash_name;
use crate::dag::pb::PbNode;
use crate::dag::unixfs::UnixFs;
use crate::limits::{IMPORT_AHEAD_BYTES, IMPORT_AHEAD_ENTRIES, IMPORT_PART_BYTES};
use crate::store::Writer;

/// One import, on the thread that runs it.
pub(super) struct Pipeline<'run, 'env> {
    settings: &'env Settings,
    pool: &'run Pool<'env>,
    buffers: Buffers,
    walk: Walk<'env>,
    /// `None` where nothing is kept.
    writer: Option<&'run mut Writer>,
    totals: &'run Totals,
    /// The files that were told of last.
    told_files: u64,
    progress: &'run mut dyn Progress,
    /// The large file that is being cut into tasks.
    feeding: Option<Feed>,
    pending: VecDeque<Pending>,
    ahead_bytes: u64,
    /// The directories that the entry to be kept next is in.
    path: Vec<OpenDirectory>,
    /// The large file that is being kept.
    growing: Option<Growing<'env>>,
    roots: Vec<Cid>,
}

/// An entry whose turn to be kept has not come.
enum Pending {
    Enter {
        name: Vec<u8>,
        path: PathBuf,
        stat: Stat,
    },
    Leave,
    Symlink {
        name: Vec<u8>,
        path: PathBuf,
        target: Vec<u8>,
        stat: Stat,
    },
    File {
        name: Vec<u8>,
        bytes: u64,
        built: Promise<Built>,
    },
    Begin {
        name: Vec<u8>,
        path: PathBuf,
        stat: Stat,
    },
    Part {
        bytes: u64,
        leaves: Promise<Vec<Leaf>>,
    },
    /// The end of the file that `Begin` began; it is checked to be what it was, where it is a file of the filesystem.
    End {
        file: Option<Arc<OpenFile>>,
    },
}

/// A file that is cut into tasks.
enum Feed {
    /// By offsets.
    Ranges { file: Arc<OpenFile>, chunk_bytes: usize, offset: u64 },
    /// By what a splitter finds.
    Runs { receiver: Receiver<Result<Vec<Bytes>, ImportError>>, path: PathBuf, file: Option<Arc<OpenFile>> },
}

struct OpenDirectory {
    name: Vec<u8>,
    path: PathBuf,
    stat: Stat,
    entries: Vec<directory::Entry>,
    listings: Vec<Listing>,
}

struct Growing<'env> {
    name: Vec<u8>,
    path: PathBuf,
    metadata: Metadata,
    tree: Tree<'env>,
    /// The bytes in the leaves of the tree.
    bytes: u64,
    /// The bytes that were told of.
    told: u64,
    /// The first leaf, until a second shows that it is not the root, which may have to hold metadata.
    first: Option<Leaf>,
}

impl<'run, 'env: 'run> Pipeline<'run, 'env> {
    pub fn new(
        settings: &'env Settings,
        pool: &'run Pool<'env>,
        walk: Walk<'env>,
        writer: Option<&'run mut Writer>,
        totals: &'run Totals,
        progress: &'run mut dyn Progress,
    ) -> Pipeline<'run, 'env> {
        Pipeline {
            settings,
            pool,
            buffers: Buffers::default(),
            walk,
            writer,
            totals,
            told_files: 0,
            progress,
            feeding: None,
            pending: VecDeque::new(),
            ahead_bytes: 0,
            path: Vec::new(),
            growing: None,
            roots: Vec::new(),
        }
    }

    /// Adds everything. Returns the roots in the order in which they were added.
    pub fn run(mut self) -> Result<Vec<Cid>, ImportError> {
        loop {
            // A failing walk is not an error before all that it found has been kept: what fails first is told.
            let mut walked = Ok(true);
            while self.ahead_bytes < IMPORT_AHEAD_BYTES && self.pending.len() < IMPORT_AHEAD_ENTRIES {
                walked = self.queue_next();
                if !matches!(walked, Ok(true)) {
                    break;
                }
            }
            match self.pending.pop_front() {
                Some(next) => self.keep(next)?,
                None => return walked.map(|_| self.roots),
            }
            if let Err(error) = walked {
                while let Some(next) = self.pending.pop_front() {
                    self.keep(next)?;
                }
                return Err(error);
            }
        }
    }

    /// Walks one step and queues its work. False at the end.
    fn queue_next(&mut self) -> Result<bool, ImportError> {
        if let Some(feed) = self.feeding.take() {
            self.feed(feed)?;
            return Ok(true);
        }
        let Some(step) = self.walk.next()? else { return Ok(false) };
        match step {
            Step::Enter { name, path, stat } => self.pending.push_back(Pending::Enter { name, path, stat }),
            Step::Leave => self.pending.push_back(Pending::Leave),
            Step::Symlink { name, path, target, stat } => {
                self.pending.push_back(Pending::Symlink { name, path, target, stat });
            }
            Step::File { name, path, follow, bytes } if bytes <= IMPORT_PART_BYTES as u64 => {
                let (settings, buffers) = (self.settings, self.buffers.clone());
                let built = self.pool.submit(move || file::build(settings, &buffers, path, follow));
                self.ahead_bytes += bytes;
                self.pending.push_back(Pending::File { name, bytes, built });
            }
            Step::File { name, path, follow, bytes: _ } => self.open_large(name, path, follow)?,
            Step::Stream { name, path, mut reader } => {
                let (sender, receiver) = sync_channel(1);
                let (splitter, shown) = (Splitter::new(self.settings.chunker, self.buffers.clone()), path.clone());
                spawn("import-stream", move || splitter.run(&mut reader, &shown, &sender))?;
                self.pending.push_back(Pending::Begin { name, path: path.clone(), stat: Stat::default() });
                self.feeding = Some(Feed::Runs { receiver, path, file: None });
            }
        }
        Ok(true)
    }

    fn open_large(&mut self, name: Vec<u8>, path: PathBuf, follow: bool) -> Result<(), ImportError> {
        let file = Arc::new(OpenFile::open(path.clone(), follow)?);
        self.pending.push_back(Pending::Begin { name, path: path.clone(), stat: file.stat });
        self.feeding = Some(if let Some(chunk_bytes) = self.settings.chunker.fixed_bytes() {
            Feed::Ranges { file, chunk_bytes, offset: 0 }
        } else {
            let (sender, receiver) = sync_channel(1);
            let splitter = Splitter::new(self.settings.chunker, self.buffers.clone());
            let reading = Arc::clone(&file);
            spawn("import-split", move || splitter.run(&mut reading.reader(), reading.path(), &sender))?;
            Feed::Runs { receiver, path, file: Some(file) }
        });
        Ok(())
    }

    /// Queues the next task of a large file.
    fn feed(&mut self, feed: Feed) -> Result<(), ImportError> {
        let (settings, buffers) = (self.settings, self.buffers.clone());
        match feed {
            Feed::Ranges { file, chunk_bytes, offset } => {
                if offset >= file.bytes() {
                    self.pending.push_back(Pending::End { file: Some(file) });
                    return Ok(());
                }
                let part_bytes = (IMPORT_PART_BYTES / chunk_bytes).max(1) * chunk_bytes;
                let end = file.bytes().min(offset + part_bytes as u64);
                let reading = Arc::clone(&file);
                let leaves =
                    self.pool.submit(move || file::build_range(settings, &buffers, &reading, offset..end, chunk_bytes));
                self.ahead_bytes += end - offset;
                self.pending.push_back(Pending::Part { bytes: end - offset, leaves });
                self.feeding = Some(Feed::Ranges { file, chunk_bytes, offset: end });
            }
            Feed::Runs { receiver, path, file } => {
                let chunks = receiver.recv().map_err(|_| ImportError::Thread)??;
                if chunks.is_empty() {
                    self.pending.push_back(Pending::End { file });
                    return Ok(());
                }
                let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
                let shown = path.clone();
                let leaves = self.pool.submit(move || file::build_chunks(settings, &buffers, chunks, &shown));
                self.ahead_bytes += bytes;
                self.pending.push_back(Pending::Part { bytes, leaves });
                self.feeding = Some(Feed::Runs { receiver, path, file });
            }
        }
        Ok(())
    }

    /// Keeps the next entry, or part of one.
    fn keep(&mut self, next: Pending) -> Result<(), ImportError> {
        match next {
            Pending::Enter { name, path, stat } => {
                self.path.push(OpenDirectory { name, path, stat, entries: Vec::new(), listings: Vec::new() });
                Ok(())
            }
            Pending::Leave => self.leave(),
            Pending::Symlink { name, path, target, stat } => {
                let metadata = self.settings.metadata.symlink(stat.mtime);
                let (block, link) =
                    symlink_node(&self.settings.cid, target, metadata).map_err(|error| error.at(&path))?;
                self.put(&block)?;
                self.added(name, link, metadata, 0)
            }
            Pending::File { name, bytes, built } => {
                let Built { blocks, link, stat } = built.wait()?;
                self.ahead_bytes -= bytes;
                for block in blocks {
                    self.put(&block)?;
                }
                let bytes = link.file_bytes;
                self.added(name, link, self.settings.metadata.file(stat.mode, stat.mtime), bytes)
            }
            Pending::Begin { name, path, stat } => {
                let metadata = self.settings.metadata.file(stat.mode, stat.mtime);
                let tree = Tree::new(self.settings, metadata);
                self.growing = Some(Growing { name, path, metadata, tree, bytes: 0, told: 0, first: None });
                Ok(())
            }
            Pending::Part { bytes, leaves } => {
                let leaves = leaves.wait()?;
                self.ahead_bytes -= bytes;
                self.grow(leaves, bytes)
            }
            Pending::End { file } => {
                if let Some(file) = file {
                    file.check_unchanged()?;
                }
                self.grown()
            }
        }
    }
}

impl Pipeline<'_, '_> {
    fn put(&mut self, block: &Block) -> Result<(), ImportError> {
        put(&mut self.writer, block)
    }

    /// Gives a file or link that is complete its place in its directory, and tells of it.
    fn added(&mut self, name: Vec<u8>, link: Link, metadata: Metadata, bytes: u64) -> Result<(), ImportError> {
        // A file without a name is known by its CID, in its directory too.
        let name = if name.is_empty() { link.cid.to_string().into_bytes() } else { name };
        let path = self.event_path(&name);
        let link = Link { file_bytes: bytes, ..link };
        let entry = AddedEntry::new(path, &link, metadata, false);
        match self.path.last_mut() {
            Some(directory) => directory.entries.push(directory::Entry { name, link }),
            None => self.roots.push(link.cid),
        }
        self.tell(Event::Added(entry))
    }

    fn event_path(&self, name: &[u8]) -> Vec<u8> {
        let mut parts: Vec<&[u8]> = self.path.iter().map(|directory| &directory.name[..]).collect();
        parts.push(name);
        join(&parts)
    }

    fn tell(&mut self, event: Event) -> Result<(), ImportError> {
        let files = self.totals.files.load(Ordering::Relaxed);
        if files != self.told_files {
            self.told_files = files;
            self.send(Event::Totals { files, bytes: self.totals.bytes.load(Ordering::Relaxed) })?;
        }
        self.send(event)
    }

    fn send(&mut self, event: Event) -> Result<(), ImportError> {
        match self.progress.event(event) {
            std::ops::ControlFlow::Continue(()) => Ok(()),
            std::ops::ControlFlow::Break(()) => Err(ImportError::Cancelled),
        }
    }

    /// Makes the directory that the walk has left.
    fn leave(&mut self) -> Result<(), ImportError> {
        let Some(mut directory) = self.path.pop() else { return Ok(()) };
        let metadata = self.settings.metadata.directory(directory.stat.mode, directory.stat.mtime);
        let is_root = self.path.is_empty();
        let writer = &mut self.writer;
        let made = directory::build(self.settings, &mut directory.entries, metadata, is_root, &mut |block| {
            put(writer, &block)
        })
        .map_err(|error| error.at(&directory.path))?;
        if made.sharded {
            // Shards list their entries in the order of the hashes of their names.
            directory.listings.sort_by_cached_key(|listing| hash_name(&listing.name));
        }
        let link = made.link.clone();
        let listing = Listing { name: directory.name, link: made.link, metadata, children: directory.listings };
        if let Some(parent) = self.path.last_mut() {
            parent.entries.push(directory::Entry { name: listing.name.clone(), link });
            parent.listings.push(listing);
        } else {
            self.roots.push(link.cid);
            for entry in listing.into_entries() {
                self.tell(Event::Added(entry))?;
            }
        }
        Ok(())
    }

    /// Keeps leaves of the large file, the next in order.
    fn grow(&mut self, leaves: Vec<Leaf>, bytes: u64) -> Result<(), ImportError> {
        let Some(growing) = &mut self.growing else { return Ok(()) };
        let writer = &mut self.writer;
        let mut keep = |block: Block| put(writer, &block);
        for leaf in leaves {
            if growing.bytes == 0 && growing.first.is_none() {
                growing.first = Some(leaf);
                continue;
            }
            if let Some(first) = growing.first.take() {
                growing.push(first, &mut keep)?;
            }
            growing.push(leaf, &mut keep)?;
        }
        growing.told += bytes;
        let (name, bytes) = (growing.name.clone(), growing.told);
        let path = EntryPath(self.event_path(&name));
        self.tell(Event::Progress { path, bytes })
    }

    /// Ends the large file.
    fn grown(&mut self) -> Result<(), ImportError> {
        let Some(mut growing) = self.growing.take() else { return Ok(()) };
        let writer = &mut self.writer;
        let mut keep = |block: Block| put(writer, &block);
        if let Some(only) = growing.first.take() {
            let only = growing.as_root(self.settings, &self.buffers, only)?;
            growing.push(only, &mut keep)?;
        }
        let Growing { name, path, metadata, tree, bytes, .. } = growing;
        let link = tree.finish(&mut keep).map_err(|error| error.at(&path))?;
        self.added(name, link, metadata, bytes)
    }
}

impl Growing<'_> {
    fn push(&mut self, leaf: Leaf, put: &mut dyn FnMut(Block) -> Result<(), ImportError>) -> Result<(), ImportError> {
        let link = leaf.link();
        self.bytes += leaf.file_bytes;
        put(leaf.block)?;
        self.tree.push(link, put).map_err(|error| error.at(&self.path))
    }

    /// The only leaf of a file: in the balanced layout it is the root, and holds what the root does.
    fn as_root(&self, settings: &Settings, buffers: &Buffers, only: Leaf) -> Result<Leaf, ImportError> {
        if self.metadata.is_empty() || settings.layout != LayoutKind::Balanced {
            return Ok(only);
        }
        // Leaves are never raw where there is metadata.
        let data = PbNode::decode(only.block.data().clone())?.data().unwrap_or_default();
        let data = UnixFs::decode(&data)?.data.unwrap_or_default();
        leaf_of_slice(settings, buffers, data, self.metadata)
    }
}

/// Keeps a block, where blocks are kept. One that is in its CID is there already.
fn put(writer: &mut Option<&mut Writer>, block: &Block) -> Result<(), ImportError> {
    match writer {
        Some(writer) if block.cid().hash_code() != HashFunction::Identity.code() => Ok(writer.put(block)?),
        _ => Ok(()),
    }
}

/// Starts a thread that may outlive the import: one that waits for bytes from outside cannot be stopped.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), ImportError> {
    std::thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(|_| ImportError::Thread)
}
