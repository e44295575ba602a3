//! What a daemon promises: its life, its mounts, and its end. Needs root and /dev/fuse, and fails without them.

#[path = "cli/fixture.rs"]
mod fixture;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
fn a_second_daemon_is_told_who_has_the_repository() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon(&[]);
    let error = fixture.fail(1, &["daemon"]);
    assert!(error.contains(&format!("process {} (cidfs daemon)", daemon.pid())), "{error}");
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
fn a_second_signal_ends_the_daemon_at_once() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    // A request whose body never comes to its end: the daemon, which has said that it reads it, waits for it.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let head = "POST /api/v0/block/put HTTP/1.1\r\nHost: cidfs\r\nContent-Type: multipart/form-data; boundary=x\r\n\
                Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word[..21], b"HTTP/1.1 100 Continue");
    daemon.signal(Signal::SIGINT);
    // It has heard the first signal once nobody is let in any more.
    let start = Instant::now();
    while UnixStream::connect(&socket).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    daemon.signal(Signal::SIGINT);
    let (status, log) = daemon.wait();
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("a second signal (SIGINT)"), "{log}");
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
fn mount_8_mounts_through_the_helper() {
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

#[test]
fn an_add_that_is_interrupted_leaves_no_pin() {
    let fixture = Fixture::new();
    for beside in [false, true] {
        let _daemon = beside.then(|| fixture.daemon(&[]));
        let mut child = fixture.command(&["add", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than any buffer on the way holds, so that the import is at it.
        std::io::Write::write_all(&mut stdin, &vec![7; 40 << 20]).unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        child.wait().unwrap();
        drop(stdin);
        assert_eq!(fixture.run(&["pin", "ls"]), "", "beside a daemon: {beside}");
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_there() {
    let fixture = Fixture::new();
    let disk = fixture.mountpoint("disk");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&disk).status().unwrap();
    assert!(mounted.success(), "this test needs root, to mount a small disk");
    let run = |arguments: &[&str]| fixture.command(arguments).env("CIDFS_PATH", disk.join("r")).output().unwrap();
    let tree = fixture.tree();
    let small = run(&["add", "-Q", tree.join("sub").to_str().unwrap()]);
    let root = String::from_utf8(small.stdout).unwrap().trim().to_owned();
    let large = fixture.path().join("large");
    let bytes: Vec<u8> = (0..10_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&large, bytes).unwrap();
    let full = run(&["add", large.to_str().unwrap()]);
    let error = String::from_utf8(full.stderr).unwrap();
    let kept = run(&["cat", &format!("{root}/b.txt")]);
    let pins = run(&["pin", "ls", "-q"]);
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    assert!(!full.status.success() && error.starts_with("cidfs: ") && error.lines().count() == 1, "{error}");
    assert!(error.contains("full") || error.contains("space"), "{error}");
    assert_eq!(kept.stdout, b"world\n");
    assert_eq!(String::from_utf8(pins.stdout).unwrap(), format!("{root}\n"));
}
