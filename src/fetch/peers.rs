//! Blocks from peers: bitswap, and the search for those who have what nobody connected has.
//!
//! Every root that is being read has a session of bitswap, which knows who had its blocks and asks those first. A session
//! whose peers do not have a block says so; then providers are [looked for](Net::find_providers), of the block and of its root
//! (roots are what is announced), and each that is found is named to the session, which dials it.
//!
//! A fetch gives up early where there is nobody left to ask: everybody who was asked has said no, the search has ended
//! without anybody new, and nobody was dialed in vain for a moment ([`LAST_WORD`]). Otherwise it waits for as long as the reader
//! does.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::future::BoxFuture;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::Priority;
use super::source::{Request, Source, SourceError};
use crate::block::{Block, Cid};
use crate::limits::{LAST_WORD, MAX_PEER_SESSIONS, MAX_REMEMBERED_SEARCHES, MAX_SEARCHES, PEERS_GLANCE, SEARCH_MEMORY};
use crate::net::bitswap::{Asked, PeerAnswer, Session, SessionId, Urgency};
use crate::net::{Net, PeerId};

/// Blocks from peers.
pub struct Peers {
    net: Net,
    shared: Arc<Shared>,
}

struct Shared {
    sessions: Mutex<LruCache<Cid, Session>>,
    searches: Mutex<HashMap<Cid, Search>>,
}

/// A search for those who provide one block.
#[derive(Clone, Copy)]
struct Search {
    begun: Instant,
    /// When it ended, and how many it found.
    ended: Option<(Instant, usize)>,
}

impl Peers {
    /// Blocks from the peers of `net`. Searches run on `runtime`, for as long as the node does.
    pub fn start(net: Net, runtime: &Handle) -> Peers {
        let sessions = Mutex::new(LruCache::new(MAX_PEER_SESSIONS));
        let shared = Arc::new(Shared { sessions, searches: Mutex::default() });
        if let Some(wanted) = net.providers_wanted() {
            runtime.spawn(search_for_all(net.clone(), shared.clone(), wanted));
        }
        Peers { net, shared }
    }

    fn session(&self, root: &Cid) -> Session {
        let mut sessions = self.shared.sessions.lock();
        sessions.get_or_insert(root.clone(), || self.net.bitswap().session(Some(root))).clone()
    }

    async fn bring(&self, mut request: Request) -> Result<Block, SourceError> {
        let cid = request.cid.clone();
        let root = request.session.clone().unwrap_or_else(|| cid.clone());
        let session = self.session(&root);
        let mut want = session.want(&cid, urgency(request.priority()));
        let mut glance = tokio::time::interval(PEERS_GLANCE);
        let mut asked = Asked::default();
        let mut idle_since: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut want => break result,
                priority = request.raised() => {
                    // Two wants are one to bitswap, which goes by the more urgent.
                    want = session.want(&cid, urgency(priority));
                }
                _ = glance.tick() => {
                    asked = session.note_of(&cid);
                    let nobody_left = self.nobody_left(&asked, &cid, &root);
                    let since = if nobody_left { Some(*idle_since.get_or_insert_with(Instant::now)) } else { None };
                    idle_since = since;
                    if since.is_some_and(|since| since.elapsed() >= LAST_WORD) {
                        note(&request, &asked);
                        return Err(SourceError::NotThere(self.tried(&asked, &cid, &root)));
                    }
                }
            }
        };
        note(&request, &asked);
        match result {
            Ok(block) => {
                request.progress(block.data().len());
                Ok(block)
            }
            Err(error) => Err(SourceError::Failed(error.to_string())),
        }
    }

    /// Whether everybody who could be asked has said no, and nobody else was found.
    fn nobody_left(&self, asked: &Asked, cid: &Cid, root: &Cid) -> bool {
        let open = asked.peers.iter().any(|peer| matches!(peer.answer, PeerAnswer::None | PeerAnswer::Have));
        if open || !asked.is_sought {
            return false;
        }
        if !self.net.routes() {
            return true;
        }
        let searches = self.shared.searches.lock();
        let has_ended = |cid| searches.get(cid).is_some_and(|search| search.ended.is_some());
        has_ended(cid) && has_ended(root)
    }

    /// Whom it was asked of, for people.
    fn tried(&self, asked: &Asked, cid: &Cid, root: &Cid) -> String {
        let said_no = asked.peers.iter().filter(|peer| peer.answer == PeerAnswer::DontHave).count();
        let silent = asked.peers.len() - said_no;
        let mut text = match (said_no, silent) {
            (0, 0) => "there is no peer to ask".to_owned(),
            (no, 0) => format!("{no} peers do not have it"),
            (no, silent) => format!("{no} peers do not have it, {silent} do not answer"),
        };
        if self.net.routes() {
            let searches = self.shared.searches.lock();
            let found = [cid, root].map(|cid| searches.get(cid).and_then(|search| search.ended).map_or(0, |it| it.1));
            let found = found.into_iter().max().unwrap_or_default();
            if found == 0 {
                text.push_str(", and no provider was found");
            } else {
                // Writing into a string does not fail.
                let _ = write!(text, ", of {found} providers");
            }
        }
        text
    }
}

impl Source for Peers {
    fn name(&self) -> &'static str {
        "peers"
    }

    fn fetch(&self, request: Request) -> BoxFuture<'_, Result<Block, SourceError>> {
        Box::pin(self.bring(request))
    }

    fn last_progress(&self, session: Option<&Cid>) -> Option<Instant> {
        let session = self.shared.sessions.lock().peek(session?).cloned()?;
        Some(session.last_progress())
    }
}

fn urgency(priority: Priority) -> Urgency {
    match priority {
        Priority::Background => Urgency::Background,
        Priority::ReadAhead => Urgency::ReadAhead,
        Priority::Demand => Urgency::Demand,
    }
}

/// Takes down what was asked of whom.
fn note(request: &Request, asked: &Asked) {
    for peer in &asked.peers {
        let what = if peer.for_block { "asked for the block" } else { "asked whether it has it" };
        let ago = peer.at.elapsed().as_millis();
        let answer = match peer.answer {
            PeerAnswer::None => "no answer yet",
            PeerAnswer::Have => "it has it",
            PeerAnswer::DontHave => "it does not have it",
            PeerAnswer::Silent => "silent for too long",
        };
        request.note(&peer.peer.to_string(), format!("{what} {ago} ms ago: {answer}"));
    }
}

/// Looks for providers whenever a session knows nobody.
async fn search_for_all(net: Net, shared: Arc<Shared>, mut wanted: mpsc::Receiver<(SessionId, Cid)>) {
    let places = Arc::new(Semaphore::new(MAX_SEARCHES));
    while let Some((session, cid)) = wanted.recv().await {
        // The root, too: that is what is announced.
        let root = {
            let sessions = shared.sessions.lock();
            sessions.iter().find(|(_, known)| known.id() == session).map(|(root, _)| root.clone())
        };
        let both: HashSet<Cid> = root.into_iter().chain([cid]).collect();
        for cid in both {
            if !shared.begin(&cid) {
                continue;
            }
            let (net, shared, places) = (net.clone(), shared.clone(), places.clone());
            tokio::spawn(async move {
                // The semaphore is never closed.
                let _place = places.acquire_owned().await;
                let found = search(&net, session, &cid).await;
                shared.end(&cid, found);
            });
        }
    }
}

/// Names everybody who provides `cid` to the session; gives how many there were.
async fn search(net: &Net, session: SessionId, cid: &Cid) -> usize {
    tracing::debug!(%cid, "looking for providers");
    let mut providers = net.find_providers(cid);
    let mut found: HashSet<PeerId> = HashSet::new();
    while let Some(provider) = providers.next().await {
        tracing::debug!(%cid, peer = %provider.peer, "found a provider");
        found.insert(provider.peer);
        net.learn(&provider).await;
        net.bitswap().add_provider(session, provider.peer);
    }
    found.len()
}

impl Shared {
    /// Whether a search is to be begun: it is not while one runs, nor a moment after one.
    fn begin(&self, cid: &Cid) -> bool {
        let mut searches = self.searches.lock();
        let now = Instant::now();
        let is_old = |search: &Search| search.ended.is_some_and(|(ended, _)| now.duration_since(ended) > SEARCH_MEMORY);
        searches.retain(|_, search| !is_old(search) || now.duration_since(search.begun) < SEARCH_MEMORY);
        if searches.get(cid).is_some_and(|search| !is_old(search)) || searches.len() >= MAX_REMEMBERED_SEARCHES {
            return false;
        }
        searches.insert(cid.clone(), Search { begun: now, ended: None });
        true
    }

    fn end(&self, cid: &Cid, found: usize) {
        if let Some(search) = self.searches.lock().get_mut(cid) {
            search.ended = Some((Instant::now(), found));
        }
    }
}
