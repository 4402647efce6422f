//! The life of a runner's loop: who starts it, who may use it, who ends it.
//!
//! Invariants:
//! 1. `phase` goes `Idle` → `Starting` → `Running` → `Gone` or `Closing` → `Closed`; a start that fails
//!    goes back to `Idle`, and a close skips what never was. Only the caller that moves it out of
//!    `Idle` spawns a thread: racing first users start one loop.
//! 2. The lock is held while the thread is spawned, so whoever sees `Starting` or later finds the
//!    thread's handle in `thread`, until the thread is joined.
//! 3. `live` is set once, in the critical section that says `Running`.
//! 4. Whoever waits for a start waits for one attempt: `attempts` and `failure` tell how it went.
//! 5. The factory is called, and errors and stops are dropped, without the lock.

use super::builder::Settings;
use super::registry::Registry;
use crate::bridge::Bridge;
use crate::future::{
    BlockingFuture, FutureState, Promise, Refusal, ResultError, lone_promise, resolved,
};
use crate::sync::prim::atomic::{AtomicU32, Ordering};
use crate::sync::{Deadline, Monitor, WaitError, contain, park_until, wait};
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long what is late at the deadline is still waited for, at each of the steps of a close.
pub(super) const GRACE: Duration = Duration::from_millis(100);

/// The longest shutdown that tokio's clock arithmetic is asked to express.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How often a closer without a thread to join by looks for the loop's end.
const LOOK: Duration = Duration::from_millis(1);

/// What the runner, its guards and its loop thread share.
pub(super) struct Core {
    pub(super) name: String,
    /// The name of its bridges.
    shown: String,
    settings: Settings,
    /// Users wait for its start, closers for its end.
    state: Monitor<State>,
    live: OnceLock<Live>,
    /// The process that the loop was last started in; 0 before that.
    process: AtomicU32,
    /// What is entered and not exited.
    pub(super) contexts: Registry,
}

struct State {
    phase: Phase,
    /// How many starts were begun.
    attempts: u64,
    /// Why the last one that failed did.
    failure: Option<Refusal>,
    /// The loop's thread, until somebody joins it.
    thread: Option<JoinHandle<()>>,
    /// Somebody is about to join it.
    joining: bool,
    /// The runtime's own threads didn't all end in time.
    left_behind: bool,
    /// A close is over but for the loop's end: whoever still waits for the loop waits in vain.
    given_up: bool,
}

/// A loop that runs, or ran.
pub(super) struct Live {
    /// What users submit to.
    pub(super) bridge: Bridge,
    /// Where contexts live: outside the users' limit, drain and counters.
    pub(super) house: Bridge,
}

/// What makes the loop thread leave its loop, with the deadline for what is left in it.
pub(super) type Stop = Promise<Deadline>;

enum Phase {
    Idle,
    Starting {
        thread: ThreadId,
    },
    Running(Stop),
    /// The loop ended without a close.
    Gone,
    Closing,
    /// The loop's thread has been joined, or there never was one.
    Closed,
}

/// What a closer finds.
pub(super) enum Found {
    /// There is no loop: it never ran, or is gone.
    Nothing,
    /// A loop that is this closer's to end.
    Running(Stop),
    /// A loop that ends, or never comes up, without this closer.
    Ending,
}

impl Core {
    pub(super) fn new(name: String, shown: String, settings: Settings) -> Arc<Self> {
        let state = State {
            phase: Phase::Idle,
            attempts: 0,
            failure: None,
            thread: None,
            joining: false,
            left_behind: false,
            given_up: false,
        };
        Arc::new(Core {
            name,
            shown,
            settings,
            state: Monitor::new(state),
            live: OnceLock::new(),
            process: AtomicU32::new(0),
            contexts: Registry::new(),
        })
    }

    /// The loop, started if need be; waits for the start until `deadline`, behind which the work is dropped.
    pub(super) fn ready(self: &Arc<Self>, deadline: Deadline) -> Result<&Live, ResultError> {
        if let Some(live) = self.live.get() {
            return Ok(live);
        }
        if self.is_forked() {
            return Err(ResultError::Forked);
        }
        let attempt = self.start();
        let mut started = pin!(self.state.until(|state| match &state.phase {
            Phase::Starting { thread } if *thread == thread::current().id() => {
                Some(Err(ResultError::WouldDeadlock))
            }
            Phase::Starting { .. } if state.attempts == attempt => None,
            Phase::Idle | Phase::Starting { .. } => {
                let failure = state.failure.clone();
                Some(Err(failure.map_or(ResultError::LoopClosed, ResultError::from)))
            }
            Phase::Running(_) | Phase::Gone | Phase::Closing | Phase::Closed => Some(Ok(())),
        }));
        // Not refused on a loop's thread: it is short, and depends on no loop.
        match park_until(deadline, |cx| started.as_mut().poll(cx)) {
            Some(Ok(())) => self.live.get().ok_or(ResultError::LoopClosed),
            Some(Err(error)) => Err(error),
            None => Err(ResultError::TimedOut { state: FutureState::Abandoned }),
        }
    }

    /// Submits to the loop, started if need be; what is refused says why.
    #[track_caller]
    pub(super) fn submit<F>(self: &Arc<Self>, future: F) -> BlockingFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.ready(Deadline::Never) {
            Ok(live) => live.bridge.run_coroutine_threadsafe(future),
            Err(error) => resolved(error),
        }
    }

    /// As [`ready`](Self::ready), for who waits for what only the loop can bring: not in a child
    /// process, where it isn't.
    pub(super) fn ready_here(self: &Arc<Self>) -> Result<&Live, ResultError> {
        if self.is_forked() { Err(ResultError::Forked) } else { self.ready(Deadline::Never) }
    }

    /// Waits for what only the loop can bring; a close that is over ends the wait.
    pub(super) fn wait<F: Future>(
        &self,
        deadline: Deadline,
        future: F,
    ) -> Result<F::Output, ResultError> {
        let mut future = pin!(future);
        let mut given_up = pin!(self.state.until(|state| state.given_up.then_some(())));
        let waited = wait(deadline, |cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => given_up.as_mut().poll(cx).map(|()| Err(ResultError::LoopClosed)),
        });
        waited.unwrap_or_else(|error| {
            Err(match error {
                WaitError::WouldDeadlock => ResultError::WouldDeadlock,
                WaitError::TimedOut => ResultError::TimedOut { state: FutureState::Running },
            })
        })
    }

    /// Releases whoever waits for the loop: what it could bring is there.
    pub(super) fn give_up(&self) {
        self.state.change(|state| state.given_up = true);
    }

    /// The loop, if it was ever started.
    pub(super) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    pub(super) fn is_closed(&self) -> bool {
        let closed = |phase: &Phase| matches!(phase, Phase::Gone | Phase::Closing | Phase::Closed);
        self.state.with(|state| closed(&state.phase))
    }

    /// Whether the loop stayed in the process that this one was forked off from.
    pub(super) fn is_forked(&self) -> bool {
        let process = self.process.load(Ordering::Relaxed);
        process != 0 && process != std::process::id()
    }

    /// Starts the loop if nobody has; the number of the attempt to wait for.
    fn start(self: &Arc<Self>) -> u64 {
        let (attempt, _former) = self.state.with(|state| {
            if !matches!(state.phase, Phase::Idle) {
                return (state.attempts, (None, None));
            }
            state.attempts += 1;
            let mut builder = thread::Builder::new().name(self.name.clone());
            if let Some(bytes) = self.settings.stack_size {
                builder = builder.stack_size(bytes);
            }
            let core = Arc::clone(self);
            let former = match builder.spawn(move || core.drive()) {
                Ok(handle) => {
                    self.process.store(std::process::id(), Ordering::Relaxed);
                    state.phase = Phase::Starting { thread: handle.thread().id() };
                    (state.thread.replace(handle), None)
                }
                Err(error) => (None, state.failure.replace(Refusal::not_started(error))),
            };
            (state.attempts, former)
        });
        attempt
    }

    /// The loop thread, from its first to its last instruction.
    fn drive(self: Arc<Self>) {
        match self.settings.make_runtime(&self.name) {
            Ok(runtime) => self.run(runtime),
            Err(error) => {
                let _former = self.state.change(|state| {
                    if let Phase::Starting { .. } = state.phase {
                        state.phase = Phase::Idle;
                        self.process.store(0, Ordering::Relaxed);
                    }
                    state.failure.replace(error)
                });
            }
        }
    }

    fn run(&self, runtime: Runtime) {
        let bridge = |limit| {
            let builder = Bridge::builder(runtime.handle().clone()).name(&*self.shown);
            builder.max_in_flight(limit).connect()
        };
        let live = Live { bridge: bridge(self.settings.max_in_flight), house: bridge(usize::MAX) };
        let (stop, stopped) = lone_promise();
        // A close that came first lets go of the stop, which ends the loop at once.
        let unwanted = self.state.change(|state| match state.phase {
            Phase::Starting { .. } => {
                state.phase = Phase::Running(stop);
                self.live.set(live).err().map(|live| (live, None))
            }
            _ => Some((live, Some(stop))),
        });
        drop(unwanted);
        // A stop that was dropped, and a runtime that panics, end the loop at once, too.
        let asked = contain("an event loop", || runtime.block_on(stopped));
        let deadline = asked.and_then(Result::ok).unwrap_or(Deadline::Now);
        let patience = deadline.remaining().unwrap_or(LONGEST_SHUTDOWN);
        let patience = patience.clamp(GRACE, LONGEST_SHUTDOWN);
        let started = Instant::now();
        // A destructor of a task can panic; the end has to be told all the same.
        contain("the end of an event loop", || runtime.shutdown_timeout(patience));
        let _stop = self.state.change(|state| {
            // tokio doesn't say whether it gave up, but it comes back early only if it didn't.
            state.left_behind = started.elapsed() >= patience;
            match state.phase {
                Phase::Running(_) => Some(std::mem::replace(&mut state.phase, Phase::Gone)),
                _ => None,
            }
        });
    }

    /// Claims the end of the loop; whoever waits for its start is released.
    pub(super) fn claim(&self) -> Found {
        self.state.change(|state| {
            let next = match (&state.phase, &state.thread) {
                (Phase::Closed, _) | (Phase::Idle, None) => Phase::Closed,
                _ => Phase::Closing,
            };
            match std::mem::replace(&mut state.phase, next) {
                Phase::Running(stop) => Found::Running(stop),
                Phase::Starting { .. } | Phase::Closing => Found::Ending,
                Phase::Idle | Phase::Gone | Phase::Closed => Found::Nothing,
            }
        })
    }

    /// Whether a close has nothing left to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.state.with(|state| matches!(state.phase, Phase::Closed))
    }

    /// Waits for the loop thread's end until `deadline`; whether all threads ended.
    ///
    /// The end of a thread includes the destructors of its thread-locals, which may block: a thread
    /// waits for them whose only work that is.
    pub(super) fn join(self: &Arc<Self>, deadline: Deadline) -> bool {
        let begins = |state: &mut State| {
            state.thread.is_some() && !std::mem::replace(&mut state.joining, true)
        };
        let joiner = self.state.with(begins).then(|| {
            let core = Arc::clone(self);
            let joiner = thread::Builder::new().name(format!("{}-join", self.name));
            // std may panic where the calling thread's own thread-locals are gone.
            let joiner = contain("a start of a thread", || joiner.spawn(move || core.join_here()));
            joiner.and_then(Result::ok)
        });
        if let Some(None) = joiner {
            self.join_when_finished(deadline);
        }
        let closed = |state: &mut State| matches!(state.phase, Phase::Closed);
        let ended = self.state.wait(deadline, |state| closed(state).then_some(state.left_behind));
        if let (Ok(_), Some(Some(joiner))) = (&ended, joiner) {
            // It has done its work: this takes microseconds.
            let _ = joiner.join();
        }
        ended == Ok(false)
    }

    fn join_here(&self) {
        if let Some(thread) = self.state.with(|state| state.thread.take()) {
            let _ = thread.join();
        }
        self.state.change(|state| state.phase = Phase::Closed);
    }

    /// For a process that has no thread left: what a thread-local's destructor does isn't awaited.
    fn join_when_finished(&self, deadline: Deadline) {
        let finished =
            |state: &mut State| state.thread.as_ref().is_none_or(JoinHandle::is_finished);
        while !self.state.with(finished) {
            if deadline.passed() {
                return self.state.with(|state| state.joining = false);
            }
            thread::sleep(LOOK);
        }
        self.join_here();
    }
}
