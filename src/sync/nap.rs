//! Looking a little longer before sleeping, while that pays off.
//!
//! A sleep and a wake cost both sides several microseconds. A thread whose answers come sooner than
//! that does better to look for them a moment longer. A thread whose answers don't come that soon
//! would only burn its core: it looks once in a while to see whether that has changed, and sleeps at
//! once otherwise.

use super::Deadline;
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a nap is at most: about what a sleep and a wake cost.
const LONGEST: Duration = Duration::from_micros(12);

/// After so many naps in vain in a row, the thread tries again only every 2¹⁰th time.
const MOST_MISSES: u8 = 10;

#[derive(Clone, Copy)]
struct Habit {
    /// Naps in vain since the last one that paid off.
    misses: u8,
    /// Naps to leave out before the next try.
    skips: u16,
}

std::thread_local! {
    static HABIT: Cell<Habit> = const { Cell::new(Habit { misses: 0, skips: 0 }) };
}

/// Looks for at most some microseconds whether it is `done`, if that has been paying off.
pub(crate) fn nap(deadline: Deadline, mut done: impl FnMut() -> bool) -> bool {
    if !has_another_core() {
        return false;
    }
    let Ok(habit) = HABIT.try_with(Cell::get) else { return false };
    let (paid_off, habit) = if habit.skips > 0 {
        (false, Habit { skips: habit.skips - 1, ..habit })
    } else if look(deadline, &mut done) {
        (true, Habit { misses: 0, skips: 0 })
    } else {
        let misses = (habit.misses + 1).min(MOST_MISSES);
        (false, Habit { misses, skips: (1 << misses) - 1 })
    };
    let _ = HABIT.try_with(|cell| cell.set(habit));
    paid_off
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
