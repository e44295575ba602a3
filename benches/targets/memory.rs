//! What the daemon holds in RAM: idle, and at the most while an epoch of a dataset far larger than its budget goes by.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::binary::Cidfs;
use crate::dataset::{Dataset, Noise};
use crate::report::{Target, megabytes};
use crate::{Bench, kernel, reads};

pub const LINES: &[&str] = &["memory.idle", "memory.epoch"];

/// What an idle daemon may hold, in bytes. During an epoch it may hold this and its RAM tier.
const IDLE_BYTES: u64 = 60_000_000;

/// The RAM tier that the epoch is read with: the default of `store.ram_bytes`, said here so that it is known.
const RAM_TIER_BYTES: u64 = 256 << 20;

/// Bytes that are made, added and removed at a time, so that the source never takes as much room as the repository.
const BATCH_BYTES: u64 = 2 << 30;

/// Measures the lines above.
pub fn run(bench: &mut Bench, _dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    if bench.wants("memory.idle") {
        let mount = cidfs.mount("")?;
        fs::metadata(mount.root(root)).context("the mount does not answer")?;
        let resident = kernel::resident_bytes(mount.daemon()?)? as f64;
        let bound = IDLE_BYTES as f64;
        bench.report.bound(
            "memory.idle",
            (resident, megabytes(resident)),
            (bound, megabytes(bound)),
            Target::AtMost(1.0),
        );
    }
    if bench.wants("memory.epoch") {
        epoch(bench)?;
    }
    Ok(())
}

fn epoch(bench: &mut Bench) -> Result<()> {
    let wanted = bench.scale.epoch_bytes;
    // A batch's source and the repository lie on the disk together, and nothing is filled to the brim.
    let room = free_bytes(bench)?.saturating_sub(2 * BATCH_BYTES) / 2;
    if room < wanted {
        let why = format!("{} of distinct data need more room than is free", megabytes(wanted as f64));
        bench.skip(&["memory.epoch"], &why);
        return Ok(());
    }
    let repository = bench.options.work.join("repository-of-epoch");
    let source = bench.options.work.join("epoch");
    let cidfs = Cidfs::new(&bench.options.cidfs, &repository).with("CIDFS_STORE_RAM_BYTES", &RAM_TIER_BYTES);

    let mut noise = Noise(0x5EED_0002);
    let mut batches: Vec<(String, Vec<PathBuf>, u64)> = Vec::new();
    let mut made = 0;
    while made < wanted {
        let bytes = BATCH_BYTES.min(wanted - made);
        let count = bytes / bench.scale.file_bytes;
        let mut files = Vec::new();
        for number in 0..count {
            let directory = format!("{:03}", number / 200);
            fs::create_dir_all(source.join(&directory))?;
            let file = PathBuf::from(directory).join(format!("{number:06}.bin"));
            noise.file(&source.join(&file), bench.scale.file_bytes)?;
            files.push(file);
        }
        batches.push((cidfs.add(&source)?, files, count * bench.scale.file_bytes));
        fs::remove_dir_all(&source)?;
        made += bytes;
    }

    let mount = cidfs.mount("")?;
    let daemon = mount.daemon()?;
    for (root, files, bytes) in &batches {
        reads::epoch(&mount.root(root), files, 4, *bytes)?;
    }
    let peak = kernel::peak_resident_bytes(daemon)? as f64;
    drop(mount);
    fs::remove_dir_all(&repository)?;
    let bound = (RAM_TIER_BYTES + IDLE_BYTES) as f64;
    bench.report.bound(
        "memory.epoch",
        (peak, format!("{} at most", megabytes(peak))),
        (bound, format!("{} budget, {} read", megabytes(bound), megabytes(made as f64))),
        Target::AtMost(1.1),
    );
    Ok(())
}

fn free_bytes(bench: &Bench) -> Result<u64> {
    let statvfs = nix::sys::statvfs::statvfs(&bench.options.work)?;
    Ok(statvfs.blocks_available() * statvfs.fragment_size())
}
