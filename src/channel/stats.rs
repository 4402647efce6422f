//! What a channel counts.

use super::overflow::LossReason;
use std::time::Duration;

/// The counters of a channel: every frame that was ever offered is in one of them.
///
/// A frame is offered when its send has come to an end, and is then in exactly one column:
/// `offered == delivered + queued + lost.total() + refused`. A frame in the hands of a sender that
/// still waits for room is in none yet; [`waiting`](Self::waiting) counts those senders.
///
/// # Examples
///
/// ```
/// let (sender, mut frames) = callbridge::channel(2);
/// sender.send("a")?;
/// sender.send("b")?;
/// assert!(sender.try_send("c").is_err());
/// frames.try_recv()?;
///
/// let counters = frames.stats();
/// assert_eq!((counters.offered, counters.delivered, counters.queued, counters.refused), (3, 1, 1, 1));
/// assert!(counters.balances());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Frames whose send has ended, in whichever way.
    pub offered: u64,
    /// Frames the consumer was handed.
    pub delivered: u64,
    /// Frames the consumer can still read.
    pub queued: u64,
    /// Frames that will not reach the consumer, by reason.
    pub lost: Lost,
    /// Frames that went back to the caller inside an error.
    pub refused: u64,
    /// The most frames that were queued at one time, without
    /// [control frames](crate::Sender::send_control).
    pub high_water: u64,
    /// Senders that wait for room right now.
    pub waiting: u64,
    /// How often and how long senders had to wait.
    pub blocked: Blocked,
}

impl Stats {
    /// Whether every offered frame is accounted for.
    ///
    /// True at every moment, so that a test or a shutdown report can assert it.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::channel::<u8>(1).1.stats().balances());
    /// ```
    pub fn balances(&self) -> bool {
        self.offered == self.delivered + self.queued + self.lost.total() + self.refused
    }
}

/// Lost frames by reason; see [`LossReason`] for what each means.
///
/// # Examples
///
/// ```
/// let (sender, frames) = callbridge::channel(4);
/// sender.send(1)?;
/// drop(frames);
/// assert_eq!(sender.stats().lost.consumer_dropped, 1);
/// assert_eq!(sender.stats().lost.total(), 1);
/// # Ok::<(), callbridge::channel::SendError<i32>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lost {
    /// [`LossReason::Overflow`]
    pub overflow: u64,
    /// [`LossReason::Evicted`]
    pub evicted: u64,
    /// [`LossReason::ConsumerDropped`]
    pub consumer_dropped: u64,
    /// [`LossReason::Closed`]
    pub closed: u64,
    /// [`LossReason::Shutdown`]
    pub shutdown: u64,
    /// [`LossReason::TooHeavy`]
    pub too_heavy: u64,
    /// [`LossReason::SendCancelled`]
    pub send_cancelled: u64,
    /// [`LossReason::WouldDeadlock`]
    pub would_deadlock: u64,
}

impl Lost {
    /// All lost frames, whatever the reason.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::channel::<u8>(1).1.stats().lost.total(), 0);
    /// ```
    pub fn total(&self) -> u64 {
        self.overflow
            + self.evicted
            + self.consumer_dropped
            + self.closed
            + self.shutdown
            + self.too_heavy
            + self.send_cancelled
            + self.would_deadlock
    }

    fn column(&mut self, reason: LossReason) -> &mut u64 {
        match reason {
            LossReason::Overflow => &mut self.overflow,
            LossReason::Evicted => &mut self.evicted,
            LossReason::ConsumerDropped => &mut self.consumer_dropped,
            LossReason::Closed => &mut self.closed,
            LossReason::Shutdown => &mut self.shutdown,
            LossReason::TooHeavy => &mut self.too_heavy,
            LossReason::SendCancelled => &mut self.send_cancelled,
            LossReason::WouldDeadlock => &mut self.would_deadlock,
        }
    }
}

/// How often and how long senders waited for room.
///
/// A wait that ended while the sender still stayed awake for some microseconds (see
/// [`Builder::spin_before_park`](crate::channel::Builder::spin_before_park)) isn't counted.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let (sender, frames) = callbridge::channel(1);
/// sender.send(1)?;
/// assert!(sender.send_timeout(2, Duration::from_millis(50)).is_err());
/// let blocked = frames.stats().blocked;
/// assert_eq!(blocked.count, 1);
/// assert!(blocked.time > Duration::ZERO);
/// assert_eq!(blocked.longest, blocked.time, "of one wait");
/// # Ok::<(), callbridge::channel::SendError<i32>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Blocked {
    /// Sends that had to wait.
    pub count: u64,
    /// The sum of their waits; a wait is added when it is over.
    pub time: Duration,
    /// The longest of them.
    pub longest: Duration,
}

/// The entries that are made under the channel's lock; those that each frame makes come first.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counters {
    pub(super) offered: u64,
    /// Without what was handed out of the consumer's current batch.
    pub(super) delivered: u64,
    pub(super) high_water: usize,
    pub(super) lost: Lost,
    pub(super) refused: u64,
    pub(super) blocked: Blocked,
}

impl Counters {
    /// An offered frame goes back to its sender.
    pub(super) fn refuse(&mut self) {
        self.offered += 1;
        self.refused += 1;
    }

    /// A frame that never was in the queue is lost.
    pub(super) fn lose_offered(&mut self, reason: LossReason) {
        self.offered += 1;
        self.lose_queued(1, reason);
    }

    /// Frames that were queued are lost.
    pub(super) fn lose_queued(&mut self, frames: usize, reason: LossReason) {
        *self.lost.column(reason) += frames as u64;
    }

    /// A frame that was booked as refused is lost after all.
    pub(super) fn lose_refused(&mut self, reason: LossReason) {
        self.refused -= 1;
        self.lose_queued(1, reason);
    }

    /// A sender's wait is over.
    pub(super) fn waited(&mut self, time: Duration) {
        self.blocked.count += 1;
        self.blocked.time = self.blocked.time.saturating_add(time);
        self.blocked.longest = self.blocked.longest.max(time);
    }
}
