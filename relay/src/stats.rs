//! The counters of a forwarder.

use std::fmt;

/// Where every frame that was offered to a forwarder is, and what it took to get there.
///
/// `offered == acknowledged + in_flight + queued + lost + rejected`, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ForwarderStats {
    /// Frames that the channel took, and those that its policy dropped.
    pub offered: u64,
    /// Frames that the engine has acknowledged.
    pub acknowledged: u64,
    /// Frames in the window.
    pub in_flight: u64,
    /// Frames in the channel.
    pub queued: u64,
    /// Frames that the channel's policy dropped, and those that were left at the end.
    pub lost: u64,
    /// Frames that the engine will never take; the hook has seen each.
    pub rejected: u64,
    /// What it took.
    pub effort: Effort,
}

/// What it took to have the frames acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Effort {
    /// Attempts that were handed to the engine.
    pub sent: u64,
    /// Those that were not the first of their frame.
    pub sent_again: u64,
    /// Frames that the engine had stored at an earlier attempt when it answered; none is stored twice.
    pub repeats: u64,
    /// Frames that an earlier run of the same name had stored; they were not sent.
    pub stored_before: u64,
    /// Times that sending began again at the first frame that is not acknowledged.
    pub rounds: u64,
    /// Attempts without an answer in time.
    pub timed_out: u64,
    /// Attempts that failed because the engine was full.
    pub full: u64,
    /// Attempts that failed otherwise, and passed.
    pub failed: u64,
    /// Attempts that would have overtaken another.
    pub out_of_order: u64,
    /// Connections that were lost with frames in flight.
    pub interrupted: u64,
}

impl ForwarderStats {
    /// Whether every frame is accounted for.
    pub fn balances(&self) -> bool {
        self.offered == self.acknowledged + self.in_flight + self.queued + self.lost + self.rejected
    }
}

impl fmt::Display for ForwarderStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Effort { sent, sent_again, repeats, stored_before, rounds, .. } = self.effort;
        let Effort { timed_out, full, failed, out_of_order, interrupted, .. } = self.effort;
        write!(
            f,
            "{} offered = {} acknowledged + {} in flight + {} queued + {} lost + {} rejected; \
             {sent} sent, {sent_again} of them again in {rounds} rounds, {repeats} repeats told, \
             {stored_before} stored before; {timed_out} timed out, {full} full, {failed} failed, \
             {out_of_order} out of order, {interrupted} interrupted",
            self.offered, self.acknowledged, self.in_flight, self.queued, self.lost, self.rejected,
        )
    }
}
