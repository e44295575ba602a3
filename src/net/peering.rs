//! Peers that we stay connected to: those of `network.peering`, and those that were added by hand.
//!
//! A peer that is not connected is dialed; each failure doubles the wait before the next try, up to [`PEERING_MAX_WAIT`],
//! and a part of each wait is drawn at random, so that the members of a cluster that lost one of them do not all come back
//! to it at the same moment. A connection that stood forgives all failures before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};

use crate::limits::{PEERING_FIRST_WAIT, PEERING_MAX_WAIT};

/// The peers, and when each is to be tried next.
#[derive(Debug, Default)]
pub(super) struct Peering {
    peers: BTreeMap<PeerId, Entry>,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    failures: u32,
    next: Instant,
}

impl Peering {
    /// Adds a peer, or addresses of one.
    pub fn add(&mut self, peer: PeerId, address: Option<Multiaddr>, now: Instant) {
        let entry = self.peers.entry(peer).or_insert(Entry { addresses: Vec::new(), failures: 0, next: now });
        entry.addresses.extend(address.filter(|address| !entry.addresses.contains(address)));
        entry.next = now;
    }

    /// Removes a peer; false where it was none of ours.
    pub fn remove(&mut self, peer: &PeerId) -> bool {
        self.peers.remove(peer).is_some()
    }

    /// Whether we stay connected to `peer`.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// All peers with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.peers.iter().map(|(peer, entry)| (peer, entry.addresses.as_slice()))
    }

    /// Those that are to be dialed now. Each is counted as failed until it is [connected](Peering::connected).
    pub fn due(&mut self, now: Instant, is_connected: impl Fn(&PeerId) -> bool) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (peer, entry) in &mut self.peers {
            if entry.next > now || is_connected(peer) {
                continue;
            }
            entry.next = now + wait(entry.failures, random());
            entry.failures = entry.failures.saturating_add(1);
            due.push((*peer, entry.addresses.clone()));
        }
        due
    }

    /// The peer is connected.
    pub fn connected(&mut self, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.failures = 0;
        }
    }

    /// The last connection to the peer has ended: it is tried again soon.
    pub fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.next = now + wait(0, random());
        }
    }
}

/// The wait after so many failures; `share` (0 to 1) says how much of its random half.
fn wait(failures: u32, share: f64) -> Duration {
    let whole = PEERING_FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(PEERING_MAX_WAIT);
    whole / 2 + (whole / 2).mul_f64(share)
}

/// A number from 0 to 1 that nobody can foresee.
fn random() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    // Each state has keys of its own.
    let number = std::hash::RandomState::new().build_hasher().finish();
    number as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_a_bound() {
        let mut last = Duration::ZERO;
        for failures in 0..40 {
            let (shortest, longest) = (wait(failures, 0.0), wait(failures, 1.0));
            assert!(shortest * 2 >= longest && longest <= PEERING_MAX_WAIT, "{failures}");
            assert!(longest >= last);
            last = longest;
        }
        assert_eq!(last, PEERING_MAX_WAIT);
        let draws: Vec<f64> = (0..100).map(|_| random()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        assert!(draws.windows(2).any(|pair| (pair[0] - pair[1]).abs() > f64::EPSILON));
    }

    #[test]
    fn a_peer_is_dialed_when_due_and_forgiven_once_connected() {
        let (peer, start) = (PeerId::random(), Instant::now());
        let mut peering = Peering::default();
        peering.add(peer, Some("/ip4/10.0.0.1/tcp/1".parse().unwrap()), start);
        assert!(peering.due(start, |_| true).is_empty(), "it is connected");
        let mut now = start;
        for _ in 0..10 {
            assert_eq!(peering.due(now, |_| false).len(), 1);
            assert!(peering.due(now, |_| false).is_empty(), "not twice at one moment");
            now += PEERING_MAX_WAIT;
        }
        assert!(peering.due(now, |_| false).len() == 1);
        assert!(peering.due(now + PEERING_FIRST_WAIT, |_| false).is_empty(), "it has failed often");
        peering.connected(&peer);
        peering.lost(&peer, now);
        assert!(peering.due(now + PEERING_FIRST_WAIT, |_| false).len() == 1);
        assert!(peering.remove(&peer) && !peering.remove(&peer));
    }
}
