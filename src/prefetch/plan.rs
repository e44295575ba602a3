//! Plans: the order in which a job will read a dataset, known ahead.
//!
//! A [`Plan`] is a [`Dataset`] (the files of a directory, numbered as the job numbers them) and an [`Order`] of its
//! numbers, which is a list that was handed over, or what a [`Sampler`] draws anew for each epoch. [`Plan::epoch`] is the
//! order of one epoch; the next is one further.
//!
//! What is here is pure but for listing directories: it fetches no file, and following a plan (fetching ahead of the
//! reader, noticing that the reads are others) is for the rest of [`crate::prefetch`].

pub mod dataset;
pub mod generator;
pub mod names;
pub mod sampler;

use std::fmt;
use std::sync::Arc;

pub use self::dataset::{Dataset, Files};
pub use self::sampler::{Batches, Drawn, Sampler, SamplerKind};
use crate::block::Cid;
use crate::limits::{MAX_PLAN_FILES, MAX_PLAN_PATHS_BYTES, MAX_SKIPPED_WORDS};
use crate::tree::TreeError;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The arguments make no sense.
    #[error("{0}")]
    Argument(&'static str),
    /// There are more files than a plan may have.
    #[error("a plan has at most {MAX_PLAN_FILES} files")]
    TooMany,
    /// Their paths would take too much memory.
    #[error("the paths of a plan's files come to at most {MAX_PLAN_PATHS_BYTES} bytes")]
    LongPaths,
    /// The sampler's generator would have to be run for too long to come to the epoch.
    #[error(
        "epoch {epoch} is too far from the seed: at most {MAX_SKIPPED_WORDS} random numbers are drawn to come to an epoch; \
         seed the generator before each epoch, and say so"
    )]
    TooLate {
        /// The epoch.
        epoch: u64,
    },
    /// There is nothing to read.
    #[error("{directory} has no file")]
    NoFiles {
        /// The directory.
        directory: String,
    },
    /// `ImageFolder` would find nothing.
    #[error("{directory} has no image in a directory below it, as ImageFolder wants them: --files all takes all files")]
    NoImages {
        /// The directory.
        directory: String,
    },
    /// A path of an order is not there.
    #[error("the order names {path}, which is not there")]
    NoSuchFile {
        /// The path.
        path: String,
    },
    /// A path of an order is a directory.
    #[error("the order names {path}, which is a directory")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// A directory could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// How the files of a dataset are ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are numbered, in every epoch.
    Listed,
    /// As samplers draw them, each for a process of its own: they are taken by turns.
    Drawn(Vec<Sampler>),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Listed => f.write_str("as listed"),
            Order::Drawn(samplers) => {
                let texts: Vec<String> = samplers.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}

/// The order in which a dataset will be read, epoch after epoch.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The root that the dataset is below.
    pub root: Cid,
    /// The directory, as it was named: `<root>/train`.
    pub directory: String,
    /// The files.
    pub dataset: Arc<Dataset>,
    /// Their order.
    pub order: Order,
}

impl Plan {
    /// The numbers of the files that `epoch` reads, in its order.
    pub fn epoch(&self, epoch: u64) -> Result<Vec<u32>, PlanError> {
        match &self.order {
            Order::Listed => Ok((0..self.dataset.len() as u32).collect()),
            Order::Drawn(samplers) => {
                let orders: Result<Vec<Vec<u32>>, PlanError> =
                    samplers.iter().map(|sampler| sampler.order(self.dataset.len(), epoch)).collect();
                Ok(by_turns(orders?))
            }
        }
    }
}

/// What is read where each process takes one file of its order after the other, all at the same speed.
fn by_turns(mut orders: Vec<Vec<u32>>) -> Vec<u32> {
    if orders.len() == 1 {
        return orders.remove(0);
    }
    let longest = orders.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|turn| orders.iter().filter_map(move |order| order.get(turn).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_machine_are_taken_by_turns() {
        assert_eq!(by_turns(vec![vec![1, 2, 3], vec![4], vec![], vec![5, 6]]), [1, 4, 5, 2, 6, 3]);
        assert_eq!(by_turns(vec![vec![3, 1]]), [3, 1]);
        assert_eq!(by_turns(Vec::new()), [0_u32; 0]);
    }
}
