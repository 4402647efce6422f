//! One piece of blocking work, from its submission to its result.
//!
//! Invariants:
//! 1. `work` is taken out once: by the thread that runs it, by a cancel while it is queued, by the
//!    executor that refuses it, or by the submitter that takes it back. Who takes it resolves it.
//! 2. The cell and its promise hold each other until the work is taken out, which every path does.
//! 3. User code (the closure, its drop, the result's wakers and callbacks) runs unlocked.

use super::error::ExecutorError;
use super::token::{CancelToken, Signal, Signalled};
use crate::future::{BlockingFuture, Origin, Panic, Promise, ResultError, promise_of};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Span, contain, panic_message};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Where a job was submitted.
pub(super) type Site = &'static Location<'static>;

/// How a job left the thread.
pub(super) enum Left {
    Ended,
    Panicked(Box<str>),
    /// It was cancelled while it was queued.
    Skipped,
}

trait RunJob<C: ?Sized>: Send + Sync {
    fn run(&self, context: &mut C, delivering: &mut dyn FnMut()) -> Left;
    fn refuse(&self, why: ExecutorError) -> bool;
    fn token(self: Arc<Self>) -> CancelToken;
    fn site(&self) -> Site;
}

/// What a submitter hands over: a closure, with or without use for the context.
pub(super) trait Body<C: ?Sized>: Send + 'static {
    type Output: Send + 'static;

    fn call(self, context: &mut C) -> Self::Output;
}

/// A closure that needs no context.
pub(super) struct Plain<F>(pub(super) F);

impl<F, T> Body<()> for Plain<F>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn call(self, (): &mut ()) -> T {
        self.0()
    }
}

/// A closure that is lent the context.
pub(super) struct On<F>(pub(super) F);

impl<C, F, T> Body<C> for On<F>
where
    C: ?Sized,
    F: FnOnce(&mut C) -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = T;

    fn call(self, context: &mut C) -> T {
        self.0(context)
    }
}

/// A job in a queue, its types forgotten; dropped unrun, it is refused as by a closed executor.
pub(super) struct Job<C: ?Sized + 'static> {
    /// Taken when the job is run or refused.
    cell: Option<Arc<dyn RunJob<C>>>,
}

impl<C: ?Sized> Job<C> {
    /// Runs the job; `delivering` is called between its end and the delivery of its result.
    pub(super) fn run(mut self, context: &mut C, mut delivering: impl FnMut()) -> Left {
        match self.cell.take() {
            Some(cell) => cell.run(context, &mut delivering),
            None => Left::Skipped,
        }
    }

    /// Resolves the job unrun; whether that was still owed.
    pub(super) fn refuse(mut self, why: ExecutorError) -> bool {
        self.cell.take().is_some_and(|cell| cell.refuse(why))
    }

    pub(super) fn token_and_site(&self) -> Option<(CancelToken, Site)> {
        self.cell.as_ref().map(|cell| (Arc::clone(cell).token(), cell.site()))
    }
}

impl<C: ?Sized> Drop for Job<C> {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            cell.refuse(ExecutorError::Closed);
        }
    }
}

/// A job and its result with their types, for the submitter to take the closure back.
pub(super) struct Submission<C: ?Sized, B, T> {
    cell: Arc<Cell<C, B, T>>,
    pub(super) result: BlockingFuture<T>,
}

struct Cell<C: ?Sized, B, T> {
    work: Mutex<Option<Work<B, T>>>,
    /// The cancel request, for the job while it runs.
    signal: Signal,
    site: Site,
    /// A job borrows its context while it runs and owns none.
    context: PhantomData<fn(&mut C)>,
}

struct Work<B, T> {
    job: B,
    promise: Promise<T>,
    /// The loop of the submitter, current for the job too.
    handle: Option<Handle>,
    span: Span,
}

/// A job for a context `C`, ready to be queued.
pub(super) fn prepare<C, B>(job: B, site: Site) -> (Job<C>, Submission<C, B, B::Output>)
where
    C: ?Sized + 'static,
    B: Body<C>,
{
    let cell = Arc::new(Cell {
        work: Mutex::new(None),
        signal: Signal::new(),
        site,
        context: PhantomData,
    });
    let (promise, result) = promise_of(Arc::clone(&cell) as Arc<dyn Origin>);
    promise.suspend(0);
    let handle = Handle::try_current().ok();
    *lock(&cell.work) = Some(Work { job, promise, handle, span: Span::current() });
    let queued = Job { cell: Some(Arc::clone(&cell) as Arc<dyn RunJob<C>>) };
    (queued, Submission { cell, result })
}

impl<C: ?Sized, B, T> Submission<C, B, T> {
    /// The closure of a job that didn't get into the queue.
    pub(super) fn take_back(self) -> Option<B> {
        let work = lock(&self.cell.work).take();
        work.map(|work| work.job)
    }
}

impl<C, B> RunJob<C> for Cell<C, B, B::Output>
where
    C: ?Sized + 'static,
    B: Body<C>,
{
    fn run(&self, context: &mut C, delivering: &mut dyn FnMut()) -> Left {
        let Some(Work { job, promise, handle, span }) = lock(&self.work).take() else {
            return Left::Skipped;
        };
        promise.start();
        let result = {
            let _entered = handle.as_ref().map(Handle::enter);
            span.in_scope(|| catch_unwind(AssertUnwindSafe(|| job.call(context))))
        };
        delivering();
        match result {
            Ok(value) => {
                promise.resolve(Ok(value));
                Left::Ended
            }
            Err(payload) => {
                let message = panic_message(payload.as_ref()).into();
                promise.resolve(Err(ResultError::Panicked(Panic::new(payload))));
                Left::Panicked(message)
            }
        }
    }

    fn refuse(&self, why: ExecutorError) -> bool {
        let Some(Work { job, promise, .. }) = lock(&self.work).take() else { return false };
        contain("the drop of a refused job", || drop(job));
        promise.resolve(Err(why.into()));
        true
    }

    fn token(self: Arc<Self>) -> CancelToken {
        CancelToken::new(self)
    }

    fn site(&self) -> Site {
        self.site
    }
}

impl<C: ?Sized, B: Send, T: Send> Signalled for Cell<C, B, T> {
    fn signal(&self) -> &Signal {
        &self.signal
    }
}

/// A cancelled job goes at once while it is queued; a running one is told.
impl<C, B, T> Origin for Cell<C, B, T>
where
    C: ?Sized + 'static,
    B: Send + 'static,
    T: Send + 'static,
{
    fn cancel(&self, _place: u32) {
        let work = lock(&self.work).take();
        match work {
            Some(Work { job, promise, .. }) => {
                contain("the drop of a cancelled job", || drop(job));
                promise.resolve(Err(ResultError::Cancelled));
            }
            None => self.signal.fire(),
        }
    }
}
