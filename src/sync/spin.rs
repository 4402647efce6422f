//! Spinning for a moment before parking, while that pays off.
//!
//! A sleep and a wake cost both sides several microseconds, on some machines some dozens. A thread
//! whose answers come sooner than that does better to look for them a moment longer. A thread whose
//! answers don't come that soon would only burn its core: it looks once in a while to see whether
//! that has changed, and sleeps at once otherwise.

use super::Deadline;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

/// How long a thread spins at most where wake-ups cost little, and where they cost a lot.
const LONGEST: std::ops::RangeInclusive<Duration> =
    Duration::from_micros(12)..=Duration::from_micros(50);

/// A thread that is up only after this long was kept waiting for a core: its wake-up tells nothing.
const NO_WAKE_UP: Duration = Duration::from_micros(100);

/// What waking a sleeping thread has been taking, in nanoseconds, on the cautious side.
static WAKE_UP: AtomicU32 = AtomicU32::new(0);

/// The wake-up of a sleeping thread, timed.
#[derive(Clone, Copy)]
pub(super) struct WakeUp(Instant);

impl WakeUp {
    /// Called by whoever wakes.
    pub(super) fn begins() -> Self {
        WakeUp(Instant::now())
    }

    /// Called by the thread that was woken.
    pub(super) fn ends(self) {
        let took = self.0.elapsed();
        if took < NO_WAKE_UP {
            let before = WAKE_UP.load(Ordering::Relaxed);
            WAKE_UP.store(learnt(before, took.as_nanos() as u32), Ordering::Relaxed);
        }
    }
}

/// The estimate after one more wake-up: it falls fast and rises slowly, since what delays a wake-up
/// on a busy machine isn't its price.
fn learnt(before: u32, took: u32) -> u32 {
    if took < before { before - (before - took) / 4 } else { before + (took - before) / 16 }
}

/// How long a thread spins at most now: until the other side would have been woken and have answered.
pub(crate) fn longest_spin() -> Duration {
    let wake_up = Duration::from_nanos(WAKE_UP.load(Ordering::Relaxed).into());
    (2 * wake_up).clamp(*LONGEST.start(), *LONGEST.end())
}

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
    spin_by(&SPIN, || look(deadline, &mut done))
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

fn look(deadline: Deadline, done: &mut impl FnMut() -> bool) -> bool {
    let (began, longest) = (Instant::now(), longest_spin());
    loop {
        if cfg!(any(callbridge_loom, callbridge_shuttle)) {
            return done();
        }
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if began.elapsed() >= longest || deadline.passed() {
            return done();
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
    use super::{AdaptiveSpin, has_another_core, learnt};

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

    #[test]
    fn a_wake_up_that_was_delayed_changes_the_estimate_less_than_a_fast_one() {
        assert_eq!(learnt(8_000, 40_000), 10_000);
        assert_eq!(learnt(40_000, 8_000), 32_000);
        let settled = (0..200).fold(0, |estimate, _| learnt(estimate, 20_000));
        assert!((19_000..=20_000).contains(&settled), "{settled}");
    }
}
