//! Reading a stream of messages.
//!
//! Wantlists and presences are told to the engine in the order in which they came. Blocks are hashed on threads for that, as
//! many as there are, while the next message is read; who sends faster than that waits.

use std::sync::Arc;

use libp2p::swarm::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Outbox, Slot, frame};
use crate::block::Block;
use crate::net::bitswap::driver::Core;
use crate::net::bitswap::engine::PeerNumber;
use crate::net::bitswap::message::{Message, RawBlock};

/// Blocks of no more bytes are hashed at once: that takes less time than handing them over.
const INLINE_HASH_BYTES: usize = 16 * 1024;
/// What a message that cannot be read counts for.
const FAULTS_OF_GARBAGE: u32 = 3;

/// Reads messages until the stream ends or makes no sense.
pub async fn read(core: Arc<Core>, outbox: Arc<Outbox>, mut stream: Stream, _slot: Slot) {
    let number = outbox.number;
    loop {
        let reading = frame::Reading {
            memory: &core.memory,
            cap: &core.config.caps.down,
            admit: async |len| (admit(&outbox.frames, len).await, admit(&core.frames, len).await),
            go_on: || core.part_came(number),
        };
        let read = frame::read(&mut stream, reading).await;
        if core.is_stopped() {
            return;
        }
        let (frame, permits) = match read {
            Ok(Some(read)) => read,
            Ok(None) | Err(frame::FrameError::Io(_)) => return,
            Err(error) => {
                tracing::debug!("peer {}: {error}", outbox.peer);
                return core.fault(number, FAULTS_OF_GARBAGE);
            }
        };
        let frame_len = frame.len();
        let mut message = match Message::decode(frame) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!("peer {}: {error}", outbox.peer);
                return core.fault(number, FAULTS_OF_GARBAGE);
            }
        };
        if message.skipped > 0 {
            core.fault(number, 1);
        }
        core.message(number, &mut message);
        if message.blocks.is_empty() {
            continue;
        }
        let blocks = message.blocks;
        if blocks.iter().map(RawBlock::data_bytes).sum::<usize>() <= INLINE_HASH_BYTES {
            hash(&core, number, blocks, frame_len);
            continue;
        }
        let Ok(turn) = core.hashers.clone().acquire_owned().await else { return };
        let hasher = core.clone();
        core.runtime.spawn_blocking(move || {
            hash(&hasher, number, blocks, frame_len);
            drop((turn, permits));
        });
    }
}

/// Waits until a frame of so many bytes may take memory.
async fn admit(budget: &Arc<Semaphore>, len: usize) -> Option<OwnedSemaphorePermit> {
    // A semaphore that is never closed always gives.
    budget.clone().acquire_many_owned(len.div_ceil(1024) as u32).await.ok()
}

fn hash(core: &Core, number: PeerNumber, raw: Vec<RawBlock>, frame_len: usize) {
    let mut blocks = Vec::with_capacity(raw.len());
    let mut faults = 0;
    for raw in raw {
        match raw.into_block() {
            // A small block would hold the whole frame.
            Ok(block) if block.data().len() * 2 < frame_len => blocks.push(Block::compacted(block)),
            Ok(block) => blocks.push(block),
            Err(_) => faults += 1,
        }
    }
    if faults > 0 {
        core.fault(number, faults);
    }
    core.received(number, blocks);
}
