//! Lists and epochs: what a training run does with many small files.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Bench;
use crate::binary::{Cidfs, Mount};
use crate::dataset::{Dataset, Noise};
use crate::report::{Target, Unit, megabytes};
use crate::sides::{Side, alternate};
use crate::{kernel, reads, squash};

pub const LINES: &[&str] = &[
    "list.warm",
    "list.cold",
    "epoch.warm",
    "epoch.ram",
    "epoch.disk.seq",
    "epoch.disk.rand",
    "epoch.disk.rand.plan",
    "ram.double",
];

const COLD: &[&str] =
    &["list.cold", "epoch.ram", "epoch.disk.seq", "epoch.disk.rand", "epoch.disk.rand.plan", "ram.double"];

/// Rounds of a line that takes milliseconds, for each round of one that takes seconds.
const SHORT_ROUNDS: usize = 3;

/// Measures the lines above.
pub fn run(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    if !bench.wants_any(LINES) {
        return Ok(());
    }
    let not_cold = kernel::why_not_cold();
    {
        let mount = cidfs.mount("")?;
        let mut sides = vec![
            Side::new("cidfs", mount.root(root)),
            Side::new(bench.report.filesystem(), dataset.directory().to_owned()),
        ];
        let squashed = squash::mount(&bench.options.work, dataset.directory());
        match &squashed {
            Ok(squashed) => sides.push(Side::new("squashfuse", squashed.root().to_owned())),
            Err(why) => bench.skip(&["squashfuse, as another reference"], &format!("{why:#}")),
        }
        warm(bench, dataset, &sides)?;
        if not_cold.is_none() {
            cold(bench, dataset, &sides)?;
            if bench.wants("epoch.disk.rand.plan") {
                planned(bench, dataset, &mount, root, &sides[..2])?;
            }
        }
    }
    match not_cold {
        Some(why) => bench.skip(COLD, why),
        None if bench.wants("epoch.ram") => epoch_ram(bench, dataset, cidfs, root)?,
        None => {}
    }
    Ok(())
}

fn warm(bench: &mut Bench, dataset: &Dataset, sides: &[Side]) -> Result<()> {
    let files = dataset.small().len() + dataset.big().len();
    if bench.wants("list.warm") {
        for side in sides {
            reads::list(&side.root, files)?;
        }
        let seconds = alternate(sides, bench.rounds * SHORT_ROUNDS, |_, side| reads::list(&side.root, files))?;
        rows(bench, "list.warm", Unit::Time, sides, &seconds, Target::AtMost(1.1));
    }
    if bench.wants("epoch.warm") {
        for side in sides {
            epoch(dataset, &side.root, dataset.small(), 2)?;
        }
        let seconds = alternate(sides, bench.rounds, |round, side| {
            epoch(dataset, &side.root, &shuffled(dataset.small(), round), 2)
        })?;
        rows(bench, "epoch.warm", Unit::Files(dataset.small().len()), sides, &seconds, Target::AtLeast(0.75));
    }
    Ok(())
}

fn cold(bench: &mut Bench, dataset: &Dataset, sides: &[Side]) -> Result<()> {
    let files = dataset.small().len() + dataset.big().len();
    if bench.wants("list.cold") {
        let seconds = alternate(sides, bench.rounds * SHORT_ROUNDS, |_, side| {
            kernel::drop_dentries()?;
            reads::list(&side.root, files)
        })?;
        rows(bench, "list.cold", Unit::Time, sides, &seconds, Target::AtMost(1.2));
    }
    let unit = Unit::Files(dataset.small().len());
    if bench.wants("epoch.disk.seq") {
        let seconds = alternate(sides, bench.rounds, |_, side| {
            kernel::drop_all()?;
            epoch(dataset, &side.root, dataset.small(), 1)
        })?;
        rows(bench, "epoch.disk.seq", unit, sides, &seconds, Target::AtLeast(1.0));
    }
    if bench.wants("epoch.disk.rand") {
        let seconds = alternate(sides, bench.rounds, |round, side| {
            let order = shuffled(dataset.small(), round);
            kernel::drop_all()?;
            epoch(dataset, &side.root, &order, 4)
        })?;
        rows(bench, "epoch.disk.rand", unit, sides, &seconds, Target::AtLeast(0.7));
    }
    if bench.wants("ram.double") {
        let mut cached = Vec::new();
        for _ in 0..bench.rounds {
            kernel::drop_all()?;
            let before = kernel::cached_bytes()?;
            epoch(dataset, &sides[0].root, dataset.small(), 1)?;
            cached.push(kernel::cached_bytes()?.saturating_sub(before) as f64);
        }
        let (cached, data) = (crate::sides::median(&cached), dataset.small_bytes() as f64);
        bench.report.bound(
            "ram.double",
            (cached, format!("{} cached", megabytes(cached))),
            (data, format!("{} of files", megabytes(data))),
            Target::AtMost(1.15),
        );
    }
    Ok(())
}

/// The order is told before it is read, as a training job can tell it.
fn planned(bench: &mut Bench, dataset: &Dataset, mount: &Mount, root: &str, sides: &[Side]) -> Result<()> {
    let seconds = alternate(sides, bench.rounds, |round, side| {
        let order = shuffled(dataset.small(), round);
        kernel::drop_all()?;
        if side.root == sides[0].root {
            mount.plan(root, &order)?;
        }
        epoch(dataset, &side.root, &order, 4)
    })?;
    let unit = Unit::Files(dataset.small().len());
    rows(bench, "epoch.disk.rand.plan", unit, sides, &seconds, Target::AtLeast(1.0));
    Ok(())
}

/// The kernel's caches are empty and every block is in the daemon's RAM tier; beside it, the local disk's files in the page
/// cache: the same bytes from RAM, both times.
fn epoch_ram(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    let cidfs = cidfs.with("CIDFS_STORE_RAM_BYTES", &(dataset.small_bytes() * 3 / 2));
    let mount = cidfs.mount("")?;
    let ours = mount.root(root);
    epoch(dataset, &ours, dataset.small(), 1)?;
    let sides = [
        Side::new("cidfs", ours.clone()),
        Side::new(&format!("{}, warm", bench.report.filesystem()), dataset.directory().to_owned()),
    ];
    let seconds = alternate(&sides, bench.rounds, |_, side| {
        if side.root == ours {
            kernel::drop_all()?;
        } else {
            epoch(dataset, &side.root, dataset.small(), 1)?;
        }
        epoch(dataset, &side.root, dataset.small(), 1)
    })?;
    rows(bench, "epoch.ram", Unit::Files(dataset.small().len()), &sides, &seconds, Target::AtLeast(0.4));
    Ok(())
}

/// A row for each side beside ours, which is the first; the second side is the one that the target is about.
pub fn rows(bench: &mut Bench, name: &str, unit: Unit, sides: &[Side], seconds: &[Vec<f64>], target: Target) {
    for other in 1..sides.len() {
        let target = if other == 1 { target } else { Target::None };
        bench.report.compare(name, &sides[other].name, unit, &seconds[0], &seconds[other], target);
    }
}

/// An epoch of the small files; the seconds it took.
pub fn epoch(dataset: &Dataset, root: &Path, order: &[PathBuf], readers: usize) -> Result<f64> {
    reads::epoch(root, order, readers, dataset.small_bytes())
}

/// A fresh order in each round, the same for each side.
pub fn shuffled(files: &[PathBuf], round: usize) -> Vec<PathBuf> {
    let mut order = files.to_vec();
    Noise(round as u64 + 1).shuffle(&mut order);
    order
}
