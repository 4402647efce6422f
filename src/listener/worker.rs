//! The loop of a thread that serves: take requests in, wait for their replies in order, send them.
//!
//! Every request is settled once: by `settle`, as one of the staged when they leave or are lost, or
//! by the worker's drop.

use super::core::{Core, Verdict};
use super::reader::is_framing;
use super::serve::{FirstPoll, Service, Unanswered};
use super::source::{FrameSource, RequestSource, is_tick};
use super::stats::{count, count_by};
use crate::bridge::Polled;
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
use std::time::{Duration, Instant};

/// How long replies that are ready wait for the next one, so that they leave together.
const GATHER: Duration = Duration::from_micros(500);

/// A first poll that took longer has its successors begin on the loop, where they run in parallel.
const SLOW: Duration = Duration::from_micros(50);

/// So many begin there, until the next is tried here.
const SUCCESSORS: usize = 16;

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
    /// The handler was done at its first poll.
    Done(Result<Option<R>, ResultError>),
    /// It goes on as a call; cancelled when dropped.
    Call(BlockingFuture<Option<R>>),
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
            window: VecDeque::new(),
            slot: Box::pin(None),
            on_the_loop: 0,
            staged: 0,
            staged_since: Instant::now(),
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
                // What else is in the window resolves at once, and replies still go out, unless they
                // would be taken for the replies to others.
                Err(Verdict::LoopGone) if !worker.source.replies_in_order() => {
                    end = Some(Verdict::LoopGone);
                }
                Err(Verdict::LoopGone) => {
                    return worker.flush().err().unwrap_or(Verdict::LoopGone);
                }
                Err(verdict) => return verdict,
            }
        }
    }
}

struct Worker<'a, S: FrameSource, A, R, H, Fut> {
    service: &'a Service<R, H>,
    source: &'a mut S,
    /// Requests at work, oldest first.
    window: VecDeque<Pending<A, R>>,
    /// Where a handler is polled first; goes with it if it has to wait.
    slot: Pin<Box<Option<Fut>>>,
    /// How many handlers are to begin on the loop, since one was slow.
    on_the_loop: usize,
    /// Replies that were encoded and haven't left, and since when there are some.
    staged: usize,
    staged_since: Instant,
    /// Requests in the books that nothing has come of yet, wherever they are.
    unsettled: Cell<usize>,
}

impl<S, R, H, Fut> Worker<'_, S, S::Address, R, H, Fut>
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
    fn front_is_ready(&self) -> bool {
        match self.window.front().map(|pending| &pending.reply) {
            Some(Reply::Call(call)) => call.is_done(),
            Some(Reply::Done(_) | Reply::NoRoom) => true,
            None => false,
        }
    }

    /// Takes in requests and begins with them, until the oldest can be answered, no more fit, or no
    /// more are at hand. An error says that no more will come.
    fn fill(&mut self) -> Result<(), Verdict> {
        while self.window.len() < self.service.pipeline && !self.front_is_ready() {
            let Some(frame) = self.next_request()? else { return Ok(()) };
            let counters = &self.service.core.counters;
            for counter in [&counters.frames, &counters.requests, &counters.in_flight] {
                count(counter);
            }
            self.unsettled.set(self.unsettled.get() + 1);
            let address = self.source.address(&frame);
            let deadline = Deadline::after(self.service.reply_timeout);
            match self.begin(frame, deadline) {
                Ok(reply) => self.window.push_back(Pending { address, deadline, reply }),
                Err(verdict) => {
                    self.settle(&self.core().counters.aborted);
                    return Err(verdict);
                }
            }
        }
        Ok(())
    }

    /// The next request, or `None` if none is at hand and there is something else to do.
    fn next_request(&mut self) -> Result<Option<S::Frame>, Verdict> {
        loop {
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            if self.staged > 0 && self.staged_since.elapsed() > GATHER {
                self.flush()?;
            }
            let idle = self.window.is_empty();
            let next = match idle && self.staged == 0 {
                true => self.source.next_frame(),
                false => self.source.next_ready(),
            };
            match next {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) if idle && self.staged == 0 => return Err(self.ended()),
                Ok(None) if idle => self.flush()?,
                Ok(None) => return Ok(None),
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
    }

    /// A stop looks like the peer's end.
    fn ended(&self) -> Verdict {
        if self.core().stop.is_set() { Verdict::Stopped } else { Verdict::Finished }
    }

    /// Begins with a request: polls its handler here, as long as handlers are quick.
    fn begin(&mut self, frame: S::Frame, deadline: Deadline) -> Result<Reply<R>, Verdict> {
        let handler = &self.service.handler;
        let (mut frame, began) = (Some(frame), Instant::now());
        if self.service.first_poll == FirstPoll::Here && self.on_the_loop == 0 {
            let make = || handler(frame.take().expect("made once"));
            let polled = self.service.bridge.call_or_start(make, &mut self.slot);
            match polled {
                Ok(Polled::Ready(outcome)) => {
                    if began.elapsed() > SLOW {
                        self.on_the_loop = SUCCESSORS;
                    }
                    return Ok(Reply::Done(outcome));
                }
                Ok(Polled::Started(call)) => return Ok(Reply::Call(call.cancel_on_drop())),
                Err(SubmitError::Full(())) => {}
                Err(_) => return Err(Verdict::LoopGone),
            }
        }
        self.on_the_loop = self.on_the_loop.saturating_sub(1);
        let Some(frame) = frame else { return Ok(Reply::NoRoom) };
        let handler = Arc::clone(handler);
        let call = self.submit(async move { handler(frame).await }, deadline)?;
        Ok(call.map_or(Reply::NoRoom, Reply::Call))
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
            Reply::Done(outcome) => Ok(outcome.into()),
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
            Waited::Cancelled => {
                self.settle(&counters.aborted);
                return self.leave_a_gap();
            }
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
            Ok(false) => {
                if self.staged == 0 {
                    self.staged_since = Instant::now();
                }
                self.staged += 1;
            }
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

impl<S: FrameSource, A, R, H, Fut> Drop for Worker<'_, S, A, R, H, Fut> {
    fn drop(&mut self) {
        let counters = &self.service.core.counters;
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
