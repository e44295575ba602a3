//! The scan that runs ahead of an import, to say how much there is: it counts and keeps nothing. What it cannot read it
//! passes over; the import will say so.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::ignore::Filter;
use super::walk::list;
use crate::limits::MAX_DIRECTORY_DEPTH;

/// What was counted so far.
#[derive(Default)]
pub(super) struct Totals {
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    /// Set when the import is over.
    pub stop: AtomicBool,
}

/// Counts what is below `roots`.
pub(super) fn count(roots: Vec<PathBuf>, filter: &Filter, follow: bool, totals: &Totals) {
    let mut todo: Vec<(PathBuf, usize)> = roots.into_iter().map(|path| (path, 0)).collect();
    while let Some((path, depth)) = todo.pop() {
        if totals.stop.load(Ordering::Relaxed) {
            return;
        }
        let metadata = if follow { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let Ok(metadata) = metadata else { continue };
        if metadata.is_dir() {
            if depth < MAX_DIRECTORY_DEPTH {
                let names = list(&path, filter).unwrap_or_default();
                todo.extend(names.into_iter().map(|(name, _)| (path.join(name), depth + 1)));
            }
        } else {
            totals.files.fetch_add(1, Ordering::Relaxed);
            if metadata.is_file() {
                totals.bytes.fetch_add(metadata.len(), Ordering::Relaxed);
            }
        }
    }
}
