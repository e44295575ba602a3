//! How fast blocks may come and go: a token bucket for each direction, shared by all peers and gateways, and changed at any
//! time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The caps of both directions.
#[derive(Debug, Default)]
pub struct Caps {
    /// What goes out.
    pub up: Cap,
    /// What comes in.
    pub down: Cap,
}

/// The cap of one direction. The default is none.
#[derive(Debug, Default)]
pub struct Cap {
    /// Bytes a second; 0 is no cap.
    rate: AtomicU64,
    /// When what was taken so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

/// What may be taken at once after a pause, as time: a tenth of a second's worth.
const BURST: Duration = Duration::from_millis(100);
/// What is taken at a time under a cap, as time: whoever waits at the other end, or for a turn, sees something move.
const STEP: Duration = Duration::from_millis(100);
/// The least that is taken at a time, in bytes: a step costs a packet and a timer.
const MIN_STEP_BYTES: usize = 1024;
/// How often whoever waits looks whether the cap has changed.
const RECHECK: Duration = Duration::from_millis(200);

impl Cap {
    /// Bytes a second, or `None` for no cap.
    pub fn rate(&self) -> Option<u64> {
        match self.rate.load(Ordering::Relaxed) {
            0 => None,
            rate => Some(rate),
        }
    }

    /// Changes the cap. Whoever waits notices soon.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.rate.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
        *self.paid_at.lock() = None;
    }

    /// How many of `most` bytes should pass at a time: all of them without a cap.
    pub fn step_bytes(&self, most: usize) -> usize {
        let Some(rate) = self.rate() else { return most };
        let step = usize::try_from(u128::from(rate) * STEP.as_millis() / 1000).unwrap_or(usize::MAX);
        most.min(step.max(MIN_STEP_BYTES))
    }

    /// Waits until so many bytes may pass. Those who wait take turns, since each takes first and waits then.
    pub async fn take(&self, bytes: u64) {
        if self.rate().is_none() {
            return;
        }
        let mut paid_at = None;
        loop {
            let Some(rate) = self.rate() else { return };
            let now = Instant::now();
            if paid_at.is_none() {
                let mut shared = self.paid_at.lock();
                let earliest = now.checked_sub(BURST).unwrap_or(now);
                let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
                let end = shared.unwrap_or(earliest).max(earliest) + cost;
                *shared = Some(end);
                paid_at = Some((end, rate));
            }
            match paid_at {
                Some((at, of_rate)) if of_rate == rate => {
                    if at <= now {
                        return;
                    }
                    tokio::time::sleep_until(at.min(now + RECHECK)).await;
                }
                // The cap is another: what was waited for so far is forgotten.
                _ => paid_at = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cap_lets_its_rate_pass_and_can_be_lifted_while_somebody_waits() {
        let cap = std::sync::Arc::new(Cap::default());
        let start = Instant::now();
        cap.take(1 << 40).await;
        assert!(start.elapsed() < Duration::from_millis(50), "no cap");
        cap.set_rate(Some(1_000_000));
        for _ in 0..10 {
            cap.take(30_000).await;
        }
        // 0.3 s, less what may be taken at once.
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
        let waiting = tokio::spawn({
            let cap = cap.clone();
            async move { cap.take(1 << 40).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        cap.set_rate(None);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    }
}
