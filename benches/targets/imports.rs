//! `add`: files to blocks, beside the hashing alone.

use std::fs;
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
        let seconds = alternate(&[true, false], bench.rounds, |_, ours| {
            if *ours { add(&cidfs, &source, &repository) } else { Ok(hash(&contents)) }
        })?;
        let [ours, reference] = seconds.as_slice() else { unreachable!("two sides were measured") };
        bench.report.compare(name, "sha2-256, all cores", Unit::Bytes(bytes), ours, reference, Target::AtLeast(0.5));
    }
    Ok(())
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
