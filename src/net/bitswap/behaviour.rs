//! What libp2p sees of bitswap.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::future::{Ready, ready};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::ConnectionEstablished;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError,
    DialFailure, FromSwarm, ListenFailure, NetworkBehaviour, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol, ToSwarm,
};
use tokio::sync::mpsc;

use super::SessionId;
use super::driver::Core;
use super::message::Version;
use super::streams::{OpenError, OpenRequest, Outbox, Slot, accept};
use crate::block::Cid;

/// What bitswap has the swarm's owner do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody who is known has a block of a session: providers should be looked for, and given to
    /// [`super::Client::add_provider`]. Said again, more and more rarely, until a provider is found.
    ProvidersWanted {
        /// The session.
        session: SessionId,
        /// A block that nobody has; the session's root may be of more use to a search.
        cid: Cid,
    },
}

/// What the driver has the behaviour do.
pub enum ToBehaviour {
    Dial(PeerId),
    Search { session: SessionId, cid: Cid },
}

/// Bitswap as a part of a swarm: see [`super::new`].
pub struct Behaviour {
    core: Arc<Core>,
    from_driver: mpsc::UnboundedReceiver<ToBehaviour>,
    /// Connections whose handler was made and that are not established yet.
    pending: HashMap<ConnectionId, mpsc::UnboundedSender<OpenRequest>>,
}

impl Behaviour {
    pub(super) fn new(core: Arc<Core>, from_driver: mpsc::UnboundedReceiver<ToBehaviour>) -> Behaviour {
        Behaviour { core, from_driver, pending: HashMap::new() }
    }

    fn handler(&mut self, id: ConnectionId, peer: &PeerId) -> Handler {
        let (open, requests) = mpsc::unbounded_channel();
        self.pending.insert(id, open);
        Handler {
            core: self.core.clone(),
            outbox: self.core.connecting(peer),
            requests,
            streams: Arc::new(AtomicUsize::new(0)),
        }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.core.stop();
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, &peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(id, &peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                let outbox = self.core.connecting(&peer_id);
                if let Some(open) = self.pending.remove(&connection_id)
                    && outbox.add_connection(connection_id, open, endpoint.is_relayed())
                {
                    self.core.connected(&outbox);
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                let outbox = self.core.connecting(&peer_id);
                if outbox.remove_connection(connection_id) {
                    self.core.disconnected(&outbox);
                }
            }
            FromSwarm::DialFailure(DialFailure { peer_id, error, connection_id, .. }) => {
                let was_pending = self.pending.remove(&connection_id).is_some();
                // Somebody else dials the peer, or it is connected: that has its own end.
                let is_elsewhere = matches!(error, DialError::DialPeerConditionFalse(_));
                if let Some(peer) = peer_id
                    && (was_pending || !is_elsewhere)
                {
                    self.core.not_connected(&peer);
                }
            }
            FromSwarm::ListenFailure(ListenFailure { connection_id, peer_id, .. }) => {
                if self.pending.remove(&connection_id).is_some()
                    && let Some(peer) = peer_id
                {
                    self.core.not_connected(&peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ToSwarm<Event, Infallible>> {
        match self.from_driver.poll_recv(context) {
            Poll::Ready(Some(ToBehaviour::Dial(peer))) => {
                let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
                Poll::Ready(ToSwarm::Dial { opts })
            }
            Poll::Ready(Some(ToBehaviour::Search { session, cid })) => {
                Poll::Ready(ToSwarm::GenerateEvent(Event::ProvidersWanted { session, cid }))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// The protocols, the best one first.
#[derive(Clone, Copy, Debug)]
pub struct Protocols;

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, 3>;

    fn protocol_info(&self) -> Self::InfoIter {
        Version::ALL.map(|version| StreamProtocol::new(version.protocol())).into_iter()
    }
}

fn version(protocol: &StreamProtocol) -> Version {
    let of_name = |version: &Version| version.protocol() == protocol.as_ref();
    Version::ALL.into_iter().find(of_name).unwrap_or(Version::V1_0)
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, Version);
    type Error = Infallible;
    type Future = Ready<Result<(Stream, Version), Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, version(&protocol))))
    }
}

/// The part of bitswap that opens and accepts the streams of one connection.
pub struct Handler {
    core: Arc<Core>,
    outbox: Arc<Outbox>,
    requests: mpsc::UnboundedReceiver<OpenRequest>,
    streams: Arc<AtomicUsize>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(Protocols, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.outbox.is_busy.load(Ordering::Relaxed)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Protocols, OpenRequest, Infallible>> {
        match self.requests.poll_recv(context) {
            Poll::Ready(Some(request)) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Protocols, request),
            }),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), OpenRequest>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                // Beyond the bound a stream is reset.
                if let Some(slot) = Slot::take(&self.streams, self.core.config.inbound_streams) {
                    accept(&self.core, &self.outbox, stream, slot);
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                // Who asked may be gone: then the stream is closed.
                drop(info.send(Ok(protocol)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::NoProtocol,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenError::Failed,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                drop(info.send(Err(error)));
            }
            _ => {}
        }
    }
}
