//! What a few positions in a row say about the next.
//!
//! Positions are those of files in an order that is known (a listing, the names sorted, the inode numbers), in the sequence
//! in which readers came to them. Three that follow each other are a pattern, forward or backward; four that are equally far
//! apart are a stride, which is what one worker of several leaves; eight that crowd together and move on are several readers
//! side by side. Anything else is no pattern, and is left alone.

use std::collections::VecDeque;

/// Equal steps of one that make a pattern.
const STEPS: usize = 2;
/// Equal steps of more than one that make a pattern: by chance they are likelier, for there are more of them.
const STRIDES: usize = 3;
/// The longest stride: a worker for each core of a large machine.
const MAX_STRIDE: u32 = 256;
/// Positions that are looked at together.
const CROWD: usize = 8;
/// What a crowd may span: half of the positions in it are taken.
const CROWD_SPAN: u32 = 16;

/// How readers go through an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// Each reader's next position lies this much further.
    pub stride: u32,
    /// Towards the beginning.
    pub backward: bool,
    /// The position that the readers have come to.
    pub at: u32,
}

/// The last positions of readers in one order.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail(VecDeque<u32>);

impl Trail {
    /// Adds a position, and says what the trail looks like now.
    pub fn add(&mut self, at: u32) -> Option<Pattern> {
        if self.0.back() == Some(&at) {
            return None;
        }
        if self.0.len() == CROWD {
            self.0.pop_front();
        }
        self.0.push_back(at);
        self.steady().or_else(|| self.crowded())
    }

    fn steady(&self) -> Option<Pattern> {
        let mut steps =
            self.0.iter().rev().zip(self.0.iter().rev().skip(1)).map(|(b, a)| i64::from(*b) - i64::from(*a));
        let step = steps.next()?;
        let stride = u32::try_from(step.unsigned_abs()).ok().filter(|stride| (1..=MAX_STRIDE).contains(stride))?;
        let equal = 1 + steps.take_while(|other| *other == step).count();
        let needed = if stride == 1 { STEPS } else { STRIDES };
        (equal >= needed).then(|| Pattern { stride, backward: step < 0, at: *self.0.back().unwrap_or(&0) })
    }

    /// Several readers that share an order, each a little ahead of or behind the others.
    fn crowded(&self) -> Option<Pattern> {
        if self.0.len() < CROWD {
            return None;
        }
        let (low, high) = (*self.0.iter().min()?, *self.0.iter().max()?);
        if high - low >= CROWD_SPAN {
            return None;
        }
        let mut sorted: Vec<u32> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let sum = |range: std::ops::Range<usize>| self.0.range(range).map(|at| u64::from(*at)).sum::<u64>();
        let (older, newer) = (sum(0..CROWD / 2), sum(CROWD / 2..CROWD));
        // They move on by about as much as they read.
        let moved = newer.abs_diff(older) / (CROWD as u64 / 2);
        if moved < CROWD as u64 / 4 {
            return None;
        }
        let backward = newer < older;
        Some(Pattern { stride: 1, backward, at: if backward { low } else { high } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn last(positions: &[u32]) -> Option<Pattern> {
        let mut trail = Trail::default();
        positions.iter().map(|at| trail.add(*at)).last().flatten()
    }

    #[test]
    fn steps_strides_and_crowds_are_told_apart() {
        let pattern = |stride, backward, at| Some(Pattern { stride, backward, at });
        assert_eq!(last(&[4, 5]), None);
        assert_eq!(last(&[4, 5, 6]), pattern(1, false, 6));
        assert_eq!(last(&[40, 6, 5, 4]), pattern(1, true, 4));
        assert_eq!(last(&[3, 11, 19]), None);
        assert_eq!(last(&[3, 11, 19, 27]), pattern(8, false, 27));
        assert_eq!(last(&[900, 600, 300, 0]), None, "no job has so many workers");
        // Two workers with batches of four.
        assert_eq!(last(&[0, 4, 1, 5, 2, 6, 3, 7]), pattern(1, false, 7));
        assert_eq!(last(&[7, 0, 6, 1, 5, 2, 4, 3]), None, "they go nowhere");
    }

    /// The share of patterns in random orders of many files: each costs a window.
    #[test]
    fn random_orders_are_left_alone() {
        let mut state = 1_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let mut trail = Trail::default();
        let found = (0..100_000).filter(|_| trail.add(next() % 1000).is_some()).count();
        assert!(found <= 5, "{found} patterns");
    }

    proptest! {
        #[test]
        fn any_steady_reader_is_found(start in 0_u32..1_000_000, stride in 1..=MAX_STRIDE, backward: bool) {
            let start = if backward { start + 10 * MAX_STRIDE } else { start };
            let at = |step: u32| if backward { start - step * stride } else { start + step * stride };
            let positions: Vec<u32> = (0..4).map(at).collect();
            prop_assert_eq!(last(&positions), Some(Pattern { stride, backward, at: at(3) }));
        }

        #[test]
        fn readers_side_by_side_are_found(start in 0_u32..1_000_000, order in Just((0..4).collect::<Vec<u32>>()).prop_shuffle()) {
            // Readers who take turns in a row of three look like one until the next round.
            prop_assume!(order.windows(3).all(|three| three[0] + three[2] != 2 * three[1]));
            let mut trail = Trail::default();
            let mut found = None;
            for round in 0..4 {
                for reader in &order {
                    found = trail.add(start + round * 4 + reader).or(found);
                }
            }
            let found = found.expect("sixteen files in a row, four at a time");
            prop_assert!(found.stride == 1 && !found.backward);
        }
    }
}
