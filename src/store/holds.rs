//! What writers hold: blocks that gc and eviction must leave alone although no pin needs them yet.
//!
//! An add that runs beside a gc puts blocks, or finds them here already, long before it pins its root. Each writer keeps
//! a bit for each such record. Removing a record asks all writers under the lock of the record's shard of the index, and
//! a writer sets its bit under the same lock, so a record is either held in time or gone before it is found. A writer
//! that ends while a sweep runs leaves its bits to the sweep: the sweep may have listed the pins before the writer's
//! root was pinned.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::Bitmap;

/// All that is held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    held: Vec<Arc<Held>>,
    sweeps: u32,
}

/// The records of one writer, by segment.
#[derive(Debug, Default)]
struct Held(Mutex<HashMap<u32, Bitmap>>);

/// A writer's hold on records, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    held: Arc<Held>,
    holds: Arc<Holds>,
}

/// Keeps what ends from being forgotten, while a sweep runs.
#[derive(Debug)]
pub(super) struct Sweep<'a>(&'a Holds);

impl Holds {
    /// A hold on nothing yet.
    pub fn begin(self: &Arc<Self>) -> Hold {
        let held = Arc::<Held>::default();
        self.registry.lock().held.push(held.clone());
        Hold { held, holds: self.clone() }
    }

    /// Whether anybody holds a record.
    pub fn contains(&self, segment: u32, ordinal: u32) -> bool {
        let registry = self.registry.lock();
        registry.held.iter().any(|held| held.contains(segment, ordinal))
    }

    /// Begins a sweep.
    pub fn sweep(&self) -> Sweep<'_> {
        self.registry.lock().sweeps += 1;
        Sweep(self)
    }
}

impl Held {
    fn contains(&self, segment: u32, ordinal: u32) -> bool {
        self.0.lock().get(&segment).is_some_and(|bits| bits.contains(ordinal))
    }
}

impl Hold {
    /// Holds one more record.
    pub fn add(&self, segment: u32, ordinal: u32) {
        self.held.0.lock().entry(segment).or_default().insert(ordinal);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut registry = self.holds.registry.lock();
        if registry.sweeps == 0 {
            registry.held.retain(|held| !Arc::ptr_eq(held, &self.held));
        }
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let mut registry = self.0.registry.lock();
        registry.sweeps -= 1;
        if registry.sweeps == 0 {
            // Those whose writer is gone are known here alone.
            registry.held.retain(|held| Arc::strong_count(held) > 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_when_a_sweep_begins_is_held_to_its_end() {
        let holds = Arc::<Holds>::default();
        let hold = holds.begin();
        hold.add(3, 4);
        assert!(holds.contains(3, 4) && !holds.contains(3, 5) && !holds.contains(4, 4));
        let sweep = holds.sweep();
        drop(hold);
        assert!(holds.contains(3, 4), "the sweep may not know the pin");
        drop(sweep);
        assert!(!holds.contains(3, 4));
        let hold = holds.begin();
        hold.add(1, 1);
        drop(hold);
        assert!(!holds.contains(1, 1));
    }
}
