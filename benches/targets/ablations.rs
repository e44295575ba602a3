//! What each mechanism of prefetch is worth: the lines that it may speed up, with one mechanism switched at a time.
//!
//! One build, one run, and every side in turn in each round: the reference, the settings as they are by default, each mechanism
//! switched over by itself, and all of them off. A ratio below 1 says that the line is slower for the switch. Every measurement
//! has a daemon of its own, so nothing is left in RAM by the one before.

use std::path::PathBuf;

use anyhow::Result;

use crate::binary::Cidfs;
use crate::dataset::Dataset;
use crate::epochs::{FarDataset, Order};
use crate::files::{epoch, shuffled};
use crate::network::LONG_ROUNDS;
use crate::peers::Program;
use crate::report::{Target, Unit};
use crate::sides::alternate;
use crate::{Bench, kernel, links, reads};

/// The settings `prefetch.…` that switch a mechanism.
const MECHANISMS: &[&str] = &["files", "siblings", "epochs", "push", "names"];

const DISK: &[&str] = &[
    "epoch.ram",
    "epoch.disk.seq",
    "epoch.disk.rand",
    "epoch.disk.rand.plan",
    "big.seq.ram",
    "big.seq.disk",
    "big.mmap",
];
const NETWORK: &[(&str, Order)] =
    &[("epoch.net.seq", Order::Directory), ("epoch.net.rand", Order::Random), ("epoch.net.plan", Order::Planned)];

/// Settings, and what the table calls them.
struct Variant {
    name: String,
    settings: Vec<(String, String)>,
}

/// Measures the lines above that were asked for.
pub fn run(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    let variants = variants(cidfs)?;
    match kernel::why_not_cold() {
        Some(why) => bench.skip(DISK, why),
        None => {
            for name in DISK {
                if bench.wants(name) {
                    on_disk(bench, dataset, cidfs, root, name, &variants)?;
                }
            }
        }
    }
    let names: Vec<&str> = NETWORK.iter().map(|(name, _)| *name).collect();
    if !bench.wants_any(&names) {
        return Ok(());
    }
    if let Some(why) = links::why_no_namespaces() {
        bench.skip(&names, why);
        return Ok(());
    }
    let ours = Program::Cidfs(bench.options.cidfs.clone());
    let far = FarDataset::make(bench, dataset, &ours)?;
    for (name, order) in NETWORK {
        if bench.wants(name) {
            let work = |bench: &Bench, round: usize, side: Option<&Variant>| match side {
                None => far.link(),
                Some(variant) => far.first_epoch(bench, &ours, &variant.settings, *order, round),
            };
            line(bench, name, "plain TCP, the same path", Unit::Bytes(far.bytes), &variants, work)?;
        }
    }
    Ok(())
}

/// First the settings as they are by default, then each mechanism switched over, then all off.
fn variants(cidfs: &Cidfs) -> Result<Vec<Variant>> {
    let mut variants = vec![Variant { name: String::new(), settings: Vec::new() }];
    let mut none = Vec::new();
    for mechanism in MECHANISMS {
        let variable = format!("CIDFS_PREFETCH_{}", mechanism.to_uppercase());
        let is_on: bool = cidfs.setting(&format!("prefetch.{mechanism}"))?.parse()?;
        let name = format!("{} {mechanism}", if is_on { "without" } else { "with" });
        variants.push(Variant { name, settings: vec![(variable.clone(), (!is_on).to_string())] });
        none.push((variable, "false".to_owned()));
    }
    variants.push(Variant { name: "without any".into(), settings: none });
    Ok(variants)
}

/// A row for the settings as they are, beside the reference, and one for each other variant, beside that.
fn line(
    bench: &mut Bench,
    name: &str,
    reference: &str,
    unit: Unit,
    variants: &[Variant],
    work: impl Fn(&Bench, usize, Option<&Variant>) -> Result<f64>,
) -> Result<()> {
    let sides: Vec<Option<&Variant>> = std::iter::once(None).chain(variants.iter().map(Some)).collect();
    let rounds = bench.rounds.min(LONG_ROUNDS);
    let seconds = alternate(&sides, rounds, |round, side| work(bench, round, *side))?;
    bench.report.compare(name, reference, unit, &seconds[1], &seconds[0], Target::None);
    for (variant, its) in variants.iter().zip(&seconds[1..]).skip(1) {
        let name = format!("{name} {}", variant.name);
        bench.report.compare(&name, "as by default", unit, its, &seconds[1], Target::None);
    }
    Ok(())
}

fn on_disk(
    bench: &mut Bench,
    dataset: &Dataset,
    cidfs: &Cidfs,
    root: &str,
    name: &str,
    variants: &[Variant],
) -> Result<()> {
    let is_in_ram = matches!(name, "epoch.ram" | "big.seq.ram");
    let is_big = name.starts_with("big.");
    let (unit, ram_bytes) = if is_big {
        (Unit::Bytes(dataset.big_bytes()), dataset.big_bytes() * 2)
    } else {
        (Unit::Files(dataset.small().len()), dataset.small_bytes() * 3 / 2)
    };
    let read = |round: usize, root: PathBuf| match name {
        "big.mmap" => reads::mapped(&root.join(big(dataset, round)), dataset.big_bytes()),
        name if name.starts_with("big.") => reads::sequential(&root.join(big(dataset, round)), dataset.big_bytes()),
        name if name.starts_with("epoch.disk.rand") => epoch(dataset, &root, &shuffled(dataset.small(), round), 4),
        _ => epoch(dataset, &root, dataset.small(), 1),
    };
    let work = |_: &Bench, round: usize, side: Option<&Variant>| {
        let Some(variant) = side else {
            if is_in_ram {
                read(round, dataset.directory().to_owned())?;
            } else {
                kernel::drop_all()?;
            }
            return read(round, dataset.directory().to_owned());
        };
        let mut cidfs = cidfs.clone();
        for (variable, value) in &variant.settings {
            cidfs = cidfs.with(variable, value);
        }
        if is_in_ram {
            cidfs = cidfs.with("CIDFS_STORE_RAM_BYTES", &ram_bytes);
        }
        let mount = cidfs.mount("")?;
        if is_in_ram {
            read(round, mount.root(root))?;
        }
        kernel::drop_all()?;
        if name == "epoch.disk.rand.plan" {
            mount.plan(root, &shuffled(dataset.small(), round))?;
        }
        read(round, mount.root(root))
    };
    let reference = format!("{}{}", bench.report.filesystem(), if is_in_ram { ", warm" } else { "" });
    line(bench, name, &reference, unit, variants, work)
}

fn big(dataset: &Dataset, round: usize) -> &PathBuf {
    &dataset.big()[round % dataset.big().len()]
}
