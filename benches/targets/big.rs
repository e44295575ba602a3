//! Big files: what serving a model, or copying an archive, does.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Bench;
use crate::binary::Cidfs;
use crate::dataset::Dataset;
use crate::files::rows;
use crate::report::{Target, Unit};
use crate::sides::{Side, alternate};
use crate::{kernel, reads, squash};

pub const LINES: &[&str] = &["big.seq.disk", "big.mmap", "big.seq.ram"];

/// Of the profile `serving`: the first reading of a file, which makes its copy, and later ones.
pub const SERVING: &[&str] = &["big.serving.first", "big.serving", "big.serving.mmap", "big.serving.warm"];

/// A way to read a whole file, which gives the seconds it took.
type Read = fn(&Path, u64) -> Result<f64>;

/// Measures the lines above.
pub fn run(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    if !bench.wants_any(LINES) && !bench.wants_any(SERVING) {
        return Ok(());
    }
    if let Some(why) = kernel::why_not_cold() {
        bench.skip(LINES, why);
        bench.skip(SERVING, why);
        return Ok(());
    }
    if bench.wants_any(&["big.seq.disk", "big.mmap"]) {
        let mount = cidfs.mount("")?;
        let mut sides = sides(bench, dataset, mount.root(root));
        // The reason why there is none was given with the lists.
        let squashed = squash::mount(&bench.options.work, dataset.directory());
        if let Ok(squashed) = &squashed {
            sides.push(Side::new("squashfuse", squashed.root().to_owned()));
        }
        cold(bench, dataset, &sides, "big.seq.disk", reads::sequential, Target::AtLeast(0.7))?;
        cold(bench, dataset, &sides, "big.mmap", reads::mapped, Target::AtLeast(0.5))?;
    }
    if bench.wants("big.seq.ram") {
        from_ram(bench, dataset, cidfs, root)?;
    }
    if bench.wants_any(SERVING) {
        serving(bench, dataset, cidfs, root)?;
    }
    Ok(())
}

fn serving(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    let mount = cidfs.mount("profile=serving")?;
    let sides = sides(bench, dataset, mount.root(root));
    // Each file has one first reading.
    let rounds = bench.rounds;
    bench.rounds = rounds.min(dataset.big().len());
    let first = cold(bench, dataset, &sides, "big.serving.first", reads::sequential, Target::None);
    bench.rounds = rounds;
    first?;
    for file in dataset.big() {
        // A copy that the first open did not wait for is there at the second or the third.
        for _ in 0..2 {
            reads::sequential(&sides[0].root.join(file), dataset.big_bytes())?;
        }
    }
    cold(bench, dataset, &sides, "big.serving", reads::sequential, Target::AtLeast(0.95))?;
    cold(bench, dataset, &sides, "big.serving.mmap", reads::mapped, Target::AtLeast(0.95))?;
    if bench.wants("big.serving.warm") {
        let file = &dataset.big()[0];
        let work = |_, side: &Side| reads::sequential(&side.root.join(file), dataset.big_bytes());
        alternate(&sides, 1, work)?;
        let seconds = alternate(&sides, bench.rounds, work)?;
        let unit = Unit::Bytes(dataset.big_bytes());
        rows(bench, "big.serving.warm", unit, &sides, &seconds, Target::AtLeast(0.95));
    }
    Ok(())
}

fn sides(bench: &Bench, dataset: &Dataset, ours: PathBuf) -> Vec<Side> {
    vec![Side::new("cidfs", ours), Side::new(bench.report.filesystem(), dataset.directory().to_owned())]
}

fn cold(bench: &mut Bench, dataset: &Dataset, sides: &[Side], name: &str, read: Read, target: Target) -> Result<()> {
    if !bench.wants(name) {
        return Ok(());
    }
    let seconds = alternate(sides, bench.rounds, |round, side| {
        let file = side.root.join(&dataset.big()[round % dataset.big().len()]);
        kernel::drop_all()?;
        read(&file, dataset.big_bytes())
    })?;
    rows(bench, name, Unit::Bytes(dataset.big_bytes()), sides, &seconds, target);
    Ok(())
}

/// The kernel's caches are empty and the file's blocks are in the daemon's RAM tier; beside it, the local file in the page cache.
fn from_ram(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    let mount = cidfs.with("CIDFS_STORE_RAM_BYTES", &(dataset.big_bytes() * 2)).mount("")?;
    let ours = mount.root(root).join(&dataset.big()[0]);
    let local = dataset.directory().join(&dataset.big()[0]);
    reads::sequential(&ours, dataset.big_bytes())?;
    let sides = [Side::new("cidfs", ours.clone()), Side::new(&format!("{}, warm", bench.report.filesystem()), local)];
    let seconds = alternate(&sides, bench.rounds, |_, side| {
        if side.root == ours {
            kernel::drop_all()?;
        } else {
            reads::sequential(&side.root, dataset.big_bytes())?;
        }
        reads::sequential(&side.root, dataset.big_bytes())
    })?;
    rows(bench, "big.seq.ram", Unit::Bytes(dataset.big_bytes()), &sides, &seconds, Target::AtLeast(0.45));
    Ok(())
}
