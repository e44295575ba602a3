//! What a daemon promises of its mounts, as long as it lives and when it ends. Needs root and /dev/fuse, and fails without
//! them.

#[path = "cli/fixture.rs"]
mod fixture;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use cidfs::limits::DAEMON_LOG_BYTES;
use fixture::Fixture;
use nix::sys::signal::Signal;
use serde_json::Value;

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

fn same(left: &Path, right: &Path) -> bool {
    Command::new("diff").arg("-r").arg("--no-dereference").arg(left).arg(right).status().unwrap().success()
}

/// Waits until nobody has the repository's lock: until its daemon has ended.
fn until_unlocked(fixture: &Fixture) {
    File::open(fixture.repository().join("repo.lock")).unwrap().lock_shared().unwrap();
}

#[test]
fn add_mount_read_unmount_and_the_daemon_ends_with_its_last_mount() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let (one, two) = (fixture.mountpoint("one"), fixture.mountpoint("two"));
    fixture.run(&["mount", one.to_str().unwrap()]);
    fixture.run(&["mount", "--profile", "serving", two.to_str().unwrap()]);
    for mountpoint in [&one, &two] {
        assert!(same(&fixture.path().join("tree"), &mountpoint.join(&root)));
    }
    let status: Value = serde_json::from_str(&fixture.run(&["status", "--json"])).unwrap();
    assert_eq!((&status["Healthy"], &status["Running"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(status["Mounts"][0]["Profile"], "training");
    assert_eq!(status["Mounts"][1]["Profile"], "serving");
    let store = &status["Store"];
    let hits = store["RamHits"].as_u64().unwrap() + store["DiskHits"].as_u64().unwrap();
    assert!(hits > 0 && store["Misses"] == 0, "{store}");
    let resident = status["ResidentBytes"].as_u64().unwrap();
    assert!(resident < 60 << 20, "{resident} bytes");
    fixture.run(&["umount", one.to_str().unwrap()]);
    assert!(!is_mounted(&one) && is_mounted(&two));
    fixture.run(&["status"]);
    // Whoever unmounts.
    assert!(Command::new("umount").arg(&two).status().unwrap().success());
    until_unlocked(&fixture);
    assert!(fixture.output(&["status"]).status.code() == Some(3));
    assert!(!fixture.repository().join("api.sock").exists());
    // Nothing is mounted: said, and no error.
    let output = fixture.output(&["umount", two.to_str().unwrap()]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no cidfs is mounted"));
}

#[test]
fn sigterm_unmounts_answers_the_read_in_flight_and_exits_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let fixture = Fixture::new();
        let root = fixture.add_tree();
        let daemon = fixture.daemon(&[]);
        let mountpoint = fixture.mountpoint("mount");
        fixture.run(&["mount", mountpoint.to_str().unwrap()]);
        let file = mountpoint.join(&root).join("sub/deep/large.bin");
        let mut reader = File::open(&file).unwrap();
        let mut first = vec![0; 1 << 20];
        reader.read_exact(&mut first).unwrap();
        daemon.signal(signal);
        // The file is open: what is asked while the daemon ends is answered rightly, or not at all.
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        drop(reader);
        let (status, log) = daemon.wait();
        assert_eq!(status, Some(0), "{log}");
        assert!(!is_mounted(&mountpoint), "{log}");
        let whole = std::fs::read(fixture.path().join("tree/sub/deep/large.bin")).unwrap();
        first.extend(rest);
        assert!(whole.starts_with(&first));
        assert!(!fixture.repository().join("api.sock").exists());
    }
}

#[test]
fn the_log_of_a_daemon_in_the_background_is_bounded() {
    let fixture = Fixture::new();
    fixture.run(&["init"]);
    let log = fixture.repository().join("daemon.log");
    let older = fixture.repository().join("daemon.log.1");
    File::create(&log).unwrap().set_len(DAEMON_LOG_BYTES).unwrap();
    let mountpoint = fixture.mountpoint("mount");
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(&older).unwrap().len(), DAEMON_LOG_BYTES);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("cidfs is ready"), "{text}");
    assert_eq!(std::fs::metadata(&log).unwrap().mode() & 0o777, 0o600);
    fixture.run(&["umount", mountpoint.to_str().unwrap()]);
    until_unlocked(&fixture);
    assert!(std::fs::read_to_string(&log).unwrap().contains("the last mount is gone"));
    assert_eq!(std::fs::metadata(&older).unwrap().len(), DAEMON_LOG_BYTES);
}

#[test]
fn a_killed_daemon_loses_nothing_and_its_mount_is_healed() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let mountpoint = fixture.mountpoint("mount");
    let daemon = fixture.daemon(&[]);
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    assert!(std::fs::metadata(&mountpoint).is_err(), "the mount is stale");
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    assert!(same(&fixture.path().join("tree"), &mountpoint.join(&root)));
    fixture.run(&["umount", mountpoint.to_str().unwrap()]);
    // And one that is only to be taken away.
    let daemon = fixture.daemon(&[]);
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let text = fixture.run(&["umount", mountpoint.to_str().unwrap()]);
    assert!(text.contains("unmounted") && !is_mounted(&mountpoint), "{text}");
}

#[test]
fn mount_in_the_foreground_tells_its_supervisor_and_ends_with_sigterm() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let mountpoint = fixture.mountpoint("mount");
    // Alone it is the daemon; beside a daemon it asks that one.
    for beside in [false, true] {
        let _daemon = beside.then(|| fixture.daemon(&[]));
        let supervisor = fixture.path().join(format!("notify-{beside}"));
        let socket = UnixDatagram::bind(&supervisor).unwrap();
        let mut command = fixture.command(&["mount", "--foreground", mountpoint.to_str().unwrap()]);
        command.env("NOTIFY_SOCKET", &supervisor).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut word = [0; 64];
        let length = socket.recv(&mut word).unwrap();
        assert_eq!(&word[..length], b"READY=1");
        assert_eq!(std::fs::read(mountpoint.join(&root).join("a.txt")).unwrap(), b"hello\n");
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!is_mounted(&mountpoint));
    }
    // What cannot be mounted is an error, and no daemon stays behind.
    let error = fixture.fail(1, &["mount", "--foreground", fixture.path().join("tree/a.txt").to_str().unwrap()]);
    assert!(error.contains("not a directory"), "{error}");
    let error = fixture.fail(1, &["mount", "-o", "frobnicate", mountpoint.to_str().unwrap()]);
    assert!(error.contains("frobnicate"), "{error}");
}

#[test]
fn mount_8_mounts_through_the_helper_needs_root() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let mountpoint = fixture.mountpoint("mount");
    let helper = fixture.path().join("mount.cidfs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_cidfs"), &helper).unwrap();
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&helper);
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("CIDFS_NETWORK_PROFILE", "offline").output().unwrap()
    };
    let (source, target) = (fixture.repository(), mountpoint.to_str().unwrap().to_owned());
    let source = source.to_str().unwrap();
    let output = call(&[source, &target, "-n", "-o", "rw,_netdev,x-systemd.automount,allow_other"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(mountpoint.join(&root).join("a.txt")).unwrap(), b"hello\n");
    fixture.run(&["umount", &target]);
    assert_eq!(call(&[source, &target, "-o", "frob"]).status.code(), Some(1));
    assert!(call(&[source, &target, "-f", "-s", "-o", "frob"]).status.success());
    assert!(!is_mounted(&mountpoint));
    assert_eq!(call(&[source, fixture.path().join("tree/a.txt").to_str().unwrap()]).status.code(), Some(32));
}
