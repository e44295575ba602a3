//! A process that is killed with SIGKILL in the middle of its work loses no acknowledged pin.
//!
//! The test runs itself once more as the process that is killed; that one prints each root when its pin is acknowledged.

#[path = "blocks/random.rs"]
mod random;

use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use cidfs::block::{Block, Cid};
use cidfs::config::StoreConfig;
use cidfs::store::{PinKind, Store, StoreError};
use random::{block, node};

/// Tells the child where its store is.
const CHILD: &str = "CIDFS_TEST_KILLED_STORE";

fn open(dir: &Path) -> Store {
    let config = StoreConfig { segment_bytes: 1 << 20, free_ratio: 0.0, ..StoreConfig::default() };
    Store::open(dir, &config).unwrap()
}

fn tree(seed: u64) -> Vec<Block> {
    let mut tree: Vec<Block> = (0..12).map(|leaf| block(seed * 100 + leaf, 1_000 + 9_000 * leaf as usize)).collect();
    tree.push(node(&tree));
    tree
}

#[test]
fn a_killed_process_loses_no_acknowledged_pin() {
    if let Some(dir) = std::env::var_os(CHILD) {
        work(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=3_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_process_loses_no_acknowledged_pin", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next = || lines.next().unwrap().unwrap();
        for _ in 0..20 * round {
            if let Some(seed) = next().strip_prefix("pinned ") {
                acknowledged = acknowledged.max(seed.parse().unwrap());
            }
        }
        let pid = child.id();
        let busy = Store::open(dir.path(), &StoreConfig::default()).err().unwrap();
        assert!(matches!(busy, StoreError::InUse { pid: Some(holder), .. } if holder == pid), "{busy}");
        child.kill().unwrap();
        child.wait().unwrap();
        // What was still in the pipe was acknowledged too.
        for line in lines.map_while(Result::ok) {
            if let Some(seed) = line.strip_prefix("pinned ").and_then(|seed| seed.parse().ok()) {
                acknowledged = acknowledged.max(seed);
            }
        }
        let store = open(dir.path());
        let pins: Vec<Cid> = store.pins().unwrap().into_iter().map(|pin| pin.cid).collect();
        for seed in (1..=acknowledged).filter(|seed| seed % 3 != 0) {
            let tree = tree(seed);
            assert!(pins.contains(tree.last().unwrap().cid()), "pin {seed} of {acknowledged} is lost");
            for block in &tree {
                assert_eq!(store.get(block.cid()).unwrap().as_ref(), Some(block));
            }
        }
        let report = store.verify(false, &mut |_| ControlFlow::Continue(())).unwrap();
        assert!(report.damaged.is_empty() && report.incomplete.is_empty());
    }
    assert!(acknowledged > 20);
}

/// Adds and pins until it is killed; every third root is unpinned again, and collected.
fn work(dir: &Path) -> ! {
    let store = open(dir);
    let first = store.pins().unwrap().len() as u64 * 3 / 2 + 1;
    for seed in first.. {
        let tree = tree(seed);
        let root = tree.last().unwrap().cid();
        let mut writer = store.writer();
        for block in &tree {
            writer.put(block).unwrap();
        }
        store.pin(root, PinKind::Recursive, "").unwrap();
        drop(writer);
        if seed % 3 == 0 {
            store.unpin(root).unwrap();
            store.gc(&mut |_| ControlFlow::Continue(())).unwrap();
        }
        println!("pinned {seed}");
        std::io::stdout().flush().unwrap();
    }
    unreachable!("there is always a next seed")
}
