//! The addresses of peers that were found but are not connected yet, and who may connect to us.
//!
//! Lookups find providers with their addresses; whoever dials such a peer by its ID finds the addresses here. The book is
//! bounded: the peers that were entered longest ago give way.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};
use lru::LruCache;

use super::address;
use crate::limits::{MAX_BOOK_ADDRESSES, MAX_BOOK_PEERS};

/// The book.
pub(super) struct Book {
    peers: LruCache<PeerId, Vec<Multiaddr>>,
    near_only: bool,
}

/// Why a stranger is turned away.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not in the local network, and network.profile is lan")]
struct TooFar(Multiaddr);

impl Book {
    /// An empty one. With `near_only`, connections from beyond the local network are refused.
    pub fn new(near_only: bool) -> Book {
        let capacity = NonZeroUsize::new(MAX_BOOK_PEERS).unwrap_or(NonZeroUsize::MIN);
        Book { peers: LruCache::new(capacity), near_only }
    }

    /// Enters addresses of `peer`, the newest first.
    pub fn enter(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        let entry = self.peers.get_or_insert_mut(peer, Vec::new);
        for address in addresses {
            let address = match address::split(&address) {
                (Some(named), _) if named != peer => continue,
                (_, plain) => plain,
            };
            entry.retain(|known| *known != address);
            entry.insert(0, address);
        }
        entry.truncate(MAX_BOOK_ADDRESSES);
    }

    /// What is known of `peer`.
    pub fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.peek(peer).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every peer with its addresses.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.peers.iter().map(|(peer, addresses)| (peer, addresses.as_slice()))
    }
}

impl NetworkBehaviour for Book {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        if self.near_only && !address::is_near(remote) {
            return Err(ConnectionDenied::new(TooFar(remote.clone())));
        }
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map(|peer| self.addresses(&peer).to_vec()).unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_of_addresses_is_bounded() {
        let mut book = Book::new(false);
        let first = PeerId::random();
        let numbered = |port: usize| format!("/ip4/10.0.0.1/tcp/{port}").parse::<Multiaddr>().unwrap();
        book.enter(first, (1..=MAX_BOOK_ADDRESSES + 5).map(numbered));
        assert_eq!(book.addresses(&first).len(), MAX_BOOK_ADDRESSES);
        assert_eq!(book.addresses(&first)[0], numbered(MAX_BOOK_ADDRESSES + 5));
        // Another peer's address is not taken for this one's.
        book.enter(first, [address::join(&numbered(9), PeerId::random())]);
        assert!(!book.addresses(&first).contains(&numbered(9)) || MAX_BOOK_ADDRESSES > 9);
        for _ in 0..MAX_BOOK_PEERS {
            book.enter(PeerId::random(), [numbered(1)]);
        }
        assert_eq!(book.iter().count(), MAX_BOOK_PEERS);
        assert!(book.addresses(&first).is_empty());
    }
}
