//! The life of a runner's loop: who starts it, who may use it, who ends it.
//!
//! Invariants:
//! 1. `phase` goes `Idle` → `Starting` → `Running` → `Closing` → `Closed` and never back; it may
//!    end in `Failed` after `Starting`, and skips what never was. Only the caller that moves it out
//!    of `Idle` spawns a thread: racing first users start one loop.
//! 2. The lock is held while the thread is spawned, so whoever sees `Starting` or later finds the
//!    thread's handle in `thread`.
//! 3. `live` is set once, before `Running`.
//! 4. `Closed` and `Failed` are the last thing the loop thread says: its runtime is gone by then.
//! 5. Every change of phase that somebody can wait for signals `changed`, after the lock is released.
//! 6. The factory is called, and dropped, without the lock.

use super::builder::Settings;
use super::registry::Registry;
use crate::bridge::Bridge;
use crate::future::{FutureState, Promise, ResultError, StartError, lone_promise};
use crate::sync::Deadline;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Condvar, Mutex, MutexGuard, lock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How long what is late at the deadline is still waited for, at each of the steps of a close.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// The longest shutdown that tokio's clock arithmetic is asked to express.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the runner, its guards and its loop thread share.
pub(super) struct Core {
    pub(super) name: String,
    phase: Mutex<Phase>,
    /// Where users wait for the start, and closers for the end.
    changed: Condvar,
    /// The loop's thread, until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
    live: OnceLock<Live>,
    /// The runtime's own threads didn't all end in time.
    left_behind: AtomicBool,
    /// What is entered and not exited.
    pub(super) contexts: Registry,
}

/// A loop that runs, or ran.
pub(super) struct Live {
    /// What users submit to.
    pub(super) bridge: Bridge,
    /// Where contexts live: outside the users' limit, drain and books.
    pub(super) house: Bridge,
    /// Cancelled when the loop turns no more.
    pub(super) gone: CancellationToken,
}

/// What makes the loop thread leave its loop, with the deadline for what is left in it.
pub(super) type Stop = Promise<Deadline>;

enum Phase {
    Idle(Settings),
    Starting { settings: Option<Settings>, thread: ThreadId },
    Running(Stop),
    Failed(StartError),
    Closing,
    Closed,
}

/// What a closer finds.
pub(super) enum Found {
    /// There is no loop: it never ran, or is gone.
    Nothing,
    /// A loop that is this closer's to end.
    Running(Stop),
    /// A loop that somebody else ends, or that didn't come up in time.
    Ending,
}

impl Core {
    pub(super) fn new(name: String, settings: Settings) -> Arc<Self> {
        Arc::new(Core {
            name,
            phase: Mutex::new(Phase::Idle(settings)),
            changed: Condvar::new(),
            thread: Mutex::new(None),
            live: OnceLock::new(),
            left_behind: AtomicBool::new(false),
            contexts: Registry::new(),
        })
    }

    /// The loop, started if need be; waits for the start until `deadline`.
    pub(super) fn ready(self: &Arc<Self>, deadline: Deadline) -> Result<&Live, ResultError> {
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        let mut phase = lock(&self.phase);
        loop {
            phase = match &*phase {
                Phase::Idle(_) => self.start(phase),
                Phase::Starting { thread, .. } if *thread == thread::current().id() => {
                    return Err(ResultError::WouldDeadlock);
                }
                Phase::Starting { .. } if deadline.passed() => {
                    return Err(ResultError::TimedOut { state: FutureState::NotStarted });
                }
                Phase::Starting { .. } => self.wait(phase, deadline),
                Phase::Failed(error) => return Err(ResultError::StartFailed(error.clone())),
                Phase::Running(_) | Phase::Closing | Phase::Closed => {
                    return self.live.get().ok_or(ResultError::LoopClosed);
                }
            };
        }
    }

    /// The loop, if it was ever started.
    pub(super) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Closing | Phase::Closed)
    }

    fn start<'a>(self: &'a Arc<Self>, mut phase: MutexGuard<'a, Phase>) -> MutexGuard<'a, Phase> {
        let settings = match std::mem::replace(&mut *phase, Phase::Closed) {
            Phase::Idle(settings) => settings,
            other => {
                *phase = other;
                return phase;
            }
        };
        let mut builder = thread::Builder::new().name(self.name.clone());
        if let Some(bytes) = settings.stack_size {
            builder = builder.stack_size(bytes);
        }
        let core = Arc::clone(self);
        match builder.spawn(move || core.drive()) {
            Ok(handle) => {
                let thread = handle.thread().id();
                *lock(&self.thread) = Some(handle);
                *phase = Phase::Starting { settings: Some(settings), thread };
                phase
            }
            Err(error) => {
                *phase = Phase::Failed(StartError::new(error));
                drop(phase);
                self.changed.notify_all();
                drop(settings);
                lock(&self.phase)
            }
        }
    }

    /// The loop thread, from its first to its last instruction.
    fn drive(self: Arc<Self>) {
        let settings = match &mut *lock(&self.phase) {
            Phase::Starting { settings, .. } => settings.take(),
            _ => None,
        };
        let Some(settings) = settings else { return self.settle(Phase::Closed) };
        let limit = settings.max_in_flight;
        match settings.into_runtime(&self.name) {
            Ok(runtime) => self.run(runtime, limit),
            Err(error) => self.settle(Phase::Failed(error)),
        }
    }

    fn run(&self, runtime: Runtime, limit: usize) {
        let handle = runtime.handle();
        let live = self.live.get_or_init(|| Live {
            bridge: Bridge::builder(handle.clone()).max_in_flight(limit).name(&*self.name).build(),
            house: Bridge::builder(handle.clone()).unbounded().name(&*self.name).build(),
            gone: CancellationToken::new(),
        });
        let (stop, stopped) = lone_promise();
        self.settle(Phase::Running(stop));
        // A stop that was dropped, and a runtime that panics, end the loop at once.
        let asked = catch_unwind(AssertUnwindSafe(|| runtime.block_on(stopped)));
        let deadline = match asked {
            Ok(Ok(deadline)) => deadline,
            _ => Deadline::after(Some(Duration::ZERO)),
        };
        live.gone.cancel();
        let patience = deadline.remaining().unwrap_or(LONGEST_SHUTDOWN);
        let patience = patience.clamp(GRACE, LONGEST_SHUTDOWN);
        let started = Instant::now();
        // A destructor of a task can panic; the end has to be told all the same.
        let _ = catch_unwind(AssertUnwindSafe(|| runtime.shutdown_timeout(patience)));
        // tokio doesn't say whether it gave up, but it comes back early only if it didn't.
        self.left_behind.store(started.elapsed() >= patience, Ordering::Release);
        self.settle(Phase::Closed);
    }

    /// The loop thread says how far it is; what a closer said in the meantime stands.
    fn settle(&self, next: Phase) {
        let mut phase = lock(&self.phase);
        let next = match (&*phase, next) {
            (Phase::Closing, Phase::Failed(_)) => Phase::Closed,
            (Phase::Closing, Phase::Running(stop)) => {
                // Nobody waited for this start: dropping the stop ends the loop.
                drop(phase);
                return drop(stop);
            }
            (_, next) => next,
        };
        let last = std::mem::replace(&mut *phase, next);
        drop(phase);
        self.changed.notify_all();
        drop(last);
    }

    /// Claims the end of the loop; waits for a start under way until `deadline`.
    pub(super) fn claim(&self, deadline: Deadline) -> Found {
        let mut phase = lock(&self.phase);
        while matches!(*phase, Phase::Starting { .. }) && !deadline.passed() {
            phase = self.wait(phase, deadline);
        }
        let next = match &*phase {
            Phase::Idle(_) | Phase::Failed(_) | Phase::Closed => Phase::Closed,
            Phase::Starting { .. } | Phase::Running(_) | Phase::Closing => Phase::Closing,
        };
        let before = std::mem::replace(&mut *phase, next);
        drop(phase);
        match before {
            Phase::Running(stop) => Found::Running(stop),
            Phase::Starting { .. } | Phase::Closing => Found::Ending,
            // Settings and a start error are dropped here, without the lock.
            Phase::Idle(_) | Phase::Failed(_) | Phase::Closed => Found::Nothing,
        }
    }

    /// Whether a close has nothing to wait for.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Idle(_) | Phase::Failed(_) | Phase::Closed)
    }

    /// Waits for the loop thread's end until `deadline` and joins it; whether all threads ended.
    pub(super) fn join(&self, deadline: Deadline) -> bool {
        let mut phase = lock(&self.phase);
        while matches!(*phase, Phase::Closing) && !deadline.passed() {
            phase = self.wait(phase, deadline);
        }
        let ended = !matches!(*phase, Phase::Closing);
        drop(phase);
        if ended {
            let thread = lock(&self.thread).take();
            if let Some(thread) = thread {
                // It has said its last word: this takes microseconds.
                let _ = thread.join();
            }
        }
        ended && !self.left_behind.load(Ordering::Acquire)
    }

    fn wait<'a>(&self, phase: MutexGuard<'a, Phase>, deadline: Deadline) -> MutexGuard<'a, Phase> {
        match deadline.remaining() {
            None => self.changed.wait(phase).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                self.changed.wait_timeout(phase, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }
}
