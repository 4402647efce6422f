use super::job::{Job, Submission};
use crate::future::{BlockingFuture, ExecutorError};
use crate::sync::context::drives_a_loop;
use crate::sync::{Deadline, Woken, with_parker};
use async_channel::{Receiver, SendError, Sender, TryRecvError, TrySendError};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// A queue of jobs, with both ends: closed by hand, drained by hand.
pub(super) struct Inbox<C: ?Sized + 'static> {
    sender: Sender<Job<C>>,
    receiver: Receiver<Job<C>>,
}

impl<C: ?Sized + 'static> Inbox<C> {
    pub(super) fn new(capacity: Option<usize>) -> Self {
        let (sender, receiver) =
            capacity.map_or_else(async_channel::unbounded, async_channel::bounded);
        Inbox { sender, receiver }
    }

    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    pub(super) fn close(&self) {
        self.receiver.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.receiver.is_closed()
    }

    pub(super) fn receiver(&self) -> &Receiver<Job<C>> {
        &self.receiver
    }

    /// The next job; `Err(true)` when there will never be another.
    pub(super) fn take(&self) -> Result<Job<C>, bool> {
        self.receiver.try_recv().map_err(|error| error == TryRecvError::Closed)
    }

    /// Resolves everything that is queued; how many were still owed.
    pub(super) fn refuse_all(&self, why: &ExecutorError) -> usize {
        let queued = std::iter::from_fn(|| self.receiver.try_recv().ok());
        queued.filter_map(|job| job.refuse(why.clone()).then_some(())).count()
    }

    pub(super) fn try_put<F, T>(
        &self,
        job: Job<C>,
        submission: Submission<C, F, T>,
        why: impl FnOnce() -> ExecutorError,
    ) -> Result<BlockingFuture<T>, SubmitError<F>> {
        match self.sender.try_send(job) {
            Ok(()) => Ok(submission.result),
            Err(TrySendError::Full(_job)) => Err(refused(submission, SubmitError::Full)),
            Err(TrySendError::Closed(_job)) => {
                Err(refused(submission, |job| SubmitError::Refused(why(), job)))
            }
        }
    }

    /// Puts a job into the queue if there is room.
    pub(super) fn offer(&self, job: Job<C>) -> Result<(), TrySendError<Job<C>>> {
        self.sender.try_send(job)
    }

    /// Puts a job into the queue, waiting for room until the deadline.
    pub(super) fn put<F, T>(
        &self,
        job: Job<C>,
        submission: Submission<C, F, T>,
        deadline: Deadline,
        why: impl FnOnce() -> ExecutorError,
    ) -> Result<BlockingFuture<T>, SubmitError<F>> {
        let job = match self.sender.try_send(job) {
            Ok(()) => return Ok(submission.result),
            Err(TrySendError::Closed(_job)) => {
                return Err(refused(submission, |job| SubmitError::Refused(why(), job)));
            }
            Err(TrySendError::Full(_job)) if drives_a_loop() => {
                return Err(refused(submission, SubmitError::WouldDeadlock));
            }
            Err(TrySendError::Full(job)) => job,
        };
        let mut sending = pin!(self.sender.send(job));
        match wait_for(sending.as_mut(), deadline) {
            Some(Ok(())) => Ok(submission.result),
            Some(Err(SendError(_job))) => {
                Err(refused(submission, |job| SubmitError::Refused(why(), job)))
            }
            // The job that is dropped with the sending is an empty one by then.
            None => Err(refused(submission, SubmitError::TimedOut)),
        }
    }

    /// Puts a job into the queue when there is room; what comes back was refused.
    pub(super) fn sending(
        &self,
        job: Job<C>,
    ) -> impl Future<Output = Result<(), Job<C>>> + Send + use<C> {
        let sender = self.sender.clone();
        async move { sender.send(job).await.map_err(|SendError(job)| job) }
    }
}

/// Takes the closure back before its job is dropped.
pub(super) fn refused<C: ?Sized, F, T>(
    submission: Submission<C, F, T>,
    error: impl FnOnce(F) -> SubmitError<F>,
) -> SubmitError<F> {
    error(submission.take_back().expect("nobody else has the job, its canceller least of all"))
}

/// Drives a future on this thread until the deadline.
pub(super) fn wait_for<F: Future>(
    mut future: Pin<&mut F>,
    deadline: Deadline,
) -> Option<F::Output> {
    with_parker(|parker| {
        let mut context = Context::from_waker(parker.waker());
        let mut in_time = true;
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return Some(output),
                Poll::Pending if in_time => {
                    in_time = parker.park(deadline) == Woken::Notified;
                }
                Poll::Pending => return None,
            }
        }
    })
}

/// A submission that was refused; the closure is inside.
///
/// # Examples
///
/// ```
/// use callbridge::executor::{SubmitError, ThreadPool};
/// use std::time::Duration;
///
/// let pool = ThreadPool::builder().build();
/// let _ = pool.shutdown_blocking(Duration::ZERO);
/// let error = pool.try_submit(|| 5).unwrap_err();
/// assert!(matches!(error, SubmitError::Refused(..)));
/// assert_eq!(error.into_inner()(), 5);
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError<F> {
    /// The queue is full; only the forms that don't wait say so.
    #[error("the queue is full: wait for room, or make it longer")]
    Full(F),
    /// The queue stayed full until the timeout.
    #[error("the queue stayed full: try again, or make it longer")]
    TimedOut(F),
    /// Waiting for room here would block an event loop.
    #[error("waiting for room here would block an event loop: await `submit_async` instead")]
    WouldDeadlock(F),
    /// The executor takes no work.
    #[error("{0}")]
    Refused(ExecutorError, F),
}

impl<F> SubmitError<F> {
    pub(super) fn map<G>(self, with: impl FnOnce(F) -> G) -> SubmitError<G> {
        match self {
            SubmitError::Full(job) => SubmitError::Full(with(job)),
            SubmitError::TimedOut(job) => SubmitError::TimedOut(with(job)),
            SubmitError::WouldDeadlock(job) => SubmitError::WouldDeadlock(with(job)),
            SubmitError::Refused(why, job) => SubmitError::Refused(why, with(job)),
        }
    }

    /// The refused closure.
    ///
    /// # Examples
    ///
    /// See [`SubmitError`].
    pub fn into_inner(self) -> F {
        match self {
            SubmitError::Full(job)
            | SubmitError::TimedOut(job)
            | SubmitError::WouldDeadlock(job)
            | SubmitError::Refused(_, job) => job,
        }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full(_) => f.write_str("Full(..)"),
            SubmitError::TimedOut(_) => f.write_str("TimedOut(..)"),
            SubmitError::WouldDeadlock(_) => f.write_str("WouldDeadlock(..)"),
            SubmitError::Refused(why, _) => write!(f, "Refused({why:?}, ..)"),
        }
    }
}
