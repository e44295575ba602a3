//! Group commit: callers that want the same slow thing at the same time share one doing of it.
//!
//! Whoever comes while nothing runs does it for all who wait; whoever comes while it runs waits for the next. So a
//! caller's wish is always served by a run that began after the wish, which is what durability asks for.

use std::collections::HashMap;

use parking_lot::{Condvar, Mutex};

use super::StoreError;

/// Wishes of one kind, and their runs.
pub(super) struct Group<Wish> {
    state: Mutex<State<Wish>>,
    finished: Condvar,
}

struct State<Wish> {
    waiting: Vec<(u64, Wish)>,
    next_ticket: u64,
    running: bool,
    answers: HashMap<u64, Result<bool, StoreError>>,
}

impl<Wish> Group<Wish> {
    /// Nobody wishes anything.
    pub fn new() -> Group<Wish> {
        let state = State { waiting: Vec::new(), next_ticket: 0, running: false, answers: HashMap::new() };
        Group { state: Mutex::new(state), finished: Condvar::new() }
    }

    /// Returns when the wish was part of a run, with its answer. `run` gets all wishes that wait, in the order in which
    /// they came, and answers each; a failure is everybody's.
    pub fn submit(
        &self,
        wish: Wish,
        run: impl FnOnce(Vec<Wish>) -> Result<Vec<bool>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push((ticket, wish));
        while state.running {
            self.finished.wait(&mut state);
            if let Some(answer) = state.answers.remove(&ticket) {
                return answer;
            }
        }
        state.running = true;
        let (tickets, wishes): (Vec<u64>, Vec<Wish>) = state.waiting.drain(..).unzip();
        drop(state);
        let result = run(wishes);
        let mut state = self.state.lock();
        state.running = false;
        let mut own = Ok(false);
        for (number, other) in tickets.into_iter().enumerate() {
            let answer = result.as_ref().map(|answers| answers.get(number).copied().unwrap_or(false));
            let answer = answer.map_err(Clone::clone);
            if other == ticket {
                own = answer;
            } else {
                state.answers.insert(other, answer);
            }
        }
        drop(state);
        self.finished.notify_all();
        own
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn wishes_that_come_during_a_run_share_the_next_one() {
        let group = Group::new();
        let runs = AtomicU32::new(0);
        let first_runs = Barrier::new(2);
        let submitted = |wish: u32| {
            group.submit(wish, |wishes| {
                runs.fetch_add(1, Ordering::SeqCst);
                if wishes == [0] {
                    first_runs.wait();
                    // The others are waiting once their wishes are in.
                    while group.state.lock().waiting.len() < 4 {
                        std::thread::yield_now();
                    }
                }
                Ok(wishes.iter().map(|wish| wish % 2 == 1).collect())
            })
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!submitted(0).unwrap()));
            first_runs.wait();
            for wish in 1..5 {
                let submitted = &submitted;
                scope.spawn(move || assert_eq!(submitted(wish).unwrap(), wish % 2 == 1));
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert!(group.state.lock().answers.is_empty());
    }
}
