//! How many bytes may go out and come in each second.
//!
//! One [`Caps`] is shared by everything that moves blocks (bitswap, gateways), so that the sum keeps to the cap. Whoever is
//! about to move bytes reserves them and is told how long to wait first; nobody is refused, and those that come together
//! queue up in the order in which they came. A line that was idle may send a quarter of a second's worth at once. The caps may
//! be changed at any time: what was promised under the old ones is forgotten.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What an idle line may send at once: enough that a cap costs no latency where little is moved.
const BURST: Duration = Duration::from_millis(250);

/// The caps of one node, in bytes a second; 0 is no cap.
#[derive(Debug, Default)]
pub struct Caps {
    upload: Bucket,
    download: Bucket,
}

#[derive(Debug, Default)]
struct Bucket {
    rate: AtomicU64,
    /// When everything that was reserved has been moved at the rate.
    paid: Mutex<Option<Instant>>,
}

impl Caps {
    /// Caps of so many bytes a second; 0 is none.
    pub fn new(upload: u64, download: u64) -> Caps {
        let caps = Caps::default();
        caps.set(upload, download);
        caps
    }

    /// Changes the caps, for everything that is reserved from now on.
    pub fn set(&self, upload: u64, download: u64) {
        self.upload.set(upload);
        self.download.set(download);
    }

    /// The caps for what goes out and what comes in, in bytes a second; 0 is none.
    pub fn get(&self) -> (u64, u64) {
        (self.upload.rate.load(Ordering::Relaxed), self.download.rate.load(Ordering::Relaxed))
    }

    /// Reserves `bytes` to go out, and says how long to wait before sending more.
    pub fn upload(&self, bytes: usize) -> Duration {
        self.upload.reserve(bytes as u64, Instant::now())
    }

    /// Reserves `bytes` to come in, and says how long to wait before reading more.
    pub fn download(&self, bytes: usize) -> Duration {
        self.download.reserve(bytes as u64, Instant::now())
    }

    /// Reserves `bytes` to come in, and returns when more may be read.
    pub async fn wait_download(&self, bytes: usize) {
        let wait = self.download(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Reserves `bytes` to go out, and returns when more may be sent.
    pub async fn wait_upload(&self, bytes: usize) {
        let wait = self.upload(bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Bucket {
    fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        *self.paid.lock() = None;
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Duration {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let mut paid = self.paid.lock();
        let start = paid.map_or(earliest, |paid| paid.max(earliest));
        let end = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *paid = Some(end);
        end.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cap_nobody_waits() {
        let caps = Caps::default();
        assert_eq!(caps.download(usize::MAX), Duration::ZERO);
        assert_eq!(caps.upload(usize::MAX), Duration::ZERO);
    }

    #[test]
    fn what_is_moved_keeps_to_the_cap_whoever_moves_it() {
        let bucket = Bucket::default();
        bucket.set(1_000_000);
        let begin = Instant::now() + Duration::from_secs(1);
        let mut now = begin;
        for piece in 0..1000_u64 {
            now += bucket.reserve(if piece % 2 == 0 { 15_000 } else { 5_000 }, now);
        }
        let took = now - begin;
        assert!((Duration::from_millis(9_700)..=Duration::from_secs(10)).contains(&took), "10 MB took {took:?}");
        // A pause gives back no more than the burst.
        now += Duration::from_mins(1);
        assert_eq!(bucket.reserve(200_000, now), Duration::ZERO);
        assert!(bucket.reserve(200_000, now) >= Duration::from_millis(100));
    }

    #[test]
    fn a_changed_cap_holds_at_once() {
        let caps = Caps::new(1, 1);
        assert!(caps.download(1_000) > Duration::from_mins(15));
        caps.set(0, 1_000_000);
        assert!(caps.download(1_000) < Duration::from_millis(10));
        assert_eq!(caps.upload(1_000_000), Duration::ZERO);
        assert_eq!(caps.get(), (0, 1_000_000));
    }
}
