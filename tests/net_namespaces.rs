//! The local network: machines find each other by multicast, and what they have by their own DHT. Each is a network namespace.

#[path = "cli/fixture.rs"]
mod fixture;
#[path = "net/kubo.rs"]
mod kubo;
#[path = "net/namespaces.rs"]
mod namespaces;

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::Fixture;
use kubo::Kubo;
use namespaces::Network;

/// A cidfs with its daemon, on a machine of a network.
struct Machine {
    // The daemon ends before its repository goes.
    daemon: Child,
    fixture: Fixture,
    ip: String,
}

impl Machine {
    fn start(network: &Network, number: usize, mdns: bool) -> Machine {
        Machine::start_as("lan", network, number, mdns)
    }

    fn start_as(profile: &str, network: &Network, number: usize, mdns: bool) -> Machine {
        let fixture = Fixture::new();
        let [program, flag] = network.prefix(number);
        let daemon = Command::new(program)
            .arg(flag)
            .args([env!("CARGO_BIN_EXE_cidfs"), "daemon"])
            .env("CIDFS_PATH", fixture.repository())
            .env("CIDFS_NETWORK_PROFILE", profile)
            .env("CIDFS_NETWORK_BOOTSTRAP", "")
            .env("CIDFS_NETWORK_LISTEN", "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1")
            .env("CIDFS_NETWORK_MDNS", mdns.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let machine = Machine { daemon, fixture, ip: network.ip(number) };
        until("the daemon runs", || machine.fixture.output(&["status"]).status.code() != Some(3));
        until("it listens", || machine.fixture.run(&["swarm", "addrs", "listen"]).contains(&machine.ip));
        machine
    }

    /// The control socket is a file: verbs run outside.
    fn output(&self, arguments: &[&str]) -> Output {
        self.fixture.output(arguments)
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.fixture.run(arguments)
    }

    fn add(&self, text: &str) -> String {
        let cid = self.fixture.pipe(&["add", "-Q", "-"], text.as_bytes());
        String::from_utf8(cid).unwrap().trim().to_owned()
    }

    fn peer(&self) -> String {
        self.run(&["id", "-f", "<id>"])
    }

    fn address(&self) -> String {
        format!("/ip4/{}/tcp/4001/p2p/{}", self.ip, self.peer())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.output(&["shutdown"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_mins(1);
    while !check() {
        assert!(Instant::now() < give_up, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A kubo on a machine, which is in the local network's DHT.
fn kubo_on(network: &Network, machine: usize, mdns: bool) -> Kubo {
    let [program, flag] = network.prefix(machine);
    let kubo = Kubo::within(&[&program, &flag]);
    kubo.listen(&["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/udp/4001/quic-v1"]);
    kubo.run(&["config", "Routing.Type", "dht"]);
    kubo.run(&["config", "--json", "Discovery.MDNS.Enabled", &mdns.to_string()]);
    kubo
}

#[test]
fn machines_of_a_local_network_find_each_other_by_mdns_needs_root() {
    let network = Network::new(2);
    let (one, other) = (Machine::start(&network, 1, true), Machine::start(&network, 2, true));
    let cid = one.add("found without being told where");
    until("mDNS", || other.run(&["swarm", "peers"]).contains(&one.peer()));
    assert_eq!(other.run(&["cat", &cid]), "found without being told where");
}

#[test]
fn the_lan_dht_finds_what_a_machine_has_that_nobody_is_connected_to_needs_root() {
    let network = Network::new(3);
    let machines: Vec<Machine> = (1..=3).map(|number| Machine::start(&network, number, false)).collect();
    let [one, middle, other] = &machines[..] else { unreachable!("three were started") };
    assert_eq!(other.run(&["swarm", "peers"]), "", "nobody is found by himself");
    one.run(&["swarm", "connect", &middle.address()]);
    other.run(&["swarm", "connect", &middle.address()]);
    let cid = one.add("announced in the local network");
    until("the announcement", || {
        let found = other.output(&["routing", "findprovs", "-n", "1", &cid]);
        String::from_utf8_lossy(&found.stdout).contains(&one.peer())
    });
    assert_eq!(other.run(&["cat", &cid]), "announced in the local network");
}

#[test]
fn kubo_and_cidfs_find_each_other_by_mdns_needs_root_needs_kubo() {
    let network = Network::new(2);
    let kubo = kubo_on(&network, 1, true);
    let _running = kubo.daemon();
    let machine = Machine::start(&network, 2, true);
    let id: serde_json::Value = serde_json::from_str(&kubo.run(&["id"])).unwrap();
    let id = id["ID"].as_str().unwrap();
    until("mDNS with kubo", || machine.run(&["swarm", "peers"]).contains(id));
    let file = kubo.path().join("file");
    std::fs::write(&file, "from kubo").unwrap();
    let cid = kubo.add(&file, &["--cid-version=1"]);
    assert_eq!(machine.run(&["cat", &cid]), "from kubo");
    assert_eq!(kubo.run(&["cat", &machine.add("to kubo")]), "to kubo");
}

#[test]
fn kubo_and_cidfs_look_up_each_other_s_blocks_in_the_lan_dht_needs_root_needs_kubo() {
    let network = Network::new(3);
    let kubo = kubo_on(&network, 1, false);
    let running = kubo.daemon();
    let (middle, other) = (Machine::start(&network, 2, false), Machine::start(&network, 3, false));
    // Both know the one between them, and not each other.
    kubo.run(&["swarm", "connect", &middle.address()]);
    other.run(&["swarm", "connect", &middle.address()]);
    let file = kubo.path().join("file");
    std::fs::write(&file, "announced by kubo").unwrap();
    let cid = kubo.add(&file, &["--cid-version=1"]);
    until("kubo's announcement", || {
        let announced = kubo.command(&["routing", "provide", &cid]).output().unwrap();
        let found = other.output(&["routing", "findprovs", "-n", "1", &cid]);
        announced.status.success() && found.status.success()
    });
    assert_eq!(other.run(&["cat", &cid]), "announced by kubo");
    let cid = other.add("announced by cidfs");
    until("our announcement", || {
        let found = kubo.command(&["routing", "findprovs", "-n", "1", &cid]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).contains(&other.peer())
    });
    assert_eq!(kubo.run(&["cat", &cid]), "announced by cidfs");
    drop(running);
}

/// A kubo on a machine that lets nodes through to others which cannot be reached.
fn relay_on(network: &Network, machine: usize) -> Kubo {
    let kubo = kubo_on(network, machine, false);
    kubo.run(&["config", "--json", "Swarm.RelayService.Enabled", "true"]);
    kubo.run(&["config", "--json", "Internal.Libp2pForceReachability", "\"public\""]);
    // Nobody confirms that anybody can be reached.
    kubo.run(&["config", "AutoNAT.ServiceMode", "disabled"]);
    kubo
}

#[test]
fn a_node_that_nobody_can_reach_is_reached_through_a_relay_needs_root_needs_kubo() {
    // A relay tells public addresses alone.
    let network = Network::at("44.99.0.", 3);
    let kubo = relay_on(&network, 1);
    let running = kubo.daemon();
    let relay = running.addresses("/ip4/44.99.0.1/tcp/4001")[0].clone();
    let one = Machine::start_as("public", &network, 2, false);
    one.run(&["swarm", "connect", &relay]);
    // It takes a while to conclude that nobody confirms that it can be reached.
    until("an address through the relay", || one.run(&["id"]).contains("/p2p-circuit/"));
    let other = Machine::start_as("public", &network, 3, false);
    let through = format!("{relay}/p2p-circuit/p2p/{}", one.peer());
    other.run(&["swarm", "connect", &through]);
    let cid = one.add("through a relay");
    assert_eq!(other.run(&["cat", &cid]), "through a relay");
}

#[test]
fn two_nodes_behind_nats_meet_through_a_relay_and_go_on_without_it_needs_root_needs_kubo() {
    let mut network = Network::at("44.99.0.", 3);
    let (behind_one, behind_other) = (network.add_behind(2), network.add_behind(3));
    let kubo = relay_on(&network, 1);
    let running = kubo.daemon();
    let relay = running.addresses("/ip4/44.99.0.1/udp/4001/quic-v1")[0].clone();
    let one = Machine::start_as("public", &network, behind_one, false);
    let other = Machine::start_as("public", &network, behind_other, false);
    one.run(&["swarm", "connect", &relay]);
    let directly = format!("/ip4/{}/udp/4001/quic-v1/p2p/{}", network.ip(2), one.peer());
    assert!(!other.output(&["swarm", "connect", &directly]).status.success(), "its router lets nobody in");
    until("an address through the relay", || one.run(&["id"]).contains("/p2p-circuit/"));
    other.run(&["swarm", "connect", &format!("{relay}/p2p-circuit/p2p/{}", one.peer())]);
    assert!(other.run(&["swarm", "peers"]).contains("/p2p-circuit/"), "at first through the relay");
    until("a hole through both routers", || other.run(&["swarm", "peers"]).lines().any(|link| link == directly));
    // Nothing goes through the relay any more, for there is none.
    drop(running);
    until("the relay is gone", || !other.run(&["swarm", "peers"]).contains("44.99.0.1"));
    let cid = one.add("through a hole");
    assert_eq!(other.run(&["cat", &cid]), "through a hole");
}
