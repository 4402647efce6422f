//! What the listener booked, on two lines or three.

use super::answer::Answered;
use callbridge::listener::ListenerStats;
use std::fmt;

pub(crate) struct Counters {
    pub(super) listener: ListenerStats,
    /// In `stream` mode, the loop's part.
    pub(super) answered: Option<Answered>,
}

impl Counters {
    /// Frames that the source handed over.
    pub(crate) fn frames(&self) -> u64 {
        self.listener.frames
    }

    pub(crate) fn balance(&self) -> bool {
        self.listener.balances() && self.answered.as_ref().is_none_or(Answered::balances)
    }

    /// What nobody wants to see, and how often it was.
    fn mishaps(&self) -> Vec<String> {
        let listener = &self.listener;
        [
            ("not framed", listener.decode_errors),
            ("connections refused", listener.refused),
            ("failures to accept", listener.accept_errors),
            ("answers lost", listener.replies_lost),
            ("answers not taken", self.answered.as_ref().map_or(0, |answered| answered.unsent)),
            ("datagrams cut", listener.source.truncated),
            ("socket errors", listener.source.transient_errors),
            ("dropped by the kernel", listener.source.kernel_drops.unwrap_or(0)),
        ]
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{what} {count}"))
        .collect()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listener = &self.listener;
        match &self.answered {
            Some(answered) => write!(
                f,
                "offered {} = delivered {} + queued {} + lost {} + refused {}",
                answered.offered,
                answered.delivered,
                answered.queued,
                answered.lost,
                answered.refused
            )?,
            None => write!(
                f,
                "requests {} = replied {} + no reply {} + late {} + panicked {} + aborted {} + \
                 not sent {} + in flight {}",
                listener.requests,
                listener.replies,
                listener.no_reply,
                listener.late,
                listener.panicked,
                listener.aborted,
                listener.reply_errors,
                listener.in_flight
            )?,
        }
        f.write_str(if self.balance() { ": they balance" } else { ": THEY DON'T BALANCE" })
    }
}

impl Counters {
    /// The lines of the report.
    pub(crate) fn lines(&self) -> String {
        let mut text = format!("  frames {}", self.frames());
        if self.listener.accepted > 0 {
            text += &format!(", connections {}", self.listener.accepted);
        }
        for mishap in self.mishaps() {
            text += &format!(", {mishap}");
        }
        format!("{text}\n  counters: {self}\n")
    }
}
