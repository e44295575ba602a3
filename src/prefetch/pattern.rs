//! What a few positions in a row say about the next.
//!
//! Positions are those of files in an order that is known (a listing, the names sorted, the inode numbers), in the sequence
//! in which readers came to them. Three that follow each other are a pattern, forward or backward; four that are equally far
//! apart are a stride, which is what one worker of several leaves; eight that crowd together and move on are several readers
//! side by side. Several readers who are far from each other, each in a batch of its own, are found by one of them: eight that
//! follow each other, in their turn, among all that the others read meanwhile. Anything else is no pattern, and is left alone.

use std::collections::{HashMap, VecDeque};

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

/// Positions that are remembered to find one reader's among: those of a dozen readers.
const REMEMBERED: usize = 64;
/// Positions that follow each other, in their turn, that make one of several readers: fewer are found by chance where some hundred
/// files are read at random.
const RUN: u32 = 8;

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
pub(super) struct Trail {
    last: VecDeque<u32>,
    /// How many positions before each of [`REMEMBERED`] were read in their turn, forward and backward, and the oldest first.
    runs: HashMap<u32, (u32, u32)>,
    remembered: VecDeque<u32>,
}

impl Trail {
    /// Adds a position, and says what the trail looks like now.
    pub fn add(&mut self, at: u32) -> Option<Pattern> {
        if self.last.back() == Some(&at) {
            return None;
        }
        if self.last.len() == CROWD {
            self.last.pop_front();
        }
        self.last.push_back(at);
        let run = self.in_turn(at);
        // Workers who take turns look like strides, too.
        run.or_else(|| self.steady()).or_else(|| self.crowded())
    }

    /// One of several readers.
    fn in_turn(&mut self, at: u32) -> Option<Pattern> {
        if self.runs.contains_key(&at) {
            return None;
        }
        let before = |next: Option<u32>| next.and_then(|next| self.runs.get(&next));
        let forward = before(at.checked_sub(1)).map_or(1, |(forward, _)| forward + 1);
        let backward = before(at.checked_add(1)).map_or(1, |(_, backward)| backward + 1);
        if self.remembered.len() == REMEMBERED
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.runs.remove(&oldest);
        }
        self.remembered.push_back(at);
        self.runs.insert(at, (forward, backward));
        (forward.max(backward) >= RUN).then_some(Pattern { stride: 1, backward: backward > forward, at })
    }

    fn steady(&self) -> Option<Pattern> {
        let mut steps =
            self.last.iter().rev().zip(self.last.iter().rev().skip(1)).map(|(b, a)| i64::from(*b) - i64::from(*a));
        let step = steps.next()?;
        let stride = u32::try_from(step.unsigned_abs()).ok().filter(|stride| (1..=MAX_STRIDE).contains(stride))?;
        let equal = 1 + steps.take_while(|other| *other == step).count();
        let needed = if stride == 1 { STEPS } else { STRIDES };
        (equal >= needed).then(|| Pattern { stride, backward: step < 0, at: *self.last.back().unwrap_or(&0) })
    }

    /// Several readers that share an order, each a little ahead of or behind the others.
    fn crowded(&self) -> Option<Pattern> {
        if self.last.len() < CROWD {
            return None;
        }
        let (low, high) = (*self.last.iter().min()?, *self.last.iter().max()?);
        if high - low >= CROWD_SPAN {
            return None;
        }
        let mut sorted: Vec<u32> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        let sum = |range: std::ops::Range<usize>| self.last.range(range).map(|at| u64::from(*at)).sum::<u64>();
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

    /// Recorded traces: the files of three directories of 100, as they were opened. Each program's name, and the positions of the
    /// files in the order of their names.
    const TRACES: &str = include_str!("pattern/traces.txt");

    /// How often a pattern foretold a file, and how often that was read soon, or had been.
    fn foreseen(positions: &[u32]) -> (usize, usize) {
        let (mut found, mut right) = (0, 0);
        let mut trails = [Trail::default(), Trail::default(), Trail::default()];
        for (turn, at) in positions.iter().enumerate() {
            let (directory, within) = ((at / 100) as usize, at % 100);
            let Some(pattern) = trails[directory].add(within) else { continue };
            let next = if pattern.backward { at.checked_sub(pattern.stride) } else { at.checked_add(pattern.stride) };
            let Some(next) = next.filter(|next| *next / 100 == *at / 100) else { continue };
            found += 1;
            right += usize::from(
                positions[turn..].iter().take(64).any(|later| *later == next) || positions[..turn].contains(&next),
            );
        }
        (found, right)
    }

    #[test]
    fn recorded_readers_in_order_are_foreseen_and_shuffled_ones_are_left_alone() {
        let mut seen = 0;
        for line in TRACES.lines().filter(|line| !line.starts_with('#')) {
            let (name, positions) = line.split_once(':').unwrap();
            let positions: Vec<u32> = positions.split_whitespace().map(|at| at.parse().unwrap()).collect();
            let (found, right) = foreseen(&positions);
            if name.contains("shuffled") {
                assert!(found == 0, "{name}: {found} patterns in {} files", positions.len());
            } else {
                // A worker is known from the middle of its batch on.
                let known = if name.contains("workers") { 45 } else { 90 };
                assert!(right * 100 > positions.len() * known, "{name}: {right} of {} files", positions.len());
                assert!(right * 100 >= found * 95, "{name}: {right} of {found}");
            }
            seen += 1;
        }
        assert_eq!(seen, 6);
    }

    #[test]
    fn workers_with_large_batches_are_told_from_a_random_order() {
        // Four workers, each with 32 files of its own in turn, in a directory of 10,000.
        let positions = (0..2000_u32).map(|turn| {
            let (worker, file) = (turn % 4, turn / 4);
            (file / 32 * 4 + worker) * 32 + file % 32
        });
        let mut trail = Trail::default();
        let found: Vec<Pattern> = positions.filter_map(|at| trail.add(at)).collect();
        assert!(found.len() > 1500, "{}", found.len());
        let of_one = found.iter().filter(|pattern| pattern.stride == 1 && !pattern.backward).count();
        assert!(of_one * 100 > found.len() * 90, "{of_one} of {}", found.len());
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
