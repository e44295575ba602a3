//! What the tests of the network share: the program as a node that talks to this machine alone.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fixture::{Daemon, Fixture};

/// A repository and its settings: TCP and QUIC on loopback, nobody to begin with.
pub struct Node {
    pub fixture: Fixture,
    environment: Vec<(&'static str, String)>,
}

impl Node {
    pub fn new(profile: &str) -> Node {
        Node { fixture: Fixture::new(), environment: Vec::new() }
            .with("CIDFS_NETWORK_PROFILE", profile)
            .with("CIDFS_NETWORK_LISTEN", "/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1")
            .with("CIDFS_NETWORK_BOOTSTRAP", "")
            .with("CIDFS_NETWORK_MDNS", "false")
    }

    /// The same, with a setting.
    #[must_use]
    pub fn with(mut self, variable: &'static str, value: &str) -> Node {
        self.environment.retain(|(known, _)| *known != variable);
        self.environment.push((variable, value.to_owned()));
        self
    }

    pub fn daemon(&self) -> Daemon {
        self.fixture.daemon_with(&[], &self.environment)
    }

    /// Mounts, with the daemon that comes with it.
    pub fn mount(&self) -> PathBuf {
        let mountpoint = self.fixture.mountpoint("mnt");
        self.run(&["mount", mountpoint.to_str().unwrap()]);
        mountpoint
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.fixture.command(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a verb that must succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "cidfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Standard error of a verb that must fail.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "cidfs {arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.run(&arguments)).unwrap()
    }

    pub fn peer(&self) -> String {
        self.json(&["id"])["ID"].as_str().unwrap().to_owned()
    }

    /// The addresses that hold `part`, as soon as there are any.
    pub fn addresses(&self, part: &str) -> Vec<String> {
        let mut found = Vec::new();
        until("listening", || {
            let id = self.json(&["id"]);
            let all = id["Addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found = all.filter(|address| address.contains(part)).map(str::to_owned).collect();
            !found.is_empty()
        });
        found
    }

    /// Writes what is at a CID to a file or directory called `name`.
    pub fn get(&self, cid: &str, name: &str) -> PathBuf {
        let to = self.fixture.path().join(name);
        self.run(&["get", cid, "-o", to.to_str().unwrap()]);
        to
    }
}

/// Waits for what becomes true soon, and fails where it does not.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_mins(1);
    while !check() {
        assert!(Instant::now() < give_up, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Fails where two trees are not the same.
pub fn assert_same(one: &Path, other: &Path) {
    let output = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
