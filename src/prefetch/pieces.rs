//! Pieces of files that are to be read ahead: one queue for all readers, in the order in which they come to them.
//!
//! A few threads take from its front, so what is under way is always what is needed next, and the disk has several requests at a
//! time for one reader. A range is never given to one thread whole: its end would be read before the beginning of the next.
//!
//! The queue is bounded, and its oldest pieces go first: their readers have come to them meanwhile, and asked themselves.

use std::collections::VecDeque;

use crate::tree::Location;

/// Threads that read ahead within files: as many readings as keep the queue of a disk filled. They wait for it nearly always.
const MAX_THREADS: usize = 4;
/// The most pieces that wait: the largest windows of some readers on this machine.
const MAX_WAITING: usize = 64;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub file: Location,
    pub from: u64,
    pub to: u64,
}

/// The queue, and how many threads are at work.
#[derive(Default)]
pub(super) struct Pieces {
    waiting: VecDeque<Piece>,
    threads: usize,
}

impl Pieces {
    /// Adds pieces of `file`, the one that is needed first in front.
    pub fn add(&mut self, file: &Location, pieces: &[(u64, u64)]) {
        self.waiting.extend(pieces.iter().map(|(from, to)| Piece { file: file.clone(), from: *from, to: *to }));
        let surplus = self.waiting.len().saturating_sub(MAX_WAITING);
        self.waiting.drain(..surplus);
    }

    /// Whether one more thread is worth its start. It is then counted until [`Pieces::end_thread`].
    pub fn begin_thread(&mut self) -> bool {
        let is_worth = !self.waiting.is_empty() && self.threads < MAX_THREADS;
        self.threads += usize::from(is_worth);
        is_worth
    }

    /// Whether a thread may end, because nothing waits. It is then counted no more.
    pub fn end_thread(&mut self) -> bool {
        let may_end = self.waiting.is_empty();
        self.threads -= usize::from(may_end);
        may_end
    }

    /// The piece to read next.
    pub fn take(&mut self) -> Option<Piece> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Cid, HashFunction, codec};

    fn file(name: &[u8]) -> Location {
        Location::new(Cid::new_v1(codec::DAG_PB, &HashFunction::Sha2_256.digest(name)))
    }

    #[test]
    fn pieces_are_taken_in_the_order_of_their_readers() {
        let mut pieces = Pieces::default();
        let (one, other) = (file(b"one"), file(b"other"));
        pieces.add(&one, &[(0, 1), (1, 2)]);
        pieces.add(&other, &[(8, 9)]);
        pieces.add(&one, &[(2, 3)]);
        let taken: Vec<(Location, u64)> =
            std::iter::from_fn(|| pieces.take()).map(|piece| (piece.file, piece.from)).collect();
        assert_eq!(taken, [(one.clone(), 0), (one.clone(), 1), (other, 8), (one, 2)]);
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes() {
        let mut pieces = Pieces::default();
        let many: Vec<(u64, u64)> = (0..MAX_WAITING as u64 + 5).map(|at| (at, at + 1)).collect();
        pieces.add(&file(b"one"), &many);
        assert_eq!(pieces.waiting.len(), MAX_WAITING);
        assert_eq!(pieces.waiting[0].from, 5);
    }

    #[test]
    fn threads_are_bounded_and_none_begins_for_nothing() {
        let mut pieces = Pieces::default();
        assert!(!pieces.begin_thread());
        pieces.add(&file(b"one"), &[(0, 1)]);
        assert!((0..MAX_THREADS).all(|_| pieces.begin_thread()));
        assert!(!pieces.begin_thread());
        assert!(!pieces.end_thread(), "while something waits");
        assert!(pieces.take().is_some());
        assert!(pieces.end_thread());
        pieces.add(&file(b"one"), &[(1, 2)]);
        assert!(pieces.begin_thread());
    }
}
