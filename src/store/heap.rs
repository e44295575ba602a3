//! What the allocator keeps of the memory that is let go.
//!
//! Blocks come and go by the thousand a second, in pieces of some 64 KiB on their way from the network to the disk. glibc gives what
//! is let go back to the system as soon as 128 KiB lie at the end of a heap, and the next piece is then mapped and zeroed anew, page by
//! page: a tenth of the work of a fetch of small files was in those page faults. So a little more is kept.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use crate::limits::{IDLE_HEAP_BYTES, MAPPED_ALLOCATION_BYTES};

/// Has the allocator keep a little of what is let go, for the rest of the process. For a process that stays.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_some_memory() {
    // All three: with any of them set by hand, glibc adapts none of the others.
    let settings = [
        (libc::M_MMAP_THRESHOLD, MAPPED_ALLOCATION_BYTES),
        (libc::M_TRIM_THRESHOLD, IDLE_HEAP_BYTES),
        (libc::M_TOP_PAD, IDLE_HEAP_BYTES / 4),
    ];
    for (which, bytes) in settings {
        // SAFETY: mallopt only sets parameters of the allocator, which it does under the allocator's own lock.
        let was_set = unsafe { libc::mallopt(which, bytes) };
        if was_set == 0 {
            tracing::debug!(which, bytes, "the allocator does not take this setting");
        }
    }
}

/// Other allocators are left as they are.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_some_memory() {}
