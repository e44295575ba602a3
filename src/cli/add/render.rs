//! What `cidfs add` prints while it runs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::escape::escaped;
use crate::block::CidForm;
use crate::import::{Event, KuboLines};

/// Which lines go to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// `added <cid> <path>`
    Full,
    /// The CIDs.
    Cids,
    /// The last CID, at the end.
    LastCid,
    /// kubo's events as JSON.
    Json,
    /// Nothing.
    None,
}

/// Prints the events of an import.
pub struct Renderer {
    lines: Lines,
    form: CidForm,
    kubo: KuboLines,
    bar: Option<ProgressBar>,
    last_cid: Option<String>,
    files: u64,
    total_files: u64,
    /// The bytes of files that are complete.
    bytes: u64,
}

/// Whether standard error is a terminal that can show a bar.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

impl Renderer {
    /// Prints `lines`, and shows a bar if `progress` is wanted.
    pub fn new(lines: Lines, progress: bool, form: CidForm) -> Renderer {
        let bar = progress.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            // The templates are constant, and right.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {bytes}  {bytes_per_sec}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Renderer {
            lines,
            form,
            kubo: KuboLines::new(progress, form),
            bar,
            last_cid: None,
            files: 0,
            total_files: 0,
            bytes: 0,
        }
    }

    /// Whether the totals of a scan are of use.
    pub fn wants_totals(&self) -> bool {
        self.bar.is_some()
    }

    /// Takes one event.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Totals { files, bytes } => self.total(*files, *bytes),
            Event::Progress { bytes, .. } => self.position(self.bytes + bytes),
            Event::Added(entry) => {
                if !entry.directory {
                    self.files += 1;
                    self.bytes += entry.file_bytes;
                    self.position(self.bytes);
                }
                self.last_cid = Some(self.form.text(&entry.cid));
            }
        }
        let lines = self.text(event)?;
        if lines.is_empty() {
            return Ok(());
        }
        let print = || {
            let mut out = io::stdout().lock();
            out.write_all(&lines)
        };
        match &self.bar {
            // A line that is printed below a bar must not be drawn over.
            Some(bar) if io::stdout().is_terminal() => bar.suspend(print),
            _ => print(),
        }
    }

    /// Ends the output: takes the bar away, and prints what comes last.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let mut out = io::stdout().lock();
        if let (Lines::LastCid, Some(cid)) = (self.lines, &self.last_cid) {
            writeln!(out, "{cid}")?;
        }
        out.flush()
    }

    /// The lines of an event.
    fn text(&mut self, event: &Event) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        match (self.lines, event) {
            (Lines::Json, event) => {
                for event in self.kubo.of(event) {
                    serde_json::to_writer(&mut lines, &event)?;
                    lines.push(b'\n');
                }
            }
            (Lines::Full, Event::Added(entry)) => {
                write!(lines, "added {} ", self.form.text(&entry.cid))?;
                lines.extend_from_slice(&escaped(&entry.path.0));
                lines.push(b'\n');
            }
            (Lines::Cids, Event::Added(entry)) => writeln!(lines, "{}", self.form.text(&entry.cid))?,
            _ => {}
        }
        Ok(lines)
    }

    fn total(&mut self, files: u64, bytes: u64) {
        self.total_files = files;
        let Some(bar) = &self.bar else { return };
        if bar.length().is_none()
            && let Ok(style) =
                ProgressStyle::with_template("{bar:30} {msg}  {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}")
        {
            bar.set_style(style);
        }
        bar.set_length(bytes);
    }

    fn position(&self, bytes: u64) {
        let Some(bar) = &self.bar else { return };
        bar.set_position(bytes);
        bar.set_message(if self.total_files == 0 {
            format!("{} files", self.files)
        } else {
            format!("{}/{} files", self.files, self.total_files.max(self.files))
        });
    }
}

impl Drop for Renderer {
    /// An error message must not be drawn over.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::{AddedEntry, EntryPath};

    fn text(lines: Lines) -> String {
        let entry = AddedEntry {
            path: EntryPath(b"d/new\nline".to_vec()),
            cid: "bafkqaaa".parse().unwrap(),
            dag_bytes: 7,
            file_bytes: 7,
            directory: false,
            mode: None,
            mtime: None,
        };
        String::from_utf8(Renderer::new(lines, false, CidForm::default()).text(&Event::Added(entry)).unwrap()).unwrap()
    }

    #[test]
    fn lines_are_those_of_kubo() {
        assert_eq!(text(Lines::Full), "added bafkqaaa d/new\\nline\n");
        assert_eq!(text(Lines::Cids), "bafkqaaa\n");
        assert_eq!(text(Lines::LastCid), "");
        assert_eq!(text(Lines::None), "");
        assert_eq!(text(Lines::Json), "{\"Name\":\"d/new\\nline\",\"Hash\":\"bafkqaaa\",\"Size\":\"7\"}\n");
    }
}
