//! How a listener is told to stop, and how its threads are waited for.
//!
//! Invariants:
//! 1. `stopping` goes from false to true once, before any nudge runs.
//! 2. A nudge is registered before its thread looks at `stopping` and blocks, and `signal` sets
//!    `stopping` before it collects the nudges, so no thread blocks unnudged.
//! 3. A thread is listed from before it starts until everything it owned is dropped.
//! 4. Nudges run with no lock held.

use super::source::Interrupter;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{thread, thread_local};
use crate::sync::{Deadline, Monitor, WaitError, WaitList, contain};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

/// How often a waiting `shutdown` repeats the nudges, for sources that can miss one.
pub(super) const NUDGE_AGAIN: Duration = Duration::from_millis(20);

thread_local! {
    /// The listener that owns this thread, as the address of its `Stop`.
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

struct State {
    /// What makes the blocked threads look at the flag.
    nudges: WaitList<Interrupter>,
    /// The names of the threads that haven't ended.
    threads: WaitList<Arc<str>>,
}

/// The stop flag of one listener, the nudges that go with it, and the list of its threads.
pub(crate) struct Stop {
    /// Whether the listener has been asked to stop.
    stopping: AtomicBool,
    /// Everything else; changes on a stop and when a thread ends.
    state: Monitor<State>,
}

impl Default for Stop {
    fn default() -> Self {
        let state = State { nudges: WaitList::new(), threads: WaitList::new() };
        Stop { stopping: AtomicBool::new(false), state: Monitor::new(state) }
    }
}

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks the threads to stop; never waits. Calling it again repeats the nudges.
    pub(crate) fn signal(&self) {
        self.stopping.store(true, Ordering::Release);
        let nudges: Vec<_> = self.state.change(|state| state.nudges.payloads().cloned().collect());
        nudges.iter().for_each(Interrupter::interrupt);
    }

    /// Keeps `interrupter` among the nudges until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, interrupter: Interrupter) -> Registered {
        let key = self.state.with(|state| state.nudges.push(interrupter, None));
        Registered { stop: Arc::clone(self), key }
    }

    /// Waits until asked to stop, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<(), WaitError> {
        self.state.wait(Deadline::after(timeout), |_| self.is_set().then_some(()))
    }

    /// Ready when asked to stop.
    pub(crate) fn until_set(&self) -> impl Future<Output = ()> + Send {
        self.state.until(|_| self.is_set().then_some(()))
    }

    /// The names of the threads that haven't ended.
    pub(crate) fn stragglers(&self) -> Vec<String> {
        self.state
            .with(|state| state.threads.payloads().map(|name| String::from(&**name)).collect())
    }

    pub(crate) fn ended(&self) -> bool {
        self.state.with(|state| state.threads.is_empty())
    }

    /// Whether the calling thread belongs to this listener.
    pub(crate) fn owns_this_thread(self: &Arc<Self>) -> bool {
        OWNER.try_with(|owner| owner.get() == Arc::as_ptr(self) as usize).unwrap_or(false)
    }

    /// Ready when the threads have ended.
    pub(crate) fn until_ended(&self) -> impl Future<Output = ()> + Send {
        self.state.until(|state| state.threads.is_empty().then_some(()))
    }

    /// Blocks until the threads have ended, or the deadline has passed.
    pub(crate) fn wait_ended(&self, deadline: Deadline) -> Result<(), WaitError> {
        loop {
            let round = deadline.or_after(NUDGE_AGAIN);
            match self.state.wait(round, |state| state.threads.is_empty().then_some(())) {
                Err(WaitError::TimedOut) if !deadline.passed() => self.signal(),
                waited => return waited,
            }
        }
    }

    /// Starts a thread of this listener; `body` and all it owns are gone before it counts as ended.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let name: Arc<str> = name.into();
        let key = self.state.with(|state| state.threads.push(Arc::clone(&name), None));
        let listed = Listed { stop: Arc::clone(self), key };
        thread::Builder::new().name(name.to_string()).spawn(move || {
            let listed = listed;
            let _ = OWNER.try_with(|owner| owner.set(Arc::as_ptr(&listed.stop) as usize));
            contain("a listener thread", body);
        })?;
        Ok(())
    }
}

/// `CancellationToken::cancel` reaches the listener by this, without a task that waits for it.
impl Wake for Stop {
    fn wake(self: Arc<Self>) {
        self.signal();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal();
    }
}

/// A nudge for as long as the guard lives.
pub(crate) struct Registered {
    stop: Arc<Stop>,
    key: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.stop.state.with(|state| state.nudges.remove(self.key));
        drop(removed);
    }
}

/// A thread's place in the list.
struct Listed {
    stop: Arc<Stop>,
    key: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let name = self.stop.state.change(|state| state.threads.remove(self.key));
        drop(name);
    }
}
