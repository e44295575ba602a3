//! What a daemon and those beside it promise: one has the repository, an end is an end, and what fails costs nothing else.

#[path = "cli/fixture.rs"]
mod fixture;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fixture::Fixture;
use nix::sys::signal::Signal;

#[test]
fn a_second_daemon_is_told_who_has_the_repository() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon(&[]);
    let error = fixture.fail(1, &["daemon"]);
    assert!(error.contains(&format!("process {} (cidfs daemon)", daemon.pid())), "{error}");
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
    assert!(start.elapsed() < Duration::from_mins(1), "took {:?}", start.elapsed());
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("a second signal (SIGINT)"), "{log}");
}

#[test]
fn an_add_that_is_interrupted_leaves_no_pin() {
    let fixture = Fixture::new();
    for beside in [false, true] {
        let _daemon = beside.then(|| fixture.daemon(&[]));
        let mut child = fixture.command(&["add", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // More than any buffer on the way holds, so that the import is at it.
        stdin.write_all(&vec![7; 40 << 20]).unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        child.wait().unwrap();
        drop(stdin);
        assert_eq!(fixture.run(&["pin", "ls"]), "", "beside a daemon: {beside}");
    }
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_there_needs_root() {
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
