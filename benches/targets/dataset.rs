//! The files that are measured: many small ones in directories, and a few big ones, the same bytes from the same seed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How much is made.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Directories of small files.
    pub directories: usize,
    /// Small files in each.
    pub files_each: usize,
    /// Bytes of a small file.
    pub file_bytes: u64,
    /// Big files.
    pub big_files: usize,
    /// Bytes of a big file.
    pub big_bytes: u64,
    /// Bytes of distinct data that `memory.epoch` reads.
    pub epoch_bytes: u64,
    /// Blocks in the repository that `store.open` opens.
    pub store_blocks: u64,
}

impl Scale {
    /// What the targets are defined for.
    pub fn full() -> Scale {
        Scale {
            directories: 100,
            files_each: 200,
            file_bytes: 100 << 10,
            big_files: 4,
            big_bytes: 512 << 20,
            epoch_bytes: 20 << 30,
            store_blocks: 10_000_000,
        }
    }

    /// Enough to see that everything runs.
    pub fn quick() -> Scale {
        Scale {
            directories: 20,
            files_each: 100,
            file_bytes: 100 << 10,
            big_files: 2,
            big_bytes: 64 << 20,
            epoch_bytes: 256 << 20,
            store_blocks: 1_000_000,
        }
    }
}

/// The files, and where they lie.
pub struct Dataset {
    directory: PathBuf,
    small: Vec<PathBuf>,
    big: Vec<PathBuf>,
    small_bytes: u64,
    big_bytes: u64,
}

impl Dataset {
    /// Makes the files below `directory`, and makes them durable, so that no writing back disturbs what is measured.
    pub fn make(directory: &Path, scale: &Scale) -> Result<Dataset> {
        eprintln!(
            "making {} files of {} KiB and {} of {} MiB",
            scale.directories * scale.files_each,
            scale.file_bytes >> 10,
            scale.big_files,
            scale.big_bytes >> 20
        );
        let mut noise = Noise(0x5EED_0001);
        let mut small = Vec::new();
        for class in 0..scale.directories {
            let name = format!("small/class{class:03}");
            fs::create_dir_all(directory.join(&name))?;
            for file in 0..scale.files_each {
                let path = PathBuf::from(format!("{name}/{file:05}.bin"));
                noise.file(&directory.join(&path), scale.file_bytes)?;
                small.push(path);
            }
        }
        fs::create_dir_all(directory.join("big"))?;
        let mut big = Vec::new();
        for file in 0..scale.big_files {
            let path = PathBuf::from(format!("big/{file}.bin"));
            noise.file(&directory.join(&path), scale.big_bytes)?;
            big.push(path);
        }
        nix::unistd::syncfs(&File::open(directory)?)?;
        Ok(Dataset {
            directory: directory.to_owned(),
            small_bytes: small.len() as u64 * scale.file_bytes,
            big_bytes: scale.big_bytes,
            small,
            big,
        })
    }

    /// Where the files lie on the local disk.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The small files below the directory, in directory order.
    pub fn small(&self) -> &[PathBuf] {
        &self.small
    }

    /// The big files below the directory.
    pub fn big(&self) -> &[PathBuf] {
        &self.big
    }

    /// Bytes of all small files.
    pub fn small_bytes(&self) -> u64 {
        self.small_bytes
    }

    /// Bytes of one big file.
    pub fn big_bytes(&self) -> u64 {
        self.big_bytes
    }
}

/// Bytes that no compression and no deduplication shortens, from a seed (splitmix64).
pub struct Noise(pub u64);

impl Noise {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A file of that many bytes.
    pub fn file(&mut self, path: &Path, bytes: u64) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        for _ in 0..bytes / 8 {
            file.write_all(&self.next().to_le_bytes())?;
        }
        file.flush().with_context(|| format!("cannot write {}", path.display()))
    }

    /// The items in another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}
