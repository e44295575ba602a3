//! Blocks to and from Helia, the implementation in JavaScript: real processes of both, over TCP, on loopback alone.
//!
//! The Helia is the one at `CIDFS_TEST_HELIA`, which `scripts/helia` installs.

#[path = "cli/fixture.rs"]
mod fixture;
#[path = "net/node.rs"]
mod node;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use node::{Node, assert_same};
use serde_json::Value;

/// How long an answer may take; one that does not come fails its test, not the run of all tests.
const PATIENCE: Duration = Duration::from_mins(5);

/// A Helia that runs. Dropped, it is killed.
struct Helia {
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
    address: String,
}

impl Helia {
    fn start() -> Helia {
        let place = std::env::var_os("CIDFS_TEST_HELIA")
            .expect("CIDFS_TEST_HELIA is not set: it must name what scripts/helia has installed");
        let mut child = Command::new("node")
            .arg(Path::new(&place).join("node.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, answers) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut helia = Helia { child, stdin, answers, address: String::new() };
        helia.answer()["addresses"][0].as_str().unwrap().clone_into(&mut helia.address);
        helia
    }

    fn answer(&mut self) -> Value {
        let line = self.answers.recv_timeout(PATIENCE).expect("Helia answers");
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert_eq!(answer["error"], Value::Null);
        answer
    }

    fn run(&mut self, line: &str) -> Value {
        writeln!(self.stdin, "{line}").unwrap();
        self.answer()
    }
}

impl Drop for Helia {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is sharded by Helia, one that is not, and a file of some blocks.
fn source(path: &Path) {
    for (name, files) in [("many", 300), ("few", 3)] {
        std::fs::create_dir_all(path.join(name)).unwrap();
        for file in 0..files {
            std::fs::write(path.join(name).join(format!("file-{file:05}")), format!("{name} {file}\n")).unwrap();
        }
    }
    // So much in one go comes in long frames.
    let bytes: Vec<u8> = (0..6_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(path.join("large"), bytes).unwrap();
}

#[test]
fn files_and_directories_come_from_helia_needs_helia() {
    let node = Node::new("peers");
    let path = node.fixture.path().join("source");
    source(&path);
    let mut helia = Helia::start();
    let root = helia.run(&format!("add {}", path.display()))["cid"].as_str().unwrap().to_owned();
    let _running = node.daemon();
    node.run(&["swarm", "connect", &helia.address]);
    node.run(&["fetch", &root]);
    assert_same(&path, &node.get(&root, "out"));
    node.run(&["swarm", "disconnect", &helia.address]);
    node.run(&["pin", "add", &root]);
    assert_eq!(node.run(&["pin", "verify", "--verbose"]), format!("{root} ok\n"));
}

#[test]
fn files_and_directories_go_to_helia_needs_helia() {
    let node = Node::new("peers");
    let path = node.fixture.path().join("source");
    source(&path);
    let add = ["add", "-Q", "--hamt-size-threshold=1024", path.to_str().unwrap()];
    let root = node.run(&add).trim().to_owned();
    let _running = node.daemon();
    let mut helia = Helia::start();
    helia.run(&format!("connect {}", node.addresses("/tcp/")[0]));
    let to = node.fixture.path().join("out");
    helia.run(&format!("get {root} {}", to.display()));
    assert_same(&path, &to);
    let ledger = node.json(&["bitswap", "stat"]);
    assert!(ledger["DataSent"].as_u64().unwrap() > 6_000_000, "{ledger}");
}
