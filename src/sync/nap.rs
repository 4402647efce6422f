//! Looking a little longer before sleeping, while that pays off.
//!
//! A sleep and a wake cost both sides several microseconds. A thread whose answers come sooner than
//! that does better to look for them a moment longer. A thread whose answers don't come that soon
//! would only burn its core: it looks once in a while to see whether that has changed, and sleeps at
//! once otherwise.

use super::Deadline;
use std::cell::Cell;
use std::sync::OnceLock;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

/// How long a nap is at most: about what a sleep and a wake cost.
const LONGEST: Duration = Duration::from_micros(12);

/// After so many naps in vain in a row, the thread tries again only every 2¹⁰th time.
const MOST_MISSES: u8 = 10;

/// Whether naps have been paying off for somebody.
#[derive(Clone, Copy)]
pub(crate) struct Habit {
    /// Naps in vain since the last one that paid off.
    misses: u8,
    /// Naps to leave out before the next try.
    skips: u16,
}

impl Habit {
    pub(crate) const fn new() -> Self {
        Habit { misses: 0, skips: 0 }
    }

    /// Naps, which `nap` does and tells whether it paid off, unless it is one to leave out.
    pub(crate) fn nap(&mut self, nap: impl FnOnce() -> bool) -> bool {
        if self.skips > 0 {
            self.skips -= 1;
            return false;
        }
        if !has_another_core() {
            return false;
        }
        let paid_off = nap();
        self.misses = if paid_off { 0 } else { (self.misses + 1).min(MOST_MISSES) };
        self.skips = (1 << self.misses) - 1;
        paid_off
    }
}

std::thread_local! {
    static HABIT: Cell<Habit> = const { Cell::new(Habit::new()) };
}

/// Looks for at most some microseconds whether it is `done`, if that has been paying off.
pub(crate) fn nap(deadline: Deadline, mut done: impl FnMut() -> bool) -> bool {
    nap_by(&HABIT, || look(deadline, &mut done))
}

/// Naps by one of the thread's habits, see [`Habit::nap`].
#[cfg(not(callbridge_loom))]
pub(crate) fn nap_by(habit: &'static LocalKey<Cell<Habit>>, nap: impl FnOnce() -> bool) -> bool {
    let Ok(mut now) = habit.try_with(Cell::get) else { return false };
    let paid_off = now.nap(nap);
    let _ = habit.try_with(|cell| cell.set(now));
    paid_off
}

/// The model checks have no time, and must do the same in every run.
#[cfg(callbridge_loom)]
pub(crate) fn nap_by(_: &'static LocalKey<Cell<Habit>>, nap: impl FnOnce() -> bool) -> bool {
    nap()
}

/// Lets `time` pass without looking at anything, and without giving up the core.
pub(crate) fn pause(time: Duration) {
    let began = Instant::now();
    loop {
        std::hint::spin_loop();
        if began.elapsed() >= time {
            return;
        }
    }
}

fn look(deadline: Deadline, done: &mut impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() >= LONGEST || deadline.passed() {
            return done();
        }
    }
}

/// On a single core, looking keeps the other side from running.
fn has_another_core() -> bool {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from)) > 1
}

#[cfg(all(test, not(callbridge_loom)))]
mod tests {
    use super::{Habit, has_another_core};

    fn naps(habit: &mut Habit, waits: u32, pays_off: bool) -> u32 {
        let mut naps = 0;
        for _ in 0..waits {
            habit.nap(|| {
                naps += 1;
                pays_off
            });
        }
        naps
    }

    #[test]
    fn naps_in_vain_grow_rare_and_those_that_pay_off_do_not() {
        let mut habit = Habit::new();
        assert!(naps(&mut habit, 100_000, false) < 120);
        let mut waits = 0;
        while has_another_core() && naps(&mut habit, 1, true) == 0 {
            waits += 1;
            assert!(waits < 1024, "the habit never tries again");
        }
        let expected = if has_another_core() { 100 } else { 0 };
        assert_eq!(naps(&mut habit, 100, true), expected);
    }
}
