//! What the program promises about what is elsewhere: a mount reads it, `fetch` brings it, `why` explains. Needs root and
//! /dev/fuse. The gateway is on loopback, and nothing else is asked.

#[path = "cli/fixture.rs"]
mod fixture;
#[path = "fetch/gateway.rs"]
mod gateway;
#[path = "net/node.rs"]
mod node;

use std::fs;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use cidfs::block::Block;
use cidfs::dag::car::CarReader;
use fixture::Fixture;
use gateway::{Gateway, Manner};
use node::{Node, assert_same};
use serde_json::Value;

/// A node whose only source is a gateway.
fn node(gateway: &Gateway) -> Node {
    Node::new("peers")
        .with("CIDFS_NETWORK_LISTEN", "")
        .with("CIDFS_GATEWAY_URLS", &gateway.url)
        .with("CIDFS_FETCH_TIMEOUT", "3s")
}

/// A dataset that was added elsewhere: where it is, its root, and all its blocks.
fn dataset(fixture: &Fixture) -> (PathBuf, String, Vec<Block>) {
    let root = fixture.add_tree();
    let car = fixture.path().join("tree.car");
    let exported = fixture.command(&["car", "export", &root]).stdout(fs::File::create(&car).unwrap()).status().unwrap();
    assert!(exported.success());
    let mut reader = CarReader::new(BufReader::new(fs::File::open(&car).unwrap())).unwrap();
    let blocks: Vec<Block> = std::iter::from_fn(|| reader.next_block().unwrap()).collect();
    assert!(blocks.len() > 10);
    (fixture.path().join("tree"), root, blocks)
}

#[test]
fn a_mount_reads_what_only_a_gateway_has() {
    let fixture = Fixture::new();
    let (tree, root, blocks) = dataset(&fixture);
    let gateway = Gateway::start(&blocks);
    let node = node(&gateway);
    let mounted = node.mount().join(&root);
    assert_same(&tree, &mounted);
    let asked = gateway.requests();
    assert!(asked.0 > 0);
    // From now on it is here, also when the gateway is not.
    gateway.die();
    assert_same(&tree, &mounted);
}

#[test]
fn a_read_of_what_nobody_sends_fails_in_time_and_why_says_what_was_asked() {
    let fixture = Fixture::new();
    let (_, root, blocks) = dataset(&fixture);
    let gateway = Gateway::start(&blocks).manner(Manner::Silent);
    let node = node(&gateway);
    let mountpoint = node.mount();
    let begin = Instant::now();
    let error = fs::read_dir(mountpoint.join(&root)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
    let took = begin.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&took), "{took:?}");
    let why: Value = serde_json::from_str(&node.run(&["why", "--json", &root])).unwrap();
    assert_eq!(why["IsHere"], false);
    let fetch = &why["Fetches"][0];
    assert_eq!((fetch["State"].as_str(), fetch["Cid"].as_str()), (Some("failed"), Some(root.as_str())));
    let notes = fetch["Notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note["Whom"].as_str().unwrap().contains(&gateway.url)), "{why}");
    let text = node.run(&["why", &root]);
    assert!(text.contains("not here") && text.contains(&gateway.url), "{text}");
}

#[test]
fn fetch_brings_a_whole_dag_and_says_from_where() {
    let fixture = Fixture::new();
    let (_, root, blocks) = dataset(&fixture);
    let gateway = Gateway::start(&blocks);
    let node = node(&gateway);
    let _mountpoint = node.mount();
    let said = node.run(&["fetch", "--progress", &root]);
    assert!(said.contains(&root) && said.contains(&format!("{} blocks", blocks.len())), "{said}");
    assert!(said.contains(&gateway.url), "{said}");
    gateway.set(Manner::Fails(500));
    let again = node.run(&["fetch", &root]);
    assert!(again.contains("all of it was here"), "{again}");
    let last: Value = serde_json::from_str(node.run(&["fetch", "--json", &root]).lines().last().unwrap()).unwrap();
    assert_eq!((last["Done"].as_bool(), last["Blocks"].as_u64()), (Some(true), Some(blocks.len() as u64)));
    // And below a path.
    node.run(&["fetch", &format!("{root}/sub/b.txt")]);
}

#[test]
fn a_fetch_that_is_interrupted_leaves_a_daemon_that_is_well() {
    let fixture = Fixture::new();
    let (_, root, blocks) = dataset(&fixture);
    let gateway = Gateway::start(&blocks).manner(Manner::Slow(Duration::from_millis(500)));
    let node = node(&gateway);
    let _mountpoint = node.mount();
    let mut child = node.command(&["fetch", &root]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(800));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(!child.wait().unwrap().success());
    gateway.set(Manner::Honest);
    node.run(&["status"]);
    node.run(&["fetch", &root]);
}
