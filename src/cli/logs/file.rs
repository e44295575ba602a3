//! The log file of a daemon in the background: bounded, with one older file beside it.
//!
//! When the next line would make the file longer than its limit, the file becomes `<name>.1`, in the place of the one that
//! was that before, and a new one is begun. Lines are never cut. Where the disk does not let it, the log goes on in the old
//! file: a log that is too long is better than none.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log file that never grows over its limit.
pub struct LogFile {
    path: PathBuf,
    file: File,
    limit_bytes: u64,
    /// Told of each new file.
    begun: fn(&File),
}

impl LogFile {
    /// Goes on with the file at `path`, or makes it, for its owner alone. `begun` is told of each file that takes its place.
    pub fn open(path: &Path, limit_bytes: u64, begun: fn(&File)) -> Result<LogFile> {
        Ok(LogFile { path: path.to_owned(), file: append(path)?, limit_bytes, begun })
    }

    /// Where the older lines are.
    fn older(&self) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(".1");
        name.into()
    }

    fn begin(&mut self) -> Result<()> {
        std::fs::rename(&self.path, self.older())?;
        self.file = append(&self.path)?;
        (self.begun)(&self.file);
        Ok(())
    }
}

/// Opens a log to add to it.
pub fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        // The length is asked for, as others write to the file too: a panic does.
        let length = self.file.metadata()?.len();
        if length > 0 && length + line.len() as u64 > self.limit_bytes {
            // A log that cannot be moved goes on where it is.
            let _ = self.begin();
        }
        self.file.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    static BEGUN: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn a_log_is_bounded_and_keeps_the_last_lines_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let count = |_: &File| {
            BEGUN.fetch_add(1, Ordering::Relaxed);
        };
        let mut log = LogFile::open(&path, 1000, count).unwrap();
        for number in 0..500 {
            writeln!(log, "line {number:04} {}", "x".repeat(number % 50)).unwrap();
            let older = std::fs::metadata(log.older()).map_or(0, |older| older.len());
            let now = std::fs::metadata(&path).unwrap().len();
            assert!(now <= 1000 && older <= 1000, "{now} and {older} bytes");
        }
        assert!(BEGUN.load(Ordering::Relaxed) > 10);
        let text = std::fs::read_to_string(log.older()).unwrap() + &std::fs::read_to_string(&path).unwrap();
        let kept: Vec<&str> = text.lines().collect();
        for (line, number) in kept.iter().zip(500 - kept.len()..) {
            assert_eq!(*line, format!("line {number:04} {}", "x".repeat(number % 50)).trim_end_matches('\n'));
        }
        // A line that is longer than the limit is a file of its own.
        log.write_all(&[b'y'; 3000]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3000);
        log.write_all(b"z").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"z");
        // Where the file cannot be moved, it goes on.
        std::fs::remove_file(log.older()).unwrap();
        std::fs::create_dir(log.older()).unwrap();
        log.write_all(&[b'z'; 2000]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 2001);
    }
}
