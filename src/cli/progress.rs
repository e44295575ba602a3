//! Progress on a terminal, and nothing anywhere else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress bar, which may be invisible.
pub struct Bar(ProgressBar);

impl Bar {
    /// Bytes that come or go, of `length` where that is known.
    pub fn bytes(visible: bool, length: Option<u64>) -> Bar {
        let template = if length.is_some() {
            "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{spinner} {bytes} {bytes_per_sec}"
        };
        Bar::new(visible, length, template)
    }

    /// Bytes that come, with a message of the files that they are.
    pub fn bytes_and_files(visible: bool) -> Bar {
        Bar::new(visible, Some(0), "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}")
    }

    /// Things that are counted, with a message of what they are.
    pub fn count(visible: bool, length: Option<u64>, what: &'static str) -> Bar {
        let template = if length.is_some() { "{bar:30} {pos}/{len} {msg} {eta}" } else { "{spinner} {pos} {msg}" };
        let bar = Bar::new(visible, length, template);
        bar.0.set_message(what);
        bar
    }

    fn new(visible: bool, length: Option<u64>, template: &str) -> Bar {
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(length, target);
        // A template that does not parse would draw the default bar: nothing worth failing for.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar(bar)
    }

    /// So much more.
    pub fn advance(&self, by: usize) {
        self.0.inc(by as u64);
    }

    /// So much in all.
    pub fn set(&self, position: u64) {
        self.0.set_position(position);
    }

    /// How much there is to come to.
    pub fn set_length(&self, length: u64) {
        self.0.set_length(length);
    }

    /// Changes the message.
    pub fn say(&self, message: String) {
        self.0.set_message(message);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
