//! Model checks of larger compositions, over schedules drawn at random.
//!
//! `RUSTFLAGS="--cfg callbridge_shuttle" cargo test --release --lib shuttle_tests`
//!
//! Each model runs under two schedulers: one that takes any step next, and PCT, which changes its
//! mind a few times only and so reaches orders that take long runs of one thread. What a model does
//! is drawn anew in each schedule, too. `CALLBRIDGE_SHUTTLE_SCHEDULES` says how many there are for
//! each scheduler, and shuttle's own `SHUTTLE_RANDOM_SEED` draws others. A thread that waits for
//! ever shows as a deadlock or as too many steps.
//!
//! Assertions are made in the models' own threads: the crate contains the panics of what it calls.

mod bridge;
mod channel;
mod listener;
mod pool;

use crate::channel::Stats;
use crate::future::FutureState;
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use tokio::runtime::{Builder, Handle, Runtime};

/// Enough for a model and its waits; a model that needs more goes in circles.
const STEPS: usize = 100_000;

/// How many steps that must come in one order PCT looks for: it changes its mind once less.
const DEPTH: usize = 3;

fn check(model: fn()) {
    let schedules = std::env::var("CALLBRIDGE_SHUTTLE_SCHEDULES")
        .map_or(1_000, |number| number.parse().expect("a number of schedules"));
    drop(handle());
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.stack_size = 128 * 1024;
    config.silence_warnings = true;
    let random = RandomScheduler::new_from_seed(1, schedules);
    assert_eq!(Runner::new(random, config.clone()).run(model), schedules);
    let pct = PctScheduler::new_from_seed(1, DEPTH, schedules);
    assert_eq!(Runner::new(pct, config).run(model), schedules);
}

/// A handle to the model's loop; nothing runs on the runtime that it comes from.
fn handle() -> Handle {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().build().unwrap());
    RUNTIME.handle().clone()
}

/// How a call ended, as a tally notes it.
fn name(state: FutureState) -> &'static str {
    match state {
        FutureState::Finished => "finished",
        FutureState::Cancelled => "cancelled",
        FutureState::LoopClosed => "loop closed",
        FutureState::Refused => "refused",
        _ => "something else",
    }
}

/// One of `count` ways to go on.
fn any(count: usize) -> usize {
    thread_rng().gen_range(0..count)
}

fn maybe() -> bool {
    any(2) == 0
}

/// Values that must each be dropped once, and reported to have ended in one way.
#[derive(Clone, Default)]
struct Tally(Arc<Counters>);

#[derive(Default)]
struct Counters {
    alive: AtomicUsize,
    fates: Mutex<Vec<Vec<&'static str>>>,
}

impl Tally {
    fn make(&self) -> Counted {
        self.0.alive.fetch_add(1, Relaxed);
        let mut fates = self.0.fates.lock().unwrap();
        fates.push(Vec::new());
        Counted { id: fates.len() - 1, tally: self.clone() }
    }

    fn note(&self, id: usize, fate: &'static str) {
        self.0.fates.lock().unwrap()[id].push(fate);
    }

    /// What `fate` has become of so many values.
    fn count(&self, fate: &str) -> usize {
        let fates = self.0.fates.lock().unwrap();
        fates.iter().flatten().filter(|one| **one == fate).count()
    }

    fn assert_gone(&self) {
        assert_eq!(self.0.alive.load(Relaxed), 0, "values are left");
    }

    /// Every value is gone, and one thing has become of each.
    fn assert_settled(&self) {
        self.assert_gone();
        for (id, fates) in self.0.fates.lock().unwrap().iter().enumerate() {
            assert_eq!(fates.len(), 1, "value {id}: {fates:?}");
        }
    }
}

struct Counted {
    id: usize,
    tally: Tally,
}

impl Counted {
    fn became(&self, fate: &'static str) {
        self.tally.note(self.id, fate);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = self.tally.0.alive.fetch_sub(1, Relaxed);
        assert!(left > 0, "a value is dropped twice");
    }
}

/// The channel's counters agree with what became of the frames.
fn assert_balanced(stats: &Stats, tally: &Tally) {
    assert!(stats.balances(), "{stats:?}");
    assert_eq!((stats.queued, stats.waiting), (0, 0), "{stats:?}");
    assert_eq!(stats.delivered as usize, tally.count("delivered"), "{stats:?}");
    assert_eq!(stats.lost.total() as usize, tally.count("lost"), "{stats:?}");
    assert_eq!(stats.refused as usize, tally.count("refused"), "{stats:?}");
}
