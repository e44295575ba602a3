//! Files that are read in an order of their directory, and what comes next in it.
//!
//! [`Tracks`] watches which files of a directory are read to their end. Where the last ones are a [`Pattern`] in one of the
//! directory's orders, [`Siblings`] goes on from there: through the rest of the directory, then through the directories that
//! come after it in the same order, as whoever walks a tree does.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::directories::{Directories, Directory, Sequence, Wait};
use super::pattern::{Pattern, Trail};
use super::upcoming::Upcoming;

/// Directories that are watched at a time: the classes of a dataset that is read in random order.
const WATCHED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Different files of a directory that are read before it is worth reading itself.
const FILES_TO_WATCH: usize = 2;
/// Files of a directory that are remembered until it was read.
const REMEMBERED: usize = 8;
/// Directories without a file that are gone through for the next one.
const MAX_EMPTY: usize = 4096;

/// A pattern that was found in a directory.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub directory: Arc<Directory>,
    pub sequence: Sequence,
    pub pattern: Pattern,
}

/// The directories that are watched.
pub(super) struct Tracks(LruCache<u64, Track>);

enum Track {
    /// The files that were read, until the directory is.
    Waiting(Vec<u64>),
    /// It is being read.
    Asked(Vec<u64>),
    Watched(Arc<Directory>, Box<[Trail; 3]>),
    /// It cannot be read, or is too large.
    Refused,
}

/// What a read says.
pub(super) enum Said {
    Nothing,
    /// The directory is to be read, and handed to [`Tracks::watch`].
    Read,
    Found(Found),
}

impl Tracks {
    pub fn new() -> Tracks {
        Tracks(LruCache::new(WATCHED))
    }

    /// Takes note that the file `number` of `directory` was read to its end.
    pub fn note(&mut self, directory: u64, number: u64) -> Said {
        match self.0.get_or_insert_mut(directory, || Track::Waiting(Vec::new())) {
            Track::Watched(directory, trails) => match add(directory, trails, number) {
                Some(found) => Said::Found(found),
                None => Said::Nothing,
            },
            track @ Track::Waiting(_) => {
                let Track::Waiting(files) = track else { return Said::Nothing };
                if !files.contains(&number) {
                    files.push(number);
                }
                if files.len() < FILES_TO_WATCH {
                    return Said::Nothing;
                }
                *track = Track::Asked(std::mem::take(files));
                Said::Read
            }
            Track::Asked(files) => {
                if files.len() < REMEMBERED {
                    files.push(number);
                }
                Said::Nothing
            }
            Track::Refused => Said::Nothing,
        }
    }

    /// The directory was read, or could not be; what was read of it meanwhile may be a pattern already.
    pub fn watch(&mut self, number: u64, directory: Option<Arc<Directory>>) -> Option<Found> {
        let track = self.0.get_mut(&number)?;
        let Track::Asked(files) = track else { return None };
        let files = std::mem::take(files);
        let Some(directory) = directory else {
            *track = Track::Refused;
            return None;
        };
        let mut trails = [Trail::default(), Trail::default(), Trail::default()];
        let mut found = None;
        for file in files {
            found = add(&directory, &mut trails, file);
        }
        *track = Track::Watched(directory, Box::new(trails));
        found
    }
}

fn add(directory: &Arc<Directory>, trails: &mut [Trail; 3], number: u64) -> Option<Found> {
    let mut found = None;
    for (sequence, trail) in Sequence::ALL.into_iter().zip(trails) {
        let Some(at) = directory.position(sequence, number) else { continue };
        if let Some(pattern) = trail.add(at)
            && found.is_none()
        {
            found = Some(Found { directory: directory.clone(), sequence, pattern });
        }
    }
    found
}

/// The files that come after a position, in an order of the tree.
pub(super) struct Siblings {
    directories: Arc<Directories>,
    wait: Wait,
    sequence: Sequence,
    stride: u32,
    backward: bool,
    /// The directories that we are in, the innermost last, and the next position in each; `None` is before the first one.
    stack: Vec<(Arc<Directory>, Option<u32>)>,
    /// The outermost directory of `stack` has one above it that was not looked at.
    may_ascend: bool,
}

impl Siblings {
    /// What follows the position of `found`.
    pub fn after(directories: Arc<Directories>, found: &Found) -> Siblings {
        let Found { directory, sequence, pattern } = found;
        let mut siblings = Siblings {
            directories,
            wait: Wait::Long,
            sequence: *sequence,
            stride: pattern.stride,
            backward: pattern.backward,
            stack: vec![(directory.clone(), None)],
            may_ascend: true,
        };
        let next = siblings.step(pattern.at);
        siblings.stack[0].1 = next;
        siblings
    }

    /// All files below `directory`, in the order of the listings, as far as directories are on this machine.
    pub fn below(directories: Arc<Directories>, directory: Arc<Directory>) -> Siblings {
        let stack = vec![(directory, Some(0))];
        let (wait, sequence) = (Wait::Never, Sequence::Listed);
        Siblings { directories, wait, sequence, stride: 1, backward: false, stack, may_ascend: false }
    }

    fn step(&self, at: u32) -> Option<u32> {
        if self.backward { at.checked_sub(1) } else { at.checked_add(1) }
    }

    fn first(&self, directory: &Directory) -> Option<u32> {
        if self.backward { directory.len().checked_sub(1) } else { Some(0) }
    }

    /// The next file of the walk, whatever the stride.
    fn advance(&mut self) -> Option<Upcoming> {
        for _ in 0..MAX_EMPTY {
            let (directory, at) = self.stack.last()?;
            let directory = directory.clone();
            let child = at.and_then(|at| Some((at, directory.child(self.sequence, at)?)));
            let Some((at, child)) = child else {
                self.ascend()?;
                continue;
            };
            let next = self.step(at);
            if let Some((_, position)) = self.stack.last_mut() {
                *position = next;
            }
            if child.directory.is_none() {
                let (location, size) = (child.location.clone(), child.size);
                return Some(Upcoming { location, size, directory: Some(directory.path.clone()) });
            }
            if self.stack.len() < crate::limits::MAX_DIRECTORY_DEPTH
                && let Some(below) = self.directories.below(&directory, child, self.wait)
            {
                let first = self.first(&below);
                self.stack.push((below, first));
            }
        }
        None
    }

    /// Leaves the innermost directory, for the one above it.
    fn ascend(&mut self) -> Option<()> {
        let (left, _) = self.stack.pop()?;
        if self.stack.is_empty() && self.may_ascend {
            let above = self.directories.above(left.number, self.wait)?;
            let at = above.position(self.sequence, left.number)?;
            let next = self.step(at);
            self.stack.push((above, next));
        }
        Some(())
    }
}

impl Iterator for Siblings {
    type Item = Upcoming;

    fn next(&mut self) -> Option<Upcoming> {
        for _ in 1..self.stride {
            self.advance()?;
        }
        self.advance()
    }
}
