//! Blocks to and from kubo 0.43: real processes of both, over TCP and QUIC, on loopback alone.
//!
//! The kubo is the program at `CIDFS_TEST_KUBO`.

#[path = "cli/fixture.rs"]
mod fixture;
#[path = "net/kubo.rs"]
mod kubo;
#[path = "net/node.rs"]
mod node;

use std::path::Path;

use kubo::Kubo;
use node::{Node, assert_same};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A file whose blocks are all different.
fn noise(path: &Path, bytes: usize, seed: u64) {
    const PIECE_BYTES: usize = 64 << 10;
    let mut piece = vec![0; PIECE_BYTES.min(bytes)];
    ChaCha20Rng::seed_from_u64(seed).fill_bytes(&mut piece);
    let mut data = Vec::with_capacity(bytes);
    while data.len() < bytes {
        let number = (data.len() / PIECE_BYTES) as u64;
        if let Some(place) = piece.first_chunk_mut() {
            *place = number.to_le_bytes();
        }
        data.extend_from_slice(&piece[..piece.len().min(bytes - data.len())]);
    }
    std::fs::write(path, data).unwrap();
}

/// `files` small files in `directories` directories.
fn tree(path: &Path, directories: usize, files: usize, bytes: usize) {
    for directory in 0..directories {
        let directory = path.join(format!("d{directory}"));
        std::fs::create_dir_all(&directory).unwrap();
        for file in 0..files / directories {
            noise(&directory.join(format!("file-with-a-name-{file:06}")), bytes, file as u64);
        }
    }
}

/// The transports, as parts of addresses.
const TRANSPORTS: [&str; 2] = ["/tcp/", "/quic-v1"];

#[test]
fn files_and_directories_come_from_kubo_needs_kubo() {
    let kubo = Kubo::new();
    let source = kubo.path().join("source");
    // One directory of so many names is a HAMT for kubo.
    tree(&source.join("sharded"), 1, 6000, 50);
    tree(&source.join("plain"), 4, 100, 5000);
    noise(&source.join("large"), 20 << 20, 1);
    std::os::unix::fs::symlink("large", source.join("link")).unwrap();
    let roots = [kubo.add(&source, &["--cid-version=0"]), kubo.add(&source, &["--cid-version=1"])];
    assert!(roots[0].starts_with("Qm") && roots[1].starts_with("bafy"), "{roots:?}");
    let daemon = kubo.daemon();
    for transport in TRANSPORTS {
        let node = Node::new("peers");
        let _running = node.daemon();
        let address = &daemon.addresses(transport)[0];
        node.run(&["swarm", "connect", address]);
        assert!(node.run(&["swarm", "peers"]).contains(transport));
        for root in &roots {
            assert_same(&source, &node.get(root, root));
            node.run(&["fetch", root]);
        }
        // Now all of it is here.
        node.run(&["swarm", "disconnect", address]);
        for root in &roots {
            assert!(node.run(&["refs", "-r", "-u", root]).lines().count() > 6000);
        }
    }
}

#[test]
fn files_and_directories_go_to_kubo_needs_kubo() {
    let node = Node::new("peers");
    let source = node.fixture.path().join("source");
    tree(&source.join("plain"), 4, 400, 5000);
    noise(&source.join("large"), 20 << 20, 1);
    let add = |flags: &[&str]| {
        let mut arguments = vec!["add", "-Q"];
        arguments.extend(flags);
        arguments.push(source.to_str().unwrap());
        node.run(&arguments).trim().to_owned()
    };
    let roots =
        [add(&["--cid-version=0", "--raw-leaves=false"]), add(&["--max-hamt-fanout=16", "--chunker=size-65536"])];
    let _running = node.daemon();
    for transport in TRANSPORTS {
        let kubo = Kubo::new();
        let _daemon = kubo.daemon();
        kubo.run(&["swarm", "connect", &node.addresses(transport)[0]]);
        for root in &roots {
            kubo.run(&["pin", "add", "--progress=false", root]);
            let to = kubo.path().join(root);
            kubo.run(&["get", "--progress=false", "-o", to.to_str().unwrap(), root]);
            assert_same(&source, &to);
        }
    }
}

#[test]
fn a_gigabyte_and_ten_thousand_files_go_both_ways_needs_kubo() {
    let kubo = Kubo::new();
    let large = kubo.path().join("large");
    noise(&large, 1 << 30, 1);
    let many = kubo.path().join("many");
    tree(&many, 10, 10_000, 1000);
    let (file, directory) = (kubo.add(&large, &["--cid-version=1"]), kubo.add(&many, &["--cid-version=1"]));
    let daemon = kubo.daemon();
    let node = Node::new("peers");
    let running = node.daemon();
    node.run(&["swarm", "connect", &daemon.addresses("/tcp/")[0]]);
    for (root, source) in [(&file, &large), (&directory, &many)] {
        node.run(&["fetch", root]);
        assert_same(source, &node.get(root, root));
    }
    drop(running);
    drop(daemon);
    // And back, to a kubo that has nothing.
    let _running = node.daemon();
    let other = Kubo::new();
    let _daemon = other.daemon();
    other.run(&["swarm", "connect", &node.addresses("/tcp/")[0]]);
    for (root, source) in [(&file, &large), (&directory, &many)] {
        let to = other.path().join(root);
        other.run(&["get", "--progress=false", "-o", to.to_str().unwrap(), root]);
        assert_same(source, &to);
    }
}

#[test]
fn a_mount_reads_through_to_kubo_needs_kubo_and_fuse() {
    let kubo = Kubo::new();
    let source = kubo.path().join("source");
    tree(&source, 3, 60, 100_000);
    let root = kubo.add(&source, &["--cid-version=1"]);
    let daemon = kubo.daemon();
    let node = Node::new("peers");
    let _running = node.daemon();
    node.run(&["swarm", "connect", &daemon.addresses("/tcp/")[0]]);
    let mountpoint = node.fixture.mountpoint("mnt");
    node.run(&["mount", mountpoint.to_str().unwrap()]);
    assert_same(&source, &mountpoint.join(&root));
    node.run(&["umount", mountpoint.to_str().unwrap()]);
}

#[test]
fn a_private_swarm_is_shared_with_kubo_needs_kubo() {
    let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5a".repeat(32));
    let kubo = Kubo::new();
    // A swarm with a key speaks TCP alone.
    kubo.listen(&["/ip4/127.0.0.1/tcp/0"]);
    kubo.run(&["config", "--json", "Swarm.Transports.Network.QUIC", "false"]);
    std::fs::write(kubo.repository().join("swarm.key"), &key).unwrap();
    let source = kubo.path().join("source");
    noise(&source, 3 << 20, 1);
    let root = kubo.add(&source, &[]);
    let daemon = kubo.daemon();
    let node = Node::new("private").with("CIDFS_NETWORK_LISTEN", "/ip4/127.0.0.1/tcp/0");
    node.run(&["init"]);
    std::fs::write(node.fixture.repository().join("swarm.key"), &key).unwrap();
    let _running = node.daemon();
    let address = &daemon.addresses("/tcp/")[0];
    node.run(&["swarm", "connect", address]);
    assert_same(&source, &node.get(&root, "got"));
    // Who has no key is no member.
    let stranger = Node::new("peers");
    let _other = stranger.daemon();
    assert!(!stranger.command(&["swarm", "connect", address]).output().unwrap().status.success());
}

#[test]
fn the_gateway_of_kubo_is_a_source_needs_kubo() {
    let kubo = Kubo::new();
    let source = kubo.path().join("source");
    tree(&source.join("files"), 2, 40, 3000);
    noise(&source.join("large"), 5 << 20, 1);
    let root = kubo.add(&source, &["--cid-version=1"]);
    let daemon = kubo.daemon();
    let node = Node::new("peers").with("CIDFS_GATEWAY_URLS", &daemon.gateway);
    let _running = node.daemon();
    assert_eq!(node.run(&["swarm", "peers"]).trim(), "");
    assert_same(&source, &node.get(&root, "got"));
}
