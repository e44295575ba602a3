//! Network namespaces for tests: machines of a local network that nobody else can reach. Needs root.

#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Machines at 10.99.0.1, 10.99.0.2, and so on, on one switch. Removed at the end.
pub struct Network {
    names: Vec<String>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip (apt-get install iproute2) is there");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Network {
    /// With so many machines.
    pub fn new(machines: usize) -> Network {
        assert!(nix::unistd::geteuid().is_root(), "network namespaces need root: run this as root, or skip it");
        let prefix = format!("cidfs-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut network = Network { names: Vec::new() };
        let switch = network.add(&format!("{prefix}-s"));
        ip(&["-n", &switch, "link", "add", "switch", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "switch", "up"]);
        for machine in 1..=machines {
            let name = network.add(&format!("{prefix}-{machine}"));
            let port = format!("port{machine}");
            ip(&["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            ip(&["-n", &switch, "link", "set", &port, "master", "switch", "up"]);
            ip(&["-n", &name, "address", "add", &format!("10.99.0.{machine}/24"), "dev", "eth0"]);
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
