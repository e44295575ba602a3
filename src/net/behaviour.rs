//! The protocols of the node, put together.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, autonat, dcutr, identify, mdns, memory_connection_limits, ping, relay};

use super::bitswap;
use super::book::Book;
use super::dht::{Dht, Reach};
use super::probe::Probe;
use super::profile::Plan;
use crate::config::Watermarks;
use crate::limits::{MAX_CONNECTIONS_OF_PEER, MAX_PENDING_CONNECTIONS};

/// The protocols.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    // Those that may refuse a connection come first.
    pub limits: connection_limits::Behaviour,
    pub memory: memory_connection_limits::Behaviour,
    pub book: Book,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
    pub probe: Probe,
    pub wan: Toggle<Dht>,
    pub lan: Toggle<Dht>,
    pub mdns: Toggle<mdns::tokio::Behaviour>,
    pub autonat: Toggle<autonat::v2::client::Behaviour>,
    pub relay: Toggle<relay::client::Behaviour>,
    pub dcutr: Toggle<dcutr::Behaviour>,
    pub bitswap: bitswap::Behaviour,
}

/// What the protocols need beside the plan.
pub(super) struct Parts {
    pub agent: String,
    pub connections: Watermarks,
    /// How much memory the process may have before it takes no more connections.
    pub memory_bytes: usize,
    pub relay: Option<relay::client::Behaviour>,
    pub bitswap: bitswap::Behaviour,
}

impl Behaviour {
    /// As `plan` says.
    pub fn new(keypair: &Keypair, plan: &Plan, parts: Parts) -> Behaviour {
        let own = PeerId::from(keypair.public());
        // Trimming keeps to the marks; the hard bound is for what arrives faster than it trims.
        let hard = u32::try_from(parts.connections.high.saturating_mul(2)).unwrap_or(u32::MAX);
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING_CONNECTIONS))
            .with_max_pending_outgoing(Some(MAX_PENDING_CONNECTIONS))
            .with_max_established(Some(hard))
            .with_max_established_per_peer(Some(MAX_CONNECTIONS_OF_PEER));
        let identify = identify::Config::new("ipfs/0.1.0".into(), keypair.public())
            .with_agent_version(parts.agent)
            .with_push_listen_addr_updates(true)
            .with_interval(Duration::from_hours(1));
        let mdns = plan.mdns.then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), own));
        let mdns = mdns.and_then(|mdns| {
            mdns.inspect_err(|error| tracing::warn!(%error, "the local network cannot be watched (mDNS)")).ok()
        });
        let dht = |reach, wanted: bool| wanted.then(|| Dht::new(own, reach, plan.loopback_only));
        Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            memory: memory_connection_limits::Behaviour::with_max_bytes(parts.memory_bytes),
            book: Book::new(plan.near_only),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
            probe: Probe::default(),
            wan: dht(Reach::Wan, plan.wan).into(),
            lan: dht(Reach::Lan, plan.lan).into(),
            mdns: mdns.into(),
            autonat: plan.traversal.then(autonat::v2::client::Behaviour::default).into(),
            dcutr: parts.relay.is_some().then(|| dcutr::Behaviour::new(own)).into(),
            relay: parts.relay.into(),
            bitswap: parts.bitswap,
        }
    }

    /// One of the DHTs, where the plan has it.
    pub fn dht(&mut self, reach: Reach) -> Option<&mut Dht> {
        match reach {
            Reach::Wan => self.wan.as_mut(),
            Reach::Lan => self.lan.as_mut(),
        }
    }
}
