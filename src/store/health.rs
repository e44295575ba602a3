//! What keeps the store from working as it should.

use std::sync::OnceLock;

use parking_lot::Mutex;

use super::StoreError;

/// Troubles that are known.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A flush failed: what had been written since the one before may be lost, whatever later flushes say, so nothing is
    /// acknowledged until the store is opened again and has looked at what is there.
    flush_failed: OnceLock<String>,
    /// The last write failed: cleared by the next that does not.
    write: Mutex<Option<String>>,
    /// The last read that failed.
    read: Mutex<Option<String>>,
}

impl Health {
    /// Whether writes may be accepted.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.flush_failed.get() {
            Some(why) => Err(StoreError::FlushFailed { why: why.clone() }),
            None => Ok(()),
        }
    }

    /// A flush failed.
    pub fn flush_failed(&self, error: &StoreError) {
        if self.flush_failed.set(error.to_string()).is_ok() {
            tracing::error!("{error}; the store takes no more writes until it is opened again");
        }
    }

    /// A write failed.
    pub fn write_failed(&self, error: &StoreError) {
        if self.write.lock().replace(error.to_string()).is_none() {
            tracing::error!("{error}; reads go on");
        }
    }

    /// A write succeeded.
    pub fn write_succeeded(&self) {
        let mut write = self.write.lock();
        if write.take().is_some() {
            tracing::info!("the store can write again");
        }
    }

    /// A read failed.
    pub fn read_failed(&self, error: &StoreError) {
        if self.read.lock().replace(error.to_string()).is_none() {
            tracing::error!("{error}");
        }
    }

    /// All troubles, for people.
    pub fn troubles(&self) -> Vec<String> {
        let flush = self.check().err().map(|error| error.to_string());
        let write = self.write.lock().clone();
        let read = self.read.lock().clone();
        flush.into_iter().chain(write).chain(read).collect()
    }
}
