//! Read buffers: aligned for direct I/O, kept for the next read, and handed out as [`Bytes`] without a copy.
//!
//! A buffer comes back when the last slice of it is dropped. What is kept idle is bounded; the rest goes back to the
//! system, so an idle store holds little.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::Bytes;
use parking_lot::Mutex;

use super::disk::ALIGNMENT;
use crate::limits::IDLE_BUFFER_BYTES;

/// What an aligned read takes beyond the bytes wanted: less than a page at either end.
const SLACK: usize = 2 * ALIGNMENT;

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(|| Mutex::new(Pool::default()));

#[derive(Default)]
struct Pool {
    by_size: HashMap<usize, Vec<Vec<u8>>>,
    idle_bytes: usize,
}

/// Memory for one aligned read.
pub(super) struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

/// The memory that serves an aligned read of `len` bytes: at most an eighth more than that takes, so that a block that
/// stays in the RAM tier holds little but itself.
fn size_class(len: usize) -> usize {
    let size = len + SLACK + ALIGNMENT;
    size.next_multiple_of((size.next_power_of_two() / 16).max(ALIGNMENT))
}

impl Buffer {
    /// A buffer whose aligned part holds at least `len` bytes wherever they begin in a page.
    pub fn new(len: usize) -> Buffer {
        let size = size_class(len);
        let pooled = {
            let mut pool = POOL.lock();
            let memory = pool.by_size.get_mut(&size).and_then(Vec::pop);
            if memory.is_some() {
                pool.idle_bytes -= size;
            }
            memory
        };
        let memory = pooled.unwrap_or_else(|| vec![0; size]);
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Buffer { memory, start }
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
        let len = self.memory.len();
        // Freed after the lock.
        let mut surplus = Vec::new();
        let mut pool = POOL.lock();
        let Pool { by_size, idle_bytes } = &mut *pool;
        while *idle_bytes + len > IDLE_BUFFER_BYTES {
            // Sizes that are no longer asked for must not keep out those that are.
            let other = by_size.iter_mut().find_map(|(size, idle)| if *size == len { None } else { idle.pop() });
            let Some(other) = other else { return };
            *idle_bytes -= other.len();
            surplus.push(other);
        }
        *idle_bytes += len;
        by_size.entry(len).or_default().push(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_BLOCK_BYTES;

    #[test]
    fn every_length_fits_and_is_aligned() {
        for len in [0, 1, 4096, 8192, 8193, 100_000, 1 << 20, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1] {
            let mut buffer = Buffer::new(len);
            let aligned = buffer.aligned(len.next_multiple_of(ALIGNMENT) + ALIGNMENT);
            assert_eq!(aligned.as_ptr().align_offset(ALIGNMENT), 0);
            aligned[100] = 7;
            assert!(buffer.capacity() <= (len + SLACK + ALIGNMENT) * 9 / 8 + ALIGNMENT, "{len}");
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
