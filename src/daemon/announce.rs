//! Announcing to others what is here, as the setting `network.provide` has it: at the start, what is pinned from then on, and
//! all of it again before others forget.
//!
//! An announcement costs a search for those that keep it, so a bounded number is under way at a time, and many blocks
//! (`pinned`, `all`) take their time. Nothing is announced while nobody is known who keeps announcements.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Daemon;
use crate::block::Cid;
use crate::config::Provide;
use crate::fetch::walk::{Reach, Walk};
use crate::limits::{ANNOUNCEMENT_RETRY, ANNOUNCEMENTS_AT_ONCE};
use crate::net::{Net, NetError};

/// Announces until the daemon ends.
pub(super) async fn run(daemon: Daemon, net: Net, mut entered: mpsc::Receiver<Cid>) {
    let (provide, interval) = (daemon.config().network.provide, daemon.config().network.provide_interval);
    let stopping = daemon.stopping().clone();
    let work = async {
        loop {
            until_somebody_is_known(&net).await;
            let round = all(&daemon, provide);
            let round_over = tokio::time::sleep(interval.max(Duration::from_secs(1)));
            tokio::pin!(round_over);
            announce(&net, round).await;
            loop {
                let cid = tokio::select! {
                    cid = entered.recv() => cid,
                    () = &mut round_over => break,
                };
                let Some(cid) = cid else { return };
                let below = if provide == Provide::Pinned { blocks_below(&daemon, vec![cid]) } else { one(cid) };
                announce(&net, below).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopping.cancelled() => {}
    }
}

async fn until_somebody_is_known(net: &Net) {
    use std::sync::atomic::Ordering::Relaxed;
    while net.counters().routing_wan.load(Relaxed) + net.counters().routing_lan.load(Relaxed) == 0 {
        tokio::time::sleep(ANNOUNCEMENT_RETRY).await;
    }
}

/// Announces what comes, a bounded number at a time.
async fn announce(net: &Net, mut keys: mpsc::Receiver<Cid>) {
    let mut running = FuturesUnordered::new();
    let mut count = 0_u64;
    while let Some(cid) = keys.recv().await {
        if running.len() >= ANNOUNCEMENTS_AT_ONCE {
            running.next().await;
        }
        count += 1;
        let net = net.clone();
        running.push(async move {
            loop {
                match net.provide(&cid).await {
                    Err(NetError::Alone) => until_somebody_is_known(&net).await,
                    Err(error) => return tracing::debug!(%cid, %error, "not announced"),
                    Ok(()) => return tracing::debug!(%cid, "announced"),
                }
            }
        });
    }
    while running.next().await.is_some() {}
    if count > 0 {
        tracing::info!(count, "announced what is here");
    }
}

fn one(cid: Cid) -> mpsc::Receiver<Cid> {
    let (sender, receiver) = mpsc::channel(1);
    // There is room for one.
    let _ = sender.try_send(cid);
    receiver
}

/// Everything that the setting says, on a thread that may block.
fn all(daemon: &Daemon, provide: Provide) -> mpsc::Receiver<Cid> {
    let pins = |daemon: &Daemon| {
        let pins = daemon.store().pins();
        let pins = pins.inspect_err(|error| tracing::warn!(%error, "pins cannot be read to be announced"));
        pins.unwrap_or_default().into_iter().map(|pin| pin.cid).collect::<Vec<_>>()
    };
    match provide {
        Provide::None => mpsc::channel(1).1,
        Provide::Pinned => blocks_below(daemon, pins(daemon)),
        Provide::Roots | Provide::All => {
            let (sender, receiver) = mpsc::channel(ANNOUNCEMENTS_AT_ONCE);
            let daemon = daemon.clone();
            tokio::task::spawn_blocking(move || {
                let send = |cid: Cid| sender.blocking_send(cid).is_ok();
                // It ends early where nobody takes any more.
                let _ = if provide == Provide::Roots {
                    pins(&daemon).into_iter().all(send)
                } else {
                    daemon.store().blocks().filter_map(Result::ok).all(|(cid, _)| send(cid))
                };
            });
            receiver
        }
    }
}

/// Every block below `roots` that is here.
fn blocks_below(daemon: &Daemon, roots: Vec<Cid>) -> mpsc::Receiver<Cid> {
    let (sender, receiver) = mpsc::channel(ANNOUNCEMENTS_AT_ONCE);
    let daemon = Arc::new(daemon.clone());
    tokio::task::spawn_blocking(move || {
        let mut walk = Walk::new(daemon.fetch(), Reach::Local, roots);
        loop {
            match Handle::current().block_on(walk.next()) {
                Ok(Some(visit)) if !daemon.store().has(visit.cid()) => {}
                Ok(Some(visit)) => {
                    if sender.blocking_send(visit.cid().clone()).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                // What is not here cannot be announced; the walk goes on behind it.
                Err(error) => tracing::debug!(%error, "not announced"),
            }
        }
    });
    receiver
}
