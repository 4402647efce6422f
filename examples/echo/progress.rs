//! How far a run is: a bar on a terminal, a few plain lines in a pipe, both on stderr.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};

pub(crate) enum Progress {
    Bar(ProgressBar),
    Lines { label: String, total: u64, next: u64 },
}

impl Progress {
    pub(crate) fn new(label: &str, total: u64) -> Self {
        if !io::stderr().is_terminal() {
            return Progress::Lines { label: label.to_owned(), total, next: total.div_ceil(4) };
        }
        let style = "{prefix:12} [{wide_bar}] {pos}/{len} frames, {eta} to go";
        let style = ProgressStyle::with_template(style).expect("the template is well-formed");
        let bar = ProgressBar::new(total).with_style(style.progress_chars("=> "));
        Progress::Bar(bar.with_prefix(label.to_owned()))
    }

    /// Says that `done` frames are back.
    pub(crate) fn show(&mut self, done: u64) {
        match self {
            Progress::Bar(bar) => bar.set_position(done),
            Progress::Lines { label, total, next } => {
                if done >= *next && done < *total {
                    say(label, done, *total);
                    *next = (done * 4 / *total + 1) * (*total).div_ceil(4);
                }
            }
        }
    }

    pub(crate) fn finish(self, done: u64) {
        match self {
            Progress::Bar(bar) => bar.finish_and_clear(),
            Progress::Lines { label, total, .. } => say(&label, done, total),
        }
    }
}

fn say(label: &str, done: u64, total: u64) {
    // With nobody there to read it, the run goes on.
    let _ = writeln!(io::stderr(), "{label}: {done} of {total} frames");
}
