use super::source::{Gauge, SourceStats};
use crate::sync::prim::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident, )+) => {
        /// The counters of a listener.
        ///
        /// The counters are read one by one while the threads go on; they agree with each other once
        /// the listener has stopped, or while nothing arrives. What became of the frames of a stream
        /// is in [`FrameStream::stats`](crate::FrameStream::stats).
        ///
        /// # Examples
        ///
        /// ```
        /// use callbridge::listener::ListenerStats;
        ///
        /// let stats = ListenerStats::default();
        /// assert!(stats.balances());
        /// assert_eq!(stats.frames, 0);
        /// ```
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ListenerStats {
            $( $(#[$meta])* pub $name: u64, )+
            /// What the source itself counts.
            pub source: SourceStats,
        }

        /// The counters behind [`ListenerStats`].
        #[derive(Default)]
        pub(crate) struct Counters {
            $( pub(crate) $name: AtomicU64, )+
        }

        impl Counters {
            /// Pairs with the changes in `count` and `uncount`.
            pub(crate) fn read(&self, gauge: &Gauge) -> ListenerStats {
                ListenerStats {
                    $( $name: self.$name.load(Ordering::Acquire), )+
                    source: gauge.read(),
                }
            }
        }
    };
}

counters! {
    /// Frames the source has handed over.
    frames,
    /// Connections and sources that ended because their bytes made no frames.
    decode_errors,
    /// Connections accepted and kept.
    accepted,
    /// Connections closed at once because there were as many as allowed, or no thread for them.
    refused,
    /// Connections open now, those that only one side has ended included.
    open,
    /// Times that accepting failed (out of descriptors, a connection gone before its turn, ...).
    accept_errors,
    /// Frames that a [`Connection`](super::Connection)'s sink had taken and that were lost, because the
    /// connection broke, its peer didn't read, the listener stopped, or they weren't flushed. Those that
    /// were refused with an error are the caller's to count.
    replies_lost,
    /// Requests taken by `serve`.
    requests,
    /// Requests submitted whose outcome isn't known yet.
    in_flight,
    /// Requests whose reply was sent.
    replies,
    /// Requests for which the handler chose to send none.
    no_reply,
    /// Requests whose handler wasn't done in time; it was cancelled.
    late,
    /// Requests whose handler panicked.
    panicked,
    /// Requests whose handler was cancelled because the listener stopped or the loop went away.
    aborted,
    /// Requests whose reply couldn't be encoded or sent.
    reply_errors,
    /// Served connections that ended by an error: it broke, its bytes made no frame, its peer was silent or
    /// didn't read, or a reply was missing.
    failed_connections,
    /// Errors of the source after which it was read again; see
    /// [`on_error`](super::ListenerBuilder::on_error).
    retries,
    /// Handlers that held the listener's thread for over 10 ms before their first await. On a connection up to
    /// eight that follow quick ones are timed together, with what the codec does in between, and count as one.
    slow_polls,
    /// Times that the source went quiet; see [`quiet_after`](super::ListenerBuilder::quiet_after).
    went_quiet,
    /// 1 while it is quiet.
    quiet,
    /// Fallback replies sent for late or panicked requests; these are counted there as well.
    fallbacks,
}

impl ListenerStats {
    /// Whether every request is accounted for: `requests == replies + no_reply + late + panicked +
    /// aborted + reply_errors + in_flight`.
    pub fn balances(&self) -> bool {
        let ended = self.replies
            + self.no_reply
            + self.late
            + self.panicked
            + self.aborted
            + self.reply_errors;
        self.requests == ended + self.in_flight
    }
}

/// Adds one; pairs with `Counters::read`.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::AcqRel);
}

/// Adds `n`; pairs with `Counters::read`.
pub(crate) fn count_by(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::AcqRel);
}

/// Takes one off a gauge; pairs with `Counters::read`.
pub(crate) fn uncount(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::AcqRel);
}
