//! The two DHTs: the public one (`/ipfs/kad/1.0.0`) and that of the local network (`/ipfs/lan/kad/1.0.0`).
//!
//! They are two so that neither spoils the other, as kubo has it: the public one hears of public addresses alone, and the
//! local one of those of the local network. A [`Dht`] is Kademlia with that filter around it, in both directions: which of
//! our addresses it announces, and which addresses of others it dials, keeps and hands on.
//!
//! Whether this node answers others (server) or only asks (client) is decided by the node: see [`Dht::serve`].

use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::kad::{self, BucketInserts, QueryId, RecordKey};
use libp2p::swarm::behaviour::{ExpiredListenAddr, ExternalAddrConfirmed, ExternalAddrExpired, NewListenAddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::address::{self, Scope};
use super::records::Records;
use crate::limits::{DHT_PARALLELISM, DHT_QUERY_TIMEOUT, PROVIDER_RECORD_LIFE};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// The public one.
    Wan,
    /// That of the local network.
    Lan,
}

impl Reach {
    /// The protocol's name.
    pub fn protocol(self) -> StreamProtocol {
        match self {
            Reach::Wan => StreamProtocol::new("/ipfs/kad/1.0.0"),
            Reach::Lan => StreamProtocol::new("/ipfs/lan/kad/1.0.0"),
        }
    }

    /// Whether an address belongs into this DHT.
    pub fn takes(self, address: &Multiaddr) -> bool {
        match self {
            Reach::Wan => address::is_public(address),
            Reach::Lan => address::is_near(address),
        }
    }
}

/// One of the two DHTs.
pub(super) struct Dht {
    reach: Reach,
    kad: kad::Behaviour<Records>,
    /// Whether we can be reached from this machine alone, so that loopback addresses are worth telling.
    loopback_only: bool,
}

impl Dht {
    /// As a client of it, for now.
    pub fn new(own: PeerId, reach: Reach, loopback_only: bool) -> Dht {
        let mut config = kad::Config::new(reach.protocol());
        config
            .set_query_timeout(DHT_QUERY_TIMEOUT)
            .set_parallelism(DHT_PARALLELISM)
            // A peer is taken up when it has said what it speaks and where it can be reached.
            .set_kbucket_inserts(BucketInserts::Manual)
            .set_provider_record_ttl(Some(PROVIDER_RECORD_LIFE))
            .set_provider_publication_interval(None)
            .set_publication_interval(None)
            .set_replication_interval(None)
            .set_periodic_bootstrap_interval(Some(Duration::from_mins(10)));
        let mut kad = kad::Behaviour::with_config(own, Records::new(own, reach), config);
        kad.set_mode(Some(kad::Mode::Client));
        Dht { reach, kad, loopback_only }
    }

    /// Answers others from now on, or stops to.
    pub fn serve(&mut self, serves: bool) {
        let mode = if serves { kad::Mode::Server } else { kad::Mode::Client };
        if self.kad.mode() != mode {
            tracing::info!(dht = ?self.reach, serves, "whether we answer others in the DHT has changed");
            self.kad.set_mode(Some(mode));
        }
    }

    /// Whether it answers others.
    pub fn serves(&self) -> bool {
        self.kad.mode() == kad::Mode::Server
    }

    /// A peer has told that it speaks this protocol, and where it can be reached.
    pub fn meet(&mut self, peer: PeerId, addresses: &[Multiaddr]) {
        for address in addresses.iter().filter(|address| self.reach.takes(address)) {
            self.kad.add_address(&peer, address.clone());
        }
    }

    /// A peer does not speak it any more.
    pub fn part(&mut self, peer: &PeerId) {
        self.kad.remove_peer(peer);
    }

    /// Whether the routing table holds `peer`.
    pub fn routes(&mut self, peer: PeerId) -> bool {
        self.kad.kbucket(peer).is_some_and(|bucket| bucket.iter().any(|entry| *entry.node.key.preimage() == peer))
    }

    /// How many peers the routing table holds.
    pub fn size(&mut self) -> usize {
        self.kad.kbuckets().map(|bucket| bucket.num_entries()).sum()
    }

    /// How many keys are kept for others.
    pub fn kept(&mut self) -> usize {
        self.kad.store_mut().len()
    }

    /// The addresses of a peer that the routing table or a lookup that is under way knows.
    pub fn addresses(&mut self, peer: PeerId) -> Vec<Multiaddr> {
        let unused = ConnectionId::new_unchecked(0);
        // Kademlia denies no connection: the question has no effect.
        self.handle_pending_outbound_connection(unused, Some(peer), &[], Endpoint::Dialer).unwrap_or_default()
    }

    /// Looks for providers.
    pub fn find_providers(&mut self, key: RecordKey) -> QueryId {
        self.kad.get_providers(key)
    }

    /// Looks for the peers closest to a peer: itself, where it can be found.
    pub fn find_peer(&mut self, peer: PeerId) -> QueryId {
        self.kad.get_closest_peers(peer)
    }

    /// Tells the DHT that we provide `key`.
    pub fn provide(&mut self, key: RecordKey) -> Option<QueryId> {
        self.kad.start_providing(key).ok()
    }

    /// Ends a lookup that nobody waits for.
    pub fn finish(&mut self, query: QueryId) {
        if let Some(mut query) = self.kad.query_mut(&query) {
            query.finish();
        }
    }

    /// Whether an address of ours is worth telling.
    fn tells(&self, address: &Multiaddr) -> bool {
        self.reach.takes(address) && (self.loopback_only || address::scope(address) != Scope::Loopback)
    }
}

impl NetworkBehaviour for Dht {
    type ConnectionHandler = <kad::Behaviour<Records> as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = kad::Event;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.kad.handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_inbound_connection(connection, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let mut found = self.kad.handle_pending_outbound_connection(connection, peer, addresses, role)?;
        found.retain(|address| self.reach.takes(address));
        Ok(found)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.kad.handle_established_outbound_connection(connection, peer, address, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            // What we listen on in the local network can be reached there: nobody has to confirm it.
            FromSwarm::NewListenAddr(NewListenAddr { addr, .. }) if self.reach == Reach::Lan => {
                if self.tells(addr) {
                    self.kad.on_swarm_event(event);
                    self.kad.on_swarm_event(FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr }));
                }
            }
            FromSwarm::ExpiredListenAddr(ExpiredListenAddr { addr, .. }) if self.reach == Reach::Lan => {
                self.kad.on_swarm_event(event);
                self.kad.on_swarm_event(FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr }));
            }
            FromSwarm::NewListenAddr(NewListenAddr { addr, .. })
            | FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr })
                if !self.tells(addr) => {}
            event => self.kad.on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        self.kad.on_connection_handler_event(peer, connection, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.kad.poll(cx)
    }
}
