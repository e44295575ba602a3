//! Every setting of cidfs, in one place.

use std::time::Duration;

/// How the blocks of this machine are kept.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The most that the RAM tier holds, in bytes.
    pub ram_bytes: u64,
    /// The most that the NVMe tier holds, in bytes; pinned blocks count, and are never evicted to meet it.
    pub disk_bytes: u64,
    /// The share of the filesystem that the NVMe tier leaves free, from 0 to 1.
    pub free_ratio: f64,
    /// The size at which a segment is sealed, in bytes.
    pub segment_bytes: u64,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig { ram_bytes: 256 << 20, disk_bytes: u64::MAX, free_ratio: 0.05, segment_bytes: 256 << 20 }
    }
}

/// How missing blocks are fetched.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// How long a read waits from its last progress before it fails.
    pub timeout: Duration,
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig { timeout: Duration::from_mins(1) }
    }
}
