//! What a forwarder leaves behind.

use crate::id::MessageId;
use crate::stats::ForwarderStats;
use std::fmt;

/// How a forwarder ended, and what it has left.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwarderReport {
    /// Why it ended.
    pub ending: ForwarderEnding,
    /// The frames that the engine has not acknowledged, in order. They were dropped, so the receipts of
    /// tracked ones say that they were not done; the engine may have stored some of them all the same.
    pub left: Vec<MessageId>,
    /// The counters at the end.
    pub stats: ForwarderStats,
}

/// Why a forwarder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ForwarderEnding {
    /// The source ended, or `close` was called, and everything was settled.
    Drained,
    /// The time that `close` had was up.
    TimedOut,
    /// Nothing was stored for longer than `give_up_after` allows.
    GaveUp,
    /// Its handle was dropped.
    Dropped,
    /// The event loop went away under it.
    LoopGone,
}

impl ForwarderReport {
    /// Whether everything that was taken is acknowledged, or was seen by the hook for rejected frames.
    pub fn is_clean(&self) -> bool {
        self.ending == ForwarderEnding::Drained && self.left.is_empty() && self.stats.balances()
    }
}

impl fmt::Display for ForwarderEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ForwarderEnding::Drained => "drained",
            ForwarderEnding::TimedOut => "out of time",
            ForwarderEnding::GaveUp => "gave up, since the engine stored nothing for too long",
            ForwarderEnding::Dropped => "dropped",
            ForwarderEnding::LoopGone => "the event loop is gone",
        })
    }
}

impl fmt::Display for ForwarderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.ending, self.stats)?;
        match &self.left[..] {
            [] => Ok(()),
            [one] => write!(f, "; left: {one}"),
            [first, .., last] => write!(f, "; {} left: {first} to {last}", self.left.len()),
        }
    }
}
