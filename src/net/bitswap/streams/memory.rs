//! The memory of long frames, used again.
//!
//! Memory that the system gives is zeroed, and mapped page by page as it is filled: for a frame of a MiB that takes about half as
//! long as hashing it. So what a frame lay in is kept for the next one, up to a bound, when the last block in it is let go.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::limits::IDLE_FRAME_BYTES;

/// Frames are given memory in multiples of this, so that one of a similar length finds it fitting.
const STEP_BYTES: usize = 256 * 1024;

/// What is idle.
#[derive(Default)]
pub struct Memory {
    idle: Mutex<Vec<Vec<u8>>>,
}

/// Memory for one frame: what was in it before is still there, until it is written over.
pub struct Room {
    /// At least as long as the frame; empty only while it is dropped.
    bytes: Vec<u8>,
    len: usize,
    home: Arc<Memory>,
}

impl Memory {
    /// Memory for a frame of `len` bytes.
    pub fn room(self: &Arc<Memory>, len: usize) -> Room {
        let whole = len.next_multiple_of(STEP_BYTES);
        let mut idle = self.idle.lock();
        let fits = idle.iter().rposition(|bytes| bytes.len() == whole);
        let found = fits.map(|index| idle.swap_remove(index));
        drop(idle);
        Room { bytes: found.unwrap_or_else(|| vec![0; whole]), len, home: self.clone() }
    }
}

impl Room {
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// What was written; with its last slice the memory is idle again.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.home.idle.lock();
        // What was let go last is still in the processor's cache, and what was let go first makes room.
        let mut sum: usize = idle.iter().map(Vec::len).sum();
        while sum + bytes.len() > IDLE_FRAME_BYTES && !idle.is_empty() {
            sum -= idle.remove(0).len();
        }
        if bytes.len() <= IDLE_FRAME_BYTES {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_idle_of_frames_is_bounded_and_used_again() {
        let memory = Arc::<Memory>::default();
        let frames: Vec<Bytes> = (0..100_u8)
            .map(|number| {
                let mut room = memory.room(1_000_000);
                room.as_mut().fill(number);
                room.into_bytes()
            })
            .collect();
        let slices: Vec<Bytes> = frames.iter().map(|frame| frame.slice(10..20)).collect();
        drop(frames);
        assert!(memory.idle.lock().is_empty(), "a slice holds it");
        assert!(slices.iter().zip(0..).all(|(slice, number)| slice.iter().all(|byte| *byte == number)));
        drop(slices);
        let idle = |memory: &Memory| memory.idle.lock().iter().map(Vec::len).sum::<usize>();
        assert_eq!(idle(&memory), IDLE_FRAME_BYTES);
        let room = memory.room(900_000);
        assert_eq!((room.as_ref().len(), room.as_ref()[0]), (900_000, 99), "the last one");
        assert_eq!(idle(&memory), IDLE_FRAME_BYTES - (1 << 20));
        assert_eq!(memory.room(4_000_000).as_ref()[0], 0, "none that fits");
    }
}
