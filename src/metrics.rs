//! Every metric of cidfs, named once, in the text format of Prometheus (`GET /metrics`).
//!
//! Nothing is counted here: the floors count for themselves, and whoever serves the page hands over the [`Figures`] of the
//! moment. So a metric costs nothing until somebody asks.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

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

    let mut counted = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counted("store_damaged", "Damaged records that were dropped", figures.damaged);
    counted("hidden_names", "Names in listings that no file can have", figures.hidden_names);
    let requests = Family::<Request, Counter>::default();
    for (mountpoint, kind, count) in &figures.requests {
        let labels = Request { mountpoint: mountpoint.clone(), kind: kind.clone() };
        requests.get_or_create(&labels).inc_by(*count);
    }
    registry.register("requests", "Requests of the kernel", requests);

    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_figure_with_its_unit() {
        let figures = Figures {
            ram_bytes: (1, 2),
            disk_bytes: (3, u64::MAX),
            requests: vec![("/mnt".into(), "read".into(), 7)],
            healthy: true,
            ..Figures::default()
        };
        let page = page(&figures);
        for line in [
            "cidfs_store_bytes{tier=\"ram\"} 1",
            "cidfs_store_bytes{tier=\"nvme\"} 3",
            "cidfs_store_budget_bytes{tier=\"ram\"} 2",
            "cidfs_requests_total{mountpoint=\"/mnt\",kind=\"read\"} 7",
            "cidfs_healthy 1",
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("cidfs_store_budget_bytes{tier=\"nvme\"}"));
    }
}
