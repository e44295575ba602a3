//! What the engine knows of a peer: how fast it is, what is in flight from it, what it wants of us.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::SessionId;
use super::ledger::Ledger;
use super::wants::Key;
use crate::limits::{FIRST_WINDOW_BYTES, MAX_LATE_BLOCKS, MAX_WINDOW_BYTES};
use crate::net::bitswap::message::Entry;

/// A peer that is connected, dialed, or known to a session.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Peer {
    /// A number that every node computes of the peer's name.
    pub identity: u64,
    pub is_connected: bool,
    pub is_dialing: bool,
    /// What is to be said to it about what we want.
    pub delta: BTreeMap<Key, Entry>,
    /// Whether such a message is under way; the next one waits for it.
    pub is_sending: bool,
    /// Whether it has to be told everything again.
    pub needs_full: bool,
    /// The wants that it was asked about.
    pub entries: BTreeSet<Key>,
    /// The blocks that it was asked for, the oldest first; some are settled.
    pub asks: VecDeque<(Instant, Key)>,
    pub in_flight: usize,
    pub in_flight_bytes: u64,
    pub window: Window,
    /// Bytes that it has queued for us, as it last said.
    pub queued_for_us: u64,
    /// When it last answered anything, or was first asked after a pause.
    pub last_heard: Instant,
    /// When a part of a message last came that took longer than a moment.
    pub last_part: Option<Instant>,
    pub is_stalled: bool,
    /// Not asked before then.
    pub aside_until: Option<Instant>,
    pub aside_for: Duration,
    /// Whether that is for nothing worse than that it could not be reached.
    pub is_unreachable: bool,
    /// What it did wrong lately.
    pub faults: u32,
    pub late: Late,
    pub ledger: Ledger,
    pub is_busy: bool,
    /// The sessions that it is a member of.
    pub sessions: BTreeSet<SessionId>,
}

impl Peer {
    pub fn new(now: Instant, identity: u64) -> Peer {
        Peer {
            identity,
            is_connected: false,
            is_dialing: false,
            delta: BTreeMap::new(),
            is_sending: false,
            needs_full: false,
            entries: BTreeSet::new(),
            asks: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            window: Window::new(now),
            queued_for_us: 0,
            last_heard: now,
            last_part: None,
            is_stalled: false,
            aside_until: None,
            aside_for: Duration::ZERO,
            is_unreachable: false,
            faults: 0,
            late: Late::default(),
            ledger: Ledger::default(),
            is_busy: false,
            sessions: BTreeSet::new(),
        }
    }

    /// Whether it may be asked now.
    pub fn is_usable(&self) -> bool {
        self.is_connected && self.aside_until.is_none()
    }

    /// Whether it is sending something, and slowly.
    pub fn trickles(&self, now: Instant) -> bool {
        self.last_part.is_some_and(|at| now.saturating_duration_since(at) < MAX_STALL)
    }

    /// How long it may be silent while something is in flight from it.
    pub fn stall_after(&self) -> Duration {
        (self.window.latency * 4).clamp(MIN_STALL, MAX_STALL)
    }
}

/// A peer that is slower than this has stalled: machines that are busy pause for hundreds of milliseconds.
const MIN_STALL: Duration = Duration::from_secs(1);
/// A peer that is silent for longer has stalled, however slow it was.
const MAX_STALL: Duration = Duration::from_secs(5);

/// How much may be in flight from a peer: twice what its path holds, as far as its speed and its shortest latency tell, and
/// a few blocks. While its speed grows with the window, the window doubles; once the path is full, it stays.
pub struct Window {
    /// Bytes a second, the best of the last rounds.
    rates: [f64; Window::ROUNDS],
    round: usize,
    round_start: Instant,
    round_bytes: u64,
    /// The shortest latency of this period and the last one.
    shortest: [Duration; 2],
    period_start: Instant,
    /// The usual latency.
    pub latency: Duration,
}

impl Window {
    const ROUNDS: usize = 8;
    const PERIOD: Duration = Duration::from_secs(10);
    /// A shorter round says nothing about speed.
    const MIN_ROUND: Duration = Duration::from_millis(2);

    fn new(now: Instant) -> Window {
        Window {
            rates: [0.0; Window::ROUNDS],
            round: 0,
            round_start: now,
            round_bytes: 0,
            shortest: [Duration::MAX; 2],
            period_start: now,
            latency: Duration::ZERO,
        }
    }

    /// Bytes a second, or `None` while nothing came.
    pub fn rate(&self) -> Option<f64> {
        let best = self.rates.iter().copied().fold(0.0, f64::max);
        (best > 0.0).then_some(best)
    }

    /// The bytes that may be in flight, where a block has `block_bytes`.
    pub fn limit(&self, block_bytes: u64) -> u64 {
        let Some(rate) = self.rate() else { return FIRST_WINDOW_BYTES };
        let shortest = self.shortest[0].min(self.shortest[1]).min(Duration::from_secs(1));
        let path = (rate * shortest.as_secs_f64()) as u64;
        (2 * path + (4 * block_bytes).max(512 * 1024)).min(MAX_WINDOW_BYTES)
    }

    /// Nothing was in flight before now: time that passed says nothing.
    pub fn begin(&mut self, now: Instant) {
        self.round_start = now;
        self.round_bytes = 0;
    }

    /// A block of so many bytes came after `latency`, while `in_flight_bytes` were under way.
    pub fn delivered(&mut self, now: Instant, bytes: u64, latency: Option<Duration>, in_flight_bytes: u64) {
        if now.saturating_duration_since(self.period_start) > Window::PERIOD {
            self.shortest = [Duration::MAX, self.shortest[0]];
            self.period_start = now;
        }
        if let Some(latency) = latency {
            self.shortest[0] = self.shortest[0].min(latency);
            self.latency = if self.latency.is_zero() { latency } else { (self.latency * 7 + latency) / 8 };
        }
        self.round_bytes += bytes;
        let elapsed = now.saturating_duration_since(self.round_start);
        let limit = self.limit(bytes);
        if elapsed < Window::MIN_ROUND || self.round_bytes < limit {
            return;
        }
        let rate = self.round_bytes as f64 / elapsed.as_secs_f64();
        // A round in which little was asked for does not show what the path can do, unless it was fast.
        if in_flight_bytes * 2 >= limit || self.rate().is_none_or(|best| rate > best) {
            self.round = (self.round + 1) % Window::ROUNDS;
            self.rates[self.round] = rate;
        }
        self.begin(now);
    }
}

/// Blocks that were asked for and are wanted no more. They may still come.
#[derive(Default)]
pub struct Late {
    keys: HashMap<Key, u32>,
    order: VecDeque<Key>,
}

impl Late {
    pub fn insert(&mut self, key: Key) {
        *self.keys.entry(key.clone()).or_default() += 1;
        self.order.push_back(key);
        if self.order.len() > MAX_LATE_BLOCKS
            && let Some(oldest) = self.order.pop_front()
            && let Some(count) = self.keys.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&oldest);
            }
        }
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.keys.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a path of so many bytes a second and so long a round trip, always as full as the window allows.
    fn settle(rate: f64, round_trip: Duration, block: u64) -> u64 {
        let start = Instant::now();
        let mut now = start;
        let mut window = Window::new(now);
        let mut free_at = now;
        for _ in 0..4000 {
            let in_flight = window.limit(block);
            // A block waits for those before it, and for the path.
            let queue = Duration::from_secs_f64(in_flight as f64 / rate);
            let latency = round_trip.max(queue) + Duration::from_secs_f64(block as f64 / rate);
            let pace = Duration::from_secs_f64(block as f64 * latency.as_secs_f64() / in_flight as f64);
            free_at += pace.max(Duration::from_secs_f64(block as f64 / rate));
            now = now.max(free_at);
            window.delivered(now, block, Some(latency), in_flight);
        }
        window.limit(block)
    }

    #[test]
    fn the_window_fills_a_long_path_and_stays_bounded_on_a_short_one() {
        let far = settle(125e6, Duration::from_millis(50), 256 * 1024);
        assert!(far >= 6_250_000, "{far} bytes do not fill 1 Gbit/s over 50 ms");
        assert!(far <= MAX_WINDOW_BYTES);
        let near = settle(1e6, Duration::from_millis(1), 256 * 1024);
        assert!(near <= 16 * FIRST_WINDOW_BYTES, "{near} bytes queue up before a slow peer");
    }

    #[test]
    fn late_blocks_are_remembered_within_bounds() {
        let mut late = Late::default();
        let key = |seed: usize| {
            let hash = crate::block::HashFunction::Sha2_256.digest(&seed.to_le_bytes());
            Key::of(&crate::block::Cid::new_v1(crate::block::codec::RAW, &hash))
        };
        for seed in 0..=MAX_LATE_BLOCKS {
            late.insert(key(seed));
        }
        assert!(!late.contains(&key(0)) && late.contains(&key(1)) && late.contains(&key(MAX_LATE_BLOCKS)));
        assert_eq!(late.keys.len(), MAX_LATE_BLOCKS);
    }
}
