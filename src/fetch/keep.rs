//! Puts fetched blocks into the store, behind the readers' backs.
//!
//! A reader has its block before the disk does: a thread of its own writes, in the order of arrival, the blocks of one root
//! together. Until a block is written it is found here. A disk that is slow slows what nobody waits for yet (it waits for
//! room), and never a reader: where there is no room its block is not kept. A disk that fails, or is full, costs the cache its
//! use and nothing else; the store says so in its health.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::block::{Block, Cid, codec};
use crate::limits::{FETCH_WRITER_BYTES, MAX_FETCH_WRITERS, MAX_UNKEPT_BYTES};
use crate::store::{Store, Writer};

/// What one permit stands for, in bytes.
const PERMIT_BYTES: usize = 1024;
const PERMITS: u32 = (MAX_UNKEPT_BYTES / PERMIT_BYTES) as u32;
/// How long a writer without blocks is held open.
const IDLE: Duration = Duration::from_secs(2);

/// The way to the thread that writes. Dropped, it waits until what it was given is written.
#[derive(Debug)]
pub(super) struct Keeper {
    /// `None` only while it is dropped.
    sender: Option<Sender<Item>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<Semaphore>,
    coming: Arc<Mutex<HashMap<Cid, Block>>>,
}

#[derive(Debug)]
struct Item {
    block: Block,
    root: Option<Cid>,
    _permits: OwnedSemaphorePermit,
}

impl Keeper {
    /// A keeper for `store`.
    pub fn start(store: Store) -> std::io::Result<Keeper> {
        let (sender, receiver) = channel();
        let coming = Arc::<Mutex<HashMap<Cid, Block>>>::default();
        let here = coming.clone();
        let thread = std::thread::Builder::new().name("cidfs-keep".into());
        let thread = Some(thread.spawn(move || write_all(&store, &receiver, &here))?);
        Ok(Keeper { sender: Some(sender), thread, room: Arc::new(Semaphore::new(PERMITS as usize)), coming })
    }

    /// A block that is still on its way to the disk.
    pub fn get(&self, cid: &Cid) -> Option<Block> {
        self.coming.lock().get(cid).cloned()
    }

    /// Keeps a block that a reader waits for, if there is room.
    pub fn offer(&self, block: &Block, root: Option<&Cid>) {
        if let Ok(permits) = self.room.clone().try_acquire_many_owned(permits(block)) {
            self.send(block, root, permits);
        } else {
            tracing::debug!(cid = %block.cid(), "not kept: the disk is behind");
        }
    }

    /// Keeps a block that nobody waits for yet, as soon as there is room.
    pub async fn put(&self, block: &Block, root: Option<&Cid>) {
        // The semaphore is never closed.
        if let Ok(permits) = self.room.clone().acquire_many_owned(permits(block)).await {
            self.send(block, root, permits);
        }
    }

    /// Returns when everything that was given before is written.
    pub async fn settle(&self) {
        let _all = self.room.acquire_many(PERMITS).await;
    }

    fn send(&self, block: &Block, root: Option<&Cid>, permits: OwnedSemaphorePermit) {
        let Some(sender) = &self.sender else { return };
        self.coming.lock().insert(block.cid().clone(), block.clone());
        // The thread ends after the sender.
        let _ = sender.send(Item { block: block.clone(), root: root.cloned(), _permits: permits });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.sender = None;
        // Where it panicked, what was not written is fetched again.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn permits(block: &Block) -> u32 {
    block.data().len().div_ceil(PERMIT_BYTES).max(1) as u32
}

/// A writer for one root.
struct Open {
    root: Cid,
    writer: Writer,
    bytes: usize,
    used: Instant,
}

/// The root of blocks that were fetched without one: they belong together, as nobody said to whom.
fn no_root() -> Cid {
    Cid::new_v1(codec::RAW, &crate::block::HashFunction::Identity.digest(b"fetched without a root"))
}

fn write_all(store: &Store, receiver: &Receiver<Item>, coming: &Mutex<HashMap<Cid, Block>>) {
    let mut open: Vec<Open> = Vec::new();
    loop {
        let item = match receiver.recv_timeout(IDLE) {
            Ok(item) => item,
            Err(RecvTimeoutError::Timeout) => {
                open.clear();
                // Nothing is sent: sleep until something is, without holding segments.
                match receiver.recv() {
                    Ok(item) => item,
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let root = item.root.clone().unwrap_or_else(no_root);
        open.retain(|writer| writer.used.elapsed() < IDLE);
        let at = if let Some(at) = open.iter().position(|writer| writer.root == root) {
            at
        } else {
            if open.len() == MAX_FETCH_WRITERS {
                open.remove(0);
            }
            open.push(Open { writer: store.writer_for(&root), root, bytes: 0, used: Instant::now() });
            open.len() - 1
        };
        let entry = &mut open[at];
        (entry.bytes, entry.used) = (entry.bytes + item.block.data().len(), Instant::now());
        match entry.writer.put(&item.block) {
            // What a writer has put is not evicted while it lives.
            Ok(()) if entry.bytes < FETCH_WRITER_BYTES => {}
            Ok(()) => drop(open.remove(at)),
            Err(error) => {
                tracing::debug!(cid = %item.block.cid(), %error, "not kept");
                open.remove(at);
            }
        }
        let mut coming = coming.lock();
        coming.remove(item.block.cid());
        if coming.is_empty() {
            coming.shrink_to_fit();
        }
    }
}
