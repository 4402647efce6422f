//! `wrap_iter`: a stream on the loop, read by a thread.

use crate::both;
use crate::common::{Census, LONG, SHORT, in_parallel};
use callbridge::{ResultError, ThreadRunner, channel};
use futures_core::Stream;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// A stream made of a function.
pub(crate) struct FromFn<F>(pub(crate) F);

impl<T, F: FnMut(&mut Context<'_>) -> Poll<Option<T>> + Unpin> Stream for FromFn<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        (self.0)(cx)
    }
}

/// The numbers from 0, for ever.
pub(crate) fn numbers() -> impl Stream<Item = u64> + Send {
    let mut next = 0;
    FromFn(move |_: &mut Context<'_>| {
        next += 1;
        Poll::Ready(Some(next - 1))
    })
}

pub(crate) fn up_to(end: u64) -> impl Stream<Item = u64> + Send {
    let mut next = 0;
    FromFn(move |_: &mut Context<'_>| {
        next += 1;
        Poll::Ready((next <= end).then_some(next - 1))
    })
}

#[test]
fn every_item_comes_once_and_in_order() {
    for runner in both() {
        for prefetch in [0, 1, 3, 10, 1024, 1 << 20] {
            let items = runner.wrap_iter_weighed(up_to(3_000), prefetch, |_| 1);
            let items: Vec<_> = items.collect::<Result<_, _>>().unwrap();
            assert!(items.iter().copied().eq(0..3_000), "prefetch {prefetch}");
        }
        assert_eq!(runner.wrap_iter(up_to(0)).count(), 0);
    }
}

#[test]
fn two_iterators_interleave() {
    for runner in both() {
        let pairs = runner.wrap_iter(up_to(5_000)).zip(runner.wrap_iter(numbers()));
        assert_eq!(pairs.map(|(a, b)| assert_eq!(a.unwrap(), b.unwrap())).count(), 5_000);
    }
}

#[test]
fn an_item_that_is_alone_comes_at_once() {
    let runner = ThreadRunner::new();
    let (sender, frames) = channel(4);
    let mut items = runner.wrap_iter(frames);
    for n in 0..100 {
        sender.send(n).unwrap();
        assert_eq!(items.next_timeout(LONG).unwrap(), Some(n));
    }
    drop(sender);
    assert_eq!(items.next_timeout(LONG).unwrap(), None);
    assert!(items.next().is_none(), "the end is for ever");
}

#[test]
fn a_timeout_loses_nothing() {
    let runner = ThreadRunner::new();
    let (sender, frames) = channel(4);
    let mut items = runner.wrap_iter(frames);
    for n in 0..20 {
        for timeout in [Duration::ZERO, Duration::from_micros(50)] {
            let silence = items.next_timeout(timeout);
            assert!(matches!(silence, Err(ResultError::TimedOut { .. })), "{silence:?}");
        }
        sender.send(n).unwrap();
        assert_eq!(items.next_timeout(LONG).unwrap(), Some(n));
    }
}

#[test]
fn the_stream_is_read_ahead_no_further_than_told() {
    for runner in both() {
        for (prefetch, most) in [(0, 3), (3, 3), (10, 10), (100, 100)] {
            let read = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&read);
            let (stalled, stall) = mpsc::sync_channel(1);
            // Gives single items, with a wait after each, so that batches stay small.
            let mut wait = false;
            let stream = FromFn(move |cx: &mut Context<'_>| {
                wait = !wait;
                if wait {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let _ = stalled.try_send(());
                Poll::Ready(Some(counter.fetch_add(1, Ordering::SeqCst)))
            });
            let mut items = runner.wrap_iter_weighed(stream, prefetch, |_| 1);
            stall.recv_timeout(LONG).unwrap();
            for taken in 1..=50 {
                items.next().unwrap().unwrap();
                // Let the reader go as far as it will: it only yields while it has room.
                for _ in 0..20 {
                    runner.run(tokio::task::yield_now()).unwrap();
                }
                let ahead = read.load(Ordering::SeqCst) - taken;
                assert!(ahead <= most, "{ahead} ahead with {prefetch}");
            }
        }
    }
}

/// The `Err` items of a stream are items like others.
#[test]
fn an_error_item_reaches_the_iterator() {
    let runner = ThreadRunner::new();
    let (sender, frames) = channel(4);
    sender.send(1).unwrap();
    sender.fail(io::Error::other("unplugged"));
    let mut items = runner.wrap_iter(frames.into_try_stream());
    assert_eq!(items.next().unwrap().unwrap().unwrap(), 1);
    assert_eq!(items.next().unwrap().unwrap().unwrap_err().to_string(), "unplugged");
    assert!(items.next().is_none());
}

#[test]
fn a_panic_in_the_stream_comes_after_the_items_before_it() {
    for runner in both() {
        let mut next = 0;
        let mut items = runner.wrap_iter(FromFn(move |_: &mut Context<'_>| {
            next += 1;
            assert!(next <= 500, "boom");
            Poll::Ready(Some(next))
        }));
        for expected in 1..=500 {
            assert_eq!(items.next().unwrap().unwrap(), expected);
        }
        match items.next() {
            Some(Err(ResultError::Panicked(panic))) => assert_eq!(panic.message(), "boom"),
            other => panic!("{other:?}"),
        }
        assert!(items.next().is_none(), "the error comes once, last");
    }
}

/// Says where it was dropped.
struct Where(mpsc::Sender<ThreadId>);

impl Drop for Where {
    fn drop(&mut self) {
        let _ = self.0.send(thread::current().id());
    }
}

#[test]
fn dropping_it_early_drops_the_stream_on_the_loop_first() {
    let runner = ThreadRunner::new();
    let loop_thread = runner.spawn(async { thread::current().id() }).result(None).unwrap();
    for read in [0, 1, 1_000] {
        let (said, heard) = mpsc::channel();
        let place = Where(said);
        let mut next = 0;
        let mut items = runner.wrap_iter(FromFn(move |_: &mut Context<'_>| {
            let _here = &place;
            next += 1;
            Poll::Ready(Some(next))
        }));
        assert_eq!(items.by_ref().take(read).count(), read);
        drop(items);
        assert_eq!(heard.try_recv(), Ok(loop_thread), "before drop returned, after {read} items");
    }
}

#[test]
fn items_that_nobody_took_are_dropped() {
    for runner in both() {
        let census = Census::default();
        let source = census.clone();
        let mut items =
            runner.wrap_iter(FromFn(move |_: &mut Context<'_>| Poll::Ready(Some(source.guard()))));
        items.next().unwrap().unwrap();
        drop(items);
        assert_eq!(census.alive(), 0);
    }
}

#[test]
fn a_stream_that_blocks_cannot_hang_the_drop() {
    in_parallel(both(), |runner| {
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let items = runner.wrap_iter(FromFn(move |_: &mut Context<'_>| -> Poll<Option<()>> {
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
            Poll::Ready(None)
        }));
        begun.recv_timeout(LONG).unwrap();
        let asked = Instant::now();
        drop(items);
        assert!(asked.elapsed() < LONG / 2);
        drop(release);
    });
}

#[test]
fn a_close_ends_the_iterator_with_an_error() {
    for runner in both() {
        let mut one = Some(1);
        let mut items = runner.wrap_iter(FromFn(move |_: &mut Context<'_>| match one.take() {
            Some(one) => Poll::Ready(Some(one)),
            None => Poll::Pending,
        }));
        assert_eq!(items.next().unwrap().unwrap(), 1);
        thread::scope(|scope| {
            let reading = scope.spawn(|| items.next());
            assert!(runner.close(SHORT).still_running.is_empty());
            assert!(matches!(reading.join().unwrap(), Some(Err(ResultError::LoopClosed))));
        });
        assert!(items.next().is_none());
    }
}

#[test]
fn a_closed_or_failed_runner_gives_its_reason_as_the_only_item() {
    let closed = ThreadRunner::new();
    let _ = closed.close(LONG);
    let mut items = closed.wrap_iter(numbers());
    assert!(matches!(items.next(), Some(Err(ResultError::LoopClosed))));
    assert!(items.next().is_none());
    let failed =
        ThreadRunner::builder().loop_factory(|| Err(io::ErrorKind::Other.into())).build().unwrap();
    let mut items = failed.wrap_iter(numbers());
    assert!(matches!(items.next(), Some(Err(ResultError::Refused(_)))));
}

#[test]
fn waiting_for_an_item_on_a_loop_is_refused() {
    let runner = ThreadRunner::new();
    let stream = FromFn(|_: &mut Context<'_>| -> Poll<Option<()>> { Poll::Pending });
    let mut items = runner.wrap_iter(stream);
    let refused = runner
        .run_timeout(async move { (items.next(), items.next().is_none(), drop(items)).0 }, LONG);
    assert!(matches!(refused.unwrap(), Some(Err(ResultError::WouldDeadlock))));
}

/// An endless stream that is always ready leaves room for other work on the one thread.
#[test]
fn an_always_ready_stream_does_not_starve_the_loop() {
    let runner = ThreadRunner::new();
    let mut items = runner.wrap_iter_weighed(numbers(), 1 << 20, |_| 1);
    items.next().unwrap().unwrap();
    assert_eq!(runner.run_timeout(async { 1 }, LONG).unwrap(), 1);
    drop(items);
    drop(runner.spawn(pending::<()>()));
}
