//! The order in which PyTorch's samplers go through a dataset, known without PyTorch.
//!
//! - `torch-distributed`: `DistributedSampler(dataset, num_replicas=world, rank=rank, shuffle=…, seed=…, drop_last=…)` after
//!   `set_epoch(epoch)`. Its permutation is that of a generator seeded with seed + epoch.
//! - `torch-random`: `DataLoader(dataset, shuffle=True)`, whose `RandomSampler` draws from a generator that goes on from epoch
//!   to epoch. A loader that was given a generator draws the seed of its workers from it, then the permutation, and at the
//!   end of the epoch another permutation, of which it uses nothing. A loader that was given none draws the workers' seed
//!   and the seed of the sampler's own generator from the default one.
//!
//! What is told here has to be what the job does, and cannot be checked before it reads. So nothing depends on a plan
//! being right: one that the reads contradict is dropped.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::PlanError;
use super::generator::Generator;
use crate::limits::{MAX_PLAN_FILES, MAX_SKIPPED_WORDS};

/// What draws the order, and with which arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Sampler {
    /// The sampler, with what it alone takes.
    pub kind: SamplerKind,
    /// The seed, as a 64-bit integer of either sign.
    pub seed: u64,
    /// Whether there is an order to be drawn at all; without, files are read as they are listed.
    pub shuffle: bool,
    /// The batches that the loader makes, where they change what is read.
    pub batches: Option<Batches>,
}

/// The samplers that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum SamplerKind {
    /// `torch.utils.data.DistributedSampler`.
    Distributed {
        /// Which process this is, from 0.
        rank: u64,
        /// How many processes there are.
        world: u64,
        /// Whether samples are left out that do not divide among the processes; else some are read twice.
        drop_last: bool,
    },
    /// `torch.utils.data.RandomSampler` in a `DataLoader`.
    Random {
        /// Where its numbers come from.
        generator: Drawn,
        /// Whether that generator is seeded with seed + epoch before each epoch; else with the seed, once.
        reseeded: bool,
        /// Whether the loader keeps its workers from epoch to epoch, and draws a seed for them once.
        persistent_workers: bool,
    },
}

/// Where a `RandomSampler`'s numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Drawn {
    /// The `generator` that the loader was given.
    Given,
    /// The default generator of torch: `torch.manual_seed`.
    Default,
}

/// The batches of a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Batches {
    /// How many samples are in one.
    pub size: u64,
    /// Whether the last one is left out where it is not full.
    pub drop_last: bool,
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SamplerKind::Distributed { rank, world, .. } => write!(f, "torch-distributed rank {rank} of {world}")?,
            SamplerKind::Random { .. } => f.write_str("torch-random")?,
        }
        if self.shuffle { write!(f, " seed {}", self.seed as i64) } else { f.write_str(" without shuffling") }
    }
}

/// The words that an int64 is drawn from.
const WORDS_OF_INT64: u64 = 2;

impl Sampler {
    /// Whether the arguments make sense together.
    pub fn check(&self) -> Result<(), PlanError> {
        match self.kind {
            SamplerKind::Distributed { world: 0, .. } => Err(PlanError::Argument("a world has one process at least")),
            SamplerKind::Distributed { rank, world, .. } if rank >= world => {
                Err(PlanError::Argument("a rank is below the size of the world"))
            }
            _ if self.batches.is_some_and(|batches| batches.size == 0) => {
                Err(PlanError::Argument("a batch has one sample at least"))
            }
            _ => Ok(()),
        }
    }

    /// The positions in a dataset of `len` files that are read in `epoch`, in their order.
    pub fn order(&self, len: usize, epoch: u64) -> Result<Vec<u32>, PlanError> {
        self.check()?;
        let len = u32::try_from(len).ok().filter(|len| *len as usize <= MAX_PLAN_FILES).ok_or(PlanError::TooMany)?;
        let mut order = match self.kind {
            SamplerKind::Distributed { rank, world, drop_last } => {
                let all = self.permutation(len, || Ok(Generator::seeded(self.seed.wrapping_add(epoch))))?;
                share(&all, rank, world, drop_last)
            }
            SamplerKind::Random { generator, reseeded, persistent_workers } => {
                self.permutation(len, || self.random(generator, reseeded, persistent_workers, len, epoch))?
            }
        };
        if let Some(Batches { size, drop_last: true }) = self.batches {
            order.truncate((order.len() as u64 / size * size) as usize);
        }
        Ok(order)
    }

    fn permutation(
        &self,
        len: u32,
        generator: impl FnOnce() -> Result<Generator, PlanError>,
    ) -> Result<Vec<u32>, PlanError> {
        Ok(if self.shuffle { generator()?.permutation(len) } else { (0..len).collect() })
    }

    /// The generator that a `RandomSampler` draws the permutation of `epoch` from, where it is by then.
    fn random(
        &self,
        drawn: Drawn,
        reseeded: bool,
        persistent_workers: bool,
        len: u32,
        epoch: u64,
    ) -> Result<Generator, PlanError> {
        let (seed, before) = if reseeded { (self.seed.wrapping_add(epoch), 0) } else { (self.seed, epoch) };
        let of_sampler = match drawn {
            // The second permutation is drawn for the rest of the samples, of which there are none.
            Drawn::Given => 2 * Generator::words_of_permutation(len),
            Drawn::Default => WORDS_OF_INT64,
        };
        // The workers' seed comes first in each epoch; where the workers stay, in the first epoch only.
        let of_workers = match (persistent_workers, reseeded) {
            (false, _) => before.saturating_add(1),
            (true, false) => 1,
            (true, true) => u64::from(epoch == 0),
        };
        let words = before.saturating_mul(of_sampler).saturating_add(of_workers.saturating_mul(WORDS_OF_INT64));
        if words > MAX_SKIPPED_WORDS {
            return Err(PlanError::TooLate { epoch });
        }
        let mut generator = Generator::seeded(seed);
        generator.skip(words);
        Ok(match drawn {
            Drawn::Given => generator,
            Drawn::Default => Generator::seeded(generator.int64()),
        })
    }
}

/// What one process of many reads of an order: every `world`th sample, of as many as all can read alike. Where some lack,
/// the order begins again.
fn share(all: &[u32], rank: u64, world: u64, drop_last: bool) -> Vec<u32> {
    let len = all.len() as u64;
    let samples = if drop_last { len / world } else { len.div_ceil(world) };
    (0..samples)
        .map(|sample| all[((u128::from(rank) + u128::from(sample) * u128::from(world)) % u128::from(len)) as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distributed(rank: u64, world: u64, drop_last: bool) -> Sampler {
        Sampler { kind: SamplerKind::Distributed { rank, world, drop_last }, seed: 7, shuffle: true, batches: None }
    }

    #[test]
    fn processes_share_a_dataset_and_the_rest_is_padded_or_dropped() {
        for (len, world) in [(0, 1), (0, 3), (1, 4), (10, 3), (12, 3), (5, 8), (1000, 7)] {
            for drop_last in [false, true] {
                let orders: Vec<Vec<u32>> =
                    (0..world).map(|rank| distributed(rank, world, drop_last).order(len, 2).unwrap()).collect();
                let expected = if drop_last { len / world as usize } else { len.div_ceil(world as usize) };
                assert!(orders.iter().all(|order| order.len() == expected), "{len} {world}");
                let mut read: Vec<u32> = orders.concat();
                read.sort_unstable();
                read.dedup();
                let whole = if drop_last { expected * world as usize } else { len };
                assert_eq!(read.len(), whole, "{len} {world} {drop_last}");
            }
        }
    }

    #[test]
    fn a_last_batch_that_is_not_full_is_dropped_where_the_loader_does() {
        let order = |batches| Sampler { batches, ..distributed(0, 1, false) }.order(10, 0).unwrap();
        let whole = order(None);
        assert_eq!(order(Some(Batches { size: 4, drop_last: false })), whole);
        assert_eq!(order(Some(Batches { size: 4, drop_last: true })), whole[..8]);
        assert_eq!(order(Some(Batches { size: 11, drop_last: true })), [0_u32; 0]);
        assert_eq!(order(Some(Batches { size: u64::MAX, drop_last: true })), [0_u32; 0]);
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for sampler in [
            distributed(0, 0, false),
            distributed(3, 3, false),
            Sampler { batches: Some(Batches { size: 0, drop_last: true }), ..distributed(0, 1, false) },
        ] {
            assert!(matches!(sampler.order(10, 0), Err(PlanError::Argument(_))), "{sampler:?}");
        }
        assert_eq!(distributed(u64::MAX - 1, u64::MAX, false).order(10, 0).unwrap().len(), 1);
    }

    #[test]
    fn files_and_epochs_past_the_limits_are_refused() {
        assert!(matches!(distributed(0, 1, false).order(MAX_PLAN_FILES + 1, 0), Err(PlanError::TooMany)));
        let kind = SamplerKind::Random { generator: Drawn::Given, reseeded: false, persistent_workers: false };
        let sampler = Sampler { kind, seed: 0, shuffle: true, batches: None };
        assert!(matches!(sampler.order(1000, u64::MAX), Err(PlanError::TooLate { .. })));
        assert!(matches!(sampler.order(1000, MAX_SKIPPED_WORDS / 1998), Err(PlanError::TooLate { .. })));
        let kind = SamplerKind::Random { generator: Drawn::Given, reseeded: true, persistent_workers: false };
        assert_eq!(Sampler { kind, ..sampler }.order(1000, u64::MAX).unwrap().len(), 1000);
    }
}
