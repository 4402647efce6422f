use super::error::ExecutorError;
use super::job::{Job, Submission};
use crate::future::{BlockingFuture, SubmitError};
use crate::sync::{Deadline, WaitError, wait};
use async_channel::{Receiver, SendError, Sender, TryRecvError, TrySendError};
use std::future::Future;
use std::pin::pin;

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
            Err(TrySendError::Closed(_job)) => Err(refused(submission, |job| why().hand_back(job))),
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
                return Err(refused(submission, |job| why().hand_back(job)));
            }
            Err(TrySendError::Full(job)) => job,
        };
        let mut sending = pin!(self.sender.send(job));
        // The job that is dropped with the sending is an empty one by then.
        match wait(deadline, |cx| sending.as_mut().poll(cx)) {
            Ok(Ok(())) => Ok(submission.result),
            Ok(Err(SendError(_job))) => Err(refused(submission, |job| why().hand_back(job))),
            Err(WaitError::TimedOut) => Err(refused(submission, SubmitError::TimedOut)),
            Err(WaitError::WouldDeadlock) => Err(refused(submission, SubmitError::WouldDeadlock)),
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
