//! A thread of an executor: it looks at the queue, runs jobs, lends its place and sleeps.

use super::core::{Core, Reason};
use super::job::{Job, Left, Rest};
use super::threads::Current;
use super::workers::{IdleWorker, Next};
use crate::future::Refusal;
use crate::sync::{
    BlockingHook, Deadline, Parker, Woken, contain, discard, panic_message, set_blocking_hook,
    spin_until,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

/// A thread that comes back from a wait goes on without a place when no place has changed hands for so
/// long: who has its place may be waiting for it.
const STALL: Duration = Duration::from_secs(1);

/// The longest pause between two attempts to rebuild a value.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// Runs jobs until the executor is closed and its queue empty, or nothing comes for the idle time.
pub(super) fn run<S>(
    core: &Arc<Core<S>>,
    key: usize,
    current: &Arc<Current>,
    ready: impl FnOnce(Result<(), Refusal>),
) {
    let worker = Arc::new(Worker {
        core: Arc::clone(core),
        key,
        parker: Parker::new(),
        looking: AtomicBool::new(true),
        has_place: AtomicBool::new(true),
        lent: AtomicBool::new(false),
    });
    set_blocking_hook(Arc::clone(&worker) as Arc<dyn BlockingHook>);
    worker.work(current, ready);
}

/// What a thread knows of itself; all of it is changed by that thread only.
struct Worker<S: 'static> {
    core: Arc<Core<S>>,
    key: usize,
    /// Where it sleeps, and waits for a place.
    parker: Parker,
    /// It is the one that looks at the queue.
    looking: AtomicBool,
    has_place: AtomicBool,
    /// It has lent its place for a wait.
    lent: AtomicBool,
}

impl<S> BlockingHook for Worker<S> {
    fn before_wait(&self) {
        if !self.core.is_alone() && self.has_place.load(Relaxed) {
            self.lent.store(true, Relaxed);
            self.give_place();
        }
    }

    fn after_wait(&self, deadline: Deadline) {
        if self.core.is_alone() {
            self.core.cycle.go_on();
        } else if self.lent.swap(false, Relaxed) {
            self.wait_for_place(deadline);
        }
    }

    fn would_deadlock(&self, work: usize, waker: &Waker) -> bool {
        self.core.is_alone() && self.core.cycle.wait_for(work, waker)
    }
}

impl<S> Worker<S> {
    fn as_idle(&self) -> IdleWorker {
        IdleWorker { worker: self.key, waker: self.parker.waker().clone() }
    }

    fn queued(&self) -> impl Fn() -> usize {
        || self.core.queued()
    }

    fn give_place(&self) {
        self.has_place.store(false, Relaxed);
        let looking = self.looking.swap(false, Relaxed);
        let action = self.core.workers.lend(looking, self.queued());
        self.core.act(action);
    }

    /// Waits for a place to go on in, at most until the deadline, and not for ever.
    fn wait_for_place(&self, deadline: Deadline) {
        let workers = &self.core.workers;
        let mut handed = workers.come_back(self.as_idle());
        while let Some(before) = handed {
            let woken = self.parker.park(deadline.or_after(STALL));
            handed = workers.still_returning(self.key);
            if woken == Woken::TimedOut && (handed == Some(before) || deadline.passed()) {
                workers.take_place(self.key);
                break;
            }
        }
        self.has_place.store(true, Relaxed);
    }

    fn work(&self, current: &Current, ready: impl FnOnce(Result<(), Refusal>)) {
        let Some(mut value) = self.start(ready) else { return };
        let mut panics = 0;
        loop {
            if self.core.workers.wants_attention() && !self.keep_place() {
                break;
            }
            let Some(job) = self.core.next_job() else {
                match self.rest() {
                    true => continue,
                    false => break,
                }
            };
            if self.looking.load(Relaxed) {
                self.found_job();
            }
            let (left, goes_on) = self.run(job, &mut value, current);
            match left {
                Some(Left::Panicked(message)) if self.core.is_alone() && value.is_some() => {
                    panics += 1;
                    contain("the drop of a dedicated thread's value", || value = None);
                    value = self.rebuild(&mut panics, &message);
                }
                Some(Left::Ended) => panics = 0,
                _ => {}
            }
            if !goes_on {
                break;
            }
            if value.is_none() {
                self.core.close();
                self.core.refuse_queued(&self.core.why());
                self.resign(false);
                break;
            }
        }
        contain("the drop of a dedicated thread's value", || drop(value));
    }

    /// Initialises the thread; `None` if it isn't to work.
    fn start(&self, ready: impl FnOnce(Result<(), Refusal>)) -> Option<Option<S>> {
        let core = &self.core;
        self.looking.store(false, Relaxed);
        core.act(core.workers.begin_start(self.queued()));
        core.settings.threads.started();
        match self.make(None) {
            Ok(value) => {
                self.looking.store(core.workers.end_start(), Relaxed);
                contain("the hand-over of a thread", || ready(Ok(())));
                Some(Some(value))
            }
            Err(reason) => {
                let why = core.break_down(reason);
                self.resign(true);
                contain("the hand-over of a thread", || ready(Err(why)));
                None
            }
        }
    }

    fn make(&self, after: Option<&str>) -> Result<S, Reason> {
        let make = || (self.core.settings.make)(after);
        catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|payload| {
            let text = format!("its initialisation panicked: {}", panic_message(payload.as_ref()));
            discard(payload);
            Err(Reason::from(text))
        })
    }

    /// Makes a new value after a panic, again and again within its limits; breaks the executor if it
    /// can't.
    fn rebuild(&self, panics: &mut u32, message: &str) -> Option<S> {
        let alone = self.core.settings.alone?;
        let mut reason: Reason = format!("a call panicked and poisoned it: {message}").into();
        while *panics <= alone.rebuilds {
            if *panics > 1 {
                let pause = alone.backoff.saturating_mul(1 << (*panics - 2).min(20));
                let deadline = Deadline::after(pause.min(LONGEST_BACKOFF));
                self.core.workers.wait_closed(deadline);
            }
            match self.make(Some(message)) {
                Ok(value) => return Some(value),
                Err(error) => reason = error,
            }
            *panics += 1;
        }
        self.core.break_down(reason);
        None
    }

    /// Runs a job and delivers its result; whether the thread goes on.
    fn run(&self, job: Job<S>, value: &mut Option<S>, current: &Current) -> (Option<Left>, bool) {
        current.begin(job.running());
        let ran = contain("the delivery of a job's result", || {
            // A job that the waiting side submits next finds this thread looking for it.
            job.run(value, || {
                if self.core.queued() == 0 && self.core.workers.look() {
                    self.looking.store(true, Relaxed);
                }
            })
        });
        let (left, rest) = ran.map_or((None, None), |(left, rest)| (Some(left), rest));
        if let Some(rest) = rest {
            self.deliver(rest);
        }
        current.end();
        self.core.note_end(left.as_ref().unwrap_or(&Left::Ended));
        let workers = &self.core.workers;
        let goes_on = self.has_place.load(Relaxed)
            || self.settle(workers.end_delivery(self.as_idle(), self.queued()));
        (left, goes_on)
    }

    /// Runs callbacks, and drops what nobody reads, while others do what the thread would do.
    fn deliver(&self, rest: Rest) {
        if !self.core.is_alone() {
            self.give_place();
        }
        contain("the delivery of a job's result", rest);
    }

    /// The thread looked, and has found a job: it keeps its place, or waits for another.
    fn found_job(&self) {
        self.looking.store(false, Relaxed);
        let (has_place, action) = self.core.workers.found_job(self.queued());
        self.core.act(action);
        if !has_place {
            self.wait_for_place(Deadline::Never);
        }
    }

    /// The queue is empty: looks a little longer, then sleeps; `false` when the thread has left.
    fn rest(&self) -> bool {
        let core = &self.core;
        if !self.looking.load(Relaxed) {
            self.looking.store(core.workers.look(), Relaxed);
        }
        let more = || core.queued() > 0 || core.workers.wants_attention();
        if self.looking.load(Relaxed) && spin_until(Deadline::Never, more) {
            return true;
        }
        self.sit_down()
    }

    /// There are too many threads, or the executor closes: `false` when the thread has left.
    fn keep_place(&self) -> bool {
        let closes_only = !self.core.workers.is_crowded();
        (closes_only && self.core.queued() > 0) || self.sit_down()
    }

    fn sit_down(&self) -> bool {
        let looking = self.looking.swap(false, Relaxed);
        let (next, action) = self.core.workers.sit_down(self.as_idle(), looking, self.queued());
        self.core.act(action);
        self.settle(next)
    }

    /// Does what comes next; `false` when the thread has left.
    fn settle(&self, mut next: Next) -> bool {
        self.has_place.store(false, Relaxed);
        let deadline = Deadline::after(self.core.settings.idle_timeout);
        loop {
            match next {
                Next::Work { looking } => {
                    self.looking.store(looking, Relaxed);
                    self.has_place.store(true, Relaxed);
                    return true;
                }
                Next::Leave => return false,
                Next::Sleep => {
                    let timed_out = self.parker.park(deadline) == Woken::TimedOut;
                    next = self.core.workers.get_up(self.key, timed_out);
                }
            }
        }
    }

    fn resign(&self, starting: bool) {
        self.has_place.store(false, Relaxed);
        let looking = self.looking.swap(false, Relaxed);
        let action = self.core.workers.resign(looking, starting, self.queued());
        self.core.act(action);
    }
}
