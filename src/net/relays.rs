//! Relays: how others reach a node that cannot be connected to.
//!
//! Where nobody has confirmed that we can be reached, some connected peers that relay are asked to let others through to us. We
//! then have addresses that lead through them, which the DHT is told; who comes that way tries to punch a hole at once, so that
//! little goes through the relay. With the first confirmation that we can be reached, the relays are let go.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, StreamProtocol};

use super::address;
use crate::limits::{RELAY_DELAY, RELAY_PAUSE, RELAYS};

/// What a peer speaks that relays.
pub(super) const HOP: StreamProtocol = StreamProtocol::new("/libp2p/circuit/relay/0.2.0/hop");

/// The relays that we listen through.
#[derive(Debug)]
pub(super) struct Relays {
    since: Instant,
    used: HashMap<ListenerId, PeerId>,
    /// Those that were tried, and when.
    tried: HashMap<PeerId, Instant>,
}

impl Relays {
    /// None yet: it may turn out that we can be reached.
    pub fn new(now: Instant) -> Relays {
        Relays { since: now, used: HashMap::new(), tried: HashMap::new() }
    }

    /// Whether one more is to be looked for.
    pub fn wants_more(&mut self, now: Instant) -> bool {
        self.tried.retain(|_, tried| now.duration_since(*tried) < RELAY_PAUSE);
        now.duration_since(self.since) >= RELAY_DELAY && self.used.len() < RELAYS
    }

    /// Whether a peer may be asked to relay: it is not asked again soon.
    pub fn may_ask(&self, peer: &PeerId) -> bool {
        !self.tried.contains_key(peer)
    }

    /// The peer was asked; `listener` is what it gives, where it could be asked at all.
    pub fn asked(&mut self, peer: PeerId, listener: Option<ListenerId>, now: Instant) {
        self.tried.insert(peer, now);
        if let Some(listener) = listener {
            self.used.insert(listener, peer);
        }
    }

    /// A listener has ended; false where it is none of these.
    pub fn ended(&mut self, listener: ListenerId) -> bool {
        self.used.remove(&listener).is_some()
    }

    /// Every listener, to be closed: we can be reached without.
    pub fn let_go(&mut self) -> Vec<ListenerId> {
        self.used.drain().map(|(listener, _)| listener).collect()
    }
}

/// The address to listen on through the relay `peer`, which is connected at `at`.
pub(super) fn through(at: &Multiaddr, peer: PeerId) -> Multiaddr {
    address::join(at, peer).with(Protocol::P2pCircuit)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn relays_are_asked_late_few_and_not_over_and_over() {
        let start = Instant::now();
        let mut relays = Relays::new(start);
        assert!(!relays.wants_more(start), "it is not known yet whether we can be reached");
        let now = start + RELAY_DELAY;
        let peers: Vec<PeerId> = (0..=RELAYS).map(|_| PeerId::random()).collect();
        let mut listeners = Vec::new();
        for peer in &peers[..RELAYS] {
            assert!(relays.wants_more(now) && relays.may_ask(peer));
            listeners.push(ListenerId::next());
            relays.asked(*peer, listeners.last().copied(), now);
        }
        assert!(!relays.wants_more(now));
        assert!(relays.ended(listeners[0]) && !relays.ended(listeners[0]));
        assert!(relays.wants_more(now) && !relays.may_ask(&peers[0]) && relays.may_ask(&peers[RELAYS]));
        let later = now + RELAY_PAUSE + Duration::from_secs(1);
        assert!(relays.wants_more(later) && relays.may_ask(&peers[0]));
        assert_eq!(relays.let_go(), &listeners[1..]);
    }

    #[test]
    fn the_way_through_a_relay_names_it_once() {
        let peer = PeerId::random();
        let at: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        let expected = format!("/ip4/10.0.0.1/tcp/4001/p2p/{peer}/p2p-circuit");
        assert_eq!(through(&at, peer).to_string(), expected);
        assert_eq!(through(&address::join(&at, peer), peer).to_string(), expected);
    }
}
