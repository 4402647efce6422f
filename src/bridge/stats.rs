/// Counters of the calls of a bridge; see [`Bridge::stats`](crate::Bridge::stats).
///
/// Callbacks of `call_soon_threadsafe` are calls, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeStats {
    /// Calls accepted.
    pub submitted: u64,
    /// Calls that ended with a value.
    pub finished: u64,
    /// Calls that ended by a cancel, or because their time was up.
    pub cancelled: u64,
    /// Calls that ended by a panic.
    pub panicked: u64,
    /// Calls that ended because the loop went away or the bridge was closed.
    pub loop_closed: u64,
    /// Calls submitted and not ended.
    pub in_flight: usize,
    /// The most calls that were in flight at once.
    pub high_water: usize,
    /// Submissions refused: no room, closed, or it would have blocked a loop.
    pub refused: u64,
    /// Times that the loop or a poll was found stalled; see
    /// [`stall_after`](crate::bridge::BridgeBuilder::stall_after).
    pub stalls: u64,
}

impl BridgeStats {
    /// Whether every call is accounted for. `in_flight` is counted by itself.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut stats = callbridge::bridge::BridgeStats::default();
    /// assert!(stats.balances());
    /// stats.submitted = 1;
    /// assert!(!stats.balances(), "a call that is nowhere");
    /// ```
    pub fn balances(&self) -> bool {
        self.submitted == self.ended() + self.in_flight as u64
    }

    pub(super) fn ended(&self) -> u64 {
        self.finished + self.cancelled + self.panicked + self.loop_closed
    }
}
