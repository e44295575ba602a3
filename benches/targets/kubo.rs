//! The same dataset through kubo's own `ipfs mount`, where a kubo binary is given.
//!
//! kubo mounts only while it is online, so it runs on a repository of its own with its test profile: loopback addresses, nobody
//! to bootstrap from, no mDNS, and no routing. It can reach nobody.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::MntFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Bench;
use crate::binary::Cidfs;
use crate::dataset::{Dataset, Noise};
use crate::files::rows;
use crate::report::{Target, Unit};
use crate::sides::{Side, alternate};
use crate::{kernel, reads};

pub const LINES: &[&str] = &[
    "kubo.list.cold",
    "kubo.list.warm",
    "kubo.epoch.disk.seq",
    "kubo.epoch.warm",
    "kubo.big.seq",
    "kubo.big.mmap",
    "kubo.big.random",
];

/// Rounds of these lines: one of kubo's takes from three to fifteen seconds.
const ROUNDS: usize = 3;

const LISTS: Target = Target::AtLeast(40.0);
const READS: Target = Target::AtLeast(5.0);

/// Measures the lines above.
pub fn run(bench: &mut Bench, dataset: &Dataset, cidfs: &Cidfs, root: &str) -> Result<()> {
    if !bench.wants_any(LINES) {
        return Ok(());
    }
    let Some(binary) = bench.options.kubo.clone() else {
        bench.skip(LINES, "no kubo binary (--kubo, or scripts/kubo to build one)");
        return Ok(());
    };
    if let Some(why) = kernel::why_not_cold() {
        bench.skip(LINES, why);
        return Ok(());
    }
    let kubo = match Kubo::start(&binary, &bench.options.work.join("kubo"), dataset.directory()) {
        Ok(kubo) => kubo,
        Err(error) => {
            bench.skip(LINES, &format!("kubo's mount does not start: {error:#}"));
            return Ok(());
        }
    };
    ensure!(kubo.root == root, "kubo calls the dataset {}, and cidfs {root}", kubo.root);
    let mount = cidfs.mount("")?;
    let sides = [Side::new("cidfs", mount.root(root)), Side::new("kubo", kubo.work.join(MOUNTPOINTS[0]).join(root))];
    lists_and_epochs(bench, dataset, &sides)?;
    big(bench, dataset, &sides)
}

fn lists_and_epochs(bench: &mut Bench, dataset: &Dataset, sides: &[Side]) -> Result<()> {
    let files = dataset.small().len() + dataset.big().len();
    // A ratio of speeds, as these targets are: so many files listed in the time.
    let unit = Unit::Files(files);
    if bench.wants("kubo.list.cold") {
        let seconds = alternate(sides, ROUNDS, |_, side| {
            kernel::drop_all()?;
            reads::list(&side.root, files)
        })?;
        rows(bench, "kubo.list.cold", unit, sides, &seconds, LISTS);
    }
    if bench.wants("kubo.list.warm") {
        alternate(sides, 1, |_, side| reads::list(&side.root, files))?;
        let seconds = alternate(sides, ROUNDS, |_, side| reads::list(&side.root, files))?;
        rows(bench, "kubo.list.warm", unit, sides, &seconds, LISTS);
    }
    let unit = Unit::Files(dataset.small().len());
    if bench.wants("kubo.epoch.disk.seq") {
        let seconds = alternate(sides, ROUNDS, |_, side| {
            kernel::drop_all()?;
            reads::epoch(&side.root, dataset.small(), 1, dataset.small_bytes())
        })?;
        rows(bench, "kubo.epoch.disk.seq", unit, sides, &seconds, READS);
    }
    if bench.wants("kubo.epoch.warm") {
        let epoch = |round: usize, side: &Side| {
            let mut order = dataset.small().to_vec();
            Noise(round as u64 + 1).shuffle(&mut order);
            reads::epoch(&side.root, &order, 2, dataset.small_bytes())
        };
        alternate(sides, 1, epoch)?;
        let seconds = alternate(sides, ROUNDS, epoch)?;
        rows(bench, "kubo.epoch.warm", unit, sides, &seconds, READS);
    }
    Ok(())
}

fn big(bench: &mut Bench, dataset: &Dataset, sides: &[Side]) -> Result<()> {
    type Read = fn(&Path, u64) -> Result<f64>;
    let lines: [(&str, Read); 3] =
        [("kubo.big.seq", reads::sequential), ("kubo.big.mmap", reads::mapped), ("kubo.big.random", reads::scattered)];
    for (name, read) in lines {
        if !bench.wants(name) {
            continue;
        }
        let seconds = alternate(sides, ROUNDS, |round, side| {
            let file = side.root.join(&dataset.big()[round % dataset.big().len()]);
            kernel::drop_all()?;
            read(&file, dataset.big_bytes())
        })?;
        rows(bench, name, Unit::Bytes(dataset.big_bytes()), sides, &seconds, READS);
    }
    Ok(())
}

/// A kubo daemon that has mounted; ended when dropped.
struct Kubo {
    daemon: Child,
    work: PathBuf,
    root: String,
}

/// kubo mounts all three or none.
const MOUNTPOINTS: [&str; 3] = ["ipfs", "ipns", "mfs"];

impl Kubo {
    fn start(binary: &Path, work: &Path, dataset: &Path) -> Result<Kubo> {
        for name in MOUNTPOINTS {
            std::fs::create_dir_all(work.join(name))?;
        }
        let command = || {
            let mut command = Command::new(binary);
            command.env("IPFS_PATH", work.join("repository")).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
            command
        };
        output_of(command().args(["init", "--profile=test,unixfs-v1-2025"]))?;
        output_of(command().args(["config", "Routing.Type", "none"]))?;
        let root = output_of(command().args(["--offline", "add", "-r", "-Q"]).arg(dataset))?.trim().to_owned();
        let mut daemon = command()
            .args(["daemon", "--mount"])
            .args(MOUNTPOINTS.map(|name| format!("--mount-{name}={}", work.join(name).display())))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut printed = BufReader::new(daemon.stdout.take().context("no standard output")?);
        let mut line = String::new();
        loop {
            line.clear();
            if printed.read_line(&mut line)? == 0 {
                let mut why = String::new();
                if let Some(errors) = &mut daemon.stderr {
                    errors.read_to_string(&mut why)?;
                }
                daemon.wait()?;
                bail!("{}", why.trim());
            }
            if line.contains("Daemon is ready") {
                break;
            }
        }
        // Both pipes are read to their end, or a talkative daemon would stop at a full one.
        std::thread::spawn(move || std::io::copy(&mut printed, &mut std::io::sink()));
        if let Some(mut errors) = daemon.stderr.take() {
            std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        }
        Ok(Kubo { daemon, work: work.to_owned(), root })
    }
}

impl Drop for Kubo {
    fn drop(&mut self) {
        let ended = kill(Pid::from_raw(self.daemon.id() as i32), Signal::SIGTERM).is_ok() && self.daemon.wait().is_ok();
        if !ended {
            eprintln!("kubo's daemon, process {}, could not be ended", self.daemon.id());
        }
        for name in MOUNTPOINTS {
            // Those that it took down itself fail here, as they should.
            let _ = nix::mount::umount2(&self.work.join(name), MntFlags::MNT_DETACH);
        }
    }
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
