//! Listening for others.
//!
//! libp2p shares its TCP ports with whoever else is willing to (`SO_REUSEPORT`), so a second node on the same port would take a
//! share of the first one's connections, and nobody would be told. So it is looked first whether a port is free.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use libp2p::Swarm;
use libp2p::multiaddr::{Multiaddr, Protocol};

use super::address;
use super::behaviour::Behaviour;

/// Listens on `addresses`; what cannot be listened on is told, for people. Where it is that the machine has no IPv6, that is
/// as it should be.
pub(super) fn on(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Vec<String> {
    // All before the first: an address of IPv6 may stand for IPv4 too.
    let free: Vec<io::Result<()>> = addresses.iter().map(free).collect();
    let mut problems = Vec::new();
    for (address, free) in addresses.iter().zip(free) {
        let listens = free.and_then(|()| swarm.listen_on(address.clone()).map(drop).map_err(io::Error::other));
        let Err(error) = listens else { continue };
        if is_ip6(address) && lacks_ip6(&error.to_string()) {
            tracing::info!(%address, "this machine has no IPv6");
            continue;
        }
        tracing::warn!(%address, %error, "cannot listen (setting network.listen)");
        problems
            .push(format!("cannot listen on {address} (setting network.listen), so others may not reach us: {error}"));
    }
    problems
}

/// Whether nobody else listens on a TCP address. Other kinds of addresses are not shared.
fn free(address: &Multiaddr) -> io::Result<()> {
    let port = address.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None });
    match (address::ip(address), port) {
        (Some(ip), Some(port)) if port != 0 => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        _ => Ok(()),
    }
}

fn is_ip6(address: &Multiaddr) -> bool {
    matches!(address::ip(address), Some(IpAddr::V6(_)))
}

fn lacks_ip6(error: &str) -> bool {
    ["Address family not supported", "Cannot assign requested address"].iter().any(|text| error.contains(text))
}
