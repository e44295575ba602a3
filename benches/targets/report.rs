//! What was measured, as a table for people and as JSON for programs.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::sides::median;

/// What a line's ratio must be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// A ratio of times or of bytes: no more than this.
    AtMost(f64),
    /// A ratio of speeds: no less than this.
    AtLeast(f64),
    /// Shown for comparison.
    None,
}

/// What a line's figures are.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Shown in milliseconds.
    Time,
    /// So many files were read in the time.
    Files(usize),
    /// So many bytes were read in the time.
    Bytes(u64),
}

#[derive(Debug)]
struct Line {
    name: String,
    reference_name: String,
    ours: String,
    reference: String,
    ratio: f64,
    target: Target,
    samples: (Vec<f64>, Vec<f64>),
}

/// The lines so far.
pub struct Report {
    filesystem: &'static str,
    quick: bool,
    rounds: usize,
    lines: Vec<Line>,
    skipped: Vec<(String, String)>,
}

impl Report {
    /// An empty one, for measurements in the directory `work`.
    pub fn new(work: &Path, quick: bool, rounds: usize) -> Result<Report> {
        let statfs = nix::sys::statfs::statfs(work).with_context(|| format!("cannot stat {}", work.display()))?;
        Ok(Report {
            filesystem: filesystem_name(statfs.filesystem_type().0),
            quick,
            rounds,
            lines: Vec::new(),
            skipped: Vec::new(),
        })
    }

    /// What the table calls the local filesystem.
    pub fn filesystem(&self) -> &'static str {
        self.filesystem
    }

    /// A line of two sides that did the same work, from the seconds that each took.
    pub fn compare(
        &mut self,
        name: &str,
        reference_name: &str,
        unit: Unit,
        ours: &[f64],
        reference: &[f64],
        target: Target,
    ) {
        let (our_time, reference_time) = (median(ours), median(reference));
        let ratio = match unit {
            Unit::Time => our_time / reference_time,
            Unit::Files(_) | Unit::Bytes(_) => reference_time / our_time,
        };
        self.push(Line {
            name: name.to_owned(),
            reference_name: reference_name.to_owned(),
            ours: unit.show(our_time),
            reference: unit.show(reference_time),
            ratio,
            target,
            samples: (ours.to_vec(), reference.to_vec()),
        });
    }

    /// A line of one figure beside the bound that it is held to.
    pub fn bound(&mut self, name: &str, figure: (f64, String), bound: (f64, String), target: Target) {
        self.push(Line {
            name: name.to_owned(),
            reference_name: "bound".to_owned(),
            ours: figure.1,
            reference: bound.1,
            ratio: figure.0 / bound.0,
            target,
            samples: (vec![figure.0], vec![bound.0]),
        });
    }

    /// Notes that a line was not measured.
    pub fn skipped(&mut self, name: &str, why: &str) {
        eprintln!("{name}: skipped: {why}");
        self.skipped.push((name.to_owned(), why.to_owned()));
    }

    fn push(&mut self, line: Line) {
        eprintln!(
            "{}: {}, {}: {} ({})",
            line.name,
            line.ours,
            line.reference_name,
            line.reference,
            line.target.verdict(line.ratio)
        );
        self.lines.push(line);
    }

    /// Prints the table, and writes the JSON where it was asked for.
    pub fn finish(&self, json: Option<&Path>) -> Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["name", "ours", "reference", "", "ratio", "target", "verdict"]);
        for line in &self.lines {
            table.add_row([
                line.name.clone(),
                line.ours.clone(),
                line.reference.clone(),
                line.reference_name.clone(),
                format!("{:.2}", line.ratio),
                line.target.show(),
                line.target.verdict(line.ratio).to_owned(),
            ]);
        }
        for column in [1, 2, 4] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        for (name, why) in &self.skipped {
            println!(" {name}  skipped: {why}");
        }
        let machine = machine();
        println!(
            "\n {} cores of {}, {} of RAM, Linux {}, {}; medians of {}{}",
            machine.cores,
            machine.processor,
            megabytes(machine.memory_bytes as f64),
            machine.kernel,
            self.filesystem,
            self.rounds,
            if self.quick { "; quick: not for comparison" } else { "" }
        );
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self.json(&machine))?;
            fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn json(&self, machine: &Machine) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let lines: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "name": line.name,
                    "ours": line.ours,
                    "reference": line.reference,
                    "reference_name": line.reference_name,
                    "ratio": line.ratio,
                    "target": line.target.show(),
                    "verdict": line.target.verdict(line.ratio),
                    "samples": { "ours": line.samples.0, "reference": line.samples.1 },
                })
            })
            .collect();
        let skipped: Vec<Value> =
            self.skipped.iter().map(|(name, why)| json!({ "name": name, "skipped": why })).collect();
        json!({
            "unix_time": now,
            "cidfs": env!("CARGO_PKG_VERSION"),
            "machine": {
                "cores": machine.cores,
                "processor": machine.processor,
                "memory_bytes": machine.memory_bytes,
                "kernel": machine.kernel,
                "filesystem": self.filesystem,
            },
            "quick": self.quick,
            "rounds": self.rounds,
            "lines": lines,
            "skipped": skipped,
        })
    }
}

impl Target {
    fn show(self) -> String {
        match self {
            Target::AtMost(most) => format!("≤ {most}"),
            Target::AtLeast(least) => format!("≥ {least}"),
            Target::None => "-".to_owned(),
        }
    }

    fn verdict(self, ratio: f64) -> &'static str {
        let met = match self {
            Target::AtMost(most) => ratio <= most,
            Target::AtLeast(least) => ratio >= least,
            Target::None => return "-",
        };
        if met { "met" } else { "MISSED" }
    }
}

impl Unit {
    fn show(self, seconds: f64) -> String {
        match self {
            Unit::Time => format!("{:.1} ms", seconds * 1e3),
            Unit::Files(files) => format!("{:.0} files/s", files as f64 / seconds),
            Unit::Bytes(bytes) => format!("{:.0} MB/s", bytes as f64 / seconds / 1e6),
        }
    }
}

/// A size for people.
pub fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}

struct Machine {
    cores: usize,
    processor: String,
    memory_bytes: u64,
    kernel: String,
}

fn machine() -> Machine {
    let field = |file: &str, field: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    let kib = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
    Machine {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        processor: field("/proc/cpuinfo", "model name"),
        memory_bytes: kib << 10,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
    }
}

fn filesystem_name(magic: i64) -> &'static str {
    match magic {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794C_7630 => "overlayfs",
        _ => "local disk",
    }
}
