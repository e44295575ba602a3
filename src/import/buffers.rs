//! Memory for what is read: used again and again, because fresh memory costs as much as reading into it.
//!
//! A buffer has room before and after the data, for what a dag-pb node puts around it, so a leaf is read straight into
//! its block. It comes back when the last slice of it is dropped: a block was kept by then, or the import has failed.
//! What waits for use is bounded by [`IMPORT_AHEAD_BYTES`], beyond which it goes back to the system.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::limits::IMPORT_AHEAD_BYTES;

/// Room before the data: the tags, types and lengths of two messages.
const HEAD_BYTES: usize = 24;
/// Room after it: a size, a mode and a time.
const TAIL_BYTES: usize = 40;
/// Smaller buffers are not worth keeping.
const LEAST_KEPT_BYTES: usize = 4096;

/// Where buffers come from and go back to. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Idle>>);

#[derive(Default)]
struct Idle {
    by_size: HashMap<usize, Vec<Box<[u8]>>>,
    bytes: usize,
}

/// Memory for so many bytes of data.
pub(super) struct Buffer {
    memory: Box<[u8]>,
    len: usize,
    home: Buffers,
}

impl Buffers {
    /// A buffer for `len` bytes, which hold anything.
    pub fn take(&self, len: usize) -> Buffer {
        let size = size_class(HEAD_BYTES + len + TAIL_BYTES);
        let idle = if size < LEAST_KEPT_BYTES {
            None
        } else {
            let mut idle = self.0.lock();
            let memory = idle.by_size.get_mut(&size).and_then(Vec::pop);
            if memory.is_some() {
                idle.bytes -= size;
            }
            memory
        };
        let memory = idle.unwrap_or_else(|| vec![0; size].into());
        Buffer { memory, len, home: self.clone() }
    }

    fn give_back(&self, memory: Box<[u8]>) {
        if memory.len() < LEAST_KEPT_BYTES {
            return;
        }
        let mut idle = self.0.lock();
        if idle.bytes + memory.len() > IMPORT_AHEAD_BYTES as usize {
            // Sizes that are no longer asked for must not keep out those that are.
            *idle = Idle::default();
        }
        idle.bytes += memory.len();
        idle.by_size.entry(memory.len()).or_default().push(memory);
    }
}

/// The size of the buffers that serve `len` bytes: at most a quarter more.
fn size_class(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / 8).max(64))
}

impl Buffer {
    /// The data.
    pub fn data(&mut self) -> &mut [u8] {
        &mut self.memory[HEAD_BYTES..HEAD_BYTES + self.len]
    }

    /// Keeps the first `len` bytes of the data.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The data, shared.
    pub fn freeze(self) -> Bytes {
        let len = self.len;
        Bytes::from_owner(self).slice(HEAD_BYTES..HEAD_BYTES + len)
    }

    /// The data with `head` before and `tail` after it, without a copy of the data where they have room.
    pub fn freeze_between(mut self, head: &[u8], tail: &[u8]) -> Bytes {
        let end = HEAD_BYTES + self.len;
        if head.len() > HEAD_BYTES || tail.len() > TAIL_BYTES {
            return [head, self.data(), tail].concat().into();
        }
        let start = HEAD_BYTES - head.len();
        self.memory[start..HEAD_BYTES].copy_from_slice(head);
        self.memory[end..end + tail.len()].copy_from_slice(tail);
        Bytes::from_owner(self).slice(start..end + tail.len())
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_slice_is_dropped() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(100_000);
        buffer.data().fill(7);
        let bytes = buffer.freeze_between(b"head", b"tail");
        assert_eq!((&bytes[..4], bytes[4], &bytes[100_004..]), (&b"head"[..], 7, &b"tail"[..]));
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(buffers.0.lock().bytes, 0);
        drop(slice);
        let idle = buffers.0.lock().bytes;
        assert!((100_000..125_100).contains(&idle), "{idle}");
        drop(buffers.take(100_000));
        assert_eq!(buffers.0.lock().bytes, idle);
    }

    #[test]
    fn what_waits_for_use_is_bounded() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..100).map(|_| buffers.take(1 << 20)).collect();
        drop(taken);
        assert!(buffers.0.lock().bytes as u64 <= IMPORT_AHEAD_BYTES);
    }

    #[test]
    fn data_that_has_no_room_around_it_is_copied() {
        let mut buffer = Buffers::default().take(3);
        buffer.data().copy_from_slice(b"abc");
        let head = [b'<'; 100];
        assert_eq!(&buffer.freeze_between(&head, b">")[100..], b"abc>");
    }
}
