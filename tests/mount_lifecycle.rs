//! Mounts come and go, whatever is open in them, and leave nothing behind.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use cidfs::fuse::{MountError, MountOptions};
use fixture::{Fixture, noise};

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn mounts_below(path: &Path) -> usize {
    let path = path.to_str().unwrap();
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(path)).count()
}

/// Waits until `is_so`, which something else is about to make true.
fn eventually(is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > Duration::from_mins(1) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Set in the process that a test starts to be alone in.
const ALONE: &str = "CIDFS_TEST_ALONE";

/// Everything that could be left behind, counted in a process that runs no other test.
#[test]
fn two_hundred_mounts_leave_nothing_behind() {
    if std::env::var_os(ALONE).is_some() {
        return count_two_hundred_mounts();
    }
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", "two_hundred_mounts_leave_nothing_behind"]).env(ALONE, "1");
    // What is freed goes back to the system at once, so that what stays resident is what is held: without it glibc keeps a
    // freed request buffer of 16 MiB for the next one.
    alone.env("MALLOC_MMAP_THRESHOLD_", "131072");
    assert!(alone.status().unwrap().success());
}

fn count_two_hundred_mounts() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(&noise(100_000, 3));
    let names: Vec<String> = (0..50).map(|index| format!("{index}.bin")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &leaf)).collect();
    let root = fixture.directory(&entries);
    let round = || {
        let mount = fixture.mount("");
        for entry in fs::read_dir(fixture.at(&root.cid, "")).unwrap() {
            assert_eq!(fs::read(entry.unwrap().path()).unwrap().len(), 100_000);
        }
        mount.unmount().unwrap();
    };
    // The first rounds fill pools and caches.
    (0..20).for_each(|_| round());
    let (descriptors_before, threads_before) = (open_descriptors(), threads());
    let memory_before = resident_bytes();
    (0..180).for_each(|_| round());
    assert_eq!(open_descriptors(), descriptors_before);
    // A thread that was joined is gone from the list a moment later.
    assert!(eventually(|| threads() <= threads_before), "{} threads, {threads_before} before", threads());
    assert_eq!(mounts_below(&fixture.mountpoint()), 0);
    let grown = resident_bytes().saturating_sub(memory_before);
    assert!(grown < 4 << 20, "{grown} bytes more after 180 mounts");
}

#[test]
fn an_open_file_does_not_hold_up_an_unmount() {
    let fixture = Fixture::new();
    let data = noise(3 << 20, 4);
    let file = fixture.chunked(&data, 1 << 18, 174);
    let mount = fixture.mount("");
    let mut open = File::open(fixture.mountpoint().join(file.cid.to_string())).unwrap();
    let mut first = [0; 4096];
    open.read_exact(&mut first).unwrap();
    assert_eq!(first, data[..4096]);
    let start = Instant::now();
    mount.unmount().unwrap();
    assert!(start.elapsed() < Duration::from_mins(1), "took {:?}", start.elapsed());
    assert_eq!(mounts_below(&fixture.mountpoint()), 0);
    // Whoever still reads gets an error or what the kernel had, and never hangs.
    let _ = fs::read(format!("/proc/self/fd/{}", open.as_raw_fd()));
    // The place is free at once.
    fixture.mount("").unmount().unwrap();
}

#[test]
fn a_mount_that_is_unmounted_by_hand_ends_by_itself() {
    let fixture = Fixture::new();
    let mount = fixture.mount("");
    let over = mount.over();
    assert!(!over.is_cancelled());
    let status = std::process::Command::new("umount").arg(fixture.mountpoint()).status().unwrap();
    assert!(status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), over.cancelled()).await }).unwrap();
    mount.unmount().unwrap();
}

#[test]
fn unmounting_leaves_alone_what_was_mounted_over_it_needs_root() {
    let fixture = Fixture::new();
    let mount = fixture.mount("");
    let over = |arguments: &[&str]| {
        let mut command = std::process::Command::new(arguments[0]);
        assert!(command.args(&arguments[1..]).arg(fixture.mountpoint()).status().unwrap().success());
    };
    over(&["mount", "-t", "tmpfs", "over"]);
    fs::write(fixture.mountpoint().join("mine"), b"mine").unwrap();
    drop(mount);
    let kept = fs::read(fixture.mountpoint().join("mine"));
    over(&["umount"]);
    over(&["umount", "-l"]);
    assert_eq!(kept.unwrap(), b"mine");
}

#[test]
fn a_mountpoint_is_made_where_its_parent_exists() {
    let fixture = Fixture::new();
    let new = fixture.path().join("new");
    let mount = cidfs::fuse::mount(&new, fixture.tree.clone(), &MountOptions::default()).unwrap();
    assert_eq!(fs::read_dir(&new).unwrap().count(), 0);
    mount.unmount().unwrap();
    assert!(new.is_dir());
    let far = fixture.path().join("none/new");
    let error = cidfs::fuse::mount(&far, fixture.tree.clone(), &MountOptions::default()).err().unwrap();
    assert!(error.to_string().contains("none/new"), "{error}");
}

#[test]
fn a_living_mount_and_a_file_are_refused_by_name() {
    let fixture = Fixture::new();
    let mount = fixture.mount("");
    let again = cidfs::fuse::mount(&fixture.mountpoint(), fixture.tree.clone(), &MountOptions::default());
    let error = again.err().unwrap();
    assert!(matches!(error, MountError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("unmount it first"), "{error}");
    mount.unmount().unwrap();
    let file = fixture.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = cidfs::fuse::mount(&file, fixture.tree.clone(), &MountOptions::default()).err().unwrap();
    assert!(error.to_string().contains("not a directory"), "{error}");
}
