//! How long a peer that doesn't read is waited for.

use crate::sync::Deadline;
use std::time::Duration;

/// So many bytes must leave within a write timeout: less is no reading.
pub(crate) const LEAST: u64 = 4096;

/// When a peer that takes no more is given up.
#[derive(Default)]
pub(crate) struct Patience {
    deadline: Option<Deadline>,
    /// How many bytes had left when the deadline was set.
    from: u64,
    /// How many had left when it was looked at last.
    last: u64,
    /// None has left since the look before.
    stuck: bool,
}

impl Patience {
    /// All that was to be written has left.
    pub(crate) fn end(&mut self) {
        self.deadline = None;
    }

    /// Not all has left, of which `written` bytes have so far; whether the peer is to be given up.
    pub(crate) fn is_over(&mut self, written: u64, write_timeout: Duration) -> bool {
        self.stuck = self.is_waiting() && written == self.last;
        self.last = written;
        match self.deadline {
            Some(deadline) if written - self.from < LEAST => deadline.passed(),
            _ => {
                self.restart(written, write_timeout);
                false
            }
        }
    }

    /// Some has left, and there is more.
    pub(crate) fn restart(&mut self, written: u64, write_timeout: Duration) {
        self.deadline = Some(Deadline::after(write_timeout));
        self.from = written;
    }

    /// Whether something waits to be written.
    pub(crate) fn is_waiting(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether nothing has left since it was last waited for.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_waiting() && self.stuck
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline.unwrap_or(Deadline::Never)
    }
}
