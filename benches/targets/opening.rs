//! `store.open`: how long a repository of many blocks takes to open, and what its index holds in RAM.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cidfs::block::{Block, HashFunction, codec};
use cidfs::config::StoreConfig;
use cidfs::store::Store;

use crate::report::{Target, megabytes};
use crate::sides::median;
use crate::{Bench, kernel};

pub const LINES: &[&str] = &["store.open", "store.index"];

/// Seconds that opening may take.
const OPEN_SECONDS: f64 = 5.0;

/// Bytes of RAM that a block may take in the index.
const INDEX_BYTES: f64 = 32.0;

/// Measures the lines above, cold where caches can be dropped: a repository is opened after a start of the machine.
pub fn run(bench: &mut Bench) -> Result<()> {
    if !bench.wants_any(LINES) {
        return Ok(());
    }
    let blocks = bench.scale.store_blocks;
    let store = bench.options.work.join("store-of-many");
    make(&store, blocks)?;

    let (mut seconds, mut index) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        if kernel::why_not_cold().is_none() {
            kernel::drop_all()?;
        }
        // A process of its own: what it held in RAM before is known to be nothing.
        let output = Command::new(std::env::current_exe()?)
            .arg("--work")
            .arg(&bench.options.work)
            .arg("--open-store")
            .arg(&store)
            .output()?;
        ensure!(output.status.success(), "the store did not open: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout)?;
        let (took, resident) = printed.trim().split_once(' ').context("two figures were expected")?;
        seconds.push(took.parse()?);
        index.push(resident.parse::<f64>()? / blocks as f64);
    }
    fs::remove_dir_all(&store)?;

    let took = median(&seconds);
    // The bound is for 10^7 blocks, and the work grows with their number.
    let allowed = OPEN_SECONDS * blocks as f64 / 1e7;
    bench.report.bound(
        "store.open",
        (took, format!("{took:.2} s for {blocks} blocks")),
        (allowed, format!("{allowed:.2} s")),
        Target::AtMost(1.0),
    );
    let each = median(&index);
    bench.report.bound(
        "store.index",
        (each, format!("{each:.1} B a block")),
        (INDEX_BYTES, format!("{INDEX_BYTES:.0} B")),
        Target::AtMost(1.0),
    );
    Ok(())
}

fn make(path: &Path, blocks: u64) -> Result<()> {
    eprintln!("making a store of {blocks} blocks");
    let store = Store::open(path, &StoreConfig::default())?;
    let mut writer = store.writer();
    for number in 0..blocks {
        let data = Bytes::copy_from_slice(&number.to_le_bytes());
        writer.put(&Block::new(codec::RAW, HashFunction::Sha2_256, data))?;
    }
    drop(writer);
    store.sync()?;
    Ok(())
}

/// Opens the store, and prints the seconds that it took and the bytes of RAM that it holds then.
pub fn report_open(path: &Path) -> Result<()> {
    let before = kernel::resident_bytes(std::process::id())?;
    let began = Instant::now();
    let store = Store::open(path, &StoreConfig::default())?;
    let took = began.elapsed().as_secs_f64();
    let resident = kernel::resident_bytes(std::process::id())?.saturating_sub(before);
    let last = Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::copy_from_slice(&0u64.to_le_bytes()));
    ensure!(store.has(last.cid()), "the store has lost a block ({} in RAM)", megabytes(resident as f64));
    println!("{took} {resident}");
    Ok(())
}
