//! How one gateway does: how fast it answers, and whether it is to be left alone for a while.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::{GATEWAY_BACKOFF, GATEWAY_MAX_BACKOFF};

/// What is assumed of a gateway that was never asked.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(200);
/// The least and the most that a gateway is given before another one is asked, too.
const MIN_HEDGE: Duration = Duration::from_millis(100);
const MAX_HEDGE: Duration = Duration::from_secs(5);
/// What the next measurement counts against all before.
const WEIGHT: f64 = 0.125;

/// How one gateway does.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Seconds to the head of an answer: the mean, and the mean deviation from it.
    latency: Option<(f64, f64)>,
    in_flight: usize,
    failures: u32,
    /// When the last failure that counts was, and until when it is put aside.
    aside: Option<(Instant, Instant)>,
    pub no_cars: bool,
    blocks: u64,
    bytes: u64,
    errors: u64,
    last_error: String,
}

/// How one gateway does, for people and programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthReport {
    /// Its address.
    pub url: String,
    /// The mean time to the head of an answer, in milliseconds; `None` where it was never asked.
    pub latency_milliseconds: Option<u64>,
    /// Requests on their way.
    pub in_flight: u64,
    /// Blocks and bytes that it has sent.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// How long it is put aside, in milliseconds.
    pub aside_milliseconds: Option<u64>,
    /// The last that went wrong.
    pub last_error: String,
}

impl Health {
    pub fn began(&mut self) {
        self.in_flight += 1;
    }

    pub fn ended(&mut self) {
        self.in_flight -= 1;
    }

    /// The head of an answer has come.
    pub fn answered(&mut self, after: Duration) {
        let after = after.as_secs_f64();
        self.latency = Some(match self.latency {
            None => (after, after / 2.0),
            Some((mean, deviation)) => {
                (mean + WEIGHT * (after - mean), deviation + WEIGHT * ((after - mean).abs() - deviation))
            }
        });
    }

    /// It has sent a block.
    pub fn brought(&mut self, bytes: usize) {
        self.blocks += 1;
        self.bytes += bytes as u64;
        self.failures = 0;
        self.aside = None;
    }

    /// It answered as it should, though it has nothing.
    pub fn is_well(&mut self) {
        self.failures = 0;
        self.aside = None;
    }

    /// A request that began at `began` failed so badly that it counts as `weight` failures. Requests that were under way when
    /// it was put aside tell nothing new.
    pub fn failed(&mut self, began: Instant, weight: u32, retry_after: Option<Duration>, why: String) {
        self.errors += 1;
        self.last_error = why;
        let now = Instant::now();
        if self.aside.is_some_and(|(since, _)| began < since) {
            return;
        }
        self.failures = self.failures.saturating_add(weight);
        let backoff = GATEWAY_BACKOFF * 2_u32.pow((self.failures - 1).min(16));
        let wait = retry_after.unwrap_or_default().max(backoff).min(GATEWAY_MAX_BACKOFF);
        self.aside = Some((now, now + wait));
    }

    /// Until when it is put aside.
    pub fn aside(&self) -> Option<Instant> {
        self.aside.map(|(_, until)| until).filter(|until| *until > Instant::now())
    }

    /// How long a request would take, more or less: the least is best.
    pub fn score(&self) -> f64 {
        let latency = self.latency.map_or(UNKNOWN_LATENCY.as_secs_f64(), |(mean, _)| mean);
        (latency + 0.001) * (1 + self.in_flight) as f64 * f64::from(1 + self.failures)
    }

    /// How long an answer takes at most, usually.
    pub fn hedge_after(&self) -> Duration {
        let (mean, deviation) = self.latency.unwrap_or((UNKNOWN_LATENCY.as_secs_f64(), UNKNOWN_LATENCY.as_secs_f64()));
        Duration::from_secs_f64(mean + 4.0 * deviation).clamp(MIN_HEDGE, MAX_HEDGE)
    }

    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    pub fn report(&self, url: &str) -> HealthReport {
        let aside = self.aside().map(|until| until.saturating_duration_since(Instant::now()).as_millis() as u64);
        HealthReport {
            url: url.to_owned(),
            latency_milliseconds: self.latency.map(|(mean, _)| (mean * 1000.0) as u64),
            in_flight: self.in_flight as u64,
            blocks: self.blocks,
            bytes: self.bytes,
            errors: self.errors,
            aside_milliseconds: aside,
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_fails_is_put_aside_longer_each_time_and_no_longer_than_the_limit() {
        let mut health = Health::default();
        let mut last = Duration::ZERO;
        for _ in 0..40 {
            health.failed(Instant::now(), 1, None, "HTTP 500".into());
            let wait = health.aside().unwrap().saturating_duration_since(Instant::now());
            assert!(wait + Duration::from_millis(50) >= last && wait <= GATEWAY_MAX_BACKOFF);
            last = wait;
        }
        assert!(last > GATEWAY_MAX_BACKOFF / 2);
        health.brought(1);
        assert_eq!(health.aside(), None);
    }

    #[test]
    fn many_requests_that_fail_together_count_once() {
        let mut health = Health::default();
        let began = Instant::now();
        for _ in 0..64 {
            health.failed(began, 1, None, "refused".into());
        }
        assert_eq!((health.failures, health.errors), (1, 64));
    }

    #[test]
    fn the_quick_and_idle_one_has_the_best_score() {
        let (mut quick, mut slow) = (Health::default(), Health::default());
        quick.answered(Duration::from_millis(10));
        slow.answered(Duration::from_millis(100));
        assert!(quick.score() < slow.score());
        for _ in 0..50 {
            quick.began();
        }
        assert!(quick.score() > slow.score(), "busy");
        assert!(quick.hedge_after() >= MIN_HEDGE && Health::default().hedge_after() <= MAX_HEDGE);
    }
}
