//! How many requests of each kind the kernel has made.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! kinds {
    ($($kind:ident $name:literal),* $(,)?) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum RequestKind { $($kind),* }

        impl RequestKind {
            /// All kinds.
            pub const ALL: &'static [RequestKind] = &[$(RequestKind::$kind),*];

            /// The kind's name in the FUSE protocol, in lower case.
            pub fn name(self) -> &'static str {
                match self { $(RequestKind::$kind => $name),* }
            }
        }
    };
}

kinds! {
    Lookup "lookup",
    Forget "forget",
    Getattr "getattr",
    Readlink "readlink",
    Open "open",
    Read "read",
    Release "release",
    Opendir "opendir",
    Readdir "readdir",
    Readdirplus "readdirplus",
    Statfs "statfs",
    Xattr "xattr",
    Other "other",
}

/// Counts requests by kind.
#[derive(Debug, Default)]
pub struct RequestCounts {
    counts: [AtomicU64; RequestKind::ALL.len()],
}

impl RequestCounts {
    /// Counts one.
    pub(super) fn add(&self, kind: RequestKind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were of this kind.
    pub fn get(&self, kind: RequestKind) -> u64 {
        self.counts[kind as usize].load(Ordering::Relaxed)
    }

    /// How many there were that a reader waits for: all but FORGET, which the kernel sends when it likes.
    pub fn waited_for(&self) -> u64 {
        RequestKind::ALL.iter().filter(|kind| **kind != RequestKind::Forget).map(|kind| self.get(*kind)).sum()
    }
}
