/// What went through a bridge; the books of its calls.
///
/// # Examples
///
/// See [`Bridge::stats`](crate::Bridge::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BridgeStats {
    /// Calls accepted.
    pub submitted: u64,
    /// Calls that ended with a value.
    pub finished: u64,
    /// Calls that ended by a cancel.
    pub cancelled: u64,
    /// Calls that ended by a panic.
    pub panicked: u64,
    /// Calls that ended because the loop went away or the bridge was closed.
    pub loop_closed: u64,
    /// Calls submitted and not resolved.
    pub in_flight: usize,
    /// The most calls that were in flight at once.
    pub high_water: usize,
    /// Submissions refused: full, closed or would deadlock.
    pub refused: u64,
}

impl BridgeStats {
    /// Whether every call is accounted for; true at every moment.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::BridgeStats::default().balances());
    /// ```
    pub fn balances(&self) -> bool {
        let ended = self.finished + self.cancelled + self.panicked + self.loop_closed;
        self.submitted == ended + self.in_flight as u64
    }
}
