//! Read buffers: aligned for direct I/O, on huge pages, and handed out as [`Bytes`] without a copy.
//!
//! A direct read gives the disk one address for each stretch of memory that is contiguous, so a block in pages of 4 KiB is some
//! hundred of them; on huge pages it is one or two, and reads a disk that is not the bottleneck itself at up to twice the speed.
//! So buffers are cut out of large regions that the kernel is asked to back by huge pages. A buffer comes back when the
//! last slice of it is dropped, and its pages are the next reader's.
//!
//! A buffer holds little but what it is for: whole pages, one more than its bytes take. What is kept idle is bounded; the rest
//! goes back to the system, so an idle store holds little.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;

use super::disk::ALIGNMENT;
use super::extents::{Extent, Extents};
use crate::limits::{IDLE_BUFFER_BYTES, MAX_BLOCK_BYTES};

/// What buffers are cut out of: so many blocks that what does not fit at the end of one is little. Memory that was never
/// used takes none.
const REGION_BYTES: usize = 32 << 20;
/// The huge page of the processors that we know; others lose the gain and nothing else.
const HUGE_BYTES: usize = 2 << 20;
const REGION_PAGES: u32 = (REGION_BYTES / ALIGNMENT) as u32;
const HUGE_PAGES: u32 = (HUGE_BYTES / ALIGNMENT) as u32;

const _: () = assert!(MAX_BLOCK_BYTES + 2 * ALIGNMENT <= REGION_BYTES, "every block fits into a region");
const _: () = assert!(REGION_BYTES / HUGE_BYTES <= u32::BITS as usize, "a bit for each huge page");

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(|| Mutex::new(Pool::default()));

#[derive(Default)]
struct Pool {
    regions: BTreeMap<u32, Held>,
    free: Extents,
    /// The number of the next region.
    next: u32,
    /// Pages of buffers.
    used: usize,
    /// Huge pages that were used and have not gone back to the system.
    touched: usize,
}

struct Held {
    region: Arc<Region>,
    /// A bit for each huge page that was used and has not gone back to the system.
    touched: u32,
}

/// Memory that buffers are cut out of.
struct Region {
    map: MmapRaw,
    /// Where the first huge page begins.
    start: usize,
}

/// Memory for one aligned read.
pub(super) struct Buffer {
    region: Arc<Region>,
    extent: Extent,
}

impl Region {
    fn new() -> Region {
        let map = match MmapOptions::new().len(REGION_BYTES + HUGE_BYTES).map_anon() {
            Ok(map) => MmapRaw::from(map),
            // As for any other allocation.
            Err(_) => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; REGION_BYTES]>()),
        };
        // A kernel without huge pages says so, and gives others.
        let _ = map.advise(Advice::HugePage);
        let start = map.as_ptr().align_offset(HUGE_BYTES);
        Region { map, start }
    }

    /// Where a page lies in the mapping.
    fn offset(&self, page: u32) -> usize {
        self.start + page as usize * ALIGNMENT
    }

    /// Gives huge pages back to the system. Their bytes are lost.
    fn release(&self, huge: Range<u32>) -> bool {
        let (from, to) = (self.offset(huge.start * HUGE_PAGES), self.offset(huge.end * HUGE_PAGES));
        // SAFETY: the pages are in no buffer, so nobody looks at what is lost.
        unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) }.is_ok()
    }
}

/// The huge pages of which `extent` holds some part, or those that it holds whole.
fn huge_pages(extent: Extent, whole: bool) -> Range<u32> {
    let end = extent.first + extent.pages;
    if whole {
        let first = extent.first.div_ceil(HUGE_PAGES);
        first..(end / HUGE_PAGES).max(first)
    } else {
        extent.first / HUGE_PAGES..end.div_ceil(HUGE_PAGES)
    }
}

impl Pool {
    fn take(&mut self, pages: u32) -> Buffer {
        let extent = loop {
            if let Some(extent) = self.free.take(pages) {
                break extent;
            }
            let number = self.next;
            self.next += 1;
            self.regions.insert(number, Held { region: Arc::new(Region::new()), touched: 0 });
            self.free.give(Extent { region: number, first: 0, pages: REGION_PAGES });
        };
        self.used += pages as usize;
        let held = self.regions.get_mut(&extent.region).expect("free pages are of a region that is here");
        for huge in huge_pages(extent, false) {
            self.touched += usize::from(held.touched & (1 << huge) == 0);
            held.touched |= 1 << huge;
        }
        Buffer { region: held.region.clone(), extent }
    }

    /// Takes pages back. Where more is idle than may be, the huge pages that have become free go to the system.
    fn give(&mut self, extent: Extent) {
        self.used -= extent.pages as usize;
        let free = self.free.give(extent);
        let Some(held) = self.regions.get_mut(&extent.region) else { return };
        for huge in huge_pages(free, true) {
            if self.touched * HUGE_BYTES <= self.used * ALIGNMENT + IDLE_BUFFER_BYTES {
                break;
            }
            if held.touched & (1 << huge) != 0 && held.region.release(huge..huge + 1) {
                held.touched &= !(1 << huge);
                self.touched -= 1;
            }
        }
        if free.pages == REGION_PAGES && self.free.count(REGION_PAGES) > 1 {
            self.touched -= held.touched.count_ones() as usize;
            self.free.withdraw(free);
            self.regions.remove(&extent.region);
        }
    }

    /// The memory that is kept for the next readers, in bytes.
    #[cfg(test)]
    fn idle_bytes(&self) -> usize {
        self.touched * HUGE_BYTES - self.used * ALIGNMENT
    }
}

impl Buffer {
    /// A buffer whose aligned part holds at least `len` bytes wherever they begin in a page. `len` is at most that of the
    /// largest block.
    pub fn new(len: usize) -> Buffer {
        let pages = len.div_ceil(ALIGNMENT) + 1;
        POOL.lock().take(pages as u32)
    }

    /// The aligned part.
    pub fn aligned(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.capacity(), "{len} bytes of a buffer of {}", self.capacity());
        // SAFETY: these bytes of the mapping are this buffer's alone until it is dropped, were initialised by the kernel, and
        // stay mapped while it holds the region.
        unsafe { std::slice::from_raw_parts_mut(self.start().cast_mut(), len) }
    }

    /// What it holds of memory, in bytes.
    pub fn capacity(&self) -> usize {
        self.extent.pages as usize * ALIGNMENT
    }

    /// `len` bytes from `offset` of the aligned part, without a copy.
    pub fn into_bytes(self, offset: usize, len: usize) -> Bytes {
        Bytes::from_owner(self).slice(offset..offset + len)
    }

    fn start(&self) -> *const u8 {
        // SAFETY: the extent lies in the region, and the region in its mapping.
        unsafe { self.region.map.as_mut_ptr().add(self.region.offset(self.extent.first)) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `aligned`; nobody writes while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.start(), self.capacity()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        POOL.lock().give(self.extent);
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
            assert!(buffer.capacity() <= len + 2 * ALIGNMENT, "{len}");
            let bytes = buffer.into_bytes(100, 1);
            assert_eq!(bytes[0], 7);
        }
    }

    #[test]
    fn no_buffer_shares_memory_with_another() {
        let mut held: Vec<(u8, Bytes)> = Vec::new();
        for round in 0..300_usize {
            let len = 1 + round * 7919 % 700_000;
            let mut buffer = Buffer::new(len);
            buffer.aligned(len).fill(round as u8);
            held.push((round as u8, buffer.into_bytes(0, len)));
            if round % 3 != 0 {
                held.swap_remove(round * 31 % held.len());
            }
        }
        for (byte, bytes) in held {
            assert!(bytes.iter().all(|other| *other == byte));
        }
    }

    /// A pool of its own, for other tests use the one of all.
    #[test]
    fn what_is_kept_idle_is_bounded() {
        let mut pool = Pool::default();
        let extents = |pool: &mut Pool, count: u32| -> Vec<Extent> {
            (0..count)
                .map(|number| {
                    // Given back by hand, not to the pool of all.
                    let buffer = std::mem::ManuallyDrop::new(pool.take(100 + number % 400));
                    buffer.extent
                })
                .collect()
        };
        let all = extents(&mut pool, 300);
        assert!(pool.used * ALIGNMENT > 8 * IDLE_BUFFER_BYTES);
        let (some, others): (Vec<Extent>, Vec<Extent>) = all.into_iter().partition(|extent| extent.first % 3 == 0);
        for extent in some.into_iter().chain(others) {
            pool.give(extent);
        }
        assert_eq!(pool.used, 0);
        assert!(pool.idle_bytes() <= IDLE_BUFFER_BYTES, "{}", pool.idle_bytes());
        assert_eq!(pool.regions.len(), 1);
        for extent in extents(&mut pool, 1) {
            pool.give(extent);
        }
    }
}
