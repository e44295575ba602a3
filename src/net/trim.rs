//! Which connections to give up when there are too many.
//!
//! Nothing happens up to the high mark. Past it, peers are let go until the low mark is reached: first those that nobody has
//! a use for (no blocks were exchanged, no DHT knows them), and among those the ones that have been here longest. Spared are peers that we [stay connected
//! to](super::peering), that somebody connected to by hand, or that wait for blocks of ours, and those so new that it
//! is not known yet what they are good for.

use std::time::Instant;

use libp2p::PeerId;

use crate::config::Watermarks;
use crate::limits::TRIM_GRACE;

/// A connected peer, as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Who it is.
    pub peer: PeerId,
    /// Whether it is spared whatever happens.
    pub is_spared: bool,
    /// Whether the routing tables hold it.
    pub routes: bool,
    /// What went to and fro in blocks.
    pub exchanged_bytes: u64,
    /// When it connected.
    pub since: Instant,
}

/// The peers to let go.
pub(super) fn choose(mut candidates: Vec<Candidate>, marks: Watermarks, now: Instant) -> Vec<PeerId> {
    if candidates.len() <= marks.high {
        return Vec::new();
    }
    let excess = candidates.len() - marks.low;
    candidates.retain(|candidate| !candidate.is_spared && now.duration_since(candidate.since) >= TRIM_GRACE);
    candidates.sort_by_key(|candidate| (candidate.exchanged_bytes > 0, candidate.routes, candidate.since));
    candidates.into_iter().take(excess).map(|candidate| candidate.peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trimming_spares_what_is_in_use_and_stops_at_the_low_mark() {
        let start = Instant::now();
        let now = start + TRIM_GRACE * 2;
        let marks = Watermarks { low: 4, high: 8 };
        let candidate = |is_spared, routes, since| Candidate {
            peer: PeerId::random(),
            is_spared,
            routes,
            exchanged_bytes: 0,
            since,
        };
        let mut all: Vec<Candidate> = (0..3).map(|_| candidate(true, false, start)).collect();
        all.extend((0..3).map(|_| candidate(false, true, start)));
        all.extend((0..2).map(|_| candidate(false, false, start)));
        assert!(choose(all.clone(), marks, now).is_empty(), "not past the high mark");
        all.push(candidate(false, false, now));
        let gone = choose(all.clone(), marks, now);
        assert_eq!(gone.len(), 5);
        assert!(gone.contains(&all[6].peer) && gone.contains(&all[7].peer));
        assert!(all[..3].iter().all(|spared| !gone.contains(&spared.peer)));
        assert!(!gone.contains(&all[8].peer), "too new to judge");
        // Those that route go last.
        let more = Watermarks { low: 7, high: 8 };
        let gone = choose(all.clone(), more, now);
        assert_eq!(gone.len(), 2);
        assert!(gone.contains(&all[6].peer) && gone.contains(&all[7].peer));
    }
}
