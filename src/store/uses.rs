//! When a root or a segment was used: what eviction goes by.
//!
//! Beside the last use, the last 64 seconds are known, a bit each: what is used in many of them is being read by a job that
//! goes on reading it, and has a claim to what is kept of it. Threads that note a use in the same moment may lose one
//! second, which makes eviction choose a little less well and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// In how many of the last 64 seconds something is used that is in use.
const BUSY_SECONDS: u32 = 10;

/// The uses of one thing, in seconds of Unix time.
#[derive(Debug, Default)]
pub(super) struct Uses {
    last: AtomicU64,
    /// The seconds up to the last use, which is the lowest bit.
    recent: AtomicU64,
}

impl Uses {
    /// Something that was used last at that time.
    pub fn at(last: u64) -> Uses {
        Uses { last: AtomicU64::new(last), recent: AtomicU64::new(0) }
    }

    /// The last use was at that time.
    pub fn set_last(&self, last: u64) {
        self.last.store(last, Ordering::Relaxed);
        self.recent.store(0, Ordering::Relaxed);
    }

    /// It is used.
    pub fn note(&self, now: u64) {
        let last = self.last.load(Ordering::Relaxed);
        if last == now && self.recent.load(Ordering::Relaxed) & 1 == 1 {
            return;
        }
        self.last.store(now, Ordering::Relaxed);
        let recent = shifted(self.recent.load(Ordering::Relaxed), now.saturating_sub(last));
        self.recent.store(recent | 1, Ordering::Relaxed);
    }

    /// When it was used last.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Whether it is in use: again and again for a while, and up to now.
    pub fn is_busy(&self, now: u64) -> bool {
        let recent = shifted(self.recent.load(Ordering::Relaxed), now.saturating_sub(self.last()));
        recent.count_ones() >= BUSY_SECONDS
    }
}

fn shifted(seconds: u64, by: u64) -> u64 {
    if by < 64 { seconds << by } else { 0 }
}

/// Seconds of Unix time.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_again_and_again_is_in_use_until_it_is_not() {
        let uses = Uses::at(1_000);
        assert!(!uses.is_busy(1_000));
        for second in 1_000..1_009 {
            uses.note(second);
            uses.note(second);
            assert!(!uses.is_busy(second), "{second}");
        }
        uses.note(1_009);
        assert_eq!((uses.last(), uses.is_busy(1_009)), (1_009, true));
        assert!(uses.is_busy(1_063) && !uses.is_busy(1_064), "its first second was 64 seconds ago");
        uses.note(5_000);
        assert!(!uses.is_busy(5_000));
        uses.set_last(7);
        assert_eq!(uses.last(), 7);
        // A clock that goes back is no reason to panic.
        uses.note(3);
        assert_eq!(uses.last(), 3);
    }
}
