//! The work on a file: its bytes become leaves, and its leaves a tree. These functions run on the threads of the pool.
//!
//! A small file is one task. A large one is cut into parts of whole chunks that are tasks of their own; where only the
//! content says where chunks end, or the bytes come from a pipe, a [`Splitter`] on a thread of its own finds the cuts,
//! and the tasks hash what it found.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use bytes::Bytes;

use super::ImportError;
use super::buffers::Buffers;
use super::chunker::Chunker;
use super::layout::{Tree, leaf, leaf_of_slice};
use super::node::{Leaf, Link, Metadata};
use super::options::{LayoutKind, Settings};
use super::read::OpenFile;
use super::walk::Stat;
use crate::block::Block;
use crate::limits::IMPORT_PART_BYTES;

/// A file of which all blocks are made.
pub(super) struct Built {
    /// In the order in which they are to be kept.
    pub blocks: Vec<Block>,
    pub link: Link,
    pub stat: Stat,
}

/// Reads a whole file and makes its blocks. For files of up to [`IMPORT_PART_BYTES`].
pub(super) fn build(settings: &Settings, buffers: &Buffers, path: PathBuf, follow: bool) -> Result<Built, ImportError> {
    let file = OpenFile::open(path, follow)?;
    let metadata = settings.metadata.file(file.stat.mode, file.stat.mtime);
    let mut builder = Builder::new(settings, metadata);
    match settings.chunker.fixed_bytes() {
        Some(chunk_bytes) if file.bytes() > 0 => {
            let mut offset = 0;
            while offset < file.bytes() {
                let mut chunk = buffers.take(chunk_bytes.min((file.bytes() - offset) as usize));
                file.read_exact_at(chunk.data(), offset)?;
                offset += chunk.data().len() as u64;
                let metadata = builder.leaf_metadata(offset == file.bytes());
                builder.push(leaf(settings, chunk, metadata)).map_err(|error| error.at(file.path()))?;
            }
        }
        _ => {
            let mut rest = read_whole(&file, buffers)?;
            while !rest.is_empty() {
                let chunk = rest.split_to(settings.chunker.cut(&rest));
                let metadata = builder.leaf_metadata(rest.is_empty());
                builder
                    .push(leaf_of_slice(settings, buffers, chunk, metadata))
                    .map_err(|error| error.at(file.path()))?;
            }
        }
    }
    let (blocks, link) = builder.finish().map_err(|error| error.at(file.path()))?;
    file.check_unchanged()?;
    Ok(Built { blocks, link, stat: file.stat })
}

/// All bytes of a file. One of no size may still have some: those of /proc do.
fn read_whole(file: &OpenFile, buffers: &Buffers) -> Result<Bytes, ImportError> {
    let bytes = file.bytes() as usize;
    if bytes > 0 {
        let mut data = buffers.take(bytes);
        file.read_exact_at(data.data(), 0)?;
        return Ok(data.freeze());
    }
    let mut bytes = 0;
    loop {
        bytes = (bytes * 2).max(4096);
        let mut data = buffers.take(bytes);
        let read = file.read_at(data.data(), 0)?;
        if read < bytes {
            data.truncate(read);
            return Ok(data.freeze());
        }
        if bytes >= IMPORT_PART_BYTES {
            let how = format!("it has no size and over {IMPORT_PART_BYTES} bytes");
            return Err(ImportError::Changed { path: file.path().to_owned(), how });
        }
    }
}

/// Makes all blocks of one file, on one thread.
struct Builder<'a> {
    settings: &'a Settings,
    metadata: Metadata,
    blocks: Vec<Block>,
    tree: Tree<'a>,
}

impl<'a> Builder<'a> {
    fn new(settings: &'a Settings, metadata: Metadata) -> Builder<'a> {
        Builder { settings, metadata, blocks: Vec::new(), tree: Tree::new(settings, metadata) }
    }

    /// What the next leaf holds: the metadata of the file where it is the root, as the only leaf is in the balanced
    /// layout.
    fn leaf_metadata(&self, is_last: bool) -> Metadata {
        let is_root = is_last && self.blocks.is_empty() && self.settings.layout == LayoutKind::Balanced;
        if is_root { self.metadata } else { Metadata::default() }
    }

    fn push(&mut self, leaf: Result<Leaf, ImportError>) -> Result<(), ImportError> {
        let leaf = leaf?;
        let link = leaf.link();
        self.blocks.push(leaf.block);
        let blocks = &mut self.blocks;
        self.tree.push(link, &mut |block| {
            blocks.push(block);
            Ok(())
        })
    }

    fn finish(mut self) -> Result<(Vec<Block>, Link), ImportError> {
        let blocks = &mut self.blocks;
        let link = self.tree.finish(&mut |block| {
            blocks.push(block);
            Ok(())
        })?;
        Ok((self.blocks, link))
    }
}

/// A run of whole chunks of fixed size.
pub(super) fn build_range(
    settings: &Settings,
    buffers: &Buffers,
    file: &OpenFile,
    range: Range<u64>,
    chunk_bytes: usize,
) -> Result<Vec<Leaf>, ImportError> {
    let mut leaves = Vec::with_capacity(((range.end - range.start) as usize).div_ceil(chunk_bytes));
    let mut offset = range.start;
    while offset < range.end {
        let mut chunk = buffers.take(chunk_bytes.min((range.end - offset) as usize));
        file.read_exact_at(chunk.data(), offset)?;
        offset += chunk.data().len() as u64;
        leaves.push(leaf(settings, chunk, Metadata::default()).map_err(|error| error.at(file.path()))?);
    }
    Ok(leaves)
}

/// Chunks that were cut already.
pub(super) fn build_chunks(
    settings: &Settings,
    buffers: &Buffers,
    chunks: Vec<Bytes>,
    path: &Path,
) -> Result<Vec<Leaf>, ImportError> {
    let leaf = |chunk| leaf_of_slice(settings, buffers, chunk, Metadata::default()).map_err(|error| error.at(path));
    chunks.into_iter().map(leaf).collect()
}

/// Finds the chunks of a stream and sends them off in runs of about [`IMPORT_PART_BYTES`].
pub(super) struct Splitter {
    chunker: Chunker,
    buffers: Buffers,
    /// What was read and is not cut yet: less than the chunker looks ahead.
    rest: Bytes,
    ended: bool,
}

impl Splitter {
    pub fn new(chunker: Chunker, buffers: Buffers) -> Splitter {
        Splitter { chunker, buffers, rest: Bytes::new(), ended: false }
    }

    /// Cuts all of `reader` and sends the chunks, until its end, its failure, or the end of the receiver. No chunks at
    /// all are the end.
    pub fn run(mut self, reader: &mut dyn Read, path: &Path, sender: &SyncSender<Result<Vec<Bytes>, ImportError>>) {
        loop {
            let run = self.next_run(reader).map_err(|error| ImportError::io("read", path, error));
            let is_last = !matches!(&run, Ok(chunks) if !chunks.is_empty());
            if sender.send(run).is_err() || is_last {
                return;
            }
        }
    }

    fn next_run(&mut self, reader: &mut dyn Read) -> io::Result<Vec<Bytes>> {
        let lookahead = self.chunker.lookahead();
        let mut data = std::mem::take(&mut self.rest);
        if !self.ended {
            let mut buffer = self.buffers.take(IMPORT_PART_BYTES.max(lookahead) + lookahead);
            let (before, free) = buffer.data().split_at_mut(data.len());
            before.copy_from_slice(&data);
            let read = fill(reader, free)?;
            self.ended = read < free.len();
            buffer.truncate(data.len() + read);
            data = buffer.freeze();
        }
        let mut chunks = Vec::new();
        while !data.is_empty() && (self.ended || data.len() >= lookahead) {
            chunks.push(data.split_to(self.chunker.cut(&data)));
        }
        self.rest = data;
        Ok(chunks)
    }
}

/// Fills `buffer`, or as much of it as there is to read.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
