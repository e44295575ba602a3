//! How long a peer takes to answer, asked when somebody wants to know (`cidfs ping`): 32 bytes that it sends back, in the
//! protocol `/ipfs/ping/1.0.0`.
//!
//! libp2p's own ping asks every quarter of a minute whether a connection still stands, and answers the pings of others; it
//! cannot be told to ask now. It answers one stream of a peer at a time, and drops the one before: where ours was dropped for its
//! own, it is asked again.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use crate::limits::PING_TIMEOUT;

/// Where the answer goes: how long it took, or why there is none.
pub(super) type Reply = oneshot::Sender<Result<Duration, String>>;

/// Asks peers.
#[derive(Default)]
pub(super) struct Probe {
    asked: VecDeque<(PeerId, Reply)>,
}

impl Probe {
    /// Asks `peer`, which is connected.
    pub fn ask(&mut self, peer: PeerId, reply: Reply) {
        self.asked.push_back((peer, reply));
    }
}

impl NetworkBehaviour for Probe {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.asked.pop_front() {
            Some((peer_id, event)) => {
                Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event })
            }
            None => Poll::Pending,
        }
    }
}

/// Streams that are opened until one is answered.
const TRIES: u32 = 3;

/// Somebody who wants to know.
pub(super) struct Question {
    reply: Reply,
    tries_left: u32,
}

/// Asks on one connection.
#[derive(Default)]
pub(super) struct Handler {
    wanted: VecDeque<Question>,
    /// Gives the question back where it is to be asked again.
    running: Option<BoxFuture<'static, Option<Question>>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Reply;
    type ToBehaviour = std::convert::Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Question;

    fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Question, Self::ToBehaviour>> {
        if let Some(running) = &mut self.running
            && let Poll::Ready(again) = running.poll_unpin(cx)
        {
            self.running = None;
            self.wanted.extend(again);
        }
        if self.running.is_none()
            && let Some(question) = self.wanted.pop_front()
        {
            let upgrade = ReadyUpgrade::new(libp2p::ping::PROTOCOL_NAME);
            let protocol = SubstreamProtocol::new(upgrade, question).with_timeout(PING_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, reply: Reply) {
        self.wanted.push_back(Question { reply, tries_left: TRIES });
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, DeniedUpgrade, Self::OutboundProtocol, (), Question>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.running = Some(ask(protocol, info).boxed());
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                // Whoever asked may have gone.
                let _ = info.reply.send(Err(error.to_string()));
            }
            _ => {}
        }
    }
}

async fn ask(mut stream: Stream, mut question: Question) -> Option<Question> {
    let start = Instant::now();
    // Sent back as it is: anything does.
    let word: [u8; 32] = std::array::from_fn(|index| (start.elapsed().subsec_nanos() as u8).wrapping_add(index as u8));
    let exchange = async {
        stream.write_all(&word).await?;
        stream.flush().await?;
        let mut back = [0; 32];
        stream.read_exact(&mut back).await?;
        let _ = stream.close().await;
        if back == word { Ok(start.elapsed()) } else { Err(std::io::Error::other("it sent something else back")) }
    };
    let result = match tokio::time::timeout(PING_TIMEOUT, exchange).await {
        Ok(Err(_)) if question.tries_left > 1 => {
            question.tries_left -= 1;
            return Some(question);
        }
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("nothing came back within {} s", PING_TIMEOUT.as_secs())),
    };
    // Whoever asked may have gone.
    let _ = question.reply.send(result);
    None
}
