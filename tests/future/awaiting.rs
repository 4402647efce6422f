//! `BlockingFuture` polled by hand: who is woken, how often, and what a waker keeps.
//!
//! The b rows are UniFFI's, whose foreign loops poll.

use crate::common::{Census, LONG, Loop, eventually, waker_that_runs_on_clone};
use callbridge::future::{FutureState, promise};
use callbridge::{BlockingFuture, ResultError, channel, to_thread};
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A waker that counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn poll<T>(self: &Arc<Self>, call: &mut BlockingFuture<T>) -> Poll<Result<T, ResultError>> {
        Pin::new(call).poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// b113: pending, then one wake, then ready; and ready at once if it is done.
#[test]
fn the_end_wakes_once_however_often_it_was_polled() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let wakes = Arc::new(Wakes::default());
        let (reply, asked) = oneshot::channel();
        let mut call = bridge.run_coroutine_threadsafe(async { asked.await.unwrap() });
        for _ in 0..3 {
            assert!(wakes.poll(&mut call).is_pending());
        }
        assert_eq!(wakes.count(), 0);
        reply.send(5).unwrap();
        eventually("a wake", || wakes.count() > 0);
        assert!(matches!(wakes.poll(&mut call), Poll::Ready(Ok(5))));

        let mut done = bridge.run_coroutine_threadsafe(async { 6 });
        done.wait(LONG).unwrap();
        assert!(matches!(wakes.poll(&mut done), Poll::Ready(Ok(6))));
        drop((bridge, runtime));
        assert_eq!(wakes.count(), 1);
    }
}

/// b114
#[test]
fn wakes_inside_a_poll_lead_to_one_more_poll() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let polls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&polls);
        let call = bridge.run_coroutine_threadsafe(poll_fn(move |cx| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        }));
        eventually("one more poll", || polls.load(Ordering::SeqCst) == 2);
        // A third poll would have been in line before these.
        for _ in 0..100 {
            bridge.run_coroutine_threadsafe(tokio::task::yield_now()).result(LONG).unwrap();
        }
        assert_eq!(polls.load(Ordering::SeqCst), 2);
        drop(call.cancel_on_drop());
    }
}

/// b115: the stored waker is woken once by a cancel, and the answer stays the same.
#[test]
fn a_cancel_wakes_whoever_awaits_the_call() {
    for runtime in Loop::both() {
        let wakes = Arc::new(Wakes::default());
        let mut call = runtime.bridge().run_coroutine_threadsafe(pending::<()>());
        assert!(wakes.poll(&mut call).is_pending());
        assert!(call.cancel());
        eventually("a wake", || wakes.count() > 0);
        assert!(call.is_cancelled());
        for _ in 0..2 {
            assert!(matches!(wakes.poll(&mut call), Poll::Ready(Err(ResultError::Cancelled))));
        }
        drop(runtime);
        assert_eq!(wakes.count(), 1);
    }
}

/// b116: the work goes at once, whoever still holds its waker, and waking that does nothing.
#[test]
fn a_waker_that_outlives_its_call_keeps_nothing_alive() {
    for runtime in Loop::both() {
        let census = Census::default();
        let guard = census.guard();
        let (give, given) = mpsc::channel();
        let mut call = runtime.bridge().run_coroutine_threadsafe(async move {
            let _guard = guard;
            poll_fn(|cx| {
                give.send(cx.waker().clone()).unwrap();
                Poll::<()>::Pending
            })
            .await;
        });
        let waker = given.recv_timeout(LONG).unwrap();
        assert_eq!(call.cancel_and_wait(LONG).unwrap(), FutureState::Cancelled);
        assert_eq!(census.alive(), 0);
        waker.wake_by_ref();
        drop((call, runtime));
        waker.wake();
        assert!(given.try_iter().next().is_none());
    }
}

/// No lock of the call is held while users' wakers are cloned: the clone may look at the call.
#[test]
fn a_waker_whose_clone_cancels_the_call_does_not_hang() {
    let runtime = Loop::multi(1);
    let mut call = runtime.bridge().run_coroutine_threadsafe(pending::<()>());
    eventually("it waits", || call.is_running());
    let canceller = call.canceller();
    let waker = waker_that_runs_on_clone(move || _ = canceller.cancel());
    let (polled, is_polled) = mpsc::channel();
    let poller = std::thread::spawn(move || {
        let pending = Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending();
        polled.send(pending).unwrap();
        call.wait(LONG).unwrap();
        assert!(call.is_cancelled());
    });
    is_polled.recv_timeout(LONG).unwrap();
    poller.join().unwrap();
}

/// The panic is the poll's, and the call can be waited for afterwards.
#[test]
fn a_waker_whose_clone_panics_leaves_the_call_usable() {
    let runtime = Loop::multi(1);
    let (reply, asked) = oneshot::channel();
    let mut call = runtime.bridge().run_coroutine_threadsafe(async { asked.await.unwrap() });
    let waker = waker_that_runs_on_clone(|| panic!("out of wakers"));
    let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_ready()
    }));
    assert!(polled.is_err());
    reply.send(7).unwrap();
    assert_eq!(call.result(LONG).unwrap(), 7);
}

/// As tokio's own handles, calls that are done use the task's budget up: a task that awaits a hundred
/// thousand of them lets others run.
#[test]
fn a_task_that_awaits_finished_calls_lets_others_run() {
    let runtime = Loop::multi(1);
    let bridge = callbridge::Bridge::builder(runtime.handle()).unbounded().build().unwrap();
    let mut calls: Vec<_> =
        (0..20_000).map(|_| bridge.run_coroutine_threadsafe(async {})).collect();
    for call in &mut calls {
        call.wait(LONG).unwrap();
    }
    let own = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let seen = own.block_on(async move {
        let others = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let awaits = tokio::spawn(async move {
            let before = turns.load(Ordering::Relaxed);
            for call in calls {
                call.await.unwrap();
            }
            turns.load(Ordering::Relaxed) - before
        });
        let seen = awaits.await.unwrap();
        others.abort();
        seen
    });
    assert!(seen >= 20_000 / 256, "another task had {seen} turns");
}

/// tokio moves a paused clock on while only foreign threads are at work; a job of its own holds it.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_can_be_held_while_threads_work() {
    let pause = || thread::sleep(Duration::from_millis(20));
    let (hold, held) = mpsc::channel::<()>();
    tokio::task::spawn_blocking(move || held.recv());
    let (completer, answer) = promise();
    let (sender, mut frames) = channel(1);
    thread::spawn(move || {
        pause();
        completer.complete(1);
        sender.send(2).unwrap();
    });
    let limit = Duration::from_secs(100);
    timeout(limit, to_thread(pause)).await.expect("the time hasn't passed").unwrap();
    assert_eq!(timeout(limit, answer).await.expect("the time hasn't passed").unwrap(), 1);
    assert_eq!(timeout(limit, frames.recv()).await.expect("the time hasn't passed"), Some(2));
    drop(hold);
}

/// C79: awaitable too, on its own loop and on another.
#[test]
fn a_blocking_future_can_be_awaited() {
    let elsewhere = Loop::multi(1);
    let bridge = elsewhere.bridge();
    let here = Builder::new_current_thread().build().unwrap();
    let nested = bridge.clone();
    let sum = here.block_on(async {
        let outer = bridge.run_coroutine_threadsafe(async move {
            nested.run_coroutine_threadsafe(async { 40 }).await.unwrap() + 2
        });
        outer.await.unwrap()
    });
    assert_eq!(sum, 42);
}

/// C78: an awaiting task is given whatever became of the call.
#[test]
fn awaiting_gives_the_value_the_panic_or_the_cancel() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let here = Builder::new_current_thread().build().unwrap();
    let ended = bridge.run_coroutine_threadsafe(pending::<()>());
    here.block_on(async {
        assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).await.unwrap(), 1);
        let panicked = bridge.run_coroutine_threadsafe(async { panic!("over there") });
        let error = panicked.await.unwrap_err();
        assert!(matches!(error, ResultError::Panicked(panic) if panic.message() == "over there"));
        let cancelled = bridge.run_coroutine_threadsafe(pending::<()>());
        assert!(cancelled.cancel());
        assert!(matches!(cancelled.await, Err(ResultError::Cancelled)));
    });
    drop(runtime);
    assert!(matches!(here.block_on(ended), Err(ResultError::LoopClosed)));
}
