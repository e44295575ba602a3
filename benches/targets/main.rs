//! The figures that cidfs is held to, each measured beside its reference in one run: the harness behind `scripts/bench`.
//!
//! Every line is a ratio, because machines differ and are noisy: what cidfs takes for a piece of work, over what the local
//! filesystem (or another implementation) takes for the same work on the same bytes, minutes apart at most. Each side is
//! measured several times in alternating order, and medians are compared. What is driven is the real binary, on a
//! repository of its own: `add`, `mount`, `status`, `umount`. What reads is this program, compiled, so that a ratio speaks of
//! the filesystems and not of an interpreter.
//!
//! A line that cannot be measured here (caches are dropped by root alone, kubo may be missing) is printed as skipped,
//! with its reason. A side that returns the wrong number of bytes ends the run: a fast wrong answer is no figure.
//!
//! [`dataset`] makes the files, [`binary`] drives the binary, [`kernel`] the page cache, [`reads`] is the work, [`sides`] the
//! alternation, [`report`] the table. The lines themselves are in [`files`] (lists and epochs), [`big`], [`imports`],
//! [`memory`], [`opening`], [`kubo`], [`network`] (with [`peers`] and the [`links`] between them) and [`epochs`]; [`ablations`] tell
//! what each mechanism of prefetch is worth.

mod ablations;
mod big;
mod binary;
mod dataset;
mod epochs;
mod files;
mod imports;
mod kernel;
mod kubo;
mod links;
mod memory;
mod network;
mod opening;
mod peers;
mod reads;
mod report;
mod sides;
mod squash;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

use crate::binary::Cidfs;
use crate::dataset::{Dataset, Scale};
use crate::report::Report;

/// What was asked for, by `scripts/bench`.
#[derive(Debug, Parser)]
#[command(name = "targets")]
pub struct Options {
    /// An empty directory on the disk to measure.
    #[arg(long)]
    work: PathBuf,
    /// A tenth of the files, shorter ones, and fewer rounds: to see that everything runs, not to compare.
    #[arg(long)]
    quick: bool,
    /// How often each side is measured.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only lines whose name holds one of these.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// In the place of the lines: those that prefetch may speed up, with each of its mechanisms switched over in turn.
    #[arg(long)]
    ablations: bool,
    /// Where to write the lines as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The kubo to compare with.
    #[arg(long, value_name = "BINARY")]
    kubo: Option<PathBuf>,
    /// The cidfs to measure.
    #[arg(long, value_name = "BINARY", default_value = env!("CARGO_BIN_EXE_cidfs"))]
    cidfs: PathBuf,
    /// Opens this store, reports what that took, and ends: the process that `store.open` starts.
    #[arg(long, hide = true, value_name = "STORE")]
    open_store: Option<PathBuf>,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What every line is given.
pub struct Bench {
    options: Options,
    scale: Scale,
    rounds: usize,
    report: Report,
}

impl Bench {
    /// Whether a line of this name was asked for.
    fn wants(&self, name: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|part| name.contains(part.as_str()))
    }

    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// Notes that lines were not measured.
    fn skip(&mut self, names: &[&str], why: &str) {
        for name in names.iter().filter(|name| self.wants(name)).copied().collect::<Vec<_>>() {
            self.report.skipped(name, why);
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(store) = &options.open_store {
        return opening::report_open(store);
    }
    let scale = if options.quick { Scale::quick() } else { Scale::full() };
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let report = Report::new(&options.work, options.quick, rounds)?;
    let mut bench = Bench { options, scale, rounds, report };

    if bench.wants_any(files::LINES)
        || bench.wants_any(big::LINES)
        || bench.wants_any(big::SERVING)
        || bench.wants_any(imports::LINES)
        || bench.wants_any(memory::LINES)
        || bench.wants_any(kubo::LINES)
        || bench.wants_any(network::LINES)
        || bench.wants_any(epochs::LINES)
    {
        let dataset = Dataset::make(&bench.options.work.join("dataset"), &bench.scale)?;
        if bench.options.ablations {
            let cidfs = Cidfs::new(&bench.options.cidfs, &bench.options.work.join("repository"));
            let root = cidfs.add(dataset.directory())?;
            ablations::run(&mut bench, &dataset, &cidfs, &root)?;
            return bench.report.finish(bench.options.json.as_deref());
        }
        imports::run(&mut bench, &dataset)?;
        let cidfs = Cidfs::new(&bench.options.cidfs, &bench.options.work.join("repository"));
        let root = cidfs.add(dataset.directory())?;
        files::run(&mut bench, &dataset, &cidfs, &root)?;
        big::run(&mut bench, &dataset, &cidfs, &root)?;
        kubo::run(&mut bench, &dataset, &cidfs, &root)?;
        memory::run(&mut bench, &dataset, &cidfs, &root)?;
        network::run(&mut bench, &dataset)?;
        epochs::run(&mut bench, &dataset)?;
    }
    opening::run(&mut bench)?;
    bench.report.finish(bench.options.json.as_deref())
}
