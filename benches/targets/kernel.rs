//! What the kernel caches: dropped before a cold measurement, and counted after an epoch.

use std::fs;

use anyhow::{Context, Result};

/// Why caches cannot be dropped here, where they cannot.
pub fn why_not_cold() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("dropping the kernel's caches needs root");
    }
    fs::OpenOptions::new()
        .write(true)
        .open("/proc/sys/vm/drop_caches")
        .is_err()
        .then_some("/proc/sys/vm/drop_caches cannot be written here")
}

/// Drops dentries and inodes (and with an inode its pages).
pub fn drop_dentries() -> Result<()> {
    drop_caches("2")
}

/// Drops everything that the kernel caches.
pub fn drop_all() -> Result<()> {
    drop_caches("3")
}

fn drop_caches(what: &str) -> Result<()> {
    // Dirty pages are not dropped: write them back first.
    nix::unistd::sync();
    fs::write("/proc/sys/vm/drop_caches", what).context("cannot drop caches")
}

/// Bytes in the page cache.
pub fn cached_bytes() -> Result<u64> {
    kib_field("/proc/meminfo", "Cached:")
}

/// Bytes of RAM that a process holds now.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    kib_field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The most bytes of RAM that a process held since it started.
pub fn peak_resident_bytes(pid: u32) -> Result<u64> {
    kib_field(&format!("/proc/{pid}/status"), "VmHWM:")
}

fn kib_field(file: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .map(|kib| kib << 10)
        .with_context(|| format!("{file} has no {field}"))
}
