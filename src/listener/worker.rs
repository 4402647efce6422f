//! The loop of a thread that serves: take requests in, wait for their replies in order, send them.
//!
//! Every request is settled once: by `settle`, as one of the staged when they leave or are lost, or
//! by the worker's drop.

use super::batch::{self, Batch, Outcome};
use super::core::{Core, Verdict};
use super::reader::is_framing;
use super::serve::{Service, Unanswered};
use super::source::{FrameSource, RequestSource, is_tick};
use super::stats::{count, count_by};
use crate::sync::prim::atomic::{AtomicU64, Ordering};
use crate::sync::{Deadline, contain, discard, park_until, report};
use crate::{BlockingFuture, ResultError, SubmitError};
use std::any::Any;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
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
    reply: Reply<R>,
}

/// Where a reply comes from.
enum Reply<R> {
    /// A call of its own; cancelled when dropped.
    Call(BlockingFuture<Option<R>>),
    /// The oldest of the batches.
    Batch,
    /// Nowhere: there was no room for the call in time.
    NoRoom,
}

/// What came of waiting for a reply.
enum Waited<R> {
    Done(Option<R>),
    Panicked(Box<dyn Any + Send>),
    Cancelled,
    LoopGone,
    Late,
    Stopped,
}

impl<R> From<Result<Option<R>, ResultError>> for Waited<R> {
    fn from(result: Result<Option<R>, ResultError>) -> Self {
        match result {
            Ok(reply) => Waited::Done(reply),
            Err(ResultError::Panicked(panic)) => Waited::Panicked(panic.into_payload()),
            Err(ResultError::LoopClosed) => Waited::LoopGone,
            Err(_) => Waited::Cancelled,
        }
    }
}

/// What a wait ended with.
enum Wait<T> {
    Done(Result<T, ResultError>),
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
        let _nudge = self.core.stop.register(source.interrupter());
        let mut worker = Worker {
            service: self,
            source,
            incoming: VecDeque::new(),
            window: VecDeque::new(),
            batches: VecDeque::new(),
            spare: None,
            staged: 0,
            unbooked: 0,
            unsettled: Cell::new(0),
        };
        let mut end = None;
        loop {
            if end.is_none() && !worker.front_is_ready() {
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

struct Worker<'a, S: FrameSource, A, R, H> {
    service: &'a Service<R, H>,
    source: &'a mut S,
    /// Requests taken in that aren't submitted yet.
    incoming: VecDeque<S::Frame>,
    /// Requests at work, oldest first.
    window: VecDeque<Pending<A, R>>,
    /// The batches among them, oldest first.
    batches: VecDeque<Batch<S::Frame, R>>,
    /// A used-up batch for the next one.
    spare: Option<Batch<S::Frame, R>>,
    /// Replies that were encoded and haven't left.
    staged: usize,
    /// How many of `incoming` aren't in the books yet.
    unbooked: usize,
    /// Requests in the books that nothing has come of yet, wherever they are.
    unsettled: Cell<usize>,
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

    /// Whether the oldest request can be answered without waiting.
    fn front_is_ready(&mut self) -> bool {
        match self.window.front().map(|pending| &pending.reply) {
            Some(Reply::Call(call)) => call.is_done(),
            Some(Reply::Batch) => {
                let bridge = &self.service.bridge;
                self.batches.front_mut().is_none_or(|batch| batch.is_ready(bridge))
            }
            Some(Reply::NoRoom) => true,
            None => false,
        }
    }

    /// Takes in and submits requests: all that are at hand and fit; waits for one only if there is
    /// nothing else to do. An error says that no more will come.
    fn fill(&mut self) -> Result<(), Verdict> {
        while self.window.len() < self.service.pipeline {
            let more = self.take_in();
            if self.incoming.is_empty() {
                return more.map(drop);
            }
            self.submit_incoming()?;
            if !more? {
                break;
            }
        }
        Ok(())
    }

    /// Takes in requests for one batch; false when no more are at hand.
    fn take_in(&mut self) -> Result<bool, Verdict> {
        let room = (self.service.pipeline - self.window.len()).min(batch::LARGEST);
        while self.incoming.len() < room {
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            let idle = self.window.is_empty() && self.incoming.is_empty();
            let next = if idle && self.staged == 0 {
                self.source.next_frame()
            } else {
                self.source.next_ready()
            };
            match next {
                Ok(Some(frame)) => {
                    self.incoming.push_back(frame);
                    self.unbooked += 1;
                }
                Ok(None) if idle && self.staged == 0 => return Err(self.ended()),
                Ok(None) if idle => self.flush()?,
                Ok(None) => return Ok(false),
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
        Ok(true)
    }

    /// A stop looks like the peer's end.
    fn ended(&self) -> Verdict {
        if self.core().stop.is_set() { Verdict::Stopped } else { Verdict::Finished }
    }

    /// Submits what was taken in: several requests as a batch, if there is room for it.
    fn submit_incoming(&mut self) -> Result<(), Verdict> {
        let counters = &self.service.core.counters;
        let booked = std::mem::take(&mut self.unbooked);
        for counter in [&counters.frames, &counters.requests, &counters.in_flight] {
            count_by(counter, booked);
        }
        self.unsettled.set(self.unsettled.get() + booked);
        let deadline = Deadline::after(Some(self.service.reply_timeout));
        let submitted = match self.submit_batch(deadline) {
            Ok(true) => return Ok(()),
            Ok(false) => self.submit_each(deadline),
            Err(verdict) => Err(verdict),
        };
        if submitted.is_err() {
            let lost = std::mem::take(&mut self.incoming).len();
            count_by(&counters.aborted, lost);
            self.forget(lost);
        }
        submitted
    }

    /// False if the requests are to be submitted one by one.
    fn submit_batch(&mut self, deadline: Deadline) -> Result<bool, Verdict> {
        if self.incoming.len() < 2 || !self.has_room_for_a_batch() {
            return Ok(false);
        }
        let before = self.window.len();
        for frame in &self.incoming {
            let address = self.source.address(frame);
            self.window.push_back(Pending { address, deadline, reply: Reply::Batch });
        }
        let mut batch = self.spare.take().unwrap_or_else(Batch::new);
        let service = self.service;
        let refused = match batch.submit(&mut self.incoming, &service.handler, &service.bridge) {
            Ok(()) => {
                self.batches.push_back(batch);
                return Ok(true);
            }
            Err(refused) => refused,
        };
        self.window.truncate(before);
        match refused {
            SubmitError::Full(()) => Ok(false),
            _ => Err(Verdict::LoopGone),
        }
    }

    /// Whether each request could become a call of its own, with some to spare for other threads: one
    /// that couldn't would wait for its turn at the front of the window.
    fn has_room_for_a_batch(&self) -> bool {
        let bridge = &self.service.bridge;
        let wanted = 2 * self.incoming.len();
        bridge.max_in_flight().is_none_or(|limit| limit.saturating_sub(bridge.in_flight()) > wanted)
    }

    fn submit_each(&mut self, deadline: Deadline) -> Result<(), Verdict> {
        while let Some(frame) = self.incoming.pop_front() {
            let address = self.source.address(&frame);
            let handler = Arc::clone(&self.service.handler);
            let reply = match self.submit(async move { handler(frame).await }, deadline) {
                Ok(Some(call)) => Reply::Call(call),
                Ok(None) => Reply::NoRoom,
                Err(verdict) => {
                    self.settle(&self.core().counters.aborted);
                    return Err(verdict);
                }
            };
            self.window.push_back(Pending { address, deadline, reply });
        }
        Ok(())
    }

    /// Submits a call; `None` if there was no room for it until the deadline.
    fn submit<F>(
        &mut self,
        call: F,
        deadline: Deadline,
    ) -> Result<Option<BlockingFuture<Option<R>>>, Verdict>
    where
        F: Future<Output = Option<R>> + Send + 'static,
    {
        match self.service.bridge.try_run_coroutine_threadsafe(call) {
            Ok(call) => Ok(Some(call.cancel_on_drop())),
            Err(SubmitError::Full(call)) => self.submit_slowly(call, deadline),
            Err(_) => Err(Verdict::LoopGone),
        }
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
                Err(SubmitError::TimedOut(back)) => call = back,
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
    fn answer(&mut self, pending: Pending<S::Address, R>) -> Result<(), Verdict> {
        let Pending { address, deadline, reply } = pending;
        let waited = match reply {
            Reply::Call(call) => self.wait_for_call(call, deadline),
            Reply::Batch => self.wait_for_batch(deadline),
            Reply::NoRoom => Ok(Waited::Late),
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
            Waited::Done(Some(reply)) => self.stage(&address, reply)?,
            Waited::Done(None) => self.settle(&counters.no_reply),
            Waited::Panicked(payload) => {
                report("a handler", payload.as_ref());
                discard(payload);
                self.settle(&counters.panicked);
                return self.fall_back(&address, Unanswered::Panicked);
            }
            Waited::Late => {
                self.settle(&counters.late);
                return self.fall_back(&address, Unanswered::TimedOut);
            }
            Waited::Cancelled => self.settle(&counters.aborted),
            Waited::LoopGone => {
                self.settle(&counters.aborted);
                return Err(Verdict::LoopGone);
            }
            Waited::Stopped => {
                self.settle(&counters.aborted);
                return Err(Verdict::Stopped);
            }
        }
        self.flush_if_full()
    }

    fn wait_for_call(
        &mut self,
        mut call: BlockingFuture<Option<R>>,
        deadline: Deadline,
    ) -> Result<Waited<R>, Verdict> {
        Ok(match self.wait(&mut call, deadline)? {
            Wait::Done(result) => result.into(),
            Wait::Late => Waited::Late,
            Wait::Stopped => Waited::Stopped,
        })
    }

    /// Waits for the oldest request of the oldest batch.
    fn wait_for_batch(&mut self, deadline: Deadline) -> Result<Waited<R>, Verdict> {
        let outcome = match self.batches.front_mut().and_then(Batch::take) {
            Some(outcome) => Ok(outcome),
            None => {
                let Some(mut batch) = self.batches.pop_front() else { return Ok(Waited::LoopGone) };
                let instead = match batch.call.as_mut() {
                    None => Waited::LoopGone,
                    Some(call) => match self.wait(call, deadline)? {
                        Wait::Done(_) => Waited::LoopGone,
                        Wait::Late => Waited::Late,
                        Wait::Stopped => return Ok(Waited::Stopped),
                    },
                };
                if !matches!(instead, Waited::Late) {
                    batch.call = None;
                    batch.submit_left_out(&self.service.bridge);
                }
                let outcome = batch.take_or_give_up().ok_or(instead);
                self.batches.push_front(batch);
                outcome
            }
        };
        if self.batches.front().is_some_and(Batch::is_used_up) {
            self.spare = self.batches.pop_front().and_then(Batch::recycle);
        }
        match outcome {
            Err(instead) => Ok(instead),
            Ok(Outcome::Done(reply)) => Ok(Waited::Done(reply)),
            Ok(Outcome::Panicked(payload)) => Ok(Waited::Panicked(payload)),
            Ok(Outcome::LoopGone) => Ok(Waited::LoopGone),
            Ok(Outcome::Waits(call)) => self.wait_for_call(call, deadline),
            Ok(Outcome::NoRoom(call)) => match self.submit(call, deadline)? {
                Some(call) => self.wait_for_call(call, deadline),
                None => Ok(Waited::Late),
            },
        }
    }

    /// Waits until the call is over, its time is up, or the listener stops.
    fn wait<T>(
        &mut self,
        call: &mut BlockingFuture<T>,
        deadline: Deadline,
    ) -> Result<Wait<T>, Verdict> {
        call.spin(deadline);
        let stop = Arc::clone(&self.core().stop);
        let mut stopped = pin!(stop.until_set());
        let gathered = Deadline::after((self.staged > 0).then_some(GATHER));
        loop {
            let until = if self.staged > 0 { sooner(gathered, deadline) } else { deadline };
            let waited = park_until(until, |cx| match Pin::new(&mut *call).poll(cx) {
                Poll::Ready(result) => Poll::Ready(Wait::Done(result)),
                Poll::Pending => stopped.as_mut().poll(cx).map(|()| Wait::Stopped),
            });
            match waited {
                Some(ended) => return Ok(ended),
                None if deadline.passed() => return Ok(Wait::Late),
                // What is ready shouldn't wait for what isn't.
                None => self.flush()?,
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
        let staged = std::mem::take(&mut self.staged);
        self.forget(staged);
    }

    /// Enters the outcome of a request.
    fn settle(&self, column: &AtomicU64) {
        count(column);
        self.forget(1);
    }

    /// Takes requests off what is in flight; their outcome is in the books.
    fn forget(&self, requests: usize) {
        self.unsettled.set(self.unsettled.get() - requests);
        self.core().counters.in_flight.fetch_sub(requests as u64, Ordering::AcqRel);
    }
}

impl<S: FrameSource, A, R, H> Drop for Worker<'_, S, A, R, H> {
    fn drop(&mut self) {
        let counters = &self.service.core.counters;
        // A source that panics can leave some behind, one of them in nobody's hands.
        for counter in [&counters.frames, &counters.requests, &counters.aborted] {
            count_by(counter, self.unbooked);
        }
        let unsettled = self.unsettled.get();
        count_by(&counters.aborted, unsettled - self.staged);
        // Encoded, but the source went before they could leave.
        count_by(&counters.reply_errors, self.staged);
        counters.in_flight.fetch_sub(unsettled as u64, Ordering::AcqRel);
    }
}

fn sooner(one: Deadline, other: Deadline) -> Deadline {
    match (one.remaining(), other.remaining()) {
        (Some(one_left), Some(other_left)) if other_left < one_left => other,
        (None, _) => other,
        _ => one,
    }
}
