//! A kubo for tests: a repository of its own, a daemon that listens on loopback and can reach nobody else.

#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a kubo may take to start.
const START_WAIT: Duration = Duration::from_mins(1);

/// A kubo's repository. Removed at the end.
pub struct Kubo {
    program: PathBuf,
    directory: tempfile::TempDir,
    /// Put before every command line: the way into a network namespace.
    prefix: Vec<String>,
}

/// A kubo that runs. Dropped, it is killed.
pub struct KuboDaemon<'kubo> {
    kubo: &'kubo Kubo,
    child: Child,
    /// The URL of its gateway.
    pub gateway: String,
}

impl Kubo {
    /// A repository with loopback addresses, nobody to bootstrap from, no relays, no DHT and no mDNS.
    pub fn new() -> Kubo {
        Kubo::within(&[])
    }

    /// The same, whose commands all run through `prefix`.
    pub fn within(prefix: &[&str]) -> Kubo {
        let program = std::env::var_os("CIDFS_TEST_KUBO")
            .expect("CIDFS_TEST_KUBO is not set: it must name a kubo 0.43 program to compare with");
        let prefix = prefix.iter().map(|part| (*part).to_owned()).collect();
        let kubo = Kubo { program: program.into(), directory: tempfile::tempdir().unwrap(), prefix };
        kubo.run(&["init", "--profile=test"]);
        kubo.listen(&["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"]);
        for (key, value) in [
            ("AutoConf.Enabled", "false"),
            ("AutoTLS.Enabled", "false"),
            ("Bootstrap", "[]"),
            ("Swarm.RelayClient.Enabled", "false"),
            ("Swarm.RelayService.Enabled", "false"),
            ("Swarm.EnableHolePunching", "false"),
            ("Routing.DelegatedRouters", "[]"),
            ("Gateway.NoFetch", "true"),
        ] {
            kubo.run(&["config", "--json", key, value]);
        }
        kubo.run(&["config", "Routing.Type", "none"]);
        kubo
    }

    /// Sets the addresses that it will listen on.
    pub fn listen(&self, addresses: &[&str]) {
        self.run(&["config", "--json", "Addresses.Swarm", &serde_json::to_string(addresses).unwrap()]);
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn repository(&self) -> PathBuf {
        self.path().join("repository")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(arguments).env("IPFS_PATH", self.repository()).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
        command
    }

    /// Standard output of a command that must succeed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "ipfs {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Adds a file or directory; its CID.
    pub fn add(&self, path: &Path, flags: &[&str]) -> String {
        let mut arguments = vec!["add", "-r", "-Q"];
        arguments.extend(flags);
        arguments.push(path.to_str().unwrap());
        self.run(&arguments).trim().to_owned()
    }

    /// Starts its daemon.
    pub fn daemon(&self) -> KuboDaemon<'_> {
        let mut child = self.command(&["daemon"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        let began = Instant::now();
        let (mut lines, mut gateway) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            let ended = printed.read_line(&mut line).unwrap() == 0;
            assert!(!ended && began.elapsed() < START_WAIT, "kubo does not start: {lines}");
            if let Some((_, address)) = line.split_once("Gateway server listening on ") {
                let mut parts = address.trim().split('/').skip(2).step_by(2);
                gateway = format!("http://{}:{}", parts.next().unwrap(), parts.next().unwrap());
            }
            if line.contains("Daemon is ready") {
                break;
            }
            lines.push_str(&line);
        }
        // Read on, so that it never waits for room in the pipe.
        std::thread::spawn(move || printed.lines().for_each(drop));
        KuboDaemon { kubo: self, child, gateway }
    }
}

impl KuboDaemon<'_> {
    /// Its addresses with its peer ID, those whose text holds `which`.
    pub fn addresses(&self, which: &str) -> Vec<String> {
        let id: serde_json::Value = serde_json::from_str(&self.kubo.run(&["id"])).unwrap();
        let addresses = id["Addresses"].as_array().unwrap().iter().filter_map(|it| it.as_str().map(str::to_owned));
        addresses.filter(|address| address.contains(which)).collect()
    }
}

impl Drop for KuboDaemon<'_> {
    fn drop(&mut self) {
        let _ = self.kubo.command(&["shutdown"]).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
