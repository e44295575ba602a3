//! A session: the wants of one root, and the peers that are known to have its blocks.
//!
//! A member of a session is a *holder*, who is asked for blocks, or a *fellow*, who wants the same blocks as we do. With
//! fellows the wants that nobody waits for are shared out: see [`super::schedule`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::wants::Key;
use super::{PeerNumber, Urgency};

/// What a peer is to a session.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// Whether it gave a block, said that it has one, or was named as a provider.
    pub is_holder: bool,
    /// Until then it counts as one who wants the same blocks.
    pub fellow_until: Option<Instant>,
    /// Not taken for a fellow before then: it did not get what it was to get.
    pub no_fellow_before: Option<Instant>,
    /// How often in a row it did not have a block.
    pub misses: u32,
}

impl Member {
    pub fn is_fellow(&self, now: Instant) -> bool {
        self.fellow_until.is_some_and(|until| until > now)
    }
}

/// The wants of one root.
pub struct Session {
    pub root: Option<Key>,
    /// How many handles of it there are.
    pub handles: usize,
    pub members: BTreeMap<PeerNumber, Member>,
    queues: [VecDeque<Key>; 3],
    pub backlogs: BTreeMap<PeerNumber, VecDeque<Key>>,
    pub seeking: BTreeSet<Key>,
    pub latencies: Latencies,
    /// The usual size of its blocks.
    pub block_bytes: u64,
    pub last_progress: Instant,
    /// Wants that may be asked of a second peer before the first one answered.
    pub hedges: f64,
    /// Wants that may be asked of a holder although a fellow is to get them.
    pub spare: f64,
    /// How long fellows usually take.
    pub fellow_latency: Duration,
    /// When providers are looked for again.
    pub search_at: Option<Instant>,
    pub search_every: Duration,
}

/// What a session may ask twice at its start, and what each block that came adds to it: duplicates stay below 1%.
const FIRST_HEDGES: f64 = 2.0;
const HEDGES_PER_BLOCK: f64 = 0.008;
const MAX_HEDGES: f64 = 16.0;
/// What all who fetch a root together may ask of its holders although a fellow is to get it, as a share of the blocks: a
/// node whose fellows are slow is mostly slow itself, and cannot tell.
const SPARE_SHARE: f64 = 0.08;
const FIRST_SPARE: f64 = 1.0;
const MAX_SPARE: f64 = 16.0;

/// How long the providers that are connected have to answer before others are looked for.
pub const SEARCH_AFTER: Duration = Duration::from_millis(250);
/// The first pause between two searches; each next one is twice as long.
pub const FIRST_SEARCH_PAUSE: Duration = Duration::from_secs(5);
/// The longest.
pub const MAX_SEARCH_PAUSE: Duration = Duration::from_mins(2);

impl Session {
    pub fn new(now: Instant, root: Option<Key>) -> Session {
        Session {
            root,
            handles: 1,
            members: BTreeMap::new(),
            queues: Default::default(),
            backlogs: BTreeMap::new(),
            seeking: BTreeSet::new(),
            latencies: Latencies::default(),
            block_bytes: 256 * 1024,
            last_progress: now,
            hedges: FIRST_HEDGES,
            spare: FIRST_SPARE,
            fellow_latency: Duration::ZERO,
            search_at: None,
            search_every: FIRST_SEARCH_PAUSE,
        }
    }

    pub fn queue(&mut self, urgency: Urgency) -> &mut VecDeque<Key> {
        &mut self.queues[urgency as usize]
    }

    pub fn has_queued(&self, urgency: Urgency) -> bool {
        !self.queues[urgency as usize].is_empty() || (urgency < Urgency::Demand && !self.backlogs.is_empty())
    }

    pub fn is_queue_empty(&self, urgency: Urgency) -> bool {
        self.queues[urgency as usize].is_empty()
    }

    /// A block of the session came.
    pub fn progress(&mut self, now: Instant, bytes: u64, latency: Option<Duration>) {
        self.last_progress = now;
        self.block_bytes = ((self.block_bytes * 7 + bytes.max(1024)) / 8).max(1024);
        self.hedges = (self.hedges + HEDGES_PER_BLOCK).min(MAX_HEDGES);
        let nodes = 1 + self.members.values().filter(|member| member.is_fellow(now)).count();
        self.spare = (self.spare + SPARE_SHARE / nodes as f64).min(MAX_SPARE);
        self.search_every = FIRST_SEARCH_PAUSE;
        if let Some(latency) = latency {
            self.latencies.push(latency);
        }
    }

    /// A fellow has passed on a block after so long.
    pub fn fellow_gave(&mut self, latency: Duration) {
        let usual = &mut self.fellow_latency;
        *usual = if usual.is_zero() { latency } else { (*usual * 15 + latency) / 16 };
    }
}

/// The latencies of the last blocks.
#[derive(Default)]
pub struct Latencies {
    last: VecDeque<Duration>,
}

impl Latencies {
    /// How many are remembered.
    const KEPT: usize = 128;
    /// With fewer, nothing is said about what is usual.
    const ENOUGH: usize = 8;

    fn push(&mut self, latency: Duration) {
        if self.last.len() == Latencies::KEPT {
            self.last.pop_front();
        }
        self.last.push_back(latency);
    }

    /// What 95 of 100 blocks do not exceed.
    pub fn p95(&self) -> Option<Duration> {
        if self.last.len() < Latencies::ENOUGH {
            return None;
        }
        let mut sorted: Vec<Duration> = self.last.iter().copied().collect();
        let index = sorted.len() * 95 / 100;
        Some(*sorted.select_nth_unstable(index).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p95_is_what_most_blocks_do_not_exceed() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.p95(), None);
        for number in 0..200 {
            latencies.push(Duration::from_millis(number));
        }
        assert_eq!(latencies.p95(), Some(Duration::from_millis(72 + 121)));
    }
}
