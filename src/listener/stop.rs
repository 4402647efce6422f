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
use crate::sync::prim::{Condvar, Mutex, lock, thread, thread_local};
use crate::sync::{Deadline, contain};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError};
use std::task::Wake;
use std::time::Duration;

/// How often a waiting `shutdown` repeats the nudges, for sources that can miss one.
const NUDGE_AGAIN: Duration = Duration::from_millis(20);

thread_local! {
    /// The listener that owns this thread, as the address of its `Stop`.
    static OWNER: Cell<usize> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    /// The next key of either map.
    next: u64,
    /// What makes the blocked threads look at the flag.
    nudges: BTreeMap<u64, Interrupter>,
    /// The names of the threads that haven't ended.
    threads: BTreeMap<u64, Arc<str>>,
}

/// The stop flag of one listener, the nudges that go with it, and the list of its threads.
#[derive(Default)]
pub(crate) struct Stop {
    /// Whether the listener has been asked to stop.
    stopping: AtomicBool,
    /// Everything else.
    state: Mutex<State>,
    /// Signalled on stop and when a thread ends.
    changed: Condvar,
}

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks the threads to stop; never waits. Calling it again repeats the nudges.
    pub(crate) fn signal(&self) {
        self.stopping.store(true, Ordering::Release);
        let nudges: Vec<_> = lock(&self.state).nudges.values().cloned().collect();
        self.changed.notify_all();
        nudges.iter().for_each(Interrupter::interrupt);
    }

    /// Keeps `interrupter` among the nudges until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, interrupter: Interrupter) -> Registered {
        let key = {
            let mut state = lock(&self.state);
            state.next += 1;
            let key = state.next;
            state.nudges.insert(key, interrupter);
            key
        };
        Registered { stop: Arc::clone(self), key }
    }

    /// Waits until asked to stop or until `timeout` has passed; says whether it was asked.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = Deadline::after(timeout);
        let mut state = lock(&self.state);
        while !self.is_set() && !deadline.passed() {
            state = match deadline.remaining() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        drop(state);
        self.is_set()
    }

    /// The names of the threads that haven't ended.
    pub(crate) fn stragglers(&self) -> Vec<String> {
        lock(&self.state).threads.values().map(|name| String::from(&**name)).collect()
    }

    pub(crate) fn ended(&self) -> bool {
        lock(&self.state).threads.is_empty()
    }

    /// Whether the calling thread belongs to this listener.
    pub(crate) fn owns_this_thread(self: &Arc<Self>) -> bool {
        OWNER.try_with(|owner| owner.get() == Arc::as_ptr(self) as usize).unwrap_or(false)
    }

    /// Blocks until the threads have ended, the deadline has passed, or the wait was given up.
    pub(crate) fn wait_ended(&self, deadline: Deadline, given_up: &AtomicBool) {
        loop {
            let round = Deadline::after(Some(NUDGE_AGAIN));
            let mut state = lock(&self.state);
            loop {
                if state.threads.is_empty() || deadline.passed() || given_up.load(Ordering::Acquire)
                {
                    return;
                }
                let left = [round.remaining(), deadline.remaining()].into_iter().flatten().min();
                match left {
                    Some(left) if !left.is_zero() => {
                        state = self
                            .changed
                            .wait_timeout(state, left)
                            .unwrap_or_else(PoisonError::into_inner)
                            .0;
                    }
                    _ => break,
                }
            }
            drop(state);
            self.signal();
        }
    }

    /// Makes a `wait_ended` whose `given_up` has just been set return.
    pub(crate) fn wake_waits(&self) {
        // Whoever looked before `given_up` was set is asleep by the time the lock is free.
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Starts a thread of this listener; `body` and all it owns are gone before it counts as ended.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let name: Arc<str> = name.into();
        let key = {
            let mut state = lock(&self.state);
            state.next += 1;
            let key = state.next;
            state.threads.insert(key, Arc::clone(&name));
            key
        };
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
        let removed = lock(&self.stop.state).nudges.remove(&self.key);
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
        let name = lock(&self.stop.state).threads.remove(&self.key);
        drop(name);
        self.stop.changed.notify_all();
    }
}
