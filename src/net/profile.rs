//! What a profile means: whom we talk to, what is announced, and what is looked up.
//!
//! | profile | connects to | announces to | looks up in |
//! |---|---|---|---|
//! | `public` | anybody | both DHTs, the LAN (mDNS) | both DHTs, delegated routing |
//! | `lan` | machines with addresses of the local network | the LAN's DHT, mDNS | the LAN's DHT |
//! | `private` | who has the swarm's key | both DHTs, among members; mDNS | both DHTs, among members |
//! | `peers` | those configured, connected by hand, or that connect to us | nobody | nothing |
//! | `offline` | nobody: there is no node | nobody | nothing |

use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::pnet::PreSharedKey;

use super::address;
use super::error::NetError;
use super::swarm_key;
use crate::config::{DhtMode, NetworkConfig, NetworkProfile};

/// The nodes that a newcomer to the public network asks first: the IPFS project's.
pub const PUBLIC_BOOTSTRAP: [&str; 6] = [
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
];

/// What the settings come to.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own, on or off")]
pub(super) struct Plan {
    pub profile: NetworkProfile,
    pub listen: Vec<Multiaddr>,
    pub announce: Vec<Multiaddr>,
    pub bootstrap: Vec<Multiaddr>,
    pub peering: Vec<Multiaddr>,
    pub swarm_key: Option<PreSharedKey>,
    /// Whether only the local network is talked to.
    pub near_only: bool,
    /// Whether nobody but this machine can reach us.
    pub loopback_only: bool,
    pub wan: bool,
    pub lan: bool,
    pub mdns: bool,
    /// Whether we ask others if we can be reached, go through relays where not, and punch holes.
    pub traversal: bool,
    pub dht: DhtMode,
}

impl Plan {
    /// Reads the settings; `key` is the swarm key's file: where it is, and what is in it.
    pub fn new(config: &NetworkConfig, key: Option<(&str, &[u8])>, key_path: &str) -> Result<Plan, NetError> {
        let profile = config.profile;
        let swarm_key = match key {
            Some((path, file)) => Some(
                swarm_key::parse(file)
                    .map_err(|why| NetError::BadSwarmKey { path: path.to_owned(), why: why.to_owned() })?,
            ),
            None => None,
        };
        match (profile, &swarm_key) {
            (NetworkProfile::Private, None) => return Err(NetError::NoSwarmKey { path: key_path.to_owned() }),
            (NetworkProfile::Public, Some(_)) => {
                let (path, profile) = (key_path.to_owned(), profile.to_string());
                return Err(NetError::UnusedSwarmKey { path, profile });
            }
            _ => {}
        }
        let is_public = profile == NetworkProfile::Public;
        let routes = !matches!(profile, NetworkProfile::Peers | NetworkProfile::Offline);
        let mut listen = addresses("network.listen", &config.listen)?;
        if swarm_key.is_some() {
            // The swarm's cipher needs a byte stream below it.
            listen.retain(|address| address.iter().any(|part| matches!(part, Protocol::Tcp(_))));
        }
        let loopback_only = listen.iter().all(|address| address::scope(address) == address::Scope::Loopback);
        let mut bootstrap = Vec::new();
        for text in &config.bootstrap {
            if text != "auto" {
                bootstrap.push(with_peer("network.bootstrap", text)?);
            } else if is_public {
                for text in PUBLIC_BOOTSTRAP {
                    bootstrap.push(with_peer("network.bootstrap", text)?);
                }
            }
        }
        if !routes {
            bootstrap.clear();
        }
        let has_dht = routes && config.dht != DhtMode::Off;
        Ok(Plan {
            profile,
            announce: addresses("network.announce", &config.announce)?,
            bootstrap,
            peering: config.peering.iter().map(|text| with_peer("network.peering", text)).collect::<Result<_, _>>()?,
            swarm_key,
            near_only: profile == NetworkProfile::Lan,
            loopback_only,
            wan: has_dht && profile != NetworkProfile::Lan,
            lan: has_dht,
            // Who can be reached from this machine alone has nothing to tell the others.
            mdns: routes && config.mdns && !loopback_only,
            traversal: is_public && !loopback_only,
            listen,
            dht: config.dht,
        })
    }

    /// Whether anything is looked up or announced.
    pub fn routes(&self) -> bool {
        self.wan || self.lan
    }

    /// Whether a DHT is served to others: always that of the local network, the public one where we can be reached.
    pub fn serves(&self, reach: super::dht::Reach, is_reachable: bool) -> bool {
        match self.dht {
            DhtMode::Off | DhtMode::Client => false,
            DhtMode::Server => true,
            DhtMode::Auto => reach == super::dht::Reach::Lan || is_reachable || self.profile == NetworkProfile::Private,
        }
    }
}

fn addresses(setting: &'static str, texts: &[String]) -> Result<Vec<Multiaddr>, NetError> {
    texts.iter().map(|text| parse(setting, text)).collect()
}

fn parse(setting: &'static str, text: &str) -> Result<Multiaddr, NetError> {
    text.parse().map_err(|error: libp2p::multiaddr::Error| NetError::BadAddress {
        setting,
        text: text.to_owned(),
        why: error.to_string(),
    })
}

fn with_peer(setting: &'static str, text: &str) -> Result<Multiaddr, NetError> {
    let address = parse(setting, text)?;
    if address::split(&address).0.is_none() {
        let why = "it must end in /p2p/PEER".to_owned();
        return Err(NetError::BadAddress { setting, text: text.to_owned(), why });
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(profile: NetworkProfile) -> NetworkConfig {
        NetworkConfig { profile, ..NetworkConfig::default() }
    }

    const KEY: &str = "/key/swarm/psk/1.0.0/\n/base16/\n\
                       00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n";

    #[test]
    fn each_profile_means_what_its_documentation_says() {
        let plan = |profile| Plan::new(&config(profile), None, "swarm.key").unwrap();
        let public = plan(NetworkProfile::Public);
        assert!(public.wan && public.lan && public.mdns && public.traversal && !public.near_only);
        assert_eq!(public.bootstrap.len(), PUBLIC_BOOTSTRAP.len());
        let lan = plan(NetworkProfile::Lan);
        assert!(!lan.wan && lan.lan && lan.mdns && lan.near_only && !lan.traversal && lan.bootstrap.is_empty());
        let peers = plan(NetworkProfile::Peers);
        assert!(!peers.routes() && !peers.mdns && !peers.traversal && peers.bootstrap.is_empty());
        let private = Plan::new(&config(NetworkProfile::Private), Some(("k", KEY.as_bytes())), "k").unwrap();
        assert!(private.wan && private.lan && private.bootstrap.is_empty() && !private.traversal);
        assert!(private.listen.iter().all(|address| !address::is_quic(address)), "TCP alone");
    }

    #[test]
    fn a_private_swarm_needs_its_key_and_a_public_node_refuses_one() {
        let error = |profile, key: Option<&str>| {
            let key = key.map(|key| ("/r/swarm.key", key.as_bytes()));
            Plan::new(&config(profile), key, "/r/swarm.key").err().unwrap().to_string()
        };
        assert!(error(NetworkProfile::Private, None).contains("/r/swarm.key"));
        assert!(error(NetworkProfile::Public, Some(KEY)).contains("move the key away"));
        assert!(error(NetworkProfile::Private, Some("nonsense")).contains("three lines"));
    }

    #[test]
    fn addresses_that_are_none_are_refused_by_name() {
        let mut bad = config(NetworkProfile::Peers);
        bad.listen = vec!["4001".into()];
        assert!(Plan::new(&bad, None, "").err().unwrap().to_string().contains("network.listen"));
        let mut bad = config(NetworkProfile::Peers);
        bad.peering = vec!["/ip4/10.0.0.1/tcp/4001".into()];
        assert!(Plan::new(&bad, None, "").err().unwrap().to_string().contains("/p2p/PEER"));
    }
}
