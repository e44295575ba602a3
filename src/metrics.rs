//! Every metric of cidfs, named once, in the text format of Prometheus (`GET /metrics`).
//!
//! Nothing is counted here: the floors count for themselves, and whoever serves the page hands over the [`Figures`] of the
//! moment. So a metric costs nothing until somebody asks.

use std::ops::AddAssign;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Serialize};

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Resident memory of the process, in bytes.
    pub resident_bytes: u64,
    /// What the RAM tier holds and may hold, in bytes.
    pub ram_bytes: (u64, u64),
    /// What the NVMe tier holds and may hold, in bytes; `u64::MAX` is no limit.
    pub disk_bytes: (u64, u64),
    /// Blocks in the RAM tier and on the NVMe tier.
    pub blocks: (u64, u64),
    /// The memory of the index, in bytes.
    pub index_bytes: u64,
    /// Segment files.
    pub segments: u64,
    /// What of the NVMe tier is dead records, in bytes.
    pub dead_bytes: u64,
    /// What the filesystem has left for the NVMe tier, in bytes.
    pub available_bytes: u64,
    /// What the store has counted.
    pub store: StoreFigures,
    /// Damaged records that were dropped since the start.
    pub damaged: u64,
    /// Pins.
    pub pins: u64,
    /// Names in listings that no file can have.
    pub hidden_names: u64,
    /// Whether nothing is wrong.
    pub healthy: bool,
    /// Requests of the kernel: the mountpoint, the kind, and how many.
    pub requests: Vec<(String, String, u64)>,
    /// Mounts.
    pub mounts: u64,
    /// The mountpoints, and what was brought ahead of the readers of each.
    pub prefetch: Vec<(String, PrefetchFigures)>,
    /// The node, where there is one.
    pub network: Option<NetworkFigures>,
}

/// What was counted since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoreFigures {
    /// Reads that the RAM tier answered.
    pub ram_hits: u64,
    /// Reads that the NVMe tier answered.
    pub disk_hits: u64,
    /// Reads of blocks that are not here.
    pub misses: u64,
    /// The bytes that the NVMe tier answered with.
    pub disk_read_bytes: u64,
    /// Blocks that were evicted to keep the budgets.
    pub evicted_blocks: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Garbage collections that came to their end.
    pub collections: u64,
    /// Blocks that they removed.
    pub collected_blocks: u64,
    /// Their bytes.
    pub collected_bytes: u64,
}

/// What was brought ahead of readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrefetchFigures {
    /// Bytes that were pushed into the kernel's page cache, or read into RAM for files to come.
    pub pushed_bytes: u64,
    /// Bytes that were read ahead within files.
    pub read_ahead_bytes: u64,
    /// Bytes that were fetched from other machines.
    pub fetched_bytes: u64,
    /// Of all these, what readers came to.
    pub useful_bytes: u64,
    /// And what they turned away from.
    pub wasted_bytes: u64,
    /// Files that a reader wanted while they were on their way.
    pub late_files: u64,
    /// Plans that readers contradicted.
    pub contradicted_plans: u64,
}

impl AddAssign for PrefetchFigures {
    fn add_assign(&mut self, other: PrefetchFigures) {
        self.pushed_bytes += other.pushed_bytes;
        self.read_ahead_bytes += other.read_ahead_bytes;
        self.fetched_bytes += other.fetched_bytes;
        self.useful_bytes += other.useful_bytes;
        self.wasted_bytes += other.wasted_bytes;
        self.late_files += other.late_files;
        self.contradicted_plans += other.contradicted_plans;
    }
}

/// The node in figures. What is no running total is of the last second.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkFigures {
    /// The profile.
    pub profile: String,
    /// Connected peers.
    pub peers: u64,
    /// Connections to them.
    pub connections: u64,
    /// Dials so far.
    pub dials: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Connections to us that failed or were refused.
    pub refused_connections: u64,
    /// Peers that were let go because there were too many.
    pub trimmed_peers: u64,
    /// Peers in the routing table of the public DHT.
    pub public_routing_peers: u64,
    /// Peers in the routing table of the local network's DHT.
    pub local_routing_peers: u64,
    /// Keys whose providers are kept for others.
    pub kept_keys: u64,
    /// Lookups and announcements under way.
    pub lookups: u64,
    /// Searches for providers so far.
    pub provider_searches: u64,
    /// Providers that were found.
    pub providers_found: u64,
    /// Announcements that were begun.
    pub announcements: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tier {
    tier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    mountpoint: String,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Mounted {
    mountpoint: String,
}

type Number = Gauge<u64, AtomicU64>;

/// The page.
pub fn page(figures: &Figures) -> String {
    let mut registry = Registry::with_prefix("cidfs");
    let mut number = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        let gauge = Number::default();
        gauge.set(value);
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, gauge),
            None => registry.register(name, help, gauge),
        }
    };
    number("uptime", "Time since the start", Some(Unit::Seconds), figures.uptime_seconds);
    number("resident", "Resident memory of the process", Some(Unit::Bytes), figures.resident_bytes);
    number("index", "Memory of the index of blocks", Some(Unit::Bytes), figures.index_bytes);
    number("pins", "Pins", None, figures.pins);
    number("store_segments", "Segment files of the NVMe tier", None, figures.segments);
    number("store_dead", "Dead records on the NVMe tier", Some(Unit::Bytes), figures.dead_bytes);
    number("store_available", "What the filesystem has left", Some(Unit::Bytes), figures.available_bytes);
    number("mounts", "Mounts", None, figures.mounts);
    number("healthy", "1 where nothing is wrong", None, u64::from(figures.healthy));

    let mut tiers = |name: &str, help: &str, unit: Option<Unit>, (ram, disk): (u64, u64)| {
        let family = Family::<Tier, Number>::default();
        family.get_or_create(&Tier { tier: "ram" }).set(ram);
        // No limit is no figure.
        if disk != u64::MAX {
            family.get_or_create(&Tier { tier: "nvme" }).set(disk);
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    tiers("store", "What each tier holds", Some(Unit::Bytes), (figures.ram_bytes.0, figures.disk_bytes.0));
    tiers("store_budget", "What each tier may hold", Some(Unit::Bytes), (figures.ram_bytes.1, figures.disk_bytes.1));
    tiers("store_blocks", "Blocks in each tier", None, figures.blocks);

    let mut counted = |name: &str, help: &str, unit: Option<Unit>, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, counter),
            None => registry.register(name, help, counter),
        }
    };
    let bytes = || Some(Unit::Bytes);
    counted("store_damaged", "Damaged records that were dropped: their checksum failed", None, figures.damaged);
    counted("store_misses", "Reads of blocks that are not here", None, figures.store.misses);
    counted("store_nvme_read", "What the NVMe tier answered with", bytes(), figures.store.disk_read_bytes);
    counted("store_evicted_blocks", "Blocks that were evicted to keep the budgets", None, figures.store.evicted_blocks);
    counted("store_evicted", "Their bytes", bytes(), figures.store.evicted_bytes);
    counted("store_collections", "Garbage collections", None, figures.store.collections);
    counted("store_collected_blocks", "Blocks that garbage collections removed", None, figures.store.collected_blocks);
    counted("store_collected", "Their bytes", bytes(), figures.store.collected_bytes);
    counted(
        "contradicted_plans",
        "Plans that were dropped, as other files were read",
        None,
        figures.prefetch.iter().map(|(_, figures)| figures.contradicted_plans).sum(),
    );
    counted("hidden_names", "Names in listings that no file can have", None, figures.hidden_names);
    let hits = Family::<Tier, Counter>::default();
    hits.get_or_create(&Tier { tier: "ram" }).inc_by(figures.store.ram_hits);
    hits.get_or_create(&Tier { tier: "nvme" }).inc_by(figures.store.disk_hits);
    registry.register("store_hits", "Reads that each tier answered", hits);
    let requests = Family::<Request, Counter>::default();
    for (mountpoint, kind, count) in &figures.requests {
        let labels = Request { mountpoint: mountpoint.clone(), kind: kind.clone() };
        requests.get_or_create(&labels).inc_by(*count);
    }
    registry.register("requests", "Requests of the kernel", requests);
    prefetch(&mut registry, &figures.prefetch);
    if let Some(figures) = &figures.network {
        network(&mut registry, figures);
    }

    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn prefetch(registry: &mut Registry, mounts: &[(String, PrefetchFigures)]) {
    let mut counted = |name: &str, help: &str, unit: Option<Unit>, of: fn(&PrefetchFigures) -> u64| {
        let family = Family::<Mounted, Counter>::default();
        for (mountpoint, figures) in mounts {
            family.get_or_create(&Mounted { mountpoint: mountpoint.clone() }).inc_by(of(figures));
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    };
    let bytes = || Some(Unit::Bytes);
    counted("prefetch_pushed", "Brought for files to come", bytes(), |figures| figures.pushed_bytes);
    counted("prefetch_read_ahead", "Read ahead within files", bytes(), |figures| figures.read_ahead_bytes);
    counted("prefetch_fetched", "Fetched ahead from other machines", bytes(), |figures| figures.fetched_bytes);
    counted("prefetch_useful", "Of these, what readers came to", bytes(), |figures| figures.useful_bytes);
    counted("prefetch_wasted", "And what they turned away from", bytes(), |figures| figures.wasted_bytes);
    counted("prefetch_late_files", "Files that were wanted while on their way", None, |figures| figures.late_files);
    counted("prefetch_contradicted_plans", "Plans that were dropped: other files were read", None, |figures| {
        figures.contradicted_plans
    });
}

fn network(registry: &mut Registry, figures: &NetworkFigures) {
    let mut number = |name: &str, help: &str, value: u64| {
        let gauge = Number::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    number("network_peers", "Connected peers", figures.peers);
    number("network_connections", "Connections to peers", figures.connections);
    number("network_public_routing_peers", "Peers that the public DHT is known by", figures.public_routing_peers);
    number("network_local_routing_peers", "Peers that the local DHT is known by", figures.local_routing_peers);
    number("network_kept_keys", "Keys whose providers are kept for others", figures.kept_keys);
    number("network_lookups", "Lookups and announcements under way", figures.lookups);
    let mut counted = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counted("network_dials", "Connections that were tried", figures.dials);
    counted("network_failed_dials", "Connections that were tried and failed", figures.failed_dials);
    counted(
        "network_refused_connections",
        "Connections of others that failed or were refused",
        figures.refused_connections,
    );
    counted("network_trimmed_peers", "Peers that were let go because there were too many", figures.trimmed_peers);
    counted("network_provider_searches", "Searches for providers", figures.provider_searches);
    counted("network_providers_found", "Providers that were found", figures.providers_found);
    counted("network_announcements", "Announcements that were begun", figures.announcements);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_figure_with_its_unit() {
        let figures = Figures {
            ram_bytes: (1, 2),
            disk_bytes: (3, u64::MAX),
            store: StoreFigures {
                ram_hits: 5,
                disk_hits: 6,
                disk_read_bytes: 8,
                evicted_blocks: 9,
                evicted_bytes: 10,
                ..StoreFigures::default()
            },
            requests: vec![("/mnt".into(), "read".into(), 7)],
            healthy: true,
            prefetch: vec![("/mnt".into(), PrefetchFigures { wasted_bytes: 11, ..PrefetchFigures::default() })],
            network: Some(NetworkFigures { peers: 5, dials: 6, ..NetworkFigures::default() }),
            ..Figures::default()
        };
        let page = page(&figures);
        for line in [
            "cidfs_store_bytes{tier=\"ram\"} 1",
            "cidfs_store_bytes{tier=\"nvme\"} 3",
            "cidfs_store_budget_bytes{tier=\"ram\"} 2",
            "cidfs_requests_total{mountpoint=\"/mnt\",kind=\"read\"} 7",
            "cidfs_store_hits_total{tier=\"ram\"} 5",
            "cidfs_store_hits_total{tier=\"nvme\"} 6",
            "cidfs_store_nvme_read_bytes_total 8",
            "cidfs_store_evicted_blocks_total 9",
            "cidfs_store_evicted_bytes_total 10",
            "cidfs_store_misses_total 0",
            "cidfs_healthy 1",
            "cidfs_prefetch_wasted_bytes_total{mountpoint=\"/mnt\"} 11",
            "cidfs_network_peers 5",
            "cidfs_network_dials_total 6",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("cidfs_store_budget_bytes{tier=\"nvme\"}"));
    }
}
