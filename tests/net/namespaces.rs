//! Network namespaces for tests: machines of a local network that nobody else can reach. Needs root.

#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Machines on one switch, numbered from 1, and machines behind those. Removed at the end.
pub struct Network {
    /// The switch, and then the machines.
    names: Vec<String>,
    /// The addresses of the machines.
    addresses: Vec<String>,
}

/// What the router of a home does.
const RULES: &str = "table ip home {
    chain out { type nat hook postrouting priority srcnat; oifname eth0 masquerade; }
    chain in { type filter hook input priority filter; ct state established,related accept; iifname eth0 drop; }
    chain through { type filter hook forward priority filter; ct state established,related accept; iifname eth0 drop; }
}";

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip (apt-get install iproute2) is there");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Network {
    /// With so many machines, at 10.99.0.1 and so on.
    pub fn new(machines: usize) -> Network {
        Network::at("10.99.0.", machines)
    }

    /// With so many machines, at addresses that begin so: those of the public network mean the same in here, and lead nowhere
    /// else.
    pub fn at(prefix: &'static str, machines: usize) -> Network {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root: run this as root, or skip it");
        let name = format!("cidfs-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut network = Network { names: Vec::new(), addresses: Vec::new() };
        let switch = network.add(&format!("{name}-s"));
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "switch", "up"]);
        for machine in 1..=machines {
            let name = network.add(&format!("{name}-{machine}"));
            let port = format!("port{machine}");
            ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"]);
            network.give_address(machine, format!("{prefix}{machine}"));
            // Multicast needs a way, too.
            ip(&["-n", &name, "route", "add", "default", "dev", "eth0"]);
        }
        network
    }

    /// Puts one more machine behind `router`, which gives what comes from it an address of its own (NAT) and lets nothing in that
    /// is no answer, as the routers of homes do. Its number.
    pub fn add_behind(&mut self, router: usize) -> usize {
        let outside = self.names[router].clone();
        let name = self.add(&format!("{outside}-n"));
        let machine = self.names.len() - 1;
        ip(&["-n", &outside, "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", &name]);
        ip(&["-n", &outside, "address", "add", &format!("10.77.{router}.1/24"), "dev", "inside"]);
        ip(&["-n", &outside, "link", "set", "inside", "up"]);
        self.give_address(machine, format!("10.77.{router}.2"));
        ip(&["-n", &name, "route", "add", "default", "via", &format!("10.77.{router}.1")]);
        let script = format!("echo 1 > /proc/sys/net/ipv4/ip_forward && nft '{RULES}'");
        let [program, flag] = self.prefix(router);
        let output = Command::new(program).args([&flag, "sh", "-c", &script]).output().expect("nsenter is there");
        assert!(output.status.success(), "nft (apt-get install nftables): {}", String::from_utf8_lossy(&output.stderr));
        machine
    }

    fn give_address(&mut self, machine: usize, address: String) {
        let name = &self.names[machine];
        ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        self.addresses.push(address);
    }

    fn add(&mut self, name: &str) -> String {
        ip(&["netns", "add", name]);
        self.names.push(name.to_owned());
        name.to_owned()
    }

    /// The address of a machine.
    pub fn ip(&self, machine: usize) -> String {
        self.addresses[machine - 1].clone()
    }

    /// What to put before a command to run it on a machine, counted from 1. Unlike `ip netns exec` it leaves mounts as they
    /// are.
    pub fn prefix(&self, machine: usize) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net=/var/run/netns/{}", self.names[machine])]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).output();
        }
    }
}
