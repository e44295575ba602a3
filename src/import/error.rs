//! Why an import failed.

use std::io;
use std::path::{Path, PathBuf};

use crate::dag::DagError;
use crate::limits::{MAX_BLOCK_BYTES, MAX_DIRECTORY_DEPTH};
use crate::store::StoreError;

/// Why an import failed. Nothing is pinned then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Settings that contradict each other, or that no import can have.
    #[error("{why}")]
    Options {
        /// What is wrong and what would be right.
        why: String,
    },
    /// A file or directory cannot be read.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `list`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file changed while it was read: what was read of it belongs to no moment.
    #[error("{} changed while it was read ({how}): add it again when nothing writes to it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is not as it was.
        how: String,
    },
    /// A socket, a device or a pipe: there is no content to add.
    #[error("cannot add {}: it is a {kind}, and only files, directories and symbolic links can be added", path.display())]
    Special {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Directories in directories, over [`MAX_DIRECTORY_DEPTH`] levels.
    #[error("cannot add {}: it is over {MAX_DIRECTORY_DEPTH} directories deep", path.display())]
    TooDeep {
        /// The directory that is one too many.
        path: PathBuf,
    },
    /// Two things of one name in one directory.
    #[error("two entries are named {name:?} in one directory ({first} and {second}): add them one by one")]
    SameName {
        /// The name.
        name: String,
        /// Where one comes from.
        first: String,
        /// Where the other comes from.
        second: String,
    },
    /// The settings make a block that no peer would take.
    #[error("the settings make a block of {bytes} bytes, more than the {MAX_BLOCK_BYTES} that a block may have")]
    BlockTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// An error on the way of a file or directory, with its name.
    #[error("cannot add {}: {source}", path.display())]
    At {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: Box<ImportError>,
    },
    /// A directory that cannot be encoded.
    #[error(transparent)]
    Dag(#[from] DagError),
    /// The store did not take a block or a pin.
    #[error("cannot keep what was added: {0}")]
    Store(#[from] StoreError),
    /// The caller asked to stop.
    #[error("stopped: nothing was pinned")]
    Cancelled,
    /// A thread of the import ended before its work did.
    #[error("a thread of the import failed; this is a bug of cidfs")]
    Thread,
}

impl ImportError {
    pub(super) fn options<S: Into<String>>(why: S) -> ImportError {
        ImportError::Options { why: why.into() }
    }

    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> ImportError {
        ImportError::Io { what, path: path.to_owned(), source }
    }

    /// Names the file or directory, where the error does not yet.
    pub(super) fn at(self, path: &Path) -> ImportError {
        match self {
            ImportError::BlockTooLarge { .. } | ImportError::Dag(_) | ImportError::Options { .. } => {
                ImportError::At { path: path.to_owned(), source: Box::new(self) }
            }
            named => named,
        }
    }
}
