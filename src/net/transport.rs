//! How bytes get from one machine to another: TCP (encrypted with TLS, else noise, and divided into streams by yamux), QUIC, and
//! relays; names are looked up first. In a private swarm TCP alone, under the swarm's own cipher.
//!
//! TLS is offered before noise: it encrypts with AES, which processors do in hardware ([`secure`]). TCP gets a head start over QUIC where
//! both lead to a peer, since one TCP connection moves several times the bytes for the same work; a peer that only answers
//! on QUIC loses [`QUIC_HANDICAP`] once, at the first connection.
//!
//! The profile's bound on whom we talk to is kept here, where no other part can go around it: see [`Gate`].

mod frames;
mod muxer;
mod secure;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, OptionalTransport, TransportError, TransportEvent};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PreSharedKey};
use libp2p::{Multiaddr, PeerId, dns, quic, relay, tcp};

use self::muxer::Yamux;
use self::secure::Secure;
use super::address;
use super::error::NetError;
use crate::limits::{HANDSHAKE_TIMEOUT, MAX_STREAMS, QUIC_HANDICAP};

/// Where the system says who looks up names.
const RESOLVER_FILE: &str = "/etc/resolv.conf";

/// What a connection is once it stands: who is at its other end, and its streams.
type Connected = (PeerId, StreamMuxerBox);

/// What is to be built.
pub(super) struct Plan<'a> {
    /// Who we are.
    pub keypair: &'a Keypair,
    /// The key of the private swarm, where we are in one.
    pub swarm_key: Option<PreSharedKey>,
    /// Whether only machines of the local network may be dialed.
    pub near_only: bool,
    /// Whether relays are used.
    pub relay: Option<relay::client::Transport>,
}

/// Builds all of it.
pub(super) fn build(plan: Plan<'_>) -> Result<Boxed<Connected>, NetError> {
    let failed = |what| move |why: &dyn std::fmt::Display| NetError::Start { what, why: why.to_string() };
    let secure = Secure::new(plan.keypair).map_err(|error| failed("encrypt connections")(&error))?;
    let socket = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let tcp = match plan.swarm_key {
        Some(key) => {
            let cipher = PnetConfig::new(key);
            streams(socket.and_then(move |socket, _| cipher.handshake(socket)), secure.clone())
        }
        None => streams(socket, secure.clone()),
    };
    let quic = plan.swarm_key.is_none().then(|| {
        let mut config = quic::Config::new(plan.keypair);
        config.max_concurrent_stream_limit = MAX_STREAMS as u32;
        config.handshake_timeout = HANDSHAKE_TIMEOUT;
        quic::tokio::Transport::new(config).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
    });
    let quic = quic.map_or_else(OptionalTransport::none, OptionalTransport::some);
    let direct = quic.or_transport(tcp).map(|either, _| either.into_inner()).boxed();
    let gate = Gate { below: direct, near_only: plan.near_only };
    let named = if Path::new(RESOLVER_FILE).exists() {
        let named = dns::tokio::Transport::system(gate);
        named.map_err(|error| failed("read the settings of the system's resolver")(&error))?.boxed()
    } else {
        tracing::warn!("there is no {RESOLVER_FILE}: peers are reached by numbers alone, not by names");
        gate.boxed()
    };
    let Some(relay) = plan.relay else { return Ok(named) };
    let relayed = streams(relay, secure);
    // Relayed addresses first: the others do not know them.
    Ok(relayed.or_transport(named).map(|either, _| either.into_inner()).boxed())
}

/// Encrypts what `below` connects and divides it into streams. A handshake that takes too long is given up.
fn streams<T>(below: T, secure: Secure) -> Boxed<Connected>
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send,
    T::ListenerUpgrade: Send,
{
    let upgraded = below.upgrade(Version::V1Lazy).authenticate(secure).multiplex(Yamux::new());
    TransportTimeout::new(upgraded.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))), HANDSHAKE_TIMEOUT)
        .boxed()
}

/// Dials what the profile allows, and QUIC a little later than TCP. It stands below the resolver, so that it sees where a
/// name leads.
struct Gate {
    below: Boxed<Connected>,
    near_only: bool,
}

impl Transport for Gate {
    type Output = Connected;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connected> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Connected>>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.below.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.below.remove_listener(id)
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        if self.near_only && !address::is_near(&address) {
            let why = format!("{address} is not in the local network, and network.profile is lan");
            return Err(TransportError::Other(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        }
        // Both sides of a punched hole count on the moment: no delay there.
        let waits = address::is_quic(&address) && options.role == Endpoint::Dialer;
        let dial = self.below.dial(address, options)?;
        Ok(async move {
            if waits {
                tokio::time::sleep(QUIC_HANDICAP).await;
            }
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.below).poll(cx)
    }
}
