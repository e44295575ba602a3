//! The node's own task: it drives the swarm, and does what the [handle](super::Net) asks for between two of its events.
//!
//! Nothing here waits or computes for long: blocks are hashed, framed and read elsewhere. What is asked for comes as a
//! closure over the node, so that each question stands in one place, with its answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::kad::{self, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, identify, mdns, ping};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::behaviour::{Behaviour, BehaviourEvent};
use super::bitswap::SessionId;
use super::dht::Reach;
use super::lookups::{Lookups, Waiting, answer, dial_error};
use super::peering::Peering;
use super::profile::Plan;
use super::relays::{self, Relays};
use super::report::{Connection, Counters, Identified, Shared};
use super::trim::{self, Candidate};
use super::{NetError, Provider, address, bitswap};
use crate::block::Cid;
use crate::config::Watermarks;
use crate::limits::{BOOTSTRAP_INTERVAL, BOOTSTRAP_PEERS, NODE_TICK, SHUTDOWN_NODE, TRIM_INTERVAL};

/// Something that is asked of the node.
pub(super) type Task = Box<dyn FnOnce(&mut Node) + Send>;

/// The node.
pub(super) struct Node {
    pub swarm: Swarm<Behaviour>,
    pub plan: Plan,
    pub marks: Watermarks,
    pub shared: Arc<Shared>,
    bitswap: bitswap::Client,
    /// Sessions that know nobody go to whoever looks for providers.
    searches: mpsc::Sender<(SessionId, Cid)>,
    connections: HashMap<ConnectionId, Link>,
    identified: HashMap<PeerId, Identified>,
    latencies: HashMap<PeerId, Duration>,
    by_hand: HashSet<PeerId>,
    pub peering: Peering,
    relays: Relays,
    dials: HashMap<ConnectionId, (String, oneshot::Sender<Result<PeerId, NetError>>)>,
    pub lookups: Lookups,
    bootstrapped: Option<Instant>,
    trimmed: Instant,
    stopping: Option<oneshot::Sender<()>>,
}

/// One connection.
struct Link {
    peer: PeerId,
    address: Multiaddr,
    is_inbound: bool,
    since: Instant,
}

impl Node {
    /// Around a swarm that listens already.
    pub fn new(
        swarm: Swarm<Behaviour>,
        plan: Plan,
        marks: Watermarks,
        shared: Arc<Shared>,
        bitswap: bitswap::Client,
        searches: mpsc::Sender<(SessionId, Cid)>,
    ) -> Node {
        let mut peering = Peering::default();
        let now = Instant::now();
        for (peer, plain) in plan.peering.iter().map(address::split) {
            if let Some(peer) = peer {
                peering.add(peer, Some(plain).filter(|plain| !plain.is_empty()), now);
            }
        }
        Node {
            swarm,
            plan,
            marks,
            shared,
            bitswap,
            searches,
            connections: HashMap::new(),
            identified: HashMap::new(),
            latencies: HashMap::new(),
            by_hand: HashSet::new(),
            peering,
            relays: Relays::new(now),
            dials: HashMap::new(),
            lookups: Lookups::default(),
            bootstrapped: None,
            trimmed: now,
            stopping: None,
        }
    }

    /// Runs until it is told to stop, or nobody is left to ask anything.
    pub async fn run(mut self, mut tasks: mpsc::Receiver<Task>) {
        let mut tick = tokio::time::interval(NODE_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.decide_service();
        while self.stopping.is_none() {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                task = tasks.recv() => match task {
                    Some(task) => task(&mut self),
                    None => break,
                },
                _ = tick.tick() => self.on_tick(),
            }
        }
        // Peers are told that we go, as far as they listen.
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let goodbye = async {
            while self.swarm.network_info().connection_counters().num_established() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(SHUTDOWN_NODE, goodbye).await;
        let stopping = self.stopping.take();
        // The sockets close before whoever waits goes on.
        drop(self);
        if let Some(reply) = stopping {
            answer(reply, ());
        }
    }

    /// Ends the node.
    pub fn stop(&mut self, reply: oneshot::Sender<()>) {
        self.stopping = Some(reply);
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        let swarm = &self.swarm;
        for (peer, addresses) in self.peering.due(now, |peer| swarm.is_connected(peer)) {
            tracing::debug!(%peer, "dialing a peer that we stay connected to");
            // A dial that fails is tried again when it is due.
            let _ = self.dial(peer, addresses, PeerCondition::DisconnectedAndNotDialing);
        }
        let few = self.swarm.connected_peers().count() < BOOTSTRAP_PEERS;
        let is_due = self.bootstrapped.is_none_or(|last| now.duration_since(last) >= BOOTSTRAP_INTERVAL);
        if few && is_due && !self.plan.bootstrap.is_empty() {
            self.bootstrapped = Some(now);
            for (peer, plain) in self.plan.bootstrap.clone().iter().map(address::split) {
                if let Some(peer) = peer {
                    let _ = self.dial(peer, vec![plain], PeerCondition::DisconnectedAndNotDialing);
                }
            }
        }
        if now.duration_since(self.trimmed) >= TRIM_INTERVAL {
            self.trimmed = now;
            self.trim(now);
        }
        self.tend_relays(now);
        for (reach, query) in self.lookups.abandoned() {
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                dht.finish(query);
            }
        }
        self.count();
    }

    /// Has relays let others through to us, where nobody can reach us otherwise.
    fn tend_relays(&mut self, now: Instant) {
        if !self.swarm.behaviour().relay.is_enabled() {
            return;
        }
        if self.is_reachable() {
            for listener in self.relays.let_go() {
                self.swarm.remove_listener(listener);
            }
            return;
        }
        if !self.relays.wants_more(now) {
            return;
        }
        let relays = |peer: &PeerId| {
            let told = self.identified.get(peer);
            told.is_some_and(|told| told.protocols.iter().any(|it| it == relays::HOP.as_ref()))
        };
        let fit = self.connections.values().find(|link| {
            // Where it dialed us, we do not know the address that others can dial.
            let is_direct = !link.is_inbound && !address::is_relayed(&link.address);
            is_direct && relays(&link.peer) && self.relays.may_ask(&link.peer)
        });
        let Some((peer, at)) = fit.map(|link| (link.peer, relays::through(&link.address, link.peer))) else { return };
        tracing::debug!(%peer, "asking a relay to let others through to us");
        let listener = self.swarm.listen_on(at).inspect_err(|error| tracing::debug!(%peer, %error, "no relay"));
        self.relays.asked(peer, listener.ok(), now);
    }

    /// Lets go of peers where there are too many.
    fn trim(&mut self, now: Instant) {
        let mut peers: BTreeMap<PeerId, Instant> = BTreeMap::new();
        for link in self.connections.values() {
            let since = peers.entry(link.peer).or_insert(link.since);
            *since = (*since).min(link.since);
        }
        if peers.len() <= self.marks.high {
            return;
        }
        let mut candidates = Vec::with_capacity(peers.len());
        for (peer, since) in peers {
            let ledger = self.bitswap.ledger(peer);
            let waits = ledger.as_ref().is_some_and(|ledger| !ledger.wantlist.is_empty());
            let is_spared = waits || self.peering.contains(&peer) || self.by_hand.contains(&peer);
            let exchanged_bytes = ledger.map_or(0, |ledger| ledger.sent_bytes + ledger.received_bytes);
            let behaviour = self.swarm.behaviour_mut();
            let mut routes = |reach| behaviour.dht(reach).is_some_and(|dht| dht.routes(peer));
            let routes = routes(Reach::Wan) || routes(Reach::Lan);
            candidates.push(Candidate { peer, is_spared, routes, exchanged_bytes, since });
        }
        let gone = trim::choose(candidates, self.marks, now);
        tracing::debug!(peers = gone.len(), "letting go of peers: there are too many");
        for peer in gone {
            self.shared.counters.trimmed.fetch_add(1, Relaxed);
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// Whether strangers can connect to us, without help.
    fn is_reachable(&self) -> bool {
        self.swarm.external_addresses().any(|it| address::is_public(it) && !address::is_relayed(it))
    }

    /// Decides which DHTs are served to others.
    fn decide_service(&mut self) {
        let is_reachable = self.is_reachable();
        for reach in [Reach::Wan, Reach::Lan] {
            let serves = self.plan.serves(reach, is_reachable);
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                dht.serve(serves);
            }
        }
    }

    /// Brings the counters up to date that are not counted as things happen.
    fn count(&mut self) {
        let shared = self.shared.clone();
        let Counters { peers, connections, routing_wan, routing_lan, records, lookups, .. } = &shared.counters;
        peers.store(self.swarm.connected_peers().count() as u64, Relaxed);
        connections.store(self.connections.len() as u64, Relaxed);
        lookups.store(self.lookups.len() as u64, Relaxed);
        let mut kept = 0;
        for (reach, size) in [(Reach::Wan, routing_wan), (Reach::Lan, routing_lan)] {
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                size.store(dht.size() as u64, Relaxed);
                kept += dht.kept();
            }
        }
        records.store(kept as u64, Relaxed);
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_protocol(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, num_established, .. } => {
                let (address, is_inbound) = match endpoint {
                    ConnectedPoint::Dialer { address, .. } => (address, false),
                    ConnectedPoint::Listener { send_back_addr, .. } => (send_back_addr, true),
                };
                tracing::debug!(peer = %peer_id, %address, is_inbound, "connected");
                let link = Link { peer: peer_id, address, is_inbound, since: Instant::now() };
                self.connections.insert(connection_id, link);
                self.peering.connected(&peer_id);
                if num_established.get() == 1
                    && let Some(tell) = self.shared.when_connected.get()
                {
                    tell();
                }
                if let Some((_, reply)) = self.dials.remove(&connection_id) {
                    answer(reply, Ok(peer_id));
                }
                self.count();
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, cause, .. } => {
                tracing::debug!(peer = %peer_id, ?cause, "disconnected");
                self.connections.remove(&connection_id);
                if num_established == 0 {
                    self.identified.remove(&peer_id);
                    self.latencies.remove(&peer_id);
                    self.by_hand.remove(&peer_id);
                    self.peering.lost(&peer_id, Instant::now());
                }
                self.count();
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.shared.counters.failed_dials.fetch_add(1, Relaxed);
                tracing::debug!(peer = ?peer_id, %error, "a dial failed");
                if let Some((peer, reply)) = self.dials.remove(&connection_id) {
                    answer(reply, Err(dial_error(&peer, &error)));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.shared.counters.refused.fetch_add(1, Relaxed);
                tracing::debug!(address = %send_back_addr, %error, "a connection to us failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => tracing::info!(%address, "listening"),
            // A relay that has gone, or will not: another one is asked.
            SwarmEvent::ListenerClosed { listener_id, .. } if self.relays.ended(listener_id) => {}
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let addresses = addresses.join(", ");
                tracing::warn!(addresses, %error, "we listen there no more");
                self.shared.problems.lock().push(format!("listening on {addresses} ended: {error}"));
            }
            SwarmEvent::ExternalAddrConfirmed { address } => {
                tracing::info!(%address, "others can reach us");
                self.decide_service();
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                tracing::info!(%address, "others cannot reach us any more");
                self.decide_service();
            }
            _ => {}
        }
    }

    fn on_protocol(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(latency), .. }) => {
                self.latencies.insert(peer, latency);
            }
            BehaviourEvent::Wan(event) => self.on_dht(Reach::Wan, event),
            BehaviourEvent::Lan(event) => self.on_dht(Reach::Lan, event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    if peer == *self.swarm.local_peer_id() {
                        continue;
                    }
                    tracing::debug!(%peer, %address, "found in the local network");
                    self.swarm.behaviour_mut().book.enter(peer, [address]);
                    if self.connections.len() < self.marks.high {
                        let _ = self.dial(peer, Vec::new(), PeerCondition::DisconnectedAndNotDialing);
                    }
                }
            }
            BehaviourEvent::Bitswap(bitswap::Event::ProvidersWanted { session, cid }) => {
                // It is said again while nobody is found.
                let _ = self.searches.try_send((session, cid));
            }
            BehaviourEvent::Autonat(event) => {
                tracing::debug!(address = %event.tested_addr, server = %event.server, result = ?event.result, "reachability");
            }
            BehaviourEvent::Dcutr(event) => {
                tracing::debug!(peer = %event.remote_peer_id, result = ?event.result, "a hole was punched, or not");
            }
            _ => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        for reach in [Reach::Wan, Reach::Lan] {
            let speaks = info.protocols.contains(&reach.protocol());
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                if speaks { dht.meet(peer, &info.listen_addrs) } else { dht.part(&peer) }
            }
        }
        let protocols = info.protocols.iter().map(ToString::to_string).collect();
        let identified = Identified {
            public_key: info.public_key.encode_protobuf(),
            agent: info.agent_version,
            protocols,
            addresses: info.listen_addrs,
        };
        self.identified.insert(peer, identified);
    }

    fn on_dht(&mut self, reach: Reach, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        let progress = self.lookups.progress(reach, id, result, step.last);
        for peer in progress.providers {
            if peer == *self.swarm.local_peer_id() {
                continue;
            }
            let dht = self.swarm.behaviour_mut().dht(reach);
            let mut addresses = dht.map_or(Vec::new(), |dht| dht.addresses(peer));
            addresses.extend(self.known_addresses(&peer));
            let mut seen = HashSet::new();
            let addresses: Vec<Multiaddr> = addresses.iter().map(|address| address::split(address).1).collect();
            let addresses: Vec<Multiaddr> = addresses.into_iter().filter(|it| seen.insert(it.clone())).collect();
            self.shared.counters.providers.fetch_add(1, Relaxed);
            self.swarm.behaviour_mut().book.enter(peer, addresses.clone());
            self.lookups.tell(reach, id, peer, addresses);
        }
        if step.last {
            self.lookups.end(reach, id);
        } else if progress.ended
            && let Some(dht) = self.swarm.behaviour_mut().dht(reach)
        {
            dht.finish(id);
        }
    }

    /// Dials a peer at these addresses and those that are known already.
    fn dial(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        condition: PeerCondition,
    ) -> Result<ConnectionId, NetError> {
        let options = DialOpts::peer_id(peer)
            .condition(condition)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        self.dial_with(options, &peer.to_string())
    }

    fn dial_with(&mut self, options: DialOpts, peer: &str) -> Result<ConnectionId, NetError> {
        let id = options.connection_id();
        self.shared.counters.dials.fetch_add(1, Relaxed);
        self.swarm.dial(options).map(|()| id).map_err(|error| dial_error(peer, &error))
    }

    /// Connects, by hand: such a peer is not trimmed. Where there is a connection already, that is enough.
    pub fn connect(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: oneshot::Sender<Result<PeerId, NetError>>,
    ) {
        if let Some(peer) = peer {
            self.by_hand.insert(peer);
            if self.swarm.is_connected(&peer) {
                return answer(reply, Ok(peer));
            }
        }
        let name =
            peer.map_or_else(|| addresses.first().map(ToString::to_string).unwrap_or_default(), |p| p.to_string());
        let dialed = match (peer, addresses.first()) {
            (Some(peer), _) => self.dial(peer, addresses, PeerCondition::Always),
            (None, Some(address)) => {
                self.dial_with(DialOpts::unknown_peer_id().address(address.clone()).build(), &name)
            }
            (None, None) => Err(NetError::Dial { peer: name.clone(), why: "no address was given".into() }),
        };
        match dialed {
            Ok(id) => drop(self.dials.insert(id, (name, reply))),
            Err(error) => {
                if let Some(peer) = peer {
                    self.by_hand.remove(&peer);
                }
                answer(reply, Err(error));
            }
        }
    }

    /// Disconnects; false where there was no connection.
    pub fn disconnect(&mut self, peer: PeerId) -> bool {
        self.swarm.disconnect_peer_id(peer).is_ok()
    }

    /// Whether there is a connection, and whether any address is known otherwise.
    pub fn knows(&mut self, peer: PeerId) -> bool {
        self.swarm.is_connected(&peer)
            || !self.swarm.behaviour().book.addresses(&peer).is_empty()
            || [Reach::Wan, Reach::Lan]
                .into_iter()
                .any(|reach| self.swarm.behaviour_mut().dht(reach).is_some_and(|dht| !dht.addresses(peer).is_empty()))
    }

    /// Every connection.
    pub fn connections(&self) -> Vec<Connection> {
        let connection = |link: &Link| Connection {
            peer: link.peer,
            address: address::split(&link.address).1,
            is_inbound: link.is_inbound,
            latency: self.latencies.get(&link.peer).copied(),
            identified: self.identified.get(&link.peer).cloned(),
        };
        self.connections.values().map(connection).collect()
    }

    /// What a connected peer told of itself.
    pub fn identified(&self, peer: &PeerId) -> Option<Identified> {
        self.identified.get(peer).cloned()
    }

    fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let told = self.identified.get(peer).map(|it| it.addresses.clone()).unwrap_or_default();
        let dialed = self.connections.values().filter(|link| link.peer == *peer && !link.is_inbound);
        dialed.map(|link| address::split(&link.address).1).chain(told).collect()
    }

    /// Every peer whose addresses are known, with these.
    pub fn addresses(&self) -> BTreeMap<PeerId, Vec<Multiaddr>> {
        let book = self.swarm.behaviour().book.iter();
        let mut all: BTreeMap<PeerId, Vec<Multiaddr>> =
            book.map(|(peer, addresses)| (*peer, addresses.to_vec())).collect();
        let connected: HashSet<PeerId> = self.connections.values().map(|link| link.peer).collect();
        for peer in connected {
            let known = all.entry(peer).or_default();
            for address in self.known_addresses(&peer) {
                let (_, plain) = address::split(&address);
                if !known.contains(&plain) {
                    known.push(plain);
                }
            }
        }
        all
    }

    /// The addresses that we tell others: what we listen on, and where we are known to be reached.
    pub fn own_addresses(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
        for address in self.swarm.listeners() {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// The protocols that we speak.
    pub fn protocols(&mut self) -> Vec<String> {
        let mut all = vec!["/ipfs/id/1.0.0".to_owned(), "/ipfs/id/push/1.0.0".into(), "/ipfs/ping/1.0.0".into()];
        all.extend(["1.0.0", "1.1.0", "1.2.0"].map(|version| format!("/ipfs/bitswap/{version}")));
        for reach in [Reach::Wan, Reach::Lan] {
            if self.swarm.behaviour_mut().dht(reach).is_some_and(|dht| dht.serves()) {
                all.push(reach.protocol().to_string());
            }
        }
        if self.swarm.behaviour().relay.is_enabled() {
            all.extend(["/libp2p/circuit/relay/0.2.0/stop".into(), "/libp2p/dcutr".into()]);
        }
        if self.swarm.behaviour().autonat.is_enabled() {
            all.push("/libp2p/autonat/2/dial-back".into());
        }
        all.sort();
        all
    }

    /// Starts looking for the providers of `key` in every DHT; what is found goes to `found`, which is closed at the end.
    pub fn find_providers(&mut self, key: &RecordKey, found: &mpsc::Sender<Provider>) {
        self.shared.counters.searches.fetch_add(1, Relaxed);
        for reach in [Reach::Wan, Reach::Lan] {
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                let query = dht.find_providers(key.clone());
                let waiting = Waiting::Providers { found: found.clone(), told: HashSet::new() };
                self.lookups.start(reach, query, waiting);
            }
        }
    }

    /// Looks for the addresses of `peer`.
    pub fn find_peer(&mut self, peer: PeerId, found: &mpsc::Sender<Provider>) {
        let known = self.known_addresses(&peer);
        if !known.is_empty() {
            let _ = found.try_send(Provider { peer, addresses: known });
            return;
        }
        for reach in [Reach::Wan, Reach::Lan] {
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach) {
                let query = dht.find_peer(peer);
                self.lookups.start(reach, query, Waiting::Peer { peer, found: found.clone() });
            }
        }
    }

    /// Announces `key` in every DHT that knows somebody; each announcement sends one word when it is made.
    pub fn provide(&mut self, key: &RecordKey, done: &mpsc::Sender<()>) {
        for reach in [Reach::Wan, Reach::Lan] {
            if let Some(dht) = self.swarm.behaviour_mut().dht(reach)
                && dht.size() > 0
                && let Some(query) = dht.provide(key.clone())
            {
                self.shared.counters.announced.fetch_add(1, Relaxed);
                self.lookups.start(reach, query, Waiting::Provide { done: done.clone() });
            }
        }
    }
}
