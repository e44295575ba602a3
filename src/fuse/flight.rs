//! The requests of a mount that are being answered, and how they come to an end.
//!
//! Whoever ends a mount says so first: from then on no request is begun, and those that were begun are waited for. A
//! request counts itself before it asks whether the mount is ending, and the ending is said before anybody counts: so none
//! slips through in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// The requests of one mount that are being answered.
#[derive(Debug, Default)]
pub(super) struct Flights {
    count: AtomicUsize,
    ending: AtomicBool,
    /// Held by the last request of an ending mount while it says that it is done.
    door: Mutex<()>,
    done: Condvar,
}

/// One request. Dropped, it was answered.
#[derive(Debug)]
pub(super) struct Flight(Arc<Flights>);

impl Flights {
    /// Begins a request; `None` where the mount is ending.
    pub fn begin(self: &Arc<Self>) -> Option<Flight> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let flight = Flight(self.clone());
        (!self.ending.load(Ordering::SeqCst)).then_some(flight)
    }

    /// From now on no request is begun.
    pub fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Waits until every request was answered, at most for `limit`; says whether they were. Only after
    /// [`Flights::end`].
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut door = self.door.lock();
        while self.count.load(Ordering::SeqCst) > 0 {
            if self.done.wait_until(&mut door, deadline).timed_out() {
                return self.count.load(Ordering::SeqCst) == 0;
            }
        }
        true
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let flights = &self.0;
        if flights.count.fetch_sub(1, Ordering::SeqCst) == 1 && flights.ending.load(Ordering::SeqCst) {
            // Whoever has looked at the count and is about to wait has the door.
            let _door = flights.door.lock();
            flights.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_waited_for_and_nothing_is_begun_any_more() {
        let flights = Arc::new(Flights::default());
        let flight = flights.begin().unwrap();
        flights.end();
        assert!(flights.begin().is_none());
        assert!(!flights.wait(Duration::from_millis(1)));
        let waiting = {
            let flights = flights.clone();
            std::thread::spawn(move || flights.wait(Duration::from_mins(1)))
        };
        drop(flight);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn no_request_is_lost_between_beginning_and_end() {
        for _ in 0..200 {
            let flights = Arc::new(Flights::default());
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let flights = flights.clone();
                    std::thread::spawn(move || std::iter::from_fn(|| flights.begin()).take(10_000).for_each(drop))
                })
                .collect();
            flights.end();
            assert!(flights.wait(Duration::from_mins(1)));
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(flights.begin().is_none());
        }
    }
}
