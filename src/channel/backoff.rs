//! When the two ends leave each other alone, so that each does more at a time.
//!
//! Two threads that meet at one lock for every frame spend their time on handing the lock's cache
//! line back and forth. The end that is ahead therefore pauses before it comes back: long enough
//! for the other to deal with some frames, shorter than a sleep and a wake cost. It only does so
//! while that has been paying off; a slow source, or a slow consumer, is waited for asleep.
//!
//! A pause is nothing but time: whoever pauses holds no lock and is registered nowhere, and goes
//! the whole way to sleep afterwards, with the looks under the lock that belong to it.

use crate::sync::{AdaptiveSpin, Deadline, LONGEST_SPIN, pause, spin_by};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Pausing for more frames than this gains nothing more.
const MOST: u32 = 64;

/// About what it takes to send or to read a frame.
const FRAME: Duration = Duration::from_nanos(32);

std::thread_local! {
    /// Of the threads that send.
    static SPIN: Cell<AdaptiveSpin> = const { Cell::new(AdaptiveSpin::new()) };
}

/// How long a consumer without frames stays awake: less than a sleep and a wake cost, since it
/// holds up its event loop meanwhile.
const LONGEST: Duration = Duration::from_micros(2);

/// How many frames to leave time for, in a channel of some capacity.
#[derive(Clone, Copy)]
pub(super) struct Backoff {
    frames: u32,
}

impl Backoff {
    pub(super) fn new(capacity: usize) -> Self {
        let half = u32::try_from(capacity / 2).unwrap_or(MOST);
        Backoff { frames: half.clamp(1, MOST) }
    }

    /// Looks again and again, with pauses before, whether it is `done`.
    fn look(self, longest: Duration, mut done: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        loop {
            pause(self.frames * FRAME);
            if done() {
                return true;
            }
            if cfg!(any(callbridge_loom, callbridge_shuttle)) || began.elapsed() >= longest {
                return false;
            }
        }
    }

    /// A sender's pause on a full queue: long enough for a consumer to wake up.
    pub(super) fn pause_sending(self, deadline: Deadline, done: impl FnMut() -> bool) -> bool {
        let longest = deadline.remaining().unwrap_or(Duration::MAX).min(LONGEST_SPIN);
        spin_by(&SPIN, || self.look(longest, done))
    }
}

/// The consumer's pauses.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    backoff: Backoff,
    spin: AdaptiveSpin,
    /// Whether the last visit brought frames, but so few that the consumer keeps up with the source.
    keeps_up: bool,
}

impl Pace {
    pub(super) fn new(capacity: usize) -> Self {
        Pace { backoff: Backoff::new(capacity), spin: AdaptiveSpin::new(), keeps_up: false }
    }

    pub(super) fn keeps_up(&self) -> bool {
        self.keeps_up
    }

    /// Notes how many frames the visit brought, 0 if the consumer goes to sleep.
    pub(super) fn note(&mut self, frames: usize) {
        self.keeps_up = frames > 0 && frames <= self.backoff.frames as usize;
    }

    /// Whether a pause brought it `done`.
    pub(super) fn pause(&mut self, done: impl FnMut() -> bool) -> bool {
        self.spin.spin(|| self.backoff.look(LONGEST, done))
    }
}
