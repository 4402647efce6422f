//! Spinning for a moment before parking, while that pays off.
//!
//! A sleep and a wake cost both sides several microseconds, on some machines some dozens. A thread
//! whose answers come sooner than that does better to look for them a moment longer. A thread whose
//! answers don't come that soon would only burn its core: it looks once in a while to see whether
//! that has changed, and sleeps at once otherwise.

use super::Deadline;
use std::cell::Cell;
use std::sync::OnceLock;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

/// How long a thread spins at most: about what it takes to wake another and to hear from it.
pub(crate) const LONGEST_SPIN: Duration = Duration::from_micros(30);

/// After so many spins in vain in a row, the thread tries again only every 2¹⁰th time.
const MOST_MISSES: u8 = 10;

/// Whether spinning has been paying off for somebody.
#[derive(Clone, Copy)]
pub(crate) struct AdaptiveSpin {
    /// Spins in vain since the last one that paid off.
    misses: u8,
    /// Spins to leave out before the next try.
    skips: u16,
}

impl AdaptiveSpin {
    pub(crate) const fn new() -> Self {
        AdaptiveSpin { misses: 0, skips: 0 }
    }

    /// Spins by `body`, which tells whether that paid off, unless this is one to leave out.
    pub(crate) fn spin(&mut self, body: impl FnOnce() -> bool) -> bool {
        if self.skips > 0 {
            self.skips -= 1;
            return false;
        }
        if !has_another_core() {
            return false;
        }
        let paid_off = body();
        self.misses = if paid_off { 0 } else { (self.misses + 1).min(MOST_MISSES) };
        self.skips = (1 << self.misses) - 1;
        paid_off
    }
}

std::thread_local! {
    static SPIN: Cell<AdaptiveSpin> = const { Cell::new(AdaptiveSpin::new()) };
}

/// Looks for at most some microseconds whether it is `done`, if that has been paying off.
pub(crate) fn spin_until(deadline: Deadline, mut done: impl FnMut() -> bool) -> bool {
    spin_by(&SPIN, || {
        let began = Instant::now();
        loop {
            if done() {
                return true;
            }
            // A model checker has no time.
            let in_a_model = cfg!(any(callbridge_loom, callbridge_shuttle));
            if in_a_model || began.elapsed() >= LONGEST_SPIN || deadline.passed() {
                return false;
            }
            (0..32).for_each(|_| std::hint::spin_loop());
        }
    })
}

/// Spins by one of the thread's policies, see [`AdaptiveSpin::spin`].
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(crate) fn spin_by(
    policy: &'static LocalKey<Cell<AdaptiveSpin>>,
    body: impl FnOnce() -> bool,
) -> bool {
    let Ok(mut now) = policy.try_with(Cell::get) else { return false };
    let paid_off = now.spin(body);
    let _ = policy.try_with(|cell| cell.set(now));
    paid_off
}

/// The model checks have no time, and must do the same in every run.
#[cfg(any(callbridge_loom, callbridge_shuttle))]
pub(crate) fn spin_by(
    _: &'static LocalKey<Cell<AdaptiveSpin>>,
    body: impl FnOnce() -> bool,
) -> bool {
    body()
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

/// On a single core, looking keeps the other side from running.
fn has_another_core() -> bool {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from)) > 1
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::{AdaptiveSpin, has_another_core};

    fn spins(policy: &mut AdaptiveSpin, waits: u32, pays_off: bool) -> u32 {
        let mut spins = 0;
        for _ in 0..waits {
            policy.spin(|| {
                spins += 1;
                pays_off
            });
        }
        spins
    }

    #[test]
    fn spins_in_vain_grow_rare_and_those_that_pay_off_do_not() {
        let mut policy = AdaptiveSpin::new();
        assert!(spins(&mut policy, 100_000, false) < 120);
        let mut waits = 0;
        while has_another_core() && spins(&mut policy, 1, true) == 0 {
            waits += 1;
            assert!(waits < 1024, "the policy never tries again");
        }
        let expected = if has_another_core() { 100 } else { 0 };
        assert_eq!(spins(&mut policy, 100, true), expected);
    }
}
