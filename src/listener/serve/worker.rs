//! The loop of a thread that serves: take requests in, answer those that are ready, write, wait.
//!
//! Every request is settled once: by `settle`, as one of the staged when they leave or are lost, or
//! by the worker's drop.

use super::super::core::{Core, Verdict};
use super::super::driver::{Driver, Taken};
use super::super::patience::{LEAST, Patience};
use super::super::source::{FrameSource, RequestSource, is_timeout};
use super::super::stats::{count, count_by};
use super::super::stop::Phase;
use super::{FirstPoll, Service, Unanswered};
use crate::bridge::{FirstPolls, Polled};
use crate::future::SubmitError;
use crate::sync::prim::atomic::{AtomicU64, Ordering};
use crate::sync::{Deadline, contain, discard, event, report};
use crate::{BlockingFuture, ResultError};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A first poll that took longer has its successors begin on the loop, where they run in parallel.
const SLOW: Duration = Duration::from_micros(50);

/// So many begin there, until the next is tried here. So many are timed by themselves, when something took long
/// that may have been no poll.
const SUCCESSORS: usize = 16;

/// While first polls are quick, the clock is looked at after so many.
const QUICK: u32 = 8;

/// A first poll that took longer is counted and reported.
const HELD: Duration = Duration::from_millis(10);

/// How often a request that the bridge had no room for is tried again.
const ROOM: Duration = Duration::from_millis(20);

/// So many requests are taken in at most, one after the other, before their replies are written and others
/// are looked at.
const AT_A_TIME: usize = 256;

/// No more is taken in or answered while so many bytes of replies are staged.
const LADEN: usize = 256 * 1024;

/// So many bytes of replies are in the making at most, going by the replies before.
const IN_THE_MAKING: usize = 1024 * 1024;

/// A request at work.
struct Pending<A, R> {
    address: A,
    deadline: Deadline,
    reply: Reply<R>,
}

type Call<R> = Pin<Box<dyn Future<Output = Option<R>> + Send>>;

/// Where a reply comes from.
enum Reply<R> {
    /// The handler is done.
    Done(Result<Option<R>, ResultError>),
    /// It goes on as a call; cancelled when dropped.
    Call(BlockingFuture<Option<R>>),
    /// It waits for room in the bridge.
    NoRoom(Call<R>),
    /// It had no time left.
    Late,
}

impl<R, H> Service<R, H> {
    /// Serves one source until it ends or the listener does. `request` makes what the handler is given, of
    /// a frame and of when that was taken.
    pub(super) fn run<S, I, Fut>(
        &self,
        driver: &mut Driver<S>,
        request: impl Fn(S::Frame, Instant) -> I,
    ) -> Verdict
    where
        S: RequestSource<R>,
        R: Send + 'static,
        I: Send + 'static,
        H: Fn(I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let waker = driver.wake.waker();
        let mut worker = Worker {
            service: self,
            driver,
            request,
            waker,
            window: VecDeque::new(),
            slot: Box::pin(None),
            on_the_loop: 0,
            staged: 0,
            reply_size: 0,
            patience: Patience::default(),
            end: None,
            clock: None,
            unseen: 0,
            alone: false,
            to_be_alone: 0,
            tally: Tally::default(),
        };
        loop {
            match worker.turn() {
                Ok(()) => worker.wait(),
                Err(verdict) => {
                    worker.abort_the_rest();
                    return verdict;
                }
            }
        }
    }
}

struct Worker<'a, S: FrameSource, A, R, H, Fut, W> {
    service: &'a Service<R, H>,
    driver: &'a mut Driver<S>,
    request: W,
    /// Wakes this thread.
    waker: Waker,
    /// Requests at work, oldest first.
    window: VecDeque<Pending<A, R>>,
    /// Where a handler is polled first; goes with it if it has to wait.
    slot: Pin<Box<Option<Fut>>>,
    /// How many handlers are to begin on the loop, since one was slow.
    on_the_loop: usize,
    /// Replies that were encoded and haven't left.
    staged: usize,
    /// What a reply takes, in bytes: the largest of late.
    reply_size: usize,
    patience: Patience,
    /// Nothing more is taken in, and why.
    end: Option<Verdict>,
    /// When the clock was last looked at, while nothing was waited for since.
    clock: Option<Instant>,
    /// First polls since then.
    unseen: u32,
    /// That was right before the poll.
    alone: bool,
    /// How many polls are to be timed by themselves.
    to_be_alone: usize,
    tally: Tally,
}

/// What one thread has counted; entered in the listener's counters now and then, since they are shared.
#[derive(Default)]
struct Tally {
    /// Requests taken in since the last entry.
    requests: Cell<usize>,
    /// Requests that ended since.
    ended: Cell<usize>,
    /// Requests that nothing has come of yet, wherever they are.
    unsettled: Cell<usize>,
}

impl<S, R, H, I, Fut, W> Worker<'_, S, S::Address, R, H, Fut, W>
where
    S: RequestSource<R>,
    R: Send + 'static,
    W: Fn(S::Frame, Instant) -> I,
    I: Send + 'static,
    H: Fn(I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<R>> + Send + 'static,
{
    fn core(&self) -> &Core {
        &self.service.core
    }

    /// Does all that can be done without waiting. An error is the end.
    fn turn(&mut self) -> Result<(), Verdict> {
        loop {
            let more = self.take_in()?;
            let was_full = !self.has_room();
            self.answer_ready()?;
            let is_laden = self.is_laden();
            self.flush()?;
            if self.driver.is_cut() {
                return Err(Verdict::Stopped);
            }
            if self.end.is_some() && self.owes_nothing() {
                return self.end.take().map_or(Ok(()), Err);
            }
            // Requests that have been read already wake nobody, and neither do replies that are ready.
            if !(more || was_full && self.has_room() || is_laden && !self.is_laden()) {
                return Ok(());
            }
            self.enter();
            // What the writing took is no handler's time.
            self.clock = None;
        }
    }

    /// Whether another request may be taken in.
    fn has_room(&self) -> bool {
        self.end.is_none()
            && self.window.len() < self.service.pipeline
            && self.window.len().saturating_mul(self.reply_size) <= IN_THE_MAKING
            && !self.is_laden()
            && !self.lacks_room()
    }

    /// Whether the bridge had no room for the last request.
    fn lacks_room(&self) -> bool {
        matches!(self.window.back(), Some(Pending { reply: Reply::NoRoom(_), .. }))
    }

    /// Whether nothing is at work, and nothing waits to leave.
    fn owes_nothing(&self) -> bool {
        self.window.is_empty() && self.staged == 0 && !self.patience.is_waiting()
    }

    /// Whether so much is staged that it has to leave before there is more.
    fn is_laden(&self) -> bool {
        self.driver.source.staged() >= LADEN
    }

    /// Takes in what is at hand, and begins with it; whether there may be more.
    fn take_in(&mut self) -> Result<bool, Verdict> {
        let service = self.service;
        let mut polls = None;
        for _ in 0..AT_A_TIME {
            if !self.has_room() {
                return Ok(false);
            }
            // The source may wait by itself if there is nothing else to wait for.
            let may_wait = self.owes_nothing();
            if may_wait && self.driver.is_hot() {
                polls.iter().flatten().for_each(FirstPolls::count);
                self.enter();
                self.clock = None;
            }
            if !self.driver.has_descriptor() {
                polls = None;
            }
            let mut frame = match self.driver.take(may_wait) {
                Taken::Frame(frame) => frame,
                Taken::Nothing => return Ok(false),
                Taken::End(verdict) => {
                    if let Verdict::Failed(_) = verdict {
                        // Handlers at work may want to know.
                        self.driver.peer_is_gone();
                    }
                    self.end = Some(verdict);
                    return Ok(false);
                }
            };
            self.book();
            let address = self.driver.source.address(&mut frame);
            if self.to_be_alone > 0 || self.core().first_polls.is_on() {
                self.clock = None;
            }
            self.alone = self.clock.is_none();
            let began = *self.clock.get_or_insert_with(Instant::now);
            let polls = polls.get_or_insert_with(|| service.bridge.first_polls(service.site).ok());
            let request = (self.request)(frame, began);
            let Some(reply) = self.begin(request, polls.as_ref()) else {
                self.settle(&self.core().counters.aborted);
                self.end = Some(Verdict::LoopClosed);
                return Ok(false);
            };
            match reply {
                Reply::Done(outcome)
                    if self.window.is_empty() || !self.driver.source.replies_in_order() =>
                {
                    self.answer(address, outcome)?;
                }
                reply => {
                    let deadline = Deadline::after(service.reply_timeout);
                    self.window.push_back(Pending { address, deadline, reply });
                }
            }
        }
        Ok(true)
    }

    /// Counts a request; the first of several at once.
    fn book(&self) {
        let requests = self.tally.requests.get() + 1;
        self.tally.requests.set(requests);
        self.tally.unsettled.set(self.tally.unsettled.get() + 1);
        // What is seen while its handler is polled is right for the first of a batch.
        if requests == 1 && self.clock.is_none() {
            self.enter();
        }
    }

    /// Begins with a request: polls its handler here, as long as handlers are quick. None if the loop is
    /// gone.
    fn begin<G>(&mut self, request: I, polls: Option<&FirstPolls<'_, G>>) -> Option<Reply<R>> {
        let handler = &self.service.handler;
        let mut request = Some(request);
        if self.service.first_poll == FirstPoll::Here && self.on_the_loop == 0 {
            let make = || handler(request.take().expect("made once"));
            let polled = polls?.call_or_start(make, &mut self.slot);
            self.time_poll();
            match polled {
                Ok(Polled::Ready(outcome)) => return Some(Reply::Done(outcome)),
                Ok(Polled::Started(call)) => return Some(self.watched(call)),
                Err(SubmitError::Full(())) => {}
                Err(_) => return None,
            }
        }
        self.on_the_loop = self.on_the_loop.saturating_sub(1);
        // The call may need the room that is kept for the next one here.
        polls.into_iter().for_each(FirstPolls::count);
        let request = request?;
        let handler = Arc::clone(handler);
        self.submit(Box::pin(async move { handler(request).await }))
    }

    /// Looks how long first polls have held the thread: of quick ones several at once, with what is done in
    /// between, where their replies are gathered and so nothing is waited for.
    fn time_poll(&mut self) {
        self.unseen += 1;
        if self.alone || self.unseen >= QUICK || self.staged == 0 {
            self.look_at_clock();
        }
    }

    fn look_at_clock(&mut self) {
        let Some(began) = self.clock else { return };
        let now = Instant::now();
        let took = now - began;
        let alone = std::mem::take(&mut self.alone);
        (self.clock, self.unseen) = (Some(now), 0);
        self.to_be_alone = self.to_be_alone.saturating_sub(usize::from(alone));
        self.core().first_polls.record(took);
        if took > SLOW {
            let successors = if alone { &mut self.on_the_loop } else { &mut self.to_be_alone };
            *successors = SUCCESSORS;
        }
        if took > HELD {
            count(&self.core().counters.slow_polls);
            let name = &self.core().name;
            event(
                format_args!("a handler held {name} in its first poll"),
                &format_args!("{took:?}"),
            );
        }
    }

    /// Submits a call, or keeps it until there is room; none if the loop is gone.
    fn submit(&mut self, call: Call<R>) -> Option<Reply<R>> {
        match self.service.bridge.try_start(call, self.service.site) {
            Ok(call) => Some(self.watched(call)),
            Err(SubmitError::Full(call)) => Some(Reply::NoRoom(call)),
            Err(_) => None,
        }
    }

    /// A call whose end wakes this thread, and which is cancelled if nobody waits for it.
    fn watched(&self, call: BlockingFuture<Option<R>>) -> Reply<R> {
        let mut call = call.cancel_on_drop();
        match Pin::new(&mut call).poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(outcome) => Reply::Done(outcome),
            Poll::Pending => Reply::Call(call),
        }
    }

    /// Answers what is ready, or late: the oldest where the order counts, else any.
    fn answer_ready(&mut self) -> Result<(), Verdict> {
        let in_order = self.driver.source.replies_in_order();
        let given_up = !self.window.is_empty() && self.service.bridge.has_given_up();
        if self.lacks_room() {
            // It begins as soon as it can, whatever is before it.
            self.look(self.window.len() - 1, given_up);
        }
        let mut at = 0;
        while at < self.window.len() && !self.is_laden() {
            if self.look(at, given_up) {
                if let Some(Pending { address, reply, .. }) = self.window.remove(at) {
                    match reply {
                        Reply::Done(outcome) => self.answer(address, outcome)?,
                        Reply::Call(mut call) => {
                            // Without a result it was given up: its bridge closed.
                            let outcome = call.try_result().unwrap_or(Err(ResultError::LoopClosed));
                            self.answer(address, outcome)?;
                        }
                        Reply::NoRoom(_) | Reply::Late => {
                            self.settle(&self.core().counters.late);
                            self.fall_back(address, Unanswered::TimedOut)?;
                        }
                    }
                }
            } else if in_order {
                break;
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether a request at work can be answered now; a call also once its bridge has given it up.
    fn look(&mut self, at: usize, given_up: bool) -> bool {
        let pending = &mut self.window[at];
        let late = pending.deadline.passed();
        match &mut pending.reply {
            Reply::Done(_) | Reply::Late => return true,
            Reply::Call(call) if given_up || call.is_done() => return true,
            Reply::Call(_) if !late => return false,
            Reply::NoRoom(_) if !late => {}
            late => {
                *late = Reply::Late;
                return true;
            }
        }
        // There may be room by now.
        let Reply::NoRoom(call) = std::mem::replace(&mut pending.reply, Reply::Late) else {
            return true;
        };
        let reply = self.submit(call).unwrap_or(Reply::Done(Err(ResultError::LoopClosed)));
        let done = matches!(reply, Reply::Done(_));
        self.window[at].reply = reply;
        done
    }

    /// Stages the reply of a request that is ready, or whatever takes its place.
    fn answer(
        &mut self,
        address: S::Address,
        outcome: Result<Option<R>, ResultError>,
    ) -> Result<(), Verdict> {
        let counters = &self.service.core.counters;
        match outcome {
            Ok(Some(reply)) => return self.stage(address, reply),
            Ok(None) => self.settle(&counters.no_reply),
            Err(ResultError::Panicked(panic)) => {
                let payload = panic.into_payload();
                report("a handler", payload.as_ref());
                discard(payload);
                self.settle(&counters.panicked);
                return self.fall_back(address, Unanswered::Panicked);
            }
            Err(ResultError::LoopClosed) => {
                self.settle(&counters.aborted);
                // Later replies would be taken for this one.
                if self.driver.source.replies_in_order() {
                    return self.write_the_rest(Verdict::LoopClosed);
                }
                self.end.get_or_insert(Verdict::LoopClosed);
            }
            Err(_) => {
                self.settle(&counters.aborted);
                return self.leave_a_gap();
            }
        }
        Ok(())
    }

    fn stage(&mut self, address: S::Address, reply: R) -> Result<(), Verdict> {
        let before = self.driver.source.staged();
        match self.driver.source.answer(address, reply) {
            Ok(true) => self.settle(&self.core().counters.replies),
            Ok(false) => {
                self.staged += 1;
                let size = self.driver.source.staged().saturating_sub(before);
                self.reply_size = size.max(self.reply_size - self.reply_size / 8);
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
        if !self.service.close_on_missing_reply || !self.driver.source.replies_in_order() {
            return Ok(());
        }
        let text = "a request has no reply: the connection is closed, or later replies would be \
                    taken for the wrong requests";
        self.write_the_rest(Verdict::Failed(io::Error::other(text)))
    }

    /// Sends the fallback, if there is one; the request itself is settled.
    fn fall_back(&mut self, address: S::Address, why: Unanswered) -> Result<(), Verdict> {
        let fallback = self.service.fallback.as_ref();
        let reply = fallback.and_then(|make| contain("a fallback", || make(why)).flatten());
        match reply.map(|reply| self.driver.source.answer(address, reply)) {
            Some(Ok(sent)) => {
                count(&self.core().counters.fallbacks);
                if sent { Ok(()) } else { self.flush() }
            }
            _ => self.leave_a_gap(),
        }
    }

    /// Writes what is staged, as far as it fits now.
    fn flush(&mut self) -> Result<(), Verdict> {
        if self.unseen > 0 {
            self.look_at_clock();
        }
        loop {
            let before = self.driver.source.staged();
            let flushed = RequestSource::<R>::flush(&mut self.driver.source);
            let left = before.saturating_sub(self.driver.source.staged());
            self.driver.written += left as u64;
            match flushed {
                Ok(true) => {
                    if self.staged > 0 {
                        count_by(&self.core().counters.replies, self.staged);
                        let staged = std::mem::take(&mut self.staged);
                        self.forget(staged);
                    }
                    self.patience.end();
                    return Ok(());
                }
                // A source that doesn't say how much it has staged says at least that.
                Ok(false) if before == 0 => self.driver.written += LEAST,
                Ok(false) => {}
                Err(error) if is_timeout(&error) => {
                    let write_timeout = self.core().write_timeout;
                    if !self.patience.is_over(self.driver.written, write_timeout) {
                        return Ok(());
                    }
                    let text = "the peer doesn't read its replies: the connection is given up";
                    return Err(self.lose_staged(io::Error::new(ErrorKind::TimedOut, text)));
                }
                Err(error) => return Err(self.lose_staged(error)),
            }
        }
    }

    fn lose_staged(&mut self, error: io::Error) -> Verdict {
        count_by(&self.core().counters.reply_errors, self.staged);
        let staged = std::mem::take(&mut self.staged);
        self.forget(staged);
        if self.driver.is_cut() { Verdict::Stopped } else { Verdict::Failed(error) }
    }

    /// Writes all that is staged, and ends with the verdict.
    fn write_the_rest(&mut self, verdict: Verdict) -> Result<(), Verdict> {
        loop {
            self.flush()?;
            if !self.patience.is_waiting() || self.driver.is_cut() {
                return Err(verdict);
            }
            self.driver.wait(false, &self.patience, Deadline::Never);
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) {
        self.enter();
        self.clock = None;
        if self.owes_nothing() && self.has_room() && self.driver.is_hot() {
            return;
        }
        let mut deadline = Deadline::Never;
        if !self.owes_nothing() {
            self.driver.is_owed();
        }
        // The oldest has the first deadline; while much waits to leave, it is answered afterwards.
        if let Some(first) = self.window.front().filter(|_| !self.is_laden()) {
            deadline = deadline.or(first.deadline);
        }
        if self.lacks_room() {
            deadline = deadline.or_after(ROOM);
        }
        self.driver.wait(self.has_room(), &self.patience, deadline);
    }

    /// Counts the requests that were received and won't be begun.
    fn abort_the_rest(&mut self) {
        if self.driver.phase() == Phase::Running {
            return;
        }
        contain("a source", || {
            while let Ok(Some(_)) = self.driver.source.next_buffered() {
                self.book();
                self.settle(&self.core().counters.aborted);
            }
        });
    }
}

impl<S: FrameSource, A, R, H, Fut, W> Worker<'_, S, A, R, H, Fut, W> {
    /// Counts the outcome of a request.
    fn settle(&self, column: &AtomicU64) {
        count(column);
        self.forget(1);
    }

    /// Takes requests off what is in flight; their outcome is counted.
    fn forget(&self, requests: usize) {
        self.tally.ended.set(self.tally.ended.get() + requests);
        self.tally.unsettled.set(self.tally.unsettled.get() - requests);
    }

    /// Enters what was counted here in the listener's counters.
    fn enter(&self) {
        let (requests, ended) = (self.tally.requests.take(), self.tally.ended.take());
        if requests == 0 && ended == 0 {
            return;
        }
        let counters = &self.service.core.counters;
        count_by(&counters.frames, requests);
        count_by(&counters.requests, requests);
        count_by(&counters.in_flight, requests);
        // As `uncount`.
        counters.in_flight.fetch_sub(ended as u64, Ordering::AcqRel);
    }
}

impl<S: FrameSource, A, R, H, Fut, W> Drop for Worker<'_, S, A, R, H, Fut, W> {
    fn drop(&mut self) {
        let counters = &self.service.core.counters;
        let unsettled = self.tally.unsettled.get();
        count_by(&counters.aborted, unsettled - self.staged);
        // Encoded, but the source went before they could leave.
        count_by(&counters.reply_errors, self.staged);
        self.forget(unsettled);
        self.enter();
    }
}
