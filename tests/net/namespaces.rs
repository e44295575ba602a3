//! Network namespaces for tests: machines of a local network that nobody else can reach. Needs root.

#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Machines on one switch, numbered from 1. Removed at the end.
pub struct Network {
    names: Vec<String>,
    /// The address of machine 1, less its number.
    prefix: &'static str,
}

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
        let mut network = Network { names: Vec::new(), prefix };
        let switch = network.add(&format!("{name}-s"));
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "switch", "up"]);
        for machine in 1..=machines {
            let name = network.add(&format!("{name}-{machine}"));
            let port = format!("port{machine}");
            ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"]);
            ip(&["-n", &name, "address", "add", &format!("{prefix}{machine}/24"), "dev", "eth0"]);
            ip(&["-n", &name, "link", "set", "eth0", "up"]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
            // Multicast needs a way, too.
            ip(&["-n", &name, "route", "add", "default", "dev", "eth0"]);
        }
        network
    }

    fn add(&mut self, name: &str) -> String {
        ip(&["netns", "add", name]);
        self.names.push(name.to_owned());
        name.to_owned()
    }

    /// The address of a machine.
    pub fn ip(&self, machine: usize) -> String {
        format!("{}{machine}", self.prefix)
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
