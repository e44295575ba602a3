//! The work on a file: its bytes become leaves, and its leaves a tree. These functions run on the threads of the pool.
//!
//! A small file is one task. A large one is cut into parts of whole chunks that are tasks of their own; where only the
//! content says where chunks end, or the bytes come from a pipe, a [`Splitter`] on a thread of its own finds the cuts,
//! and the tasks hash what it found.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use bytes::Bytes;

use super::ImportError;
use super::chunker::Chunker;
use super::layout::{Tree, leaf};
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

/// Reads a whole file and makes its blocks. For files of up to [`IMPORT_PART_BYTES`]; one that grew is read to its end
/// and then refused.
pub(super) fn build(settings: &Settings, path: PathBuf, follow: bool) -> Result<Built, ImportError> {
    let file = OpenFile::open(path, follow)?;
    let data = read_small(&file)?;
    file.check_unchanged()?;
    let metadata = settings.metadata.file(file.stat.mode, file.stat.mtime);
    let (blocks, link) = build_bytes(settings, data, metadata).map_err(|error| error.at(file.path()))?;
    Ok(Built { blocks, link, stat: file.stat })
}

fn read_small(file: &OpenFile) -> Result<Bytes, ImportError> {
    let bytes = file.bytes() as usize;
    // A file of no bytes may still have some: those of /proc do.
    let mut data = vec![0; if bytes == 0 { 4096 } else { bytes }];
    let mut read = 0;
    loop {
        read += file.read_at(&mut data[read..], read as u64)?;
        if bytes != 0 || read < data.len() {
            break;
        }
        if data.len() >= IMPORT_PART_BYTES {
            return Err(ImportError::Changed {
                path: file.path().to_owned(),
                how: format!("it has no size and over {IMPORT_PART_BYTES} bytes"),
            });
        }
        data.resize(data.len() * 2, 0);
    }
    if read < bytes {
        let how = format!("it ended after {read} of {bytes} bytes");
        return Err(ImportError::Changed { path: file.path().to_owned(), how });
    }
    data.truncate(read);
    Ok(data.into())
}

/// Makes the blocks of a file from all of its bytes.
pub(super) fn build_bytes(
    settings: &Settings,
    data: Bytes,
    metadata: Metadata,
) -> Result<(Vec<Block>, Link), ImportError> {
    let mut blocks = Vec::new();
    let mut put = |block| {
        blocks.push(block);
        Ok(())
    };
    let mut tree = Tree::new(settings, metadata);
    let mut rest = data;
    let mut is_first = true;
    while !rest.is_empty() {
        let chunk = rest.split_to(settings.chunker.cut(&rest));
        let is_root = is_first && rest.is_empty() && settings.layout == LayoutKind::Balanced;
        let leaf = leaf(settings, chunk, if is_root { metadata } else { Metadata::default() })?;
        let link = leaf.link();
        put(leaf.block)?;
        tree.push(link, &mut put)?;
        is_first = false;
    }
    let link = tree.finish(&mut put)?;
    Ok((blocks, link))
}

/// A run of whole chunks of fixed size.
pub(super) fn build_range(
    settings: &Settings,
    file: &OpenFile,
    range: Range<u64>,
    chunk_bytes: usize,
) -> Result<Vec<Leaf>, ImportError> {
    let mut leaves = Vec::with_capacity(((range.end - range.start) as usize).div_ceil(chunk_bytes));
    let mut offset = range.start;
    while offset < range.end {
        let mut data = vec![0; chunk_bytes.min((range.end - offset) as usize)];
        file.read_exact_at(&mut data, offset)?;
        offset += data.len() as u64;
        leaves.push(leaf(settings, data.into(), Metadata::default()).map_err(|error| error.at(file.path()))?);
    }
    Ok(leaves)
}

/// Chunks that were cut already.
pub(super) fn build_chunks(settings: &Settings, chunks: Vec<Bytes>, path: &Path) -> Result<Vec<Leaf>, ImportError> {
    let leaf = |chunk| leaf(settings, chunk, Metadata::default()).map_err(|error| error.at(path));
    chunks.into_iter().map(leaf).collect()
}

/// Finds the chunks of a stream and sends them off in runs of about [`IMPORT_PART_BYTES`].
pub(super) struct Splitter {
    chunker: Chunker,
    /// What was read and is not cut yet.
    buffer: Vec<u8>,
    ended: bool,
}

impl Splitter {
    pub fn new(chunker: Chunker) -> Splitter {
        Splitter { chunker, buffer: Vec::new(), ended: false }
    }

    /// Cuts all of `reader` and sends the chunks, until its end, its failure, or the end of the receiver.
    pub fn run(mut self, reader: &mut dyn Read, path: &Path, sender: &SyncSender<Result<Vec<Bytes>, ImportError>>) {
        loop {
            let run = self.next_run(reader).map_err(|error| ImportError::io("read", path, error));
            let is_last = !matches!(&run, Ok(chunks) if !chunks.is_empty());
            if sender.send(run).is_err() || is_last {
                return;
            }
        }
    }

    /// The next run of chunks: none at the end of the stream.
    fn next_run(&mut self, reader: &mut dyn Read) -> std::io::Result<Vec<Bytes>> {
        let lookahead = self.chunker.lookahead();
        let wanted = IMPORT_PART_BYTES.max(lookahead) + lookahead;
        if !self.ended {
            let missing = wanted.saturating_sub(self.buffer.len());
            let read = reader.take(missing as u64).read_to_end(&mut self.buffer)?;
            self.ended = read < missing;
        }
        let mut data = Bytes::from(std::mem::take(&mut self.buffer));
        let mut chunks = Vec::new();
        while !data.is_empty() && (self.ended || data.len() >= lookahead) {
            chunks.push(data.split_to(self.chunker.cut(&data)));
        }
        self.buffer = data.to_vec();
        Ok(chunks)
    }
}
