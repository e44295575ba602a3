//! Real daemons with each other, on loopback: what one adds the other reads.

#[path = "cli/fixture.rs"]
mod fixture;
#[path = "net/node.rs"]
mod node;

use std::process::Stdio;
use std::time::Duration;

use node::{Node, assert_same, until};
use serde_json::Value;

#[test]
fn what_one_daemon_adds_the_other_reads_over_tcp_and_quic() {
    let one = Node::new("peers");
    let _one = one.daemon();
    let root = {
        let tree = one.fixture.tree();
        one.run(&["add", "-Q", tree.to_str().unwrap()]).trim().to_owned()
    };
    for transport in ["/tcp/", "/quic-v1"] {
        let other = Node::new("peers");
        let _other = other.daemon();
        let error = other.fail(&["cat", &format!("{root}/a.txt")]);
        assert!(error.contains("there is no peer to ask"), "{error}");
        let address = &one.addresses(transport)[0];
        assert_eq!(other.run(&["swarm", "connect", address]), format!("connect {} success\n", one.peer()));
        // It failed a moment ago, and there is a new peer now.
        assert_eq!(other.run(&["cat", &format!("{root}/a.txt")]), "hello\n");
        assert_same(&one.fixture.path().join("tree"), &other.get(&root, "out"));
        let stat = other.json(&["bitswap", "stat"]);
        assert!(stat["DataReceived"].as_u64().unwrap() > 12_000_000, "{stat}");
        assert_eq!(stat["Peers"][0], one.peer().as_str());
        let ledger = other.json(&["bitswap", "ledger", &one.peer()]);
        assert!(ledger["Recv"].as_u64().unwrap() > 12_000_000, "{ledger}");
        assert_eq!(other.run(&["bitswap", "wantlist"]), "");
        assert!(other.run(&["pin", "add", &root]).contains(&root));
        // What was fetched is kept, and needs nobody any more.
        other.run(&["swarm", "disconnect", &one.peer()]);
        assert_eq!(other.run(&["cat", &format!("{root}/sub/b.txt")]), "world\n");
        assert_eq!(other.run(&["pin", "verify", "--verbose"]), format!("{root} ok\n"));
    }
}

#[test]
fn the_verbs_of_the_network_tell_what_kubo_tells() {
    let (one, other) = (Node::new("peers"), Node::new("peers"));
    let (_one, _other) = (one.daemon(), other.daemon());
    let address = one.addresses("/tcp/")[0].clone();
    other.run(&["swarm", "connect", &address]);
    let peers = other.json(&["swarm", "peers", "-v"]);
    let line = &peers["Peers"][0];
    assert_eq!(format!("{}/p2p/{}", line["Addr"].as_str().unwrap(), line["Peer"].as_str().unwrap()), address);
    assert_eq!(line["Direction"], 2);
    until("identify", || other.run(&["swarm", "peers", "-v"]).contains("/ipfs/bitswap/1.2.0"));
    assert!(one.run(&["swarm", "peers", "--direction"]).contains("inbound"));
    let told = other.json(&["id", &one.peer()]);
    let own = one.json(&["id"]);
    for field in ["ID", "PublicKey", "AgentVersion"] {
        assert_eq!(told[field], own[field], "{field}");
    }
    assert!(own["Addresses"].as_array().unwrap().iter().any(|it| it == address.as_str()), "{own}");
    assert!(own["Protocols"].as_array().unwrap().iter().any(|it| it == "/ipfs/bitswap/1.2.0"), "{own}");
    assert!(other.run(&["swarm", "addrs"]).contains(&one.peer()));
    assert!(one.run(&["swarm", "addrs", "local", "--id"]).contains(&address));
    assert!(one.run(&["swarm", "addrs", "listen"]).lines().any(|line| address.starts_with(line)));
    let pings = other.run(&["ping", "-n", "2", &one.peer()]);
    assert!(pings.starts_with("PING") && pings.contains("Average latency"), "{pings}");
    assert!(other.run(&["swarm", "peering", "add", &address]).contains("success"));
    assert!(other.run(&["swarm", "peering", "ls"]).contains(&one.peer()));
    other.run(&["swarm", "disconnect", &address]);
    until("peering connects again", || other.run(&["swarm", "peers"]).contains(&one.peer()));
    other.run(&["swarm", "peering", "rm", &one.peer()]);
    assert_eq!(other.run(&["swarm", "peering", "ls"]), "");
    assert!(other.fail(&["routing", "findprovs", "bafkqaaa"]).contains("nobody was found"));
    assert!(other.fail(&["provide", "bafkqaaa"]).contains("profile is peers"));
    let status = other.json(&["status"]);
    assert_eq!(status["Network"]["Profile"], "peers");
    assert_eq!(status["Healthy"], true);
}

#[test]
fn a_private_swarm_of_daemons_shares_among_members_only() {
    let key = |node: &Node, byte: &str| {
        std::fs::create_dir_all(node.fixture.repository()).unwrap();
        let text = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", byte.repeat(32));
        std::fs::write(node.fixture.repository().join("swarm.key"), text).unwrap();
    };
    let (one, member, stranger) = (Node::new("private"), Node::new("private"), Node::new("private"));
    let keyless = Node::new("private").output(&["daemon"]);
    assert!(!keyless.status.success() && String::from_utf8_lossy(&keyless.stderr).contains("swarm.key"));
    key(&one, "0a");
    key(&member, "0a");
    key(&stranger, "0b");
    let _daemons = [one.daemon(), member.daemon(), stranger.daemon()];
    let root = String::from_utf8(one.fixture.pipe(&["add", "-Q", "-"], b"for members")).unwrap();
    let address = one.addresses("/tcp/")[0].clone();
    member.run(&["swarm", "connect", &address]);
    assert_eq!(member.run(&["cat", root.trim()]), "for members");
    assert!(stranger.fail(&["swarm", "connect", &address]).contains("cannot connect"));
    assert!(stranger.fail(&["--timeout", "10s", "cat", root.trim()]).contains(root.trim()));
}

#[test]
fn a_pin_is_announced_and_found_by_a_node_that_knows_another_member_of_the_dht() {
    let nodes = [Node::new("lan"), Node::new("lan"), Node::new("lan")];
    let _daemons = [nodes[0].daemon(), nodes[1].daemon(), nodes[2].daemon()];
    let [one, middle, other] = &nodes;
    let address = middle.addresses("/tcp/")[0].clone();
    one.run(&["swarm", "connect", &address]);
    other.run(&["swarm", "connect", &address]);
    let root = String::from_utf8(one.fixture.pipe(&["add", "-Q", "-"], b"somewhere in this network")).unwrap();
    let root = root.trim();
    until("announced", || {
        let output = other.output(&["routing", "findprovs", "-n", "1", root]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).trim() == one.peer()
    });
    assert_eq!(other.run(&["cat", root]), "somewhere in this network");
    assert!(other.run(&["swarm", "peers"]).contains(&one.peer()), "the provider was dialed");
    assert!(!other.run(&["routing", "findpeer", &one.peer()]).is_empty());
}

/// The inodes of the sockets that a process has, and of those that the machine's tables of TCP and UDP list.
fn sockets(pid: u32) -> Vec<String> {
    let mut own = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        own.extend(target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned));
    }
    let tables = ["tcp", "tcp6", "udp", "udp6", "raw", "netlink"]
        .map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default());
    let is_inet = |inode: &String| {
        let mut lines = tables.iter().flat_map(|table| table.lines());
        lines.any(|line| line.split_whitespace().any(|field| field == inode))
    };
    own.into_iter().filter(is_inet).collect()
}

#[test]
fn the_profile_offline_opens_no_socket() {
    let online = Node::new("peers");
    let running = online.daemon();
    online.addresses("/tcp/");
    assert!(!sockets(running.pid()).is_empty(), "this test can tell");
    let offline = Node::new("offline");
    let running = offline.daemon();
    assert_eq!(sockets(running.pid()), Vec::<String>::new());
    assert!(offline.fail(&["swarm", "peers"]).contains("network.profile is offline"));
    let absent = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvya4";
    assert!(offline.fail(&["cat", absent]).contains("the network is off"));
    assert_eq!(offline.json(&["id"])["Addresses"], Value::Null);
}

#[test]
fn without_a_daemon_verbs_say_how_to_get_one() {
    let node = Node::new("peers");
    for arguments in [&["swarm", "peers"][..], &["bitswap", "stat"], &["routing", "findprovs", "bafkqaaa"]] {
        let error = node.fail(arguments);
        assert!(error.contains("`cidfs daemon`"), "{arguments:?}: {error}");
    }
    let absent = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvya4";
    assert!(node.fail(&["cat", absent]).contains("`cidfs daemon`"));
}

/// Some megabytes that are nowhere else, and their root.
fn add_noise(node: &Node) -> String {
    let path = node.fixture.path().join("noise");
    let mut state = 7_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()
    })
    .take(2 << 20)
    .flatten()
    .collect();
    std::fs::write(&path, bytes).unwrap();
    node.run(&["add", "-Q", path.to_str().unwrap()]).trim().to_owned()
}

#[test]
fn a_daemon_follows_a_new_cap_while_it_runs_and_names_what_it_cannot_follow() {
    let (one, other) = (Node::new("peers"), Node::new("peers"));
    let (_one, _other) = (one.daemon(), other.daemon());
    let root = add_noise(&one);
    let said = one.output(&["config", "set", "fetch.max_upload_bytes", "20KB"]);
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("follows fetch.max_upload_bytes from now on"), "{said}");
    let said = one.output(&["config", "set", "fetch.timeout", "90s"]);
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("another fetch.timeout until it is started again"), "{said}");
    assert_eq!(one.json(&["config", "show", "--running"])["fetch.max_upload_bytes"]["Value"], "20000");
    other.run(&["swarm", "connect", &one.addresses("/tcp/")[0]]);
    // At 20 KB a second, 16 MiB take a quarter of an hour.
    let mut fetching = other.command(&["fetch", &root]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(fetching.try_wait().unwrap().is_none(), "it came through the cap");
    // The file may be edited by hand, too.
    let file = one.run(&["config", "path"]);
    let text = std::fs::read_to_string(file.trim()).unwrap();
    std::fs::write(file.trim(), text.replace("\"20000\"", "\"0\"")).unwrap();
    one.run(&["config", "reload"]);
    assert!(fetching.wait().unwrap().success());
}

#[test]
fn a_fetch_whose_only_provider_is_killed_goes_on_with_one_that_appears() {
    let (first, second, reader) = (Node::new("peers"), Node::new("peers"), Node::new("peers"));
    let (dying, _second, _reader) = (first.daemon(), second.daemon(), reader.daemon());
    let root = add_noise(&first);
    assert_eq!(add_noise(&second), root);
    // Slow enough to be killed on the way.
    first.run(&["config", "set", "fetch.max_upload_bytes", "4MB"]);
    reader.run(&["swarm", "connect", &first.addresses("/tcp/")[0]]);
    let fetching = reader.command(&["fetch", &root]).stdout(Stdio::null()).spawn().unwrap();
    until("some of it is here", || {
        let stat = reader.json(&["bitswap", "stat"]);
        stat["DataReceived"].as_u64().unwrap() > 2_000_000
    });
    dying.signal(nix::sys::signal::Signal::SIGKILL);
    until("the provider is gone", || reader.run(&["swarm", "peers"]).is_empty());
    reader.run(&["swarm", "connect", &second.addresses("/tcp/")[0]]);
    assert!(fetching.wait_with_output().unwrap().status.success());
    assert_same(&first.fixture.path().join("noise"), &reader.get(&root, "out"));
    let stat = reader.json(&["bitswap", "stat"]);
    let received = stat["DataReceived"].as_u64().unwrap();
    assert!(received < (16 << 20) + (4 << 20), "what had come from the first was kept: {received}");
}
