//! A peer that does what a test tells it to: it opens streams, writes any bytes on them, and shows what it gets.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cidfs::block::{Block, Cid};
use futures::future::{Ready, ready};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, SwarmEvent, ToSwarm,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::net::{listen, swarm};

/// The messages of the protocol, written down once more: what the peer says does not depend on what it is said to.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(message, optional, tag = "1")]
    pub wantlist: Option<Wantlist>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub blocks: Vec<Bytes>,
    #[prost(message, repeated, tag = "3")]
    pub payload: Vec<Payload>,
    #[prost(message, repeated, tag = "4")]
    pub presences: Vec<Presence>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Wantlist {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Entry>,
    #[prost(bool, tag = "2")]
    pub full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(bytes = "vec", tag = "1")]
    pub block: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub priority: i32,
    #[prost(bool, tag = "3")]
    pub cancel: bool,
    #[prost(int32, tag = "4")]
    pub want_type: i32,
    #[prost(bool, tag = "5")]
    pub send_dont_have: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Payload {
    #[prost(bytes = "vec", tag = "1")]
    pub prefix: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Presence {
    #[prost(bytes = "vec", tag = "1")]
    pub cid: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub kind: i32,
}

/// A want for a block.
pub fn want(cid: &Cid) -> Entry {
    Entry { block: cid.as_bytes().to_vec(), priority: 1, send_dont_have: true, ..Entry::default() }
}

pub fn wants(entries: Vec<Entry>) -> Message {
    Message { wantlist: Some(Wantlist { entries, full: false }), ..Message::default() }
}

/// A raw block of sha2-256.
pub fn payload(block: &Block) -> Payload {
    Payload { prefix: vec![1, 0x55, 0x12, 32], data: block.data().clone() }
}

pub fn have(cid: &Cid, is_here: bool) -> Presence {
    Presence { cid: cid.as_bytes().to_vec(), kind: i32::from(!is_here) }
}

pub fn frame(message: &Message) -> Vec<u8> {
    message.encode_length_delimited_to_vec()
}

/// A peer. It ends when it is dropped.
pub struct Raw {
    pub peer: PeerId,
    pub tcp: Multiaddr,
    opens: mpsc::UnboundedSender<oneshot::Sender<Stream>>,
    /// What others say to it.
    pub messages: mpsc::UnboundedReceiver<Message>,
    _stop: oneshot::Sender<()>,
}

impl Raw {
    /// A peer that speaks these protocols.
    pub async fn start(protocols: &'static [&'static str]) -> Raw {
        let (opens, mut opening) = mpsc::unbounded_channel::<oneshot::Sender<Stream>>();
        let (said, messages) = mpsc::unbounded_channel();
        let mut swarm =
            swarm(|_| RawBehaviour { protocols, said, peer: None, queue: Vec::new() }, Duration::from_mins(1));
        let tcp = listen(&mut swarm, "/ip4/127.0.0.1/tcp/0").await;
        let peer = *swarm.local_peer_id();
        let (stop, mut stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return,
                    Some(open) = opening.recv() => swarm.behaviour_mut().queue.push(open),
                    event = swarm.select_next_some() => if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event {
                        swarm.behaviour_mut().peer = Some(peer_id);
                    },
                }
            }
        });
        Raw { peer, tcp, opens, messages, _stop: stop }
    }

    pub async fn bitswap() -> Raw {
        Raw::start(&["/ipfs/bitswap/1.2.0"]).await
    }

    /// A stream to whoever is connected.
    pub async fn open(&self) -> Stream {
        let (open, opened) = oneshot::channel();
        self.opens.send(open).unwrap();
        opened.await.expect("a stream is opened")
    }

    /// Says something on a stream of its own, as Go does.
    pub async fn say(&self, message: &Message) {
        let mut stream = self.open().await;
        stream.write_all(&frame(message)).await.unwrap();
        stream.close().await.unwrap();
    }

    /// The next message that says anything.
    pub async fn hear(&mut self) -> Message {
        tokio::time::timeout(Duration::from_secs(20), self.messages.recv()).await.expect("something is said").unwrap()
    }

    /// Waits until all of these are wanted.
    pub async fn hear_wants(&mut self, cids: &[&Cid]) {
        let mut left: Vec<&[u8]> = cids.iter().map(|cid| cid.as_bytes()).collect();
        while !left.is_empty() {
            let message = self.hear().await;
            for entry in message.wantlist.into_iter().flat_map(|wantlist| wantlist.entries) {
                left.retain(|cid| entry.cancel || *cid != entry.block);
            }
        }
    }
}

struct RawBehaviour {
    protocols: &'static [&'static str],
    said: mpsc::UnboundedSender<Message>,
    peer: Option<PeerId>,
    queue: Vec<oneshot::Sender<Stream>>,
}

struct RawHandler {
    protocols: Protocols,
    said: mpsc::UnboundedSender<Message>,
    opening: Vec<oneshot::Sender<Stream>>,
}

#[derive(Debug)]
struct Open(oneshot::Sender<Stream>);

impl NetworkBehaviour for RawBehaviour {
    type ConnectionHandler = RawHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<RawHandler, ConnectionDenied> {
        Ok(RawHandler { protocols: Protocols(self.protocols), said: self.said.clone(), opening: Vec::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<RawHandler, ConnectionDenied> {
        self.handle_established_inbound_connection(id, peer, address, address)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Open>> {
        if let Some(peer_id) = self.peer
            && let Some(open) = self.queue.pop()
        {
            return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event: Open(open) });
        }
        Poll::Pending
    }
}

#[derive(Clone)]
struct Protocols(&'static [&'static str]);

impl UpgradeInfo for Protocols {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|name| StreamProtocol::new(name)).collect::<Vec<_>>().into_iter()
    }
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
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl ConnectionHandler for RawHandler {
    type FromBehaviour = Open;
    type ToBehaviour = Infallible;
    type InboundProtocol = Protocols;
    type OutboundProtocol = Protocols;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;

    fn listen_protocol(&self) -> SubstreamProtocol<Protocols> {
        SubstreamProtocol::new(self.protocols.clone(), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Protocols, oneshot::Sender<Stream>, Infallible>> {
        match self.opening.pop() {
            Some(open) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(self.protocols.clone(), open),
            }),
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, Open(open): Open) {
        self.opening.push(open);
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Protocols, Protocols, (), oneshot::Sender<Stream>>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                tokio::spawn(listen_to(stream, self.said.clone()));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info }) => {
                drop(info.send(stream));
            }
            _ => {}
        }
    }
}

async fn listen_to(mut stream: Stream, said: mpsc::UnboundedSender<Message>) {
    loop {
        let mut len = 0_usize;
        let mut byte = [0];
        for shift in (0..35).step_by(7) {
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            len |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let message = Message::decode(Bytes::from(body)).expect("what we send is a message");
        if said.send(message).is_err() {
            return;
        }
    }
}
