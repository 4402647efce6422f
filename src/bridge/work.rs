use crate::future::{Failure, Promise};
use crate::sync::{Span, contain};
use pin_project_lite::pin_project;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

pin_project! {
    /// A submitted future with what it owes: its books and its result.
    ///
    /// The future is dropped, then the books are kept, then the result is published, in this order
    /// on every path: who sees the result sees the future gone and the slot free.
    pub(super) struct Work<F: Future> {
        #[pin]
        future: Option<F>,
        // Taken at the end.
        promise: Option<Promise<F::Output>>,
        // Its place among the suspended, from its first `Pending` on.
        suspended: Option<u32>,
        span: Span,
    }

    impl<F: Future> PinnedDrop for Work<F> {
        fn drop(this: Pin<&mut Self>) {
            let cancelled = this.promise.as_ref().map(Promise::cancel_requested);
            match cancelled {
                Some(true) => this.end(Err(Failure::Cancelled)),
                Some(false) => this.end(Err(Failure::LoopClosed)),
                None => {}
            }
        }
    }
}

impl<F: Future> Work<F> {
    pub(super) fn new(future: F, promise: Promise<F::Output>) -> Self {
        let span = Span::current();
        Work { future: Some(future), promise: Some(promise), suspended: None, span }
    }

    fn end(self: Pin<&mut Self>, outcome: Result<F::Output, Failure>) {
        let mut this = self.project();
        let Some(promise) = this.promise.take() else { return };
        contain("the drop of a submitted future", || this.future.set(None));
        promise.origin().enter_end(this.suspended.take(), outcome.as_ref().err());
        promise.resolve(outcome);
    }
}

impl<F: Future> Future for Work<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.as_mut().project();
        let (Some(promise), Some(future)) = (&*this.promise, this.future.as_mut().as_pin_mut())
        else {
            return Poll::Ready(());
        };
        if promise.cancel_requested() {
            self.end(Err(Failure::Cancelled));
            return Poll::Ready(());
        }
        promise.start();
        let polled = this.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| future.poll(cx))));
        let outcome = match polled {
            Ok(Poll::Ready(value)) => Ok(value),
            Err(payload) => Err(Failure::Panicked(payload)),
            Ok(Poll::Pending) if this.suspended.is_some() => return Poll::Pending,
            Ok(Poll::Pending) => {
                *this.suspended = promise.origin().suspend(cx.waker().clone());
                match this.suspended {
                    None => Err(Failure::LoopClosed),
                    Some(place) if promise.suspend(*place) => Err(Failure::Cancelled),
                    Some(_) => return Poll::Pending,
                }
            }
        };
        self.end(outcome);
        Poll::Ready(())
    }
}
