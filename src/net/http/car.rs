//! A CAR as it arrives: each block is hashed, checked to belong to the DAG, and handed on, one after the other.
//!
//! The bytes go through a short channel to a thread that may block, where the same reader as for files takes them apart and
//! hashes. Who takes the blocks may be slow: then the channel fills and the gateway is made to wait. A block belongs to the DAG
//! if it is the root, or if a block before it links to it; anything else is passed over, up to a limit. What arrived before the CAR
//! broke off stays.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use reqwest::Response;
use tokio::sync::{Notify, mpsc};

use super::pace::Pace;
use super::{GatewayError, Watch};
use crate::block::{Block, Cid};
use crate::dag::car::CarReader;
use crate::dag::{Links, can_link};
use crate::limits::{GATEWAY_CAR_STALL, GATEWAY_PIECES, MAX_ANNOUNCED_BLOCKS, MAX_STRAY_BYTES};
use crate::net::caps::Caps;

/// The blocks of a DAG that are on their way: those that blocks before have linked to, and that have not come yet.
#[derive(Debug)]
pub struct Announced {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Debug)]
struct State {
    cids: HashSet<Cid>,
    progress: Instant,
    is_over: bool,
}

/// What a CAR has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DagSummary {
    /// Blocks that belong to the DAG.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why it ended early, where it did.
    pub broke_off: Option<String>,
}

impl Announced {
    /// The root, which is here, and what it links to.
    pub fn new(root: &Block) -> Arc<Announced> {
        let state = State { cids: HashSet::new(), progress: Instant::now(), is_over: false };
        let announced = Arc::new(Announced { state: Mutex::new(state), ended: Notify::new() });
        announced.announce(root);
        announced.state.lock().cids.insert(root.cid().clone());
        announced
    }

    /// Until when `cid` may be expected, if nothing more arrives: it was announced, and the CAR goes on.
    fn expected_until(&self, cid: &Cid) -> Option<Instant> {
        let state = self.state.lock();
        let until = state.progress + GATEWAY_CAR_STALL;
        (!state.is_over && until > Instant::now() && state.cids.contains(cid)).then_some(until)
    }

    /// Whether `cid` may be expected soon.
    pub fn is_coming(&self, cid: &Cid) -> bool {
        self.expected_until(cid).is_some()
    }

    /// Returns when the CAR has ended or stands still, and so will not bring `cid`. Who gets the block is to drop this.
    pub async fn while_coming(&self, cid: &Cid) {
        loop {
            let ended = self.ended.notified();
            let Some(until) = self.expected_until(cid) else { return };
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    /// Nothing more comes.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.cids = HashSet::new();
        drop(state);
        self.ended.notify_waiters();
    }

    fn progress(&self) {
        self.state.lock().progress = Instant::now();
    }

    /// Whether `cid` was announced.
    fn contains(&self, cid: &Cid) -> bool {
        self.state.lock().cids.contains(cid)
    }

    /// `cid` has come.
    fn came(&self, cid: &Cid) {
        let mut state = self.state.lock();
        state.cids.remove(cid);
        state.progress = Instant::now();
    }

    /// `block` announces what it links to. False where too much is announced.
    fn announce(&self, block: &Block) -> bool {
        let mut state = self.state.lock();
        if can_link(block.cid().codec())
            && let Ok(links) = Links::decode(block.cid(), block.data())
        {
            for link in links {
                if state.cids.len() >= MAX_ANNOUNCED_BLOCKS {
                    return false;
                }
                if link.cid.identity_data().is_none() {
                    state.cids.insert(link.cid);
                }
            }
        }
        true
    }
}

/// Reads a CAR to its end, or as far as it goes: what it has brought, and why it ended early.
pub(super) async fn receive(
    response: Response,
    caps: &Caps,
    watch: &dyn Watch,
    announced: &Arc<Announced>,
    take: impl FnMut(Block) -> bool + Send + 'static,
) -> Result<(DagSummary, Option<GatewayError>), GatewayError> {
    let (sender, receiver) = mpsc::channel(GATEWAY_PIECES);
    let known = announced.clone();
    let reading = tokio::task::spawn_blocking(move || read(Pieces { receiver, piece: Bytes::new() }, &known, take));
    let mut body = Pace::new(response);
    let mut broke_off = None;
    loop {
        match body.next().await {
            Ok(Some(piece)) => {
                let len = piece.len();
                watch.progress(len);
                announced.progress();
                // The reader ends where the CAR is no good, or nobody wants more of it.
                if sender.send(piece).await.is_err() {
                    break;
                }
                caps.down.take(len as u64).await;
            }
            Ok(None) => break,
            Err(error) => {
                broke_off = Some(error);
                break;
            }
        }
    }
    let bytes = body.bytes();
    drop((sender, body));
    let (summary, error) = match reading.await {
        Ok(read) => read,
        Err(error) => (DagSummary::default(), Some(error.to_string())),
    };
    let error = error.map(|why| GatewayError::BrokeOff { bytes, why });
    Ok((summary, broke_off.or(error)))
}

/// Takes the CAR apart. Blocks the thread.
fn read(pieces: Pieces, announced: &Announced, mut take: impl FnMut(Block) -> bool) -> (DagSummary, Option<String>) {
    let mut summary = DagSummary::default();
    let mut stray = 0;
    let mut car = match CarReader::new(pieces) {
        Ok(car) => car,
        Err(error) => return (summary, Some(error.to_string())),
    };
    let error = loop {
        let section = match car.next_section() {
            Ok(Some(section)) => section,
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        };
        if !announced.contains(&section.cid) {
            // A block again, or one that has nothing to do with the DAG.
            stray += section.data.len();
            if stray > MAX_STRAY_BYTES {
                break Some(format!("{stray} bytes of blocks that do not belong to the DAG"));
            }
            continue;
        }
        let block = match Block::verify(section.cid, section.data) {
            Ok(block) => block,
            Err(error) => break Some(error.to_string()),
        };
        summary.blocks += 1;
        summary.bytes += block.data().len() as u64;
        // Who is given the block asks for what it links to, which is on its way by then; and the block itself is on its way
        // until it is here.
        if !announced.announce(&block) {
            break Some(format!("more than {MAX_ANNOUNCED_BLOCKS} blocks are to come"));
        }
        let cid = block.cid().clone();
        let wants_more = take(block);
        announced.came(&cid);
        if !wants_more {
            break None;
        }
    };
    (summary, error)
}

/// The pieces of a body, as a reader.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let len = self.piece.len().min(out.len());
        self.piece.copy_to_slice(&mut out[..len]);
        Ok(len)
    }
}
