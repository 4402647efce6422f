//! A meter on a serial line: one thread owns the line, readings come out as a stream, commands go in.
//!
//! Bytes that make no reading are left out and counted. A meter that is unplugged is looked for again
//! until it is back; commands that nobody can take meanwhile fail.

#![cfg(unix)]

pub mod fake;
mod language;
mod port;

pub use language::{Command, MeterError, Reading};

use callbridge::listener::{Backoff, BadFrames, FrameSink, ListenerStats, ReadSource, Reopened};
use callbridge::{FrameStream, Listener};
use language::Language;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The longest line that a meter sends, in bytes.
const LONGEST: usize = 80;

/// How often an unplugged meter is looked for: once in 100 ms.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long a meter may be silent before somebody should know.
const SILENCE: Duration = Duration::from_secs(10);

/// A meter that is listened to.
#[derive(Debug)]
pub struct Meter {
    pub listener: Listener,
    /// Readings, and when the meter came and went.
    pub readings: FrameStream<Reopened<Reading>>,
    pub commands: FrameSink<Command>,
}

/// Listens to the meter at `path`, which need not be plugged in yet.
///
/// # Errors
///
/// When the thread can't be started.
pub fn listen(path: impl Into<PathBuf>) -> io::Result<Meter> {
    let path = path.into();
    let open = move |_: &_| {
        let line = ReadSource::new(port::open(&path)?, LONGEST, Language::new())?;
        Ok(line.polled()?.with_bad_frames(BadFrames::Skip))
    };
    let backoff = Backoff { first: LOOK_AGAIN, longest: LOOK_AGAIN, ..Backoff::default() };
    let mut builder = Listener::reopening(open, backoff)
        .name("meter")
        .quiet_after(SILENCE, || eprintln!("the meter has been silent for {SILENCE:?}"));
    let commands = builder.writer(16);
    let (listener, readings) = builder.spawn()?;
    Ok(Meter { listener, readings, commands })
}

/// How often bytes that made no reading were left out.
pub fn noise(stats: &ListenerStats) -> u64 {
    stats.source.skipped
}
