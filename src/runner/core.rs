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
//! 5. The factory is called, and dropped, without the lock.

use super::builder::Settings;
use super::registry::Registry;
use super::start_error::StartError;
use crate::bridge::Bridge;
use crate::future::{FutureState, Promise, ResultError, lone_promise};
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, Monitor, park_until};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
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
    /// Users wait for its start, closers for its end.
    phase: Monitor<Phase>,
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
            phase: Monitor::new(Phase::Idle(settings)),
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
        self.start();
        let this_thread = thread::current().id();
        let mut started = pin!(self.phase.until(|phase| match phase {
            Phase::Starting { thread, .. } if *thread == this_thread => {
                Some(Err(ResultError::WouldDeadlock))
            }
            Phase::Idle(_) | Phase::Starting { .. } => None,
            Phase::Failed(error) => Some(Err(error.clone().into())),
            Phase::Running(_) | Phase::Closing | Phase::Closed => Some(Ok(())),
        }));
        // Not refused on a loop's thread: it is short, and depends on no loop.
        match park_until(deadline, |cx| started.as_mut().poll(cx)) {
            Some(Ok(())) => self.live.get().ok_or(ResultError::LoopClosed),
            Some(Err(error)) => Err(error),
            None => Err(ResultError::TimedOut { state: FutureState::NotStarted }),
        }
    }

    /// The loop, if it was ever started.
    pub(super) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase.with(|phase| matches!(phase, Phase::Closing | Phase::Closed))
    }

    /// Starts the loop if nobody has.
    fn start(self: &Arc<Self>) {
        let unused = self.phase.update(|phase| {
            let settings = match std::mem::replace(phase, Phase::Closed) {
                Phase::Idle(settings) => settings,
                other => {
                    *phase = other;
                    return (None, false);
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
                    (None, false)
                }
                Err(error) => {
                    *phase = Phase::Failed(StartError::new(error));
                    (Some(settings), true)
                }
            }
        });
        drop(unused);
    }

    /// The loop thread, from its first to its last instruction.
    fn drive(self: Arc<Self>) {
        let settings = self.phase.with(|phase| match phase {
            Phase::Starting { settings, .. } => settings.take(),
            _ => None,
        });
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
        let last = self.phase.change(|phase| match (&*phase, next) {
            (Phase::Closing, Phase::Failed(_)) => std::mem::replace(phase, Phase::Closed),
            // Nobody waited for this start: dropping the stop ends the loop.
            (Phase::Closing, next @ Phase::Running(_)) => next,
            (_, next) => std::mem::replace(phase, next),
        });
        drop(last);
    }

    /// Claims the end of the loop; waits for a start under way until `deadline`.
    pub(super) fn claim(&self, deadline: Deadline) -> Found {
        let starting = |phase: &mut Phase| matches!(phase, Phase::Starting { .. });
        let _settled = self.phase.wait(deadline, |phase| (!starting(phase)).then_some(()));
        let before = self.phase.change(|phase| {
            let next = match phase {
                Phase::Idle(_) | Phase::Failed(_) | Phase::Closed => Phase::Closed,
                Phase::Starting { .. } | Phase::Running(_) | Phase::Closing => Phase::Closing,
            };
            std::mem::replace(phase, next)
        });
        match before {
            Phase::Running(stop) => Found::Running(stop),
            Phase::Starting { .. } | Phase::Closing => Found::Ending,
            // Settings and a start error are dropped here, without the lock.
            Phase::Idle(_) | Phase::Failed(_) | Phase::Closed => Found::Nothing,
        }
    }

    /// Whether a close has nothing to wait for.
    pub(super) fn is_quiet(&self) -> bool {
        self.phase.with(|phase| matches!(phase, Phase::Idle(_) | Phase::Failed(_) | Phase::Closed))
    }

    /// Waits for the loop thread's end until `deadline` and joins it; whether all threads ended.
    pub(super) fn join(&self, deadline: Deadline) -> bool {
        let ended = |phase: &mut Phase| !matches!(phase, Phase::Closing);
        let ended = self.phase.wait(deadline, |phase| ended(phase).then_some(())).is_ok();
        if ended {
            let thread = lock(&self.thread).take();
            if let Some(thread) = thread {
                // It has said its last word: this takes microseconds.
                let _ = thread.join();
            }
        }
        ended && !self.left_behind.load(Ordering::Acquire)
    }
}
