//! The requests of one read as one call: each handler is made and polled once, in turn, and those
//! that are done at once cost no call of their own.
//!
//! A handler that has to wait becomes a call of its own, and so do all that are left once the turn
//! has lasted too long: handlers that compute keep the others waiting for the length of a turn and
//! one stride. A stride, after which the clock is read, is one handler until they have shown to be
//! quick.
//!
//! Invariants:
//! 1. Outcomes are published in the order of the requests. The listener's thread takes or gives up
//!    each request once, in the same order: a request that was given up is the oldest whose outcome
//!    isn't published, and `given_up` counts those.
//! 2. User code runs, and users' values are dropped, with no lock held.

use crate::sync::contain;
use crate::sync::prim::{Instant, Mutex, lock};
use crate::{BlockingFuture, Bridge, SubmitError};
use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// How many requests go together at most.
pub(super) const LARGEST: usize = 64;

/// How long a turn may last before what is left of it gets calls of its own.
const TURN: Duration = Duration::from_micros(50);

/// A stride that took no longer is followed by one of twice as many handlers.
const QUICK: Duration = Duration::from_micros(4);

/// How many handlers a stride has at most.
const STRIDE: usize = 8;

/// What came of a handler's first poll.
pub(super) enum Outcome<R> {
    Done(Option<R>),
    Panicked(Box<dyn Any + Send>),
    /// It is at work as a call of its own.
    Waits(BlockingFuture<Option<R>>),
    /// It has to wait, and the bridge has no room for it now.
    NoRoom(Pin<Box<dyn Future<Output = Option<R>> + Send>>),
    LoopGone,
}

/// What the listener's thread and the call share.
struct Shared<F, R> {
    state: Mutex<State<F, R>>,
}

struct State<F, R> {
    /// What was published and the listener's thread hasn't taken.
    outcomes: VecDeque<Outcome<R>>,
    /// How many of the outcomes to come nobody waits for any more.
    given_up: usize,
    /// The empty queue of the last turn, for the next one.
    spare: VecDeque<F>,
}

impl<F, R> Shared<F, R> {
    /// Publishes what came of a request, if somebody waits for it, and drops of the requests to come
    /// those that nobody waits for any more.
    fn publish(&self, outcome: Option<Outcome<R>>, frames: &mut VecDeque<F>) {
        let mut state = lock(&self.state);
        if state.given_up == 0 {
            if let Some(outcome) = outcome {
                state.outcomes.push_back(outcome);
            }
            return;
        }
        state.given_up -= usize::from(outcome.is_some());
        let late = state.given_up.min(frames.len());
        state.given_up -= late;
        drop(state);
        contain("the drop of a request that is too late", || drop(outcome));
        for frame in frames.drain(..late) {
            contain("the drop of a request that is too late", || drop(frame));
        }
    }
}

/// A batch as the listener's thread sees it.
pub(super) struct Batch<F, R> {
    shared: Arc<Shared<F, R>>,
    /// Cancelled when dropped.
    pub(super) call: Option<BlockingFuture<()>>,
    /// Outcomes that were published.
    ready: VecDeque<Outcome<R>>,
    /// How many requests were neither taken nor given up.
    left: usize,
}

impl<F, R> Batch<F, R>
where
    F: Send + 'static,
    R: Send + 'static,
{
    pub(super) fn new() -> Self {
        let state = State { outcomes: VecDeque::new(), given_up: 0, spare: VecDeque::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        Batch { shared, call: None, ready: VecDeque::new(), left: 0 }
    }

    /// Submits `frames` as one call; hands them back if there is no room for it.
    pub(super) fn submit<H, Fut>(
        &mut self,
        frames: &mut VecDeque<F>,
        handler: &Arc<H>,
        bridge: &Bridge,
    ) -> Result<(), SubmitError<()>>
    where
        H: Fn(F) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let left = frames.len();
        let mut turn_frames = std::mem::take(&mut lock(&self.shared.state).spare);
        std::mem::swap(&mut turn_frames, frames);
        let turn = Turn {
            shared: Arc::clone(&self.shared),
            handler: Arc::clone(handler),
            bridge: bridge.clone(),
            frames: turn_frames,
            slot: Box::pin(None),
        };
        let (mut turn, refused) = match bridge.try_run_coroutine_threadsafe(turn) {
            Ok(call) => {
                (self.call, self.left) = (Some(call.cancel_on_drop()), left);
                return Ok(());
            }
            Err(SubmitError::Full(turn)) => (turn, SubmitError::Full(())),
            Err(closed) => (closed.into_inner(), SubmitError::Closed(())),
        };
        std::mem::swap(&mut turn.frames, frames);
        Err(refused)
    }

    /// Whether the next request can be answered without waiting.
    pub(super) fn is_ready(&mut self, bridge: &Bridge) -> bool {
        if self.ready.is_empty() {
            if self.call.as_ref().is_some_and(|call| !call.is_done()) {
                return false;
            }
            self.submit_left_out(bridge);
        }
        match self.ready.front() {
            Some(Outcome::Waits(call)) => call.is_done(),
            Some(Outcome::NoRoom(_)) => false,
            _ => true,
        }
    }

    /// Takes the next outcome, if it was published.
    pub(super) fn take(&mut self) -> Option<Outcome<R>> {
        if self.ready.is_empty() {
            std::mem::swap(&mut self.ready, &mut lock(&self.shared.state).outcomes);
        }
        let outcome = self.ready.pop_front();
        self.left -= usize::from(outcome.is_some());
        outcome
    }

    /// As [`take`](Self::take); without an outcome, nobody will wait for it any more.
    pub(super) fn take_or_give_up(&mut self) -> Option<Outcome<R>> {
        if let Some(outcome) = self.take() {
            return Some(outcome);
        }
        let mut state = lock(&self.shared.state);
        // It may have come in the meantime.
        let outcome = state.outcomes.pop_front();
        state.given_up += usize::from(outcome.is_none());
        self.left -= 1;
        outcome
    }

    /// Makes calls of those that the bridge had no room for while it held this call as well.
    pub(super) fn submit_left_out(&mut self, bridge: &Bridge) {
        self.ready.append(&mut lock(&self.shared.state).outcomes);
        for outcome in &mut self.ready {
            if let Outcome::NoRoom(_) = outcome {
                if let Outcome::NoRoom(call) = std::mem::replace(outcome, Outcome::LoopGone) {
                    *outcome = submit(bridge, call);
                }
            }
        }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.left == 0
    }

    /// The same memory for the next batch, if the call is over.
    pub(super) fn recycle(mut self) -> Option<Self> {
        // A call that has ended has let go of its share.
        let unused = Arc::get_mut(&mut self.shared).is_some();
        let empty = {
            let state = lock(&self.shared.state);
            state.outcomes.is_empty() && state.given_up == 0
        };
        self.call = None;
        (unused && empty).then_some(self)
    }
}

impl<F, R> Drop for Batch<F, R> {
    fn drop(&mut self) {
        // The turn looks at this while it lasts, and at its cancel only before.
        lock(&self.shared.state).given_up += self.left;
    }
}

/// The call.
struct Turn<F, R, H, Fut> {
    shared: Arc<Shared<F, R>>,
    handler: Arc<H>,
    bridge: Bridge,
    /// Requests whose handlers weren't made yet.
    frames: VecDeque<F>,
    /// Where a handler is polled; goes with it if it has to wait.
    slot: Pin<Box<Option<Fut>>>,
}

impl<F, R, H, Fut> Turn<F, R, H, Fut>
where
    F: Send + 'static,
    R: Send + 'static,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<R>> + Send + 'static,
{
    fn poll_once(&mut self, frame: F, cx: &mut Context<'_>) -> Outcome<R> {
        let (handler, mut slot) = (&self.handler, self.slot.as_mut());
        let polled = catch_unwind(AssertUnwindSafe(|| {
            slot.set(Some(handler(frame)));
            slot.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx))
        }));
        let outcome = match polled {
            Ok(Poll::Ready(reply)) => Outcome::Done(reply),
            Err(payload) => Outcome::Panicked(payload),
            Ok(Poll::Pending) => {
                let started = std::mem::replace(&mut self.slot, Box::pin(None));
                return submit(&self.bridge, Started(started));
            }
        };
        contain("the drop of a handler", || self.slot.set(None));
        outcome
    }
}

impl<F, R, H, Fut> Future for Turn<F, R, H, Fut>
where
    F: Send + 'static,
    R: Send + 'static,
    H: Fn(F) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<R>> + Send + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let began = Instant::now();
        let (mut last, mut stride, mut over) = (began, 1, false);
        this.shared.publish(None, &mut this.frames);
        while !this.frames.is_empty() {
            for _ in 0..stride {
                let Some(frame) = this.frames.pop_front() else { break };
                let outcome = if over {
                    let handler = Arc::clone(&this.handler);
                    submit(&this.bridge, async move { handler(frame).await })
                } else {
                    this.poll_once(frame, cx)
                };
                this.shared.publish(Some(outcome), &mut this.frames);
            }
            if !over {
                let now = Instant::now();
                over = now - began > TURN;
                stride = if now - last <= QUICK { STRIDE.min(2 * stride) } else { 1 };
                last = now;
            }
        }
        let frames = std::mem::take(&mut this.frames);
        lock(&this.shared.state).spare = frames;
        Poll::Ready(())
    }
}

/// Makes a call of its own of a handler.
fn submit<R: Send + 'static>(
    bridge: &Bridge,
    call: impl Future<Output = Option<R>> + Send + 'static,
) -> Outcome<R> {
    match bridge.try_run_coroutine_threadsafe(call) {
        Ok(call) => Outcome::Waits(call.cancel_on_drop()),
        Err(SubmitError::Full(call)) => Outcome::NoRoom(Box::pin(call)),
        Err(closed) => {
            contain("the drop of a handler", || drop(closed));
            Outcome::LoopGone
        }
    }
}

impl<F, R, H, Fut> Unpin for Turn<F, R, H, Fut> {}

/// A handler that was polled before.
struct Started<Fut>(Pin<Box<Option<Fut>>>);

impl<Fut: Future<Output = Option<R>>, R> Future for Started<Fut> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        self.0.as_mut().as_pin_mut().map_or(Poll::Ready(None), |future| future.poll(cx))
    }
}
