//! The work that is measured: what programs do with a dataset, without the program.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::dataset::Noise;

/// Bytes asked for at a time in big files, as `cp` and `cat` ask.
const READ_BYTES: usize = 1 << 20;

/// Lists every directory and stats every entry, as `find -size` does; the seconds it took.
pub fn list(root: &Path, expected_files: usize) -> Result<f64> {
    let began = Instant::now();
    let mut files = 0;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            if metadata.is_dir() {
                directories.push(path);
            } else {
                files += 1;
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    ensure!(files == expected_files, "{} holds {files} files, not {expected_files}", root.display());
    Ok(took)
}

/// Opens, reads and closes every file once, split among readers; the seconds it took.
pub fn epoch(root: &Path, files: &[PathBuf], readers: usize, expected_bytes: u64) -> Result<f64> {
    let began = Instant::now();
    let read: Result<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|reader| {
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    let mut bytes = 0;
                    for file in files.iter().skip(reader).step_by(readers) {
                        let path = root.join(file);
                        buffer.clear();
                        File::open(&path)
                            .and_then(|mut file| file.read_to_end(&mut buffer))
                            .with_context(|| format!("cannot read {}", path.display()))?;
                        bytes += buffer.len() as u64;
                    }
                    Ok(bytes)
                })
            })
            .collect();
        // A reader that panicked has said why itself.
        threads.into_iter().map(|thread| thread.join().expect("a reader panicked")).sum()
    });
    let took = began.elapsed().as_secs_f64();
    let bytes = read?;
    ensure!(bytes == expected_bytes, "{}: {bytes} bytes were read, not {expected_bytes}", root.display());
    Ok(took)
}

/// Reads a big file from its beginning to its end; the seconds it took.
pub fn sequential(path: &Path, expected_bytes: u64) -> Result<f64> {
    let mut buffer = vec![0; READ_BYTES];
    let began = Instant::now();
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    let took = began.elapsed().as_secs_f64();
    ensure!(bytes == expected_bytes, "{} gave {bytes} bytes, not {expected_bytes}", path.display());
    Ok(took)
}

/// Maps a big file and touches each page in order, as a loader of model weights does; the seconds it took.
pub fn mapped(path: &Path, expected_bytes: u64) -> Result<f64> {
    let began = Instant::now();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the file is one that this run made, or its image in a read-only mount: nobody truncates it.
    let map = unsafe { memmap2::Mmap::map(&file) }.with_context(|| format!("cannot map {}", path.display()))?;
    let sum: u64 = map.iter().step_by(4096).map(|byte| u64::from(*byte)).sum();
    let took = began.elapsed().as_secs_f64();
    std::hint::black_box(sum);
    ensure!(map.len() as u64 == expected_bytes, "{} maps {} bytes, not {expected_bytes}", path.display(), map.len());
    Ok(took)
}

/// Reads 1,000 pieces of 128 KiB at random places; the seconds it took.
pub fn scattered(path: &Path, file_bytes: u64) -> Result<f64> {
    const PIECE_BYTES: usize = 128 << 10;
    let mut noise = Noise(7);
    let mut buffer = vec![0; PIECE_BYTES];
    let began = Instant::now();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    for _ in 0..1000 {
        let offset = noise.next() % (file_bytes - PIECE_BYTES as u64);
        file.read_exact_at(&mut buffer, offset).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(began.elapsed().as_secs_f64())
}
