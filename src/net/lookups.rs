//! What the DHTs are being asked, and who waits for the answers.
//!
//! The node starts a query in each DHT that it has, and hears of its progress; here it is remembered for whom. A query that
//! nobody waits for any more is ended.

use std::collections::{HashMap, HashSet};

use libp2p::kad::{
    AddProviderError, AddProviderOk, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, QueryId, QueryResult,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

use super::dht::Reach;
use super::{NetError, Provider};

/// All queries that are under way.
#[derive(Default)]
pub(super) struct Lookups {
    running: HashMap<(Reach, QueryId), Waiting>,
}

/// What a query is for.
pub(super) enum Waiting {
    /// Providers go to whoever reads them.
    Providers { found: mpsc::Sender<Provider>, told: HashSet<PeerId> },
    /// The addresses of one peer.
    Peer { peer: PeerId, found: mpsc::Sender<Provider> },
    /// An announcement; counted when it is made.
    Provide { done: mpsc::Sender<()> },
}

impl Waiting {
    fn is_abandoned(&self) -> bool {
        match self {
            Waiting::Providers { found, .. } | Waiting::Peer { found, .. } => found.is_closed(),
            // An announcement is worth making whoever waits.
            Waiting::Provide { .. } => false,
        }
    }
}

/// What has to be done about a query's progress.
#[derive(Default)]
pub(super) struct Progress {
    /// Providers that were found and not told yet: whoever knows their addresses tells them.
    pub providers: Vec<PeerId>,
    /// Whether the query is not wanted any more.
    pub ended: bool,
}

impl Lookups {
    /// Remembers what a query is for.
    pub fn start(&mut self, reach: Reach, query: QueryId, waiting: Waiting) {
        self.running.insert((reach, query), waiting);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// A query went on.
    pub fn progress(&mut self, reach: Reach, query: QueryId, result: QueryResult, last: bool) -> Progress {
        let mut progress = Progress::default();
        let Some(waiting) = self.running.get_mut(&(reach, query)) else { return progress };
        match (result, &mut *waiting) {
            (
                QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })),
                Waiting::Providers { told, .. },
            ) => progress.providers.extend(providers.into_iter().filter(|peer| told.insert(*peer))),
            (
                QueryResult::GetClosestPeers(
                    Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }),
                ),
                Waiting::Peer { peer, found },
            ) => {
                let it = peers.into_iter().find(|candidate| candidate.peer_id == *peer);
                if let Some(it) = it.filter(|it| !it.addrs.is_empty()) {
                    // One answer is all that is waited for.
                    let _ = found.try_send(Provider { peer: *peer, addresses: it.addrs });
                }
            }
            (
                QueryResult::StartProviding(result) | QueryResult::RepublishProvider(result),
                Waiting::Provide { done },
            ) => match result {
                // A part of those that should know were told, in the time that there was.
                Ok(AddProviderOk { .. }) | Err(AddProviderError::Timeout { .. }) => {
                    let _ = done.try_send(());
                }
            },
            _ => {}
        }
        progress.ended = !last && waiting.is_abandoned();
        progress
    }

    /// Hands a provider to whoever waits for it.
    pub fn tell(&self, reach: Reach, query: QueryId, peer: PeerId, addresses: Vec<Multiaddr>) {
        if let Some(Waiting::Providers { found, .. }) = self.running.get(&(reach, query)) {
            // Whoever has so many waiting has enough.
            let _ = found.try_send(Provider { peer, addresses });
        }
    }

    /// A query has ended: those who wait see the end of their stream.
    pub fn end(&mut self, reach: Reach, query: QueryId) {
        self.running.remove(&(reach, query));
    }

    /// Queries that nobody waits for any more; they are forgotten.
    pub fn abandoned(&mut self) -> Vec<(Reach, QueryId)> {
        let abandoned: Vec<_> =
            self.running.iter().filter(|(_, waiting)| waiting.is_abandoned()).map(|(query, _)| *query).collect();
        for query in &abandoned {
            self.running.remove(query);
        }
        abandoned
    }
}

/// Sends `value`, where somebody still waits.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    // Whoever asked may have gone.
    let _ = reply.send(value);
}

/// The errors of a dial, for people: each address with what came of it.
pub(super) fn dial_error(peer: &str, error: &libp2p::swarm::DialError) -> NetError {
    use std::error::Error;

    use libp2p::swarm::DialError;
    let innermost = |error: &dyn Error| {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = error.to_string();
            cause = error.source();
        }
        text
    };
    let why = match error {
        DialError::Transport(tried) => {
            let tried: Vec<String> =
                tried.iter().map(|(address, error)| format!("{address}: {}", innermost(error))).collect();
            tried.join("; ")
        }
        DialError::NoAddresses => "no address of it is known".to_owned(),
        DialError::LocalPeerId { .. } => "it is this node itself".to_owned(),
        DialError::WrongPeerId { obtained, address } => format!("at {address} is {obtained}"),
        DialError::Denied { cause } => innermost(cause),
        DialError::Aborted | DialError::DialPeerConditionFalse(_) => "the attempt was given up".to_owned(),
    };
    NetError::Dial { peer: peer.to_owned(), why }
}
