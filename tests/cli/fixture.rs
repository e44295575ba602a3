//! What the tests of the program share: a repository in a temporary directory, and the program itself.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// A repository, removed at the end with whatever daemon still runs on it.
pub struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture { directory: tempfile::tempdir().unwrap() }
    }

    /// The directory for anything that a test needs.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    /// An empty directory to mount on.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// The program, on this repository and with nothing else of the environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cidfs"));
        command
            .args(arguments)
            .env_clear()
            .env("CIDFS_PATH", self.repository())
            .env("CIDFS_NETWORK_PROFILE", "offline")
            .stdin(Stdio::null());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        // Whoever runs the tests in the background may ignore SIGINT, and what is started inherits that.
        let heeds_interrupts = || {
            let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: it is a system call, and the default action runs no code of ours.
            unsafe { sigaction(Signal::SIGINT, &action) }?;
            Ok(())
        };
        // SAFETY: between fork and exec nothing is done but that system call.
        unsafe { command.pre_exec(heeds_interrupts) };
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that must fail with this exit status.
    pub fn fail(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        error
    }

    /// Standard output of a command that gets `input`.
    pub fn pipe(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    }

    /// A daemon that takes requests.
    pub fn daemon(&self, flags: &[&str]) -> Daemon {
        self.daemon_with(flags, &[])
    }

    /// A daemon that takes requests, with settings in its environment.
    pub fn daemon_with(&self, flags: &[&str], environment: &[(&str, String)]) -> Daemon {
        let mut arguments = flags.to_vec();
        arguments.push("daemon");
        let mut command = self.command(&arguments);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the daemon ended: {lines:?}");
            let ready = line.contains("cidfs is ready");
            lines.push(line);
            if ready {
                break;
            }
        }
        // Read on, so that the daemon never waits for room in the pipe.
        let reader = std::thread::spawn(move || {
            let mut rest = String::new();
            let _ = log.read_to_string(&mut rest);
            rest
        });
        Daemon { child, lines, reader: Some(reader) }
    }

    /// A tree of files: a few directories, an empty file, a link, and one file of several blocks. Gives its path.
    pub fn tree(&self) -> PathBuf {
        let root = self.path().join("tree");
        std::fs::create_dir_all(root.join("sub/deep")).unwrap();
        std::fs::write(root.join("a.txt"), "hello\n").unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        std::fs::write(root.join("sub/b.txt"), "world\n").unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
        std::fs::write(root.join("sub/deep/large.bin"), large).unwrap();
        std::os::unix::fs::symlink("a.txt", root.join("link")).unwrap();
        root
    }

    /// Adds the tree and gives its root.
    pub fn add_tree(&self) -> String {
        let tree = self.tree();
        self.run(&["add", "-Q", tree.to_str().unwrap()]).trim().to_owned()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Mounts before anything else, so that the directory can be removed.
        let _ = self.output(&["umount", "--all"]);
        let _ = self.output(&["shutdown"]);
    }
}

/// A daemon in the foreground. Dropped, it is killed.
pub struct Daemon {
    child: Child,
    /// What it logged before it was ready.
    pub lines: Vec<String>,
    reader: Option<std::thread::JoinHandle<String>>,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Waits for its end: the exit status, and what it logged.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let rest = self.reader.take().unwrap().join().unwrap();
        (status.code(), rest)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over a socket, taken apart.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one plain HTTP request, and reads its answer to the end.
pub fn http(socket: &Path, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    exchange(UnixStream::connect(socket).unwrap(), method, path, headers, body)
}

pub fn exchange(mut stream: impl Read + Write, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: cidfs\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    // An error may be answered before the body is read.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &bytes[end + 4..];
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Answer { status, body: if chunked { unchunk(body) } else { body.to_vec() }, head }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap().trim(), 16).unwrap();
        if length == 0 {
            break;
        }
        out.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
    out
}
