//! How a listener is told to stop, and how its threads are waited for.
//!
//! Invariants:
//! 1. The phase only goes forward, and is set before any interrupter runs.
//! 2. An interrupter is registered before its thread looks at the phase and blocks, and `raise` sets
//!    the phase before it collects the interrupters, so no thread blocks without being told.
//! 3. A thread is listed from before it starts until the last of its thread-locals is dropped.
//! 4. Interrupters run with no lock held; none runs after its registration was dropped.

use super::source::Interrupter;
use super::wake::Wake;
use crate::sync::prim::atomic::{AtomicU8, Ordering};
use crate::sync::prim::{thread, thread_local};
use crate::sync::{Deadline, Monitor, WaitError, WaitList, contain, park_until};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Wake as Waking;
use std::time::Duration;

/// How often a thread that may have missed its interruption is interrupted again.
pub(super) const AGAIN: Duration = Duration::from_millis(20);

/// How far a listener is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Running,
    /// It takes nothing new in, and finishes what it has.
    Draining,
    /// It ends at once.
    Stopping,
}

thread_local! {
    /// The stop that the current thread belongs to, by address; also while its thread-locals go.
    static OWNER: Cell<usize> = const { Cell::new(0) };
    /// Set first of all the thread's thread-locals, so the last to be dropped.
    static LISTED: RefCell<Option<Listed>> = const { RefCell::new(None) };
    /// Stands for the current thread, by its address.
    static HERE: Cell<u8> = const { Cell::new(0) };
}

struct State {
    interrupters: WaitList<Arc<Entry>>,
    threads: WaitList<Arc<str>>,
}

/// Whether a listener should stop, and which threads it still has.
pub(crate) struct Stop {
    phase: AtomicU8,
    /// The process that the threads belong to.
    process: u32,
    state: Monitor<State>,
}

impl Default for Stop {
    fn default() -> Self {
        let state = State { interrupters: WaitList::new(), threads: WaitList::new() };
        let process = std::process::id();
        Stop { phase: AtomicU8::new(0), process, state: Monitor::new(state) }
    }
}

impl Stop {
    pub(crate) fn phase(&self) -> Phase {
        // Pairs with the store in `raise`.
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Tells every thread to stop at once. May be called again: who missed it is told once more.
    pub(crate) fn signal(&self) {
        self.raise(Phase::Stopping);
    }

    /// Enters a phase, unless a later one was entered, and interrupts whoever should know.
    pub(crate) fn raise(&self, phase: Phase) {
        // Pairs with the load in `phase`.
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        let entries: Vec<_> = self.state.change(|state| {
            state.interrupters.payloads().filter(|entry| entry.from <= phase).cloned().collect()
        });
        entries.iter().for_each(|entry| entry.run());
    }

    /// Has `interrupter` run from a phase on, until the registration is dropped.
    pub(crate) fn register(self: &Arc<Self>, from: Phase, interrupter: Interrupter) -> Registered {
        let entry = Arc::new(Entry { from, interrupter, runs: Monitor::new(Runs::default()) });
        let listed = Arc::clone(&entry);
        let key = self.state.with(|state| state.interrupters.push(listed, None));
        Registered { stop: Arc::clone(self), key, entry }
    }

    /// The same, and runs it at once if the phase was entered before.
    pub(crate) fn register_late(
        self: &Arc<Self>,
        from: Phase,
        interrupter: Interrupter,
    ) -> Registered {
        let registered = self.register(from, interrupter);
        if self.phase() >= from {
            registered.entry.run();
        }
        registered
    }

    /// Has the thread that waits by `wake` woken when the listener begins to end.
    pub(crate) fn wakes(self: &Arc<Self>, wake: &Arc<Wake>) -> Registered {
        let wake = Arc::clone(wake);
        self.register(Phase::Draining, Interrupter::new(move || wake.notify()))
    }

    /// Waits for a phase.
    pub(crate) fn wait_phase(
        &self,
        phase: Phase,
        timeout: Option<Duration>,
    ) -> Result<(), WaitError> {
        self.state.wait(Deadline::after(timeout), |_| (self.phase() >= phase).then_some(()))
    }

    /// The names of the threads that haven't ended.
    pub(crate) fn still_running(&self) -> Vec<String> {
        self.state
            .with(|state| state.threads.payloads().map(|name| String::from(&**name)).collect())
    }

    /// Whether every thread has ended.
    pub(crate) fn ended(&self) -> bool {
        self.state.with(|state| state.threads.is_empty())
    }

    /// Whether the current thread is one of the listener's.
    pub(crate) fn owns_this_thread(self: &Arc<Self>) -> bool {
        OWNER.try_with(|owner| owner.get() == Arc::as_ptr(self) as usize).unwrap_or(false)
    }

    /// Whether the threads stayed in another process, which this one was forked off from.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// Waits until every thread has ended.
    pub(crate) fn until_ended(&self) -> impl Future<Output = ()> + Send {
        self.state.until(|state| state.threads.is_empty().then_some(()))
    }

    /// As [`until_ended`](Self::until_ended), blocking, up to a deadline.
    pub(crate) fn wait_ended(&self, deadline: Deadline) -> Result<(), WaitError> {
        loop {
            let round = deadline.or_after(AGAIN);
            match self.state.wait(round, |state| state.threads.is_empty().then_some(())) {
                Err(WaitError::TimedOut) if !deadline.passed() => self.raise(self.phase()),
                waited => return waited,
            }
        }
    }

    /// Starts a thread that is waited for.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let name: Arc<str> = name.into();
        let key = self.state.with(|state| state.threads.push(Arc::clone(&name), None));
        let listed = Listed { stop: Arc::clone(self), key };
        thread::Builder::new().name(name.to_string()).spawn(move || {
            OWNER.with(|owner| owner.set(Arc::as_ptr(&listed.stop) as usize));
            LISTED.with(|slot| slot.replace(Some(listed)));
            contain("a listener thread", body);
        })?;
        Ok(())
    }
}

/// A token that is cancelled stops the listener.
impl Waking for Stop {
    fn wake(self: Arc<Self>) {
        self.signal();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal();
    }
}

/// One interrupter, and who runs it.
struct Entry {
    from: Phase,
    interrupter: Interrupter,
    runs: Monitor<Runs>,
}

#[derive(Default)]
struct Runs {
    /// The threads that are inside it.
    by: Vec<usize>,
    over: bool,
}

fn this_thread() -> usize {
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Entry {
    fn run(&self) {
        let here = this_thread();
        let allowed = self.runs.with(|runs| {
            // What it does may tell of the stop once more: it doesn't run inside itself.
            let allowed = !runs.over && !runs.by.contains(&here);
            if allowed {
                runs.by.push(here);
            }
            allowed
        });
        if !allowed {
            return;
        }
        self.interrupter.interrupt();
        self.runs.change(|runs| {
            let at = runs.by.iter().position(|thread| *thread == here);
            runs.by.swap_remove(at.expect("it was entered above"));
        });
    }

    /// Lets no further run begin, and waits for those of other threads: the caller may be inside one.
    fn end(&self) {
        let here = this_thread();
        self.runs.with(|runs| runs.over = true);
        let mut idle = self.runs.until(|runs| runs.by.iter().all(|by| *by == here).then_some(()));
        park_until(Deadline::Never, |cx| Pin::new(&mut idle).poll(cx));
    }
}

/// Until it is dropped, the interrupter runs when the listener stops; afterwards it never does.
pub(crate) struct Registered {
    stop: Arc<Stop>,
    key: u64,
    entry: Arc<Entry>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let removed = self.stop.state.with(|state| state.interrupters.remove(self.key));
        drop(removed);
        self.entry.end();
    }
}

/// A thread is waited for until it is dropped.
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
