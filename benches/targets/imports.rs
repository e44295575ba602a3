//! `add`: files to blocks, beside the hashing alone, and beside the writing alone.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::Bench;
use crate::binary::Cidfs;
use crate::dataset::Dataset;
use crate::report::{Target, Unit};
use crate::sides::alternate;

pub const LINES: &[&str] = &["add.small", "add.big"];

/// What is hashed at a time: the chunk of the default profile.
const CHUNK_BYTES: usize = 1 << 20;

/// Measures the lines above: both sides start with the files in the page cache.
pub fn run(bench: &mut Bench, dataset: &Dataset) -> Result<()> {
    for (name, part, files) in [("add.small", "small", dataset.small()), ("add.big", "big", dataset.big())] {
        if !bench.wants(name) {
            continue;
        }
        let mut bytes = 0;
        let contents: Vec<Vec<u8>> = files
            .iter()
            .map(|file| {
                let content = fs::read(dataset.directory().join(file))?;
                bytes += content.len() as u64;
                Ok(content)
            })
            .collect::<Result<_>>()?;
        let source = dataset.directory().join(part);
        let repository = bench.options.work.join("repository-of-add");
        let cidfs = Cidfs::new(&bench.options.cidfs, &repository);
        let written = bench.options.work.join("file-of-add");
        let seconds = alternate(&[Work::Add, Work::Hash, Work::Write], bench.rounds, |_, work| match work {
            Work::Add => add(&cidfs, &source, &repository),
            Work::Hash => Ok(hash(&contents)),
            Work::Write => write(&contents, &written),
        })?;
        let [ours, hashed, written] = seconds.as_slice() else { unreachable!("three sides were measured") };
        let unit = Unit::Bytes(bytes);
        bench.report.compare(name, "sha2-256, all cores", unit, ours, hashed, Target::AtLeast(0.5));
        let disk = format!("{}, write and fsync", bench.report.filesystem());
        bench.report.compare(name, &disk, unit, ours, written, Target::None);
    }
    Ok(())
}

/// What is timed: `cidfs add`, which is durable when it returns, and the two things that no add can do without.
enum Work {
    Add,
    Hash,
    Write,
}

/// The same bytes into one file, durable at the end.
fn write(contents: &[Vec<u8>], path: &Path) -> Result<f64> {
    nix::unistd::sync();
    let began = Instant::now();
    let mut file = File::create(path)?;
    for content in contents {
        file.write_all(content)?;
    }
    file.sync_all()?;
    let took = began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(took)
}

/// Into a repository that is empty, so that every block is new; it is removed afterwards.
fn add(cidfs: &Cidfs, source: &Path, repository: &Path) -> Result<f64> {
    nix::unistd::sync();
    let began = Instant::now();
    cidfs.add(source)?;
    let took = began.elapsed().as_secs_f64();
    fs::remove_dir_all(repository)?;
    Ok(took)
}

fn hash(contents: &[Vec<u8>]) -> f64 {
    let chunks: Vec<&[u8]> = contents.iter().flat_map(|content| content.chunks(CHUNK_BYTES)).collect();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    std::hint::black_box(Sha256::digest(chunk));
                }
            });
        }
    });
    began.elapsed().as_secs_f64()
}
