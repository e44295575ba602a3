//! Epochs of what is not here, or not all of it: first ones over the network, and those of a dataset that the cache does not hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::dataset::Dataset;
use crate::files::shuffled;
use crate::network::{FETCHED_DIRECTORIES, FarApart, LONG_ROUNDS, Small};
use crate::peers::{Peer, Program};
use crate::report::{Target, Unit};
use crate::sides::{alternate, median};
use crate::{Bench, kernel, links, reads};

pub const LINES: &[&str] =
    &["epoch.net.seq", "epoch.net.rand", "epoch.net.plan", "epoch.overflow", "epoch.overflow.time"];

/// The path to the peer that has the dataset: 20 ms there and back, 1 Gbit/s.
const NEAR: links::Path = links::Path { delay: Duration::from_millis(10), bytes_per_second: 125_000_000 };

/// What the link is measured by.
const LINK: &str = "plain TCP, the same path";

/// Readers of a random order: the workers of a loader.
const READERS: usize = 4;

/// The RAM tier of `epoch.overflow`: next to nothing beside the dataset, as it is where datasets do not fit.
const OVERFLOW_RAM_BYTES: u64 = 8 << 20;

/// How a first epoch is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In directory order, by one reader.
    Directory,
    /// All names are listed; then the files are read in random order, by several readers.
    Random,
    /// The same, and the order is told before.
    Planned,
}

/// A dataset at the other end of the path.
pub struct FarDataset {
    small: Small,
    apart: FarApart,
    files: Vec<PathBuf>,
    /// The bytes of its files.
    pub bytes: u64,
}

/// Measures the lines above.
pub fn run(bench: &mut Bench, dataset: &Dataset) -> Result<()> {
    if !bench.wants_any(LINES) {
        return Ok(());
    }
    if let Some(why) = links::why_no_namespaces() {
        bench.skip(LINES, why);
        return Ok(());
    }
    let ours = Program::Cidfs(bench.options.cidfs.clone());
    let far = FarDataset::make(bench, dataset, &ours)?;
    for (name, order) in
        [("epoch.net.seq", Order::Directory), ("epoch.net.rand", Order::Random), ("epoch.net.plan", Order::Planned)]
    {
        if !bench.wants(name) {
            continue;
        }
        let seconds = alternate(&[true, false], bench.rounds.min(LONG_ROUNDS), |round, is_ours| {
            if *is_ours { far.first_epoch(bench, &ours, &[], order, round) } else { far.link() }
        })?;
        let unit = Unit::Bytes(far.bytes);
        bench.report.compare(name, LINK, unit, &seconds[0], &seconds[1], Target::AtLeast(0.7));
    }
    if bench.wants("epoch.overflow") {
        match kernel::why_not_cold() {
            Some(why) => bench.skip(&["epoch.overflow", "epoch.overflow.time"], why),
            None => overflow(bench, &far, &ours)?,
        }
    }
    Ok(())
}

impl FarDataset {
    /// Files of the dataset, with a peer that has them.
    pub fn make(bench: &Bench, dataset: &Dataset, ours: &Program) -> Result<FarDataset> {
        let small = Small::make(bench, dataset, FETCHED_DIRECTORIES)?;
        let apart = FarApart::make(bench, ours, &small.directory, NEAR)?;
        let mut files: Vec<PathBuf> = Vec::new();
        let mut bytes = 0;
        for class in sorted(&small.directory)? {
            for file in sorted(&class)? {
                bytes += fs::metadata(&file)?.len();
                files.push(file.strip_prefix(&small.directory)?.to_owned());
            }
        }
        Ok(FarDataset { small, apart, files, bytes })
    }

    /// The seconds that a node which has nothing takes to read every file through its mount.
    pub fn first_epoch(
        &self,
        bench: &Bench,
        ours: &Program,
        settings: &[(String, String)],
        order: Order,
        round: usize,
    ) -> Result<f64> {
        let client = self.apart.client(bench, ours, settings)?;
        let mountpoint = client.mount()?;
        let took = self.epoch(&client, &mountpoint, order, round);
        client.run(&["umount", "--all"])?;
        took
    }

    /// The seconds that the same bytes take over the path.
    pub fn link(&self) -> Result<f64> {
        links::plain(NEAR, self.bytes)
    }

    fn epoch(&self, client: &Peer, mountpoint: &Path, order: Order, round: usize) -> Result<f64> {
        let root = mountpoint.join(&self.apart.root);
        if order == Order::Directory {
            return reads::epoch(&root, &self.files, 1, self.bytes);
        }
        let files = shuffled(&self.files, round);
        if order == Order::Planned {
            client.plan(&self.apart.root, &files)?;
        }
        let began = Instant::now();
        reads::list(&root, self.small.files)?;
        reads::epoch(&root, &files, READERS, self.bytes)?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// The cache holds half of the dataset, and each epoch has another order. What it found here of a second epoch, beside what was
/// here when that began; and the time of that epoch, beside that of the missing bytes over the path.
fn overflow(bench: &mut Bench, far: &FarDataset, ours: &Program) -> Result<()> {
    let settings = [
        ("CIDFS_STORE_DISK_BYTES".to_owned(), (far.bytes / 2).to_string()),
        ("CIDFS_STORE_RAM_BYTES".to_owned(), OVERFLOW_RAM_BYTES.to_string()),
    ];
    let (mut here, mut hits, mut seconds, mut link) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds.min(LONG_ROUNDS) {
        let client = far.apart.client(bench, ours, &settings)?;
        let mountpoint = client.mount()?;
        far.epoch(&client, &mountpoint, Order::Random, 2 * round)?;
        let received = || client.figure(&["bitswap", "stat", "--json"], "/DataReceived");
        // Every file is one block, and so is every directory, with the root.
        let blocks = client.figure(&["status", "--json"], "/Store/DiskBlocks")?;
        let files = blocks.saturating_sub(far.small.directories as u64 + 1);
        here.push(files as f64 / far.small.files as f64);
        kernel::drop_all()?;
        let before = received()?;
        seconds.push(far.epoch(&client, &mountpoint, Order::Random, 2 * round + 1)?);
        let fetched = received()? - before;
        hits.push(1.0 - fetched as f64 / far.bytes as f64);
        link.push(links::plain(NEAR, fetched.max(1))?);
        client.run(&["umount", "--all"])?;
    }
    let (here, hits) = (median(&here), median(&hits));
    ensure!(here > 0.0, "nothing of the first epoch was kept");
    bench.report.bound(
        "epoch.overflow",
        (hits, format!("{:.1} % found here", hits * 100.0)),
        (here, format!("{:.1} % was here", here * 100.0)),
        Target::AtLeast(0.98),
    );
    bench.report.compare(
        "epoch.overflow.time",
        "plain TCP, what was missing",
        Unit::Bytes(far.bytes),
        &seconds,
        &link,
        Target::None,
    );
    Ok(())
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}
