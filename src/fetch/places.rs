//! How many fetches run at once, and which of those that wait is next.
//!
//! Demand goes before read-ahead, read-ahead before background, and within each the order is that of asking. What nobody
//! waits for yet takes no more than a part of the places, and while a reader waits, hardly any new one: what is in flight shares
//! the line with the reader's block. A fetch that waits here moves up when it is wanted more.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::Priority;
use crate::limits::{MAX_BACKGROUND_BESIDE_DEMAND, MAX_EARLY_FETCHES, MAX_FETCHES, MAX_READ_AHEAD_BESIDE_DEMAND};

/// The places.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: [usize; 3],
    /// By how much they are wanted, most first, then by when they asked.
    waiting: BTreeMap<(u8, u64), oneshot::Sender<Priority>>,
    asked: u64,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    priority: Priority,
}

/// One that waits for a place; dropped, it waits no more.
struct Ticket {
    places: Arc<Places>,
    key: (u8, u64),
    granted: Option<oneshot::Receiver<Priority>>,
}

const CLASSES: [Priority; 3] = [Priority::Demand, Priority::ReadAhead, Priority::Background];

fn class(priority: Priority) -> usize {
    match priority {
        Priority::Demand => 0,
        Priority::ReadAhead => 1,
        Priority::Background => 2,
    }
}

impl Places {
    /// Waits for a place. `priority` is listened to on the way.
    pub async fn take(self: &Arc<Self>, priority: &mut watch::Receiver<Priority>) -> Place {
        loop {
            let wanted = *priority.borrow_and_update();
            let mut ticket = self.wait(wanted);
            let Some(granted) = ticket.granted.as_mut() else { continue };
            tokio::select! {
                biased;
                granted = granted => {
                    ticket.granted = None;
                    // The sender goes only with a grant.
                    return Place { places: self.clone(), priority: granted.unwrap_or(wanted) };
                }
                // It waits anew, further up. Only rarely is anybody overtaken by that who asked before.
                Ok(()) = priority.changed() => {}
            }
        }
    }

    fn wait(self: &Arc<Self>, priority: Priority) -> Ticket {
        let (sender, granted) = oneshot::channel();
        let mut state = self.0.lock();
        state.asked += 1;
        let key = (class(priority) as u8, state.asked);
        state.waiting.insert(key, sender);
        state.grant();
        Ticket { places: self.clone(), key, granted: Some(granted) }
    }

    /// How many run and how many wait.
    pub fn count(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.running.iter().sum(), state.waiting.len())
    }
}

impl State {
    fn may_run(&self, class: usize) -> bool {
        let all: usize = self.running.iter().sum();
        let early = self.running[1] + self.running[2];
        let beside_demand = self.running[0] > 0;
        all < MAX_FETCHES
            && match class {
                0 => true,
                1 => early < MAX_EARLY_FETCHES && (!beside_demand || self.running[1] < MAX_READ_AHEAD_BESIDE_DEMAND),
                _ => early < MAX_EARLY_FETCHES && (!beside_demand || self.running[2] < MAX_BACKGROUND_BESIDE_DEMAND),
            }
    }

    /// Lets in whoever may come in.
    fn grant(&mut self) {
        for priority in CLASSES {
            let class = class(priority);
            while self.may_run(class) {
                let Some((key, _)) = self.waiting.range((class as u8, 0)..=(class as u8, u64::MAX)).next() else {
                    break;
                };
                let key = *key;
                let Some(sender) = self.waiting.remove(&key) else { break };
                if sender.send(priority).is_ok() {
                    self.running[class] += 1;
                }
            }
        }
    }
}

impl Place {
    /// It is wanted more now: counts as such.
    pub fn raise(&mut self, priority: Priority) {
        if priority > self.priority {
            let mut state = self.places.0.lock();
            state.running[class(self.priority)] -= 1;
            state.running[class(priority)] += 1;
            self.priority = priority;
            state.grant();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.0.lock();
        state.running[class(self.priority)] -= 1;
        state.grant();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(mut granted) = self.granted.take() else { return };
        let mut state = self.places.0.lock();
        if state.waiting.remove(&self.key).is_none()
            && let Ok(priority) = granted.try_recv()
        {
            // It was let in at the same moment.
            state.running[class(priority)] -= 1;
            state.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn wanted(priority: Priority) -> (watch::Sender<Priority>, watch::Receiver<Priority>) {
        watch::channel(priority)
    }

    fn take_now(places: &Arc<Places>, priority: Priority) -> Option<Place> {
        let (_sender, mut receiver) = wanted(priority);
        places.take(&mut receiver).now_or_never()
    }

    #[test]
    fn demand_finds_a_place_however_much_is_fetched_ahead() {
        let places = Arc::<Places>::default();
        let mut early = Vec::new();
        while let Some(place) = take_now(&places, Priority::Background) {
            early.push(place);
        }
        assert_eq!(early.len(), MAX_EARLY_FETCHES);
        assert!(take_now(&places, Priority::ReadAhead).is_none());
        let demand: Vec<Place> = std::iter::from_fn(|| take_now(&places, Priority::Demand)).collect();
        assert_eq!(demand.len(), MAX_FETCHES - MAX_EARLY_FETCHES);
        // What gave up left nothing behind.
        assert_eq!(places.count(), (MAX_FETCHES, 0));
        drop((demand, early));
        assert_eq!(places.count(), (0, 0));
    }

    #[test]
    fn beside_a_reader_little_is_begun_that_nobody_waits_for() {
        let places = Arc::<Places>::default();
        let reader = take_now(&places, Priority::Demand).unwrap();
        let background: Vec<Place> = std::iter::from_fn(|| take_now(&places, Priority::Background)).collect();
        assert_eq!(background.len(), MAX_BACKGROUND_BESIDE_DEMAND);
        let ahead: Vec<Place> = std::iter::from_fn(|| take_now(&places, Priority::ReadAhead)).collect();
        assert_eq!(ahead.len(), MAX_READ_AHEAD_BESIDE_DEMAND);
        drop(reader);
        assert!(take_now(&places, Priority::Background).is_some());
    }

    #[test]
    fn who_is_wanted_more_goes_first_and_may_become_so_while_waiting() {
        let places = Arc::<Places>::default();
        let mut held: Vec<Place> = std::iter::from_fn(|| take_now(&places, Priority::Demand)).collect();
        let (_a, mut a) = wanted(Priority::Background);
        let (_b, mut b) = wanted(Priority::ReadAhead);
        let (raise, mut c) = wanted(Priority::Background);
        let mut a = Box::pin(places.take(&mut a));
        let mut b = Box::pin(places.take(&mut b));
        let mut c = Box::pin(places.take(&mut c));
        for waiting in [&mut a, &mut b, &mut c] {
            assert!(waiting.now_or_never().is_none());
        }
        raise.send(Priority::Demand).unwrap();
        assert!((&mut c).now_or_never().is_none());
        held.pop();
        let c = (&mut c).now_or_never().expect("the raised one is first");
        assert_eq!(c.priority, Priority::Demand);
        drop(held);
        assert!((&mut a).now_or_never().is_some() && (&mut b).now_or_never().is_some());
    }
}
