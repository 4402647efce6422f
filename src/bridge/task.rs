use crate::future::{Panic, Promise, ResultError};
use crate::sync::context::LoopMark;
use crate::sync::{Began, Polling, Running, Site, Span, contain};
use pin_project_lite::pin_project;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

pin_project! {
    /// A submitted future, as a task of the loop, with what it owes.
    ///
    /// The future is dropped, then its room is free, then the result is published, in this order on
    /// every path: who sees the result sees the future gone and the room free.
    pub(super) struct Task<F: Future> {
        #[pin]
        future: Option<F>,
        // Taken at the end.
        promise: Option<Promise<F::Output>>,
        // Its place among the suspended, from its first `Pending` on.
        place: Option<u32>,
        begun: bool,
        submitted: Began,
        site: Site,
        span: Span,
    }

    impl<F: Future> PinnedDrop for Task<F> {
        fn drop(this: Pin<&mut Self>) {
            this.abandon();
        }
    }
}

impl<F: Future> Task<F> {
    pub(super) fn new(
        future: F,
        promise: Promise<F::Output>,
        submitted: Began,
        site: Site,
    ) -> Self {
        Task {
            future: Some(future),
            promise: Some(promise),
            place: None,
            begun: false,
            submitted,
            site,
            span: Span::current(),
        }
    }

    fn end(self: Pin<&mut Self>, outcome: Result<F::Output, ResultError>) {
        let mut this = self.project();
        let Some(promise) = this.promise.take() else { return };
        contain("the drop of a submitted future", || this.future.set(None));
        promise.origin().end(this.place.take(), outcome.as_ref().err(), *this.submitted);
        promise.resolve(outcome);
    }

    /// The loop drops the work before its end.
    fn abandon(self: Pin<&mut Self>) {
        let Some(promise) = &self.promise else { return };
        let cancelled = promise.cancel_requested();
        let _running = Running::note(promise.work(self.site));
        // Where a loop takes its work apart, blocking is refused.
        let _mark = LoopMark::new();
        self.end(Err(if cancelled { ResultError::Cancelled } else { ResultError::LoopClosed }));
    }
}

impl<F: Future> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        let (Some(promise), Some(future)) = (&*this.promise, this.future.as_mut().as_pin_mut())
        else {
            return Poll::Ready(());
        };
        let _running = Running::note(promise.work(this.site));
        let origin = promise.origin();
        if promise.cancel_requested() {
            self.end(Err(ResultError::Cancelled));
            return Poll::Ready(());
        }
        if origin.is_ending() {
            self.end(Err(ResultError::LoopClosed));
            return Poll::Ready(());
        }
        if !std::mem::replace(this.begun, true) {
            promise.start();
            origin.begin(*this.submitted);
        }
        let outcome = match this.span.in_scope(|| caught(|| future.poll(cx))) {
            Poll::Ready(outcome) => outcome,
            // A task's waker stays the same: it is noted once.
            Poll::Pending if this.place.is_some() => return Poll::Pending,
            Poll::Pending => {
                *this.place = origin.suspend(cx.waker().clone());
                match this.place {
                    None => Err(ResultError::LoopClosed),
                    Some(place) if promise.suspend(*place) => Err(ResultError::Cancelled),
                    Some(_) => return Poll::Pending,
                }
            }
        };
        self.end(outcome);
        Poll::Ready(())
    }
}

/// Polls what may panic.
pub(super) fn caught<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, ResultError>> {
    let _polling = Polling::begin();
    match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(ResultError::Panicked(Panic::new(payload)))),
    }
}
