//! Read buffers: aligned for direct I/O, kept for the next read, and handed out as [`Bytes`] without a copy.
//!
//! A buffer comes back when the last slice of it is dropped. What is kept idle is bounded; the rest goes back to the
//! system, so an idle store holds little.

use std::sync::LazyLock;

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::ALIGNMENT;
use crate::limits::{IDLE_BUFFER_BYTES, MAX_BLOCK_BYTES};

/// The smallest class: what a block of a few KiB takes.
const SMALLEST: usize = 8 * 1024;
/// Classes double up to the largest block.
const CLASSES: usize = (MAX_BLOCK_BYTES / SMALLEST).ilog2() as usize + 1;
/// What an aligned read takes beyond the bytes wanted: less than a page at either end.
const SLACK: usize = 2 * ALIGNMENT;

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(|| Mutex::new(Pool::default()));

#[derive(Default)]
struct Pool {
    idle: [Vec<Vec<u8>>; CLASSES],
    idle_bytes: usize,
}

/// Memory for one aligned read.
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
    class: Option<usize>,
}

impl Buffer {
    /// A buffer whose aligned part holds at least `len` bytes wherever they begin in a page.
    pub fn new(len: usize) -> Buffer {
        let class = (0..CLASSES).find(|class| SMALLEST << class >= len);
        let pooled = class.and_then(|class| {
            let mut pool = POOL.lock();
            let memory = pool.idle[class].pop()?;
            pool.idle_bytes -= memory.len();
            Some(memory)
        });
        let size = class.map_or(len, |class| SMALLEST << class) + SLACK + ALIGNMENT;
        let memory = pooled.unwrap_or_else(|| vec![0; size]);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Buffer { memory, start, class }
    }

    /// The aligned part.
    pub fn aligned(&mut self, len: usize) -> &mut [u8] {
        &mut self.memory[self.start..][..len]
    }

    /// What it holds of memory, in bytes.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// `len` bytes from `offset` of the aligned part, without a copy.
    pub fn into_bytes(self, offset: usize, len: usize) -> Bytes {
        let from = self.start + offset;
        Bytes::from_owner(self).slice(from..from + len)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(class) = self.class else { return };
        let mut pool = POOL.lock();
        if pool.idle_bytes + self.memory.len() <= IDLE_BUFFER_BYTES {
            pool.idle_bytes += self.memory.len();
            pool.idle[class].push(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_fits_and_is_aligned() {
        for len in [0, 1, 4096, 8192, 8193, 100_000, 1 << 20, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1] {
            let mut buffer = Buffer::new(len);
            let aligned = buffer.aligned(len.next_multiple_of(ALIGNMENT) + ALIGNMENT);
            assert_eq!(aligned.as_ptr().align_offset(ALIGNMENT), 0);
            aligned[100] = 7;
            let bytes = buffer.into_bytes(100, 1);
            assert_eq!(bytes[0], 7);
        }
    }

    #[test]
    fn what_is_kept_idle_is_bounded() {
        let many: Vec<Buffer> = (0..64).map(|_| Buffer::new(MAX_BLOCK_BYTES)).collect();
        drop(many);
        assert!(POOL.lock().idle_bytes <= IDLE_BUFFER_BYTES);
    }
}
