//! What an address tells about where it leads: to this machine, to the local network, or to the public one.
//!
//! The public DHT is told public addresses alone, and the LAN's those of the local network, as kubo does it: a private
//! address means nothing to a stranger, and tells more than they need to know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::PeerId;
use libp2p::multiaddr::{Multiaddr, Protocol};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This machine.
    Loopback,
    /// The local network: private and link-local ranges.
    Local,
    /// Everywhere.
    Public,
    /// A name, which may lead anywhere.
    Name,
    /// Nowhere: reserved ranges, or what has no place in an address to dial.
    Nowhere,
}

/// How far `address` reaches. One that goes through a relay reaches as far as the relay's.
pub fn scope(address: &Multiaddr) -> Scope {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => scope_of_ip4(ip),
        Some(Protocol::Ip6(ip)) => ip.to_ipv4_mapped().map_or_else(|| scope_of_ip6(ip), scope_of_ip4),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => Scope::Name,
        _ => Scope::Nowhere,
    }
}

/// Whether a stranger on the public network can use `address`.
pub fn is_public(address: &Multiaddr) -> bool {
    matches!(scope(address), Scope::Public | Scope::Name)
}

/// Whether `address` leads to this machine or the local network.
pub fn is_near(address: &Multiaddr) -> bool {
    matches!(scope(address), Scope::Loopback | Scope::Local)
}

fn scope_of_ip4(ip: Ipv4Addr) -> Scope {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Scope::Loopback,
        // 100.64.0.0/10 is what providers give their customers: not public either.
        (10, ..) | (192, 168, _) | (169, 254, _) | (172, 16..=31, _) | (100, 64..=127, _) => Scope::Local,
        (0 | 224.., ..) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Scope::Nowhere
        }
        _ => Scope::Public,
    }
}

fn scope_of_ip6(ip: Ipv6Addr) -> Scope {
    match ip.segments() {
        _ if ip.is_loopback() => Scope::Loopback,
        [0xfc00..=0xfdff | 0xfe80..=0xfebf, ..] => Scope::Local,
        [0x2001, 0xdb8, ..] => Scope::Nowhere,
        [0x2000..=0x3fff, ..] => Scope::Public,
        _ => Scope::Nowhere,
    }
}

/// The IP that `address` begins with.
pub fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Whether `address` goes through a relay.
pub fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Whether `address` is one of QUIC.
pub fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1 | Protocol::Quic))
}

/// The peer at the end of `address`, and what stands before it.
pub fn split(address: &Multiaddr) -> (Option<PeerId>, Multiaddr) {
    let mut rest = address.clone();
    match rest.pop() {
        Some(Protocol::P2p(peer)) => (Some(peer), rest),
        _ => (None, address.clone()),
    }
}

/// `address` with the peer at its end, once.
pub fn join(address: &Multiaddr, peer: PeerId) -> Multiaddr {
    let (_, mut whole) = split(address);
    whole.push(Protocol::P2p(peer));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_has_its_scope() {
        for (address, expected) in [
            ("/ip4/127.0.0.1/tcp/1", Scope::Loopback),
            ("/ip6/::1/udp/1/quic-v1", Scope::Loopback),
            ("/ip4/10.1.2.3/tcp/1", Scope::Local),
            ("/ip4/172.31.0.1/tcp/1", Scope::Local),
            ("/ip4/172.32.0.1/tcp/1", Scope::Public),
            ("/ip4/192.168.1.1/tcp/1", Scope::Local),
            ("/ip4/169.254.1.1/tcp/1", Scope::Local),
            ("/ip4/100.64.0.1/tcp/1", Scope::Local),
            ("/ip6/fe80::1/tcp/1", Scope::Local),
            ("/ip6/fd00::1/tcp/1", Scope::Local),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Scope::Local),
            ("/ip4/8.8.8.8/tcp/1", Scope::Public),
            ("/ip6/2606:4700::1/tcp/1", Scope::Public),
            ("/ip4/0.0.0.0/tcp/1", Scope::Nowhere),
            ("/ip4/203.0.113.9/tcp/1", Scope::Nowhere),
            ("/ip4/239.0.0.1/tcp/1", Scope::Nowhere),
            ("/ip6/2001:db8::1/tcp/1", Scope::Nowhere),
            ("/dnsaddr/bootstrap.libp2p.io", Scope::Name),
            ("/tcp/1", Scope::Nowhere),
        ] {
            assert_eq!(scope(&address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn the_peer_of_an_address_is_its_last_part() {
        let peer = PeerId::random();
        let plain: Multiaddr = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let whole = join(&plain, peer);
        assert_eq!(split(&whole), (Some(peer), plain.clone()));
        assert_eq!(join(&whole, peer), whole);
        assert_eq!(split(&plain), (None, plain));
    }
}
