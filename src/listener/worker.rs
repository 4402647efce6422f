//! The loop of a thread that serves: take requests in, wait for their replies in order, send them.
//!
//! Every request is settled once: by `settle`, as one of the staged when they leave or are lost, or
//! by the worker's drop.

use super::core::{Core, Verdict};
use super::reader::is_framing;
use super::serve::{Service, Unanswered};
use super::source::{Interrupter, RequestSource, is_tick};
use super::stats::{count, count_by, uncount};
use crate::sync::prim::atomic::{AtomicU64, Ordering};
use crate::sync::{Deadline, Parker, contain, discard, report, with_parker};
use crate::{BlockingFuture, ResultError, SubmitTimeoutError, TrySubmitError};
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How long replies that are ready wait for the next one, so that they leave together.
const GATHER: Duration = Duration::from_micros(500);

/// How often a thread that waits for the bridge to have room looks at its stop flag.
const ROOM: Duration = Duration::from_millis(20);

/// How many replies are gathered at most.
const GATHERED: usize = 256;

/// A request at work.
struct Pending<A, R> {
    address: A,
    deadline: Deadline,
    /// Cancelled when dropped; `None` if there was no room for it in time.
    reply: Option<BlockingFuture<Option<R>>>,
}

/// What came of waiting for a reply.
enum Waited<R> {
    Done(Result<Option<R>, ResultError>),
    Late,
    Stopped,
}

impl<R, H> Service<R, H> {
    /// Serves one source until it ends or the listener stops.
    pub(super) fn run<S, Fut>(&self, source: &mut S) -> Verdict
    where
        S: RequestSource<R>,
        R: Send + 'static,
        H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        with_parker(|parker| self.run_with(source, parker))
    }

    fn run_with<S, Fut>(&self, source: &mut S, parker: &Parker) -> Verdict
    where
        S: RequestSource<R>,
        R: Send + 'static,
        H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let waker = parker.waker().clone();
        let stop = &self.core.stop;
        let _nudges = (
            stop.register(source.interrupter()),
            stop.register(Interrupter::new(move || waker.wake_by_ref())),
        );
        let mut worker =
            Worker { service: self, source, parker, window: VecDeque::new(), staged: 0 };
        let mut end = None;
        loop {
            if end.is_none() {
                end = worker.fill().err();
            }
            let answered = match worker.window.pop_front() {
                Some(pending) => worker.answer(pending),
                None => match end {
                    // Replies to what came before the end still go out.
                    Some(verdict) => return worker.flush().err().unwrap_or(verdict),
                    None => Ok(()),
                },
            };
            match answered {
                Ok(()) => {}
                // What else is in the window resolves at once, and replies still go out.
                Err(Verdict::LoopGone) => end = Some(Verdict::LoopGone),
                Err(verdict) => return verdict,
            }
        }
    }
}

struct Worker<'a, S, A, R, H> {
    service: &'a Service<R, H>,
    source: &'a mut S,
    parker: &'a Parker,
    /// Requests at work, oldest first.
    window: VecDeque<Pending<A, R>>,
    /// Replies that were encoded and haven't left.
    staged: usize,
}

impl<S, R, H, Fut> Worker<'_, S, S::Address, R, H>
where
    S: RequestSource<R>,
    R: Send + 'static,
    H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<R>> + Send + 'static,
{
    fn core(&self) -> &Core {
        &self.service.core
    }

    /// Takes in requests: all that are at hand and fit; waits for one only if there is nothing else
    /// to do. An error says that no more will come.
    fn fill(&mut self) -> Result<(), Verdict> {
        while self.window.len() < self.service.pipeline {
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            let idle = self.window.is_empty();
            let next = if idle && self.staged == 0 {
                self.source.next_frame()
            } else {
                self.source.next_ready()
            };
            match next {
                Ok(Some(frame)) => self.submit(frame)?,
                Ok(None) if idle && self.staged == 0 => return Err(self.ended()),
                Ok(None) if idle => self.flush()?,
                Ok(None) => return Ok(()),
                Err(error) if is_tick(&error) => {}
                Err(_) if self.core().stop.is_set() => return Err(Verdict::Stopped),
                Err(error) => {
                    if is_framing(&error) {
                        count(&self.core().counters.decode_errors);
                    }
                    return Err(Verdict::Failed(error));
                }
            }
        }
        Ok(())
    }

    /// A stop looks like the peer's end.
    fn ended(&self) -> Verdict {
        if self.core().stop.is_set() { Verdict::Stopped } else { Verdict::Finished }
    }

    fn submit(&mut self, frame: S::Frame) -> Result<(), Verdict> {
        let counters = &self.service.core.counters;
        for counter in [&counters.frames, &counters.requests, &counters.in_flight] {
            count(counter);
        }
        let deadline = Deadline::after(Some(self.service.reply_timeout));
        let address = self.source.address(&frame);
        let handler = Arc::clone(&self.service.handler);
        let call = async move { handler(frame).await };
        let reply = match self.service.bridge.try_run_coroutine_threadsafe(call) {
            Ok(reply) => Some(reply.cancel_on_drop()),
            Err(TrySubmitError::Full(call)) => match self.submit_slowly(call, deadline) {
                Ok(reply) => reply,
                Err(verdict) => {
                    self.settle(&self.core().counters.aborted);
                    return Err(verdict);
                }
            },
            Err(_) => {
                self.settle(&self.core().counters.aborted);
                return Err(Verdict::LoopGone);
            }
        };
        self.window.push_back(Pending { address, deadline, reply });
        Ok(())
    }

    /// Waits for room in the bridge; `None` if there was none until the deadline.
    fn submit_slowly<F>(
        &mut self,
        mut call: F,
        deadline: Deadline,
    ) -> Result<Option<BlockingFuture<Option<R>>>, Verdict>
    where
        F: Future<Output = Option<R>> + Send + 'static,
    {
        self.flush()?;
        loop {
            let wait = deadline.remaining().map_or(ROOM, |left| left.min(ROOM));
            match self.service.bridge.run_coroutine_threadsafe_timeout(call, wait) {
                Ok(reply) => return Ok(Some(reply.cancel_on_drop())),
                Err(SubmitTimeoutError::TimedOut(back)) => call = back,
                Err(_) => return Err(Verdict::LoopGone),
            }
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            if deadline.passed() {
                return Ok(None);
            }
        }
    }

    /// Waits for a reply and stages it, or whatever takes its place.
    fn answer(&mut self, mut pending: Pending<S::Address, R>) -> Result<(), Verdict> {
        let waited = match &mut pending.reply {
            Some(reply) => self.wait(reply, pending.deadline),
            None => Ok(Waited::Late),
        };
        let waited = match waited {
            Ok(waited) => waited,
            Err(verdict) => {
                self.settle(&self.core().counters.aborted);
                return Err(verdict);
            }
        };
        let counters = &self.service.core.counters;
        match waited {
            Waited::Done(Ok(Some(reply))) => self.stage(&pending.address, reply)?,
            Waited::Done(Ok(None)) => self.settle(&counters.no_reply),
            Waited::Done(Err(ResultError::Panicked(panic))) => {
                let payload = panic.into_payload();
                report("a handler", payload.as_ref());
                discard(payload);
                self.settle(&counters.panicked);
                return self.fall_back(&pending.address, Unanswered::Panicked);
            }
            Waited::Done(Err(ResultError::LoopClosed)) => {
                self.settle(&counters.aborted);
                return Err(Verdict::LoopGone);
            }
            Waited::Done(Err(_)) => self.settle(&counters.aborted),
            Waited::Late => {
                self.settle(&counters.late);
                drop(pending.reply.take());
                return self.fall_back(&pending.address, Unanswered::TimedOut);
            }
            Waited::Stopped => {
                self.settle(&counters.aborted);
                return Err(Verdict::Stopped);
            }
        }
        self.flush_if_full()
    }

    /// Waits until the reply is there, its time is up, or the listener stops.
    fn wait(
        &mut self,
        reply: &mut BlockingFuture<Option<R>>,
        deadline: Deadline,
    ) -> Result<Waited<R>, Verdict> {
        let waker = self.parker.waker().clone();
        let gathered = Deadline::after((self.staged > 0).then_some(GATHER));
        loop {
            let mut context = Context::from_waker(&waker);
            if let Poll::Ready(result) = Pin::new(&mut *reply).poll(&mut context) {
                return Ok(Waited::Done(result));
            }
            if self.core().stop.is_set() {
                return Ok(Waited::Stopped);
            }
            if deadline.passed() {
                return Ok(Waited::Late);
            }
            if self.staged == 0 {
                self.parker.park(deadline);
            } else if gathered.passed() {
                // What is ready shouldn't wait for what isn't.
                self.flush()?;
            } else {
                self.parker.park(sooner(gathered, deadline));
            }
        }
    }

    fn stage(&mut self, address: &S::Address, reply: R) -> Result<(), Verdict> {
        match self.source.answer(address, reply) {
            Ok(true) => self.settle(&self.core().counters.replies),
            Ok(false) => self.staged += 1,
            Err(_) => {
                self.settle(&self.core().counters.reply_errors);
                return self.leave_a_gap();
            }
        }
        Ok(())
    }

    /// A request gets no reply: where only their order tells replies apart, there can be no more.
    fn leave_a_gap(&mut self) -> Result<(), Verdict> {
        if !self.service.close_on_missing_reply || !self.source.replies_in_order() {
            return Ok(());
        }
        self.flush()?;
        let text = "a request has no reply: the connection is closed, or later replies would be \
                    taken for the wrong requests";
        Err(Verdict::Failed(io::Error::other(text)))
    }

    /// Sends the fallback, if there is one; the request itself is settled.
    fn fall_back(&mut self, address: &S::Address, why: Unanswered) -> Result<(), Verdict> {
        let fallback = self.service.fallback.as_ref();
        let reply = fallback.and_then(|make| contain("a fallback", || make(why)).flatten());
        if let Some(reply) = reply {
            if self.source.answer(address, reply).is_ok() {
                count(&self.core().counters.fallbacks);
                return self.flush();
            }
        }
        self.leave_a_gap()?;
        self.flush()
    }

    fn flush_if_full(&mut self) -> Result<(), Verdict> {
        if self.staged >= GATHERED { self.flush() } else { Ok(()) }
    }

    /// Sends what is staged, waiting for a slow peer up to the write timeout.
    fn flush(&mut self) -> Result<(), Verdict> {
        let mut patience = None;
        let error = loop {
            match self.source.flush() {
                Ok(true) => {
                    let counters = &self.service.core.counters;
                    count_by(&counters.replies, self.staged);
                    self.forget_staged();
                    return Ok(());
                }
                Ok(false) => patience = None,
                Err(error) if is_tick(&error) => {
                    if self.core().stop.is_set() {
                        break None;
                    }
                    let timeout = self.service.core.write_timeout;
                    if patience.get_or_insert_with(|| Deadline::after(Some(timeout))).passed() {
                        let text = "the peer doesn't read its replies: the connection is given up";
                        break Some(io::Error::new(ErrorKind::TimedOut, text));
                    }
                }
                Err(_) if self.core().stop.is_set() => break None,
                Err(error) => break Some(error),
            }
        };
        count_by(&self.service.core.counters.reply_errors, self.staged);
        self.forget_staged();
        Err(error.map_or(Verdict::Stopped, Verdict::Failed))
    }

    fn forget_staged(&mut self) {
        let in_flight = &self.service.core.counters.in_flight;
        in_flight.fetch_sub(self.staged as u64, Ordering::AcqRel);
        self.staged = 0;
    }

    /// Enters the outcome of a request.
    fn settle(&self, column: &AtomicU64) {
        count(column);
        uncount(&self.core().counters.in_flight);
    }
}

impl<S, A, R, H> Drop for Worker<'_, S, A, R, H> {
    fn drop(&mut self) {
        let counters = &self.service.core.counters;
        count_by(&counters.aborted, self.window.len());
        // Encoded, but the source went before they could leave.
        count_by(&counters.reply_errors, self.staged);
        let left = self.window.len() + self.staged;
        counters.in_flight.fetch_sub(left as u64, Ordering::AcqRel);
    }
}

fn sooner(one: Deadline, other: Deadline) -> Deadline {
    match (one.remaining(), other.remaining()) {
        (Some(one_left), Some(other_left)) if other_left < one_left => other,
        (None, _) => other,
        _ => one,
    }
}
