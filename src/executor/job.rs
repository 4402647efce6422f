//! One piece of blocking work, from its submission to its result.
//!
//! Invariants:
//! 1. `work` is taken out once: by the thread that runs it, by a cancel while it is queued, by the
//!    executor that refuses it, or by the submitter that takes it back. Who takes it resolves it, and, if
//!    it was accepted, gives its room in the queue back at once and sees to it that it is counted.
//! 2. The cell and its promise hold each other until the work is taken out, which every path does.
//! 3. User code (the closure, its drop, the result's wakers and callbacks) runs unlocked.

use super::core::Core;
use super::threads::{Current, Running};
use super::token::{CancelToken, Signal, Signalled};
use crate::future::Refusal;
use crate::future::{BlockingFuture, Delivery, Origin, Panic, Promise, ResultError, promise_of};
use crate::sync::context::drives_a_loop;
use crate::sync::prim::atomic::AtomicBool;
use crate::sync::prim::atomic::Ordering::{Relaxed, SeqCst};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Began, Shown, Site, Span, contain, panic_message, shown};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::Handle;

/// How a job left the thread.
pub(super) enum Left {
    Ended,
    Panicked(Box<str>),
    /// It was cancelled while it was queued.
    Skipped,
}

/// What is to be done with a job's result beyond waking who waits for it.
pub(super) type Rest = Box<dyn FnOnce()>;

trait RunJob<S>: Send + Sync {
    fn run(&self, value: &mut Option<S>, publishing: &mut dyn FnMut()) -> (Left, Option<Rest>);
    fn accepted(&self);
    fn refuse(&self, why: Refusal);
    fn token(self: Arc<Self>) -> CancelToken;
    fn site(&self) -> Site;
}

/// What a submitter hands over: a closure, and what use it has for its thread's value.
pub(super) trait Body<S>: Send + 'static {
    type Output: Send + 'static;

    fn call(self, value: &mut Option<S>) -> Self::Output;
}

/// A closure that needs no value.
pub(super) struct Plain<F>(pub(super) F);

impl<S, F, T> Body<S> for Plain<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn call(self, _: &mut Option<S>) -> T {
        self.0()
    }
}

/// A closure that is lent the value.
pub(super) struct On<F>(pub(super) F);

impl<S, F, T> Body<S> for On<F>
where
    F: FnOnce(&mut S) -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn call(self, value: &mut Option<S>) -> T {
        self.0(value.as_mut().expect("a thread without its value runs nothing"))
    }
}

/// A closure that gets the value for good.
pub(super) struct Finish<F>(pub(super) F);

impl<S, F, T> Body<S> for Finish<F>
where
    F: FnOnce(S) -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn call(self, value: &mut Option<S>) -> T {
        self.0(value.take().expect("a thread without its value runs nothing"))
    }
}

/// A job in a queue, its types forgotten; dropped unrun, it is refused as by a closed executor.
pub(super) struct Job<S: 'static> {
    /// Taken when the job is run or refused.
    cell: Option<Arc<dyn RunJob<S>>>,
}

impl<S> Job<S> {
    /// Runs the job and hands its result over; `publishing` is called in between.
    pub(super) fn run(
        mut self,
        value: &mut Option<S>,
        mut publishing: impl FnMut(),
    ) -> (Left, Option<Rest>) {
        match self.cell.take() {
            Some(cell) => cell.run(value, &mut publishing),
            None => (Left::Skipped, None),
        }
    }

    /// The executor takes the job: it is counted.
    pub(super) fn accepted(&self) {
        self.cell.iter().for_each(|cell| cell.accepted());
    }

    /// Resolves the job unrun, if that is still owed.
    pub(super) fn refuse(mut self, why: Refusal) {
        if let Some(cell) = self.cell.take() {
            cell.refuse(why);
        }
    }

    /// The job as its thread notes it.
    pub(super) fn running(&self) -> Option<Running> {
        self.cell.as_ref().map(|cell| (Arc::clone(cell).token(), cell.site()))
    }
}

impl<S> Drop for Job<S> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            cell.refuse(Refusal::Closed);
        }
    }
}

/// A job with its types, for the submitter to take the closure back, and its result.
pub(super) struct Submission<S: 'static, B: Body<S>> {
    cell: Arc<Cell<S, B>>,
    pub(super) result: BlockingFuture<B::Output>,
}

struct Cell<S: 'static, B: Body<S>> {
    core: Arc<Core<S>>,
    work: Mutex<Option<Work<B, B::Output>>>,
    /// The cancel request, for the job while it runs.
    signal: Signal,
    /// The result can be read, or is about to be.
    over: AtomicBool,
    /// It is, or was, awaited inside other work.
    awaited: AtomicBool,
    /// The executor has counted it. Stored before it is queued, and before its canceller is known.
    accepted: AtomicBool,
    /// It counts against the room in the queue until its work is taken out.
    has_room: bool,
    site: Site,
}

struct Work<B, T> {
    job: B,
    promise: Promise<T>,
    caller: Caller,
    shown: Shown,
    submitted: Began,
}

/// What a job takes along from its submitter.
pub(super) struct Caller {
    /// The loop that is current.
    handle: Option<Handle>,
    span: Span,
}

impl Caller {
    pub(super) fn current() -> Self {
        Caller { handle: Handle::try_current().ok(), span: Span::current() }
    }

    /// Runs a job; its panic is a value.
    pub(super) fn run<T>(self, job: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
        let _entered = self.handle.as_ref().map(Handle::enter);
        self.span.in_scope(|| catch_unwind(AssertUnwindSafe(job)))
    }
}

/// A job for the threads of `core`, ready to be queued.
pub(super) fn prepare<S, B>(
    core: &Arc<Core<S>>,
    job: B,
    has_room: bool,
    site: Site,
) -> (Job<S>, Submission<S, B>)
where
    B: Body<S>,
{
    let cell = Arc::new(Cell {
        core: Arc::clone(core),
        work: Mutex::new(None),
        signal: Signal::new(),
        over: AtomicBool::new(false),
        awaited: AtomicBool::new(false),
        accepted: AtomicBool::new(false),
        has_room,
        site,
    });
    let (promise, result) = promise_of(Arc::clone(&cell) as Arc<dyn Origin>);
    promise.suspend(0);
    let (caller, submitted) = (Caller::current(), core.submitted());
    let shown = shown("job", &core.settings.name, site);
    *lock(&cell.work) = Some(Work { job, promise, caller, shown, submitted });
    let queued = Job { cell: Some(Arc::clone(&cell) as Arc<dyn RunJob<S>>) };
    (queued, Submission { cell, result })
}

impl<S, B: Body<S>> Submission<S, B> {
    /// The closure of a job that didn't get into the queue.
    pub(super) fn take_back(self) -> B {
        let work = lock(&self.cell.work).take();
        work.expect("nobody else has the job, its canceller least of all").job
    }
}

impl<S, B: Body<S>> Cell<S, B> {
    fn take(&self) -> Option<Work<B, B::Output>> {
        let work = lock(&self.work).take()?;
        if self.has_room && self.accepted.load(Relaxed) {
            self.core.leave_room();
        }
        Some(work)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn publish(
        &self,
        promise: Promise<B::Output>,
        outcome: Result<B::Output, ResultError>,
    ) -> Option<Delivery<B::Output>> {
        // Pairs with `awaited_in`: either this sees that it was awaited, or that sees that it is over.
        self.over.store(true, SeqCst);
        if self.awaited.load(SeqCst) {
            self.core.cycle.awaited_in(self.address(), None, || true);
        }
        promise.publish(outcome)
    }

    /// Ends the job unrun.
    fn end(&self, work: Work<B, B::Output>, why: ResultError) {
        let Work { job, promise, .. } = work;
        contain("the drop of a job that never ran", || drop(job));
        if let Some(delivery) = self.publish(promise, Err(why)) {
            delivery.run();
        }
        if self.accepted.load(Relaxed) {
            self.core.note_dropped();
        }
    }
}

impl<S: 'static, B: Body<S>> RunJob<S> for Cell<S, B> {
    fn run(&self, value: &mut Option<S>, publishing: &mut dyn FnMut()) -> (Left, Option<Rest>) {
        let Some(Work { job, promise, caller, shown, submitted }) = self.take() else {
            return (Left::Skipped, None);
        };
        let began = self.core.note_begun(submitted);
        promise.start();
        let result = shown.in_scope(|| caller.run(|| job.call(value)));
        self.core.took.end(began);
        self.signal.end();
        let (outcome, left) = match result {
            Ok(value) => (Ok(value), Left::Ended),
            Err(payload) => {
                let message = panic_message(payload.as_ref()).into();
                (Err(ResultError::Panicked(Panic::new(payload))), Left::Panicked(message))
            }
        };
        publishing();
        let delivery = self.publish(promise, outcome);
        (left, delivery.map(|delivery| Box::new(move || delivery.run()) as Rest))
    }

    fn accepted(&self) {
        self.accepted.store(true, Relaxed);
    }

    fn refuse(&self, why: Refusal) {
        if let Some(work) = self.take() {
            self.end(work, why.into());
        }
    }

    fn token(self: Arc<Self>) -> CancelToken {
        CancelToken::new(self)
    }

    fn site(&self) -> Site {
        self.site
    }
}

impl<S: 'static, B: Body<S>> Signalled for Cell<S, B> {
    fn signal(&self) -> &Signal {
        &self.signal
    }
}

/// A cancelled job goes at once while it is queued; a running one is told.
impl<S: 'static, B: Body<S>> Origin for Cell<S, B> {
    fn cancel(&self, _place: u32) {
        match self.take() {
            Some(work) => self.end(work, ResultError::Cancelled),
            None => self.signal.fire(),
        }
    }

    fn is_this_thread(&self) -> bool {
        self.core.is_alone() && self.core.is_own_thread()
    }

    /// A pool that has no thread left to take the place of one that waits: that runs the job itself.
    fn help(self: Arc<Self>) {
        let core = Arc::clone(&self.core);
        if core.is_own_and_full() && !drives_a_loop() {
            let job = Job { cell: Some(self as Arc<dyn RunJob<S>>) };
            let _nested = Current::nested(job.running());
            let (left, rest) = job.run(&mut None, || ());
            if let Some(rest) = rest {
                contain("the delivery of a job's result", rest);
            }
            core.note_end(&left);
        }
    }

    fn awaited_in(&self, work: Option<usize>) {
        // Calls that their own thread polls have no number.
        if !self.core.is_alone() || work == Some(0) {
            return;
        }
        // Pairs with `publish`.
        self.awaited.store(true, SeqCst);
        self.core.cycle.awaited_in(self.address(), work, || self.over.load(SeqCst));
    }

    fn is_forked(&self) -> bool {
        self.core.is_forked()
    }
}
