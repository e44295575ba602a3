//! Fair comparison: each side is measured as often, in an order that turns from round to round.

use std::path::PathBuf;

use anyhow::Result;

/// One of the filesystems that are compared.
#[derive(Clone, Debug)]
pub struct Side {
    /// What the table calls it.
    pub name: String,
    /// Where it shows the dataset.
    pub root: PathBuf,
}

impl Side {
    /// A side of that name.
    pub fn new(name: &str, root: PathBuf) -> Side {
        Side { name: name.to_owned(), root }
    }
}

/// Runs `work` on each of `sides` in each of `rounds`, and gives the seconds of each side in the order of `sides`. What `work`
/// does before it starts its clock is its preparation.
pub fn alternate<T>(
    sides: &[T],
    rounds: usize,
    mut work: impl FnMut(usize, &T) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut seconds = vec![Vec::with_capacity(rounds); sides.len()];
    for round in 0..rounds {
        for turn in 0..sides.len() {
            let which = (round + turn) % sides.len();
            seconds[which].push(work(round, &sides[which])?);
        }
    }
    Ok(seconds)
}

/// The middle one.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
