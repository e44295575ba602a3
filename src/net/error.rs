//! What can go wrong with the node, for the person who configured it or asked it for something.

use libp2p::PeerId;
use libp2p::multiaddr::Multiaddr;

/// Why the node does not start, or cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A setting holds what is no address.
    #[error("setting {setting}: {text:?} is not an address: {why}")]
    BadAddress {
        /// `network.listen` and so on.
        setting: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The profile needs a key, and there is none.
    #[error(
        "network.profile is private, which needs the key of the swarm in {path}: copy it from another member, or make one"
    )]
    NoSwarmKey {
        /// Where it should be.
        path: String,
    },
    /// There is a key, and the profile would ignore it.
    #[error(
        "{path} is the key of a private swarm, but network.profile is {profile}: set it to private, or move the key away"
    )]
    UnusedSwarmKey {
        /// Where it is.
        path: String,
        /// The profile.
        profile: String,
    },
    /// The key cannot be read.
    #[error("{path} cannot be used as the key of a private swarm: {why}")]
    BadSwarmKey {
        /// Where it is.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The node could not be built.
    #[error("the node cannot start: cannot {what}: {why}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        why: String,
    },
    /// A peer cannot be reached.
    #[error("cannot connect to {peer}: {why}")]
    Dial {
        /// The peer or the address.
        peer: String,
        /// What was tried, and what came of it.
        why: String,
    },
    /// Nobody knows the peer's addresses.
    #[error("no addresses of {peer} are known{tried}")]
    NoAddresses {
        /// The peer.
        peer: PeerId,
        /// Who was asked.
        tried: &'static str,
    },
    /// There is no connection.
    #[error("not connected to {peer}")]
    NotConnected {
        /// The peer.
        peer: PeerId,
    },
    /// An address does not name its peer.
    #[error("{address} does not end in /p2p/PEER")]
    NoPeer {
        /// The address.
        address: Multiaddr,
    },
    /// The profile has no routing.
    #[error("network.profile is {profile}: nothing is looked up or announced")]
    NoRouting {
        /// The profile.
        profile: String,
    },
    /// There is nobody to tell.
    #[error("nothing was announced: not connected to anybody who keeps announcements")]
    Alone,
    /// It took too long.
    #[error("{what} took too long")]
    TimedOut {
        /// What was being done.
        what: String,
    },
    /// The peer did not answer as it should.
    #[error("{peer} did not answer: {why}")]
    NoAnswer {
        /// The peer.
        peer: PeerId,
        /// What happened instead.
        why: String,
    },
    /// The node has ended.
    #[error("the node has ended")]
    Ended,
}
