//! Telling whoever watches the store what enters it.
//!
//! A peer may be waiting for a block that somebody adds just now, and what is pinned is announced: the store tells of both,
//! whatever road they came on. It costs one look at an empty place where nobody watches.

use arc_swap::ArcSwapOption;

use super::{Pin, Store};
use crate::block::Block;

/// Told of what enters the store, on the thread that brings it: what takes long is to be done elsewhere.
pub trait Watcher: Send + Sync + 'static {
    /// A block that was not here can be read now. It need not be durable yet.
    fn arrived(&self, block: &Block);

    /// A pin is durable.
    fn pinned(&self, _pin: &Pin) {}
}

/// The place of the one who watches.
#[derive(Default)]
pub(super) struct Watch {
    watcher: ArcSwapOption<Box<dyn Watcher>>,
}

impl Watch {
    pub fn arrived(&self, block: &Block) {
        if let Some(watcher) = &*self.watcher.load() {
            watcher.arrived(block);
        }
    }

    pub fn pinned(&self, pin: &Pin) {
        if let Some(watcher) = &*self.watcher.load() {
            watcher.pinned(pin);
        }
    }
}

impl Store {
    /// Tells `watcher` of what enters from now on, in the place of who was told before; nobody, where it is `None`.
    pub fn watch(&self, watcher: Option<Box<dyn Watcher>>) {
        self.core().watch.watcher.store(watcher.map(std::sync::Arc::new));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::block::{HashFunction, codec};
    use crate::config::StoreConfig;
    use crate::store::PinKind;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<(Vec<Block>, Vec<Pin>)>>);

    impl Watcher for Seen {
        fn arrived(&self, block: &Block) {
            self.0.lock().0.push(block.clone());
        }

        fn pinned(&self, pin: &Pin) {
            self.0.lock().1.push(pin.clone());
        }
    }

    #[test]
    fn every_block_that_enters_is_told_of_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), &StoreConfig::default()).unwrap();
        let block = |text: &str| Block::new(codec::RAW, HashFunction::Sha2_256, text.as_bytes().to_vec().into());
        store.put(&block("before anybody watches")).unwrap();
        let seen = Seen::default();
        store.watch(Some(Box::new(seen.clone())));
        store.put(&block("one")).unwrap();
        store.put(&block("one")).unwrap();
        store.writer().put(&block("two")).unwrap();
        store.pin(block("one").cid(), PinKind::Direct, "").unwrap();
        store.watch(None);
        store.put(&block("three")).unwrap();
        let (blocks, pins) = &*seen.0.lock();
        assert_eq!(blocks.iter().map(Block::cid).collect::<Vec<_>>(), [block("one").cid(), block("two").cid()]);
        assert_eq!(pins.len(), 1);
    }
}
