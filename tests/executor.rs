//! to_thread, run_in_executor and ThreadPool. Ids in doc comments (C7, A41, G1) name the rows of
//! Python's test suites that a test carries over; PEERS.md says what doesn't carry over.

mod common;

use callbridge::executor::{ExecutorError, ShutdownReport};
use callbridge::{
    BlockingFuture, Bridge, FutureState, ResultError, ReturnWhen, SubmitError, ThreadPool,
    run_in_executor, to_thread, wait,
};
use common::{Census, LONG, Loop, SHORT, refusal, whole};
use futures_core::Stream;
use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// A job that blocks until the returned sender is dropped, and tells that it has begun.
fn blocker(pool: &ThreadPool) -> (mpsc::Sender<()>, BlockingFuture<()>) {
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let job = pool.submit(move || {
        began.send(()).unwrap();
        let _ = blocked.recv();
    });
    begun.recv_timeout(LONG).unwrap();
    (release, job)
}

fn pool_of(workers: usize) -> ThreadPool {
    ThreadPool::builder().max_workers(workers).build()
}

/// Waits until `condition` holds, which nothing announces.
fn eventually(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "it never came true");
        thread::yield_now();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, future).await.expect("it hangs") })
}

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

fn clean(report: &ShutdownReport) {
    assert!(report.is_clean(), "{report}");
}

// to_thread and run_in_executor

/// C7: value, error, exactly one call, ten concurrent calls. A42: the error has its message.
/// C90: on another thread.
#[test]
fn to_thread_gives_value_and_panic_and_runs_once() {
    block_on(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let caller = thread::current().id();
        let (sum, callee) = to_thread(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            (40 + 2, thread::current().id())
        })
        .await
        .unwrap();
        assert_eq!(sum, 42);
        assert_ne!(callee, caller);
        assert_eq!(calls.load(Ordering::SeqCst), 1);

        let error = to_thread(|| -> u32 { panic!("something bad") }).await.unwrap_err();
        assert!(
            matches!(error, ResultError::Panicked(panic) if panic.message() == "something bad")
        );

        // They all wait for each other, so they all run at once.
        let meeting = Arc::new(Barrier::new(10));
        let mut calls = Vec::new();
        for n in 0..10 {
            let meeting = Arc::clone(&meeting);
            calls.push(to_thread(move || {
                meeting.wait();
                n
            }));
        }
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap(), n);
        }
    });
}

/// C9, A13, A47: the caller's context is visible inside: its event loop, and its span (see tracing).
#[test]
fn the_callers_loop_is_current_inside_a_job() {
    for event_loop in Loop::both() {
        let here = event_loop.handle().id();
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            to_thread(|| Bridge::current().handle().id()).await.unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), here);
    }
    let outside = ThreadPool::shared().submit(|| Bridge::try_current().is_err());
    // A11: no loop around, so there is a clear error.
    assert!({ outside }.result(LONG).unwrap());
}

/// A6, A8, A10, A15: a job runs async code on the loop's thread; values and panics come back.
#[test]
fn a_job_calls_back_into_the_loop() {
    let event_loop = Loop::current();
    let bridge = event_loop.bridge();
    let loop_thread =
        bridge.run_coroutine_threadsafe(async { thread::current().id() }).result(LONG).unwrap();
    let mut call = bridge.run_coroutine_threadsafe(async {
        to_thread(|| {
            let bridge = Bridge::current();
            let there =
                bridge.run_coroutine_threadsafe(async { thread::current().id() }).result(LONG);
            let error =
                bridge.run_coroutine_threadsafe(async { panic!("over there") }).result(LONG);
            let error: Result<(), _> = error;
            (there.unwrap(), error.unwrap_err().to_string())
        })
        .await
        .unwrap()
    });
    let (there, error) = call.result(LONG).unwrap();
    assert_eq!(there, loop_thread);
    assert!(error.contains("over there"), "{error}");
}

/// A ticker on the loop goes on while a call blocks; arguments go in, a result comes out; the call
/// is begun first and joined later; the thread has a name.
#[test]
fn a_blocking_call_does_not_stop_the_loop() {
    block_on(async {
        let (release, blocked) = mpsc::channel::<()>();
        let argument = String::from("argument");
        let call = to_thread(move || {
            let _ = blocked.recv();
            (argument.len(), thread::current().name().unwrap().to_owned())
        });
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!call.state().is_done(), "the ticker ticked while the call was blocked");
        drop(release);
        let (length, name) = call.await.unwrap();
        assert_eq!(length, 8);
        assert!(name.starts_with("callbridge-"), "{name}");
    });
}

/// C91, C61: a call that ends after its loop has gone troubles nobody; A50: short runs in a row.
#[test]
fn a_runtime_does_not_wait_for_a_call_and_the_call_survives_it() {
    for _ in 0..20 {
        let (release, blocked) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.spawn(async move {
            to_thread(move || {
                let _ = blocked.recv();
                ended.send(()).unwrap();
            })
            .await
        });
        drop(runtime);
        drop(release);
        // Whether or not the call began: its closure went one way or the other.
        let _ = end.recv_timeout(LONG);
    }
}

/// A41, C89: cancelled before its start, a call's body never runs.
#[test]
fn a_queued_call_that_is_dropped_never_starts() {
    let pool = pool_of(1);
    let (release, _busy) = blocker(&pool);
    let census = Census::default();
    let (guard, ran) = (census.guard(), Arc::new(AtomicBool::new(false)));
    let running = Arc::clone(&ran);
    let call = run_in_executor(&pool, move || {
        let _guard = guard;
        running.store(true, Ordering::SeqCst);
    });
    drop(call);
    assert_eq!(census.alive(), 0, "its closure is dropped at once");
    drop(release);
    clean(&pool.shutdown_blocking(LONG));
    assert!(!ran.load(Ordering::SeqCst));
}

/// A48: the runtime's own abort works on an awaited call.
#[test]
fn aborting_the_awaiting_task_abandons_the_call() {
    block_on(async {
        let pool = pool_of(1);
        let (began, begun) = tokio::sync::oneshot::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let abandoned = pool.clone();
        let task = tokio::spawn(async move {
            run_in_executor(&abandoned, move || {
                began.send(()).unwrap();
                let _ = blocked.recv();
                ended.send(()).unwrap();
            })
            .await
        });
        begun.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        // A45: the abandoned thread completes by itself.
        drop(release);
        end.recv_timeout(LONG).unwrap();
    });
}

/// A call waits, while it is awaited, for room in a full queue.
#[test]
fn a_call_awaits_room_in_a_full_queue() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).queue(1).build();
        let (release, _busy) = blocker(&pool);
        let queued = run_in_executor(&pool, || 1);
        let unsent = run_in_executor(&pool, || 2);
        let late = run_in_executor(&pool, || 3);
        assert_eq!(pool.stats().queued, 1);
        drop(release);
        let (second, third, first) = tokio::join!(unsent, late, queued);
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 3));
    });
}

#[test]
fn a_call_that_awaits_room_is_refused_when_the_pool_closes() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).queue(1).build();
        let (release, _busy) = blocker(&pool);
        let _queued = pool.submit(|| ());
        let unsent = run_in_executor(&pool, || ());
        let report = pool.shutdown(SHORT).await;
        assert!(!report.is_clean());
        let refused = unsent.await.unwrap_err();
        assert!(matches!(refusal(&refused), Some(ExecutorError::Closed)), "{refused:?}");
        drop(release);
    });
}

// submit

/// C36: the value of one job. C49, C51: closure and result are dropped though nobody asks.
#[test]
fn a_job_leaves_nothing_behind() {
    let pool = pool_of(1);
    assert_eq!(pool.submit(|| 256_u32.pow(2)).result(LONG).unwrap(), 65536);
    let census = Census::default();
    let (closure, value) = (census.guard(), census.guard());
    drop(pool.submit(move || {
        let _closure = closure;
        value
    }));
    pool.submit(|| ()).result(LONG).unwrap();
    assert_eq!(census.alive(), 0);
    clean(&pool.shutdown_blocking(LONG));
}

/// C50, C43: zero workers, a queue of zero, a buffer of zero are refused where they are given.
#[test]
fn zero_is_refused() {
    for mistake in [
        (|| drop(ThreadPool::builder().max_workers(0))) as fn(),
        || drop(ThreadPool::builder().queue(0)),
        || drop(pool_of(1).map(0..1, |n| n, 0)),
        || drop(ThreadPool::builder().thread_name("a\0b")),
    ] {
        assert!(thread::spawn(mistake).join().is_err());
    }
}

/// C54, A60: the documented default.
#[test]
fn the_defaults_are_as_documented() {
    assert_eq!(ThreadPool::builder().build().max_workers(), 64);
    assert_eq!(ThreadPool::shared().max_workers(), ThreadPool::DEFAULT_MAX_WORKERS);
}

/// C55: 60 blocked jobs on 4 workers make exactly 4 threads. C62: all of them end.
#[test]
fn saturation_makes_no_more_threads_than_allowed() {
    let pool = pool_of(4);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let mut jobs: Vec<_> = (0..60)
        .map(|_| {
            let blocked = Arc::clone(&blocked);
            pool.submit(move || drop(blocked.lock().map(|blocked| blocked.recv())))
        })
        .collect();
    eventually(|| pool.stats().workers == 4);
    for _ in 0..60 {
        release.send(()).unwrap();
    }
    let (done, not_done) = wait(&mut jobs, LONG, ReturnWhen::AllCompleted).unwrap();
    assert_eq!((done.len(), not_done.len()), (60, 0));
    assert_eq!(pool.stats().workers, 4);
}

/// Blocking jobs get a thread each at once: none waits behind another while there are places.
#[test]
fn jobs_that_wait_for_each_other_all_run() {
    for _ in 0..20 {
        let pool = pool_of(16);
        let meeting = Arc::new(Barrier::new(16));
        let mut jobs: Vec<_> = (0..16)
            .map(|_| {
                let meeting = Arc::clone(&meeting);
                pool.submit(move || {
                    let _ = meeting.wait();
                })
            })
            .collect();
        let (done, _) = wait(&mut jobs, LONG, ReturnWhen::AllCompleted).unwrap();
        assert_eq!(done.len(), 16);
    }
}

/// As above, with a stream of short jobs before: the threads that are asleep are woken.
#[test]
fn a_long_job_among_short_ones_holds_up_nobody() {
    let pool = pool_of(4);
    for _ in 0..200 {
        let mut short: Vec<_> = (0..50).map(|n| pool.submit(move || n)).collect();
        let meeting = Arc::new(Barrier::new(4));
        let mut long: Vec<_> = (0..4)
            .map(|_| {
                let meeting = Arc::clone(&meeting);
                pool.submit(move || {
                    let _ = meeting.wait();
                })
            })
            .collect();
        let (done, late) = wait(&mut long, LONG, ReturnWhen::AllCompleted).unwrap();
        assert_eq!((done.len(), late.len()), (4, 0));
        let (done, late) = wait(&mut short, LONG, ReturnWhen::AllCompleted).unwrap();
        assert_eq!((done.len(), late.len()), (50, 0));
    }
}

/// C56, A9: jobs one after the other use one thread.
#[test]
fn an_idle_thread_is_used_again() {
    let pool = pool_of(8);
    let threads: HashSet<ThreadId> =
        (0..5).map(|_| pool.submit(|| thread::current().id()).result(LONG).unwrap()).collect();
    assert_eq!(threads.len(), 1);
    assert_eq!(pool.stats().workers, 1);
}

/// A9: a thread that has nothing to do ends; A51: and is never handed work while it does.
#[test]
fn idle_threads_retire_and_new_ones_come() {
    let pool = ThreadPool::builder().idle_timeout(Duration::from_millis(1)).build();
    for _ in 0..5 {
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        eventually(|| pool.stats().workers == 0);
    }
    let busy = ThreadPool::builder().idle_timeout(Duration::ZERO).build();
    for n in 0..2000 {
        assert_eq!(busy.submit(move || n).result(LONG).unwrap(), n);
    }
}

/// C69: a given prefix, and numbers behind it.
#[test]
fn threads_have_names() {
    let name = || thread::current().name().unwrap().to_owned();
    let named = ThreadPool::builder().thread_name("disk").build();
    assert_eq!(named.submit(name).result(LONG).unwrap(), "disk-0");
    let unnamed = ThreadPool::builder().build();
    assert_eq!(unnamed.submit(name).result(LONG).unwrap(), "callbridge-pool-0");
}

/// C76: a job that panics fails its own waiter, and the thread goes on.
#[test]
fn a_panic_is_a_value_and_costs_no_thread() {
    let pool = pool_of(1);
    let before = pool.submit(|| thread::current().id()).result(LONG).unwrap();
    let error = pool.submit(|| panic!("just this one")).result(LONG);
    let error: Result<(), _> = error;
    assert!(matches!(error, Err(ResultError::Panicked(_))));
    assert_eq!(pool.submit(|| thread::current().id()).result(LONG).unwrap(), before);
}

/// C76: a thread that can't be started is an error value, and the pool isn't broken by it.
#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    let pool = ThreadPool::builder().stack_size(usize::MAX / 4).build();
    for _ in 0..3 {
        let error = pool.submit(|| ()).result(LONG).unwrap_err();
        assert!(matches!(refusal(&error), Some(ExecutorError::NoThread(_))), "{error:?}");
    }
    assert_eq!(pool.stats().workers, 0);
    clean(&pool.shutdown_blocking(LONG));
}

#[test]
fn try_submit_hands_the_job_back_when_the_queue_is_full() {
    let pool = ThreadPool::builder().max_workers(1).queue(1).build();
    let (release, _busy) = blocker(&pool);
    let mut queued = pool.try_submit(|| 1).unwrap();
    let error = pool.try_submit(|| 2).unwrap_err();
    assert!(matches!(error, SubmitError::Full(_)));
    assert_eq!(error.into_inner()(), 2);
    let error = pool.submit_timeout(|| 3, SHORT).unwrap_err();
    assert!(matches!(error, SubmitError::TimedOut(_)));
    assert_eq!(error.into_inner()(), 3);
    drop(release);
    assert_eq!(queued.result(LONG).unwrap(), 1);
}

#[test]
fn submit_waits_for_room() {
    let pool = ThreadPool::builder().max_workers(1).queue(1).build();
    let (release, _busy) = blocker(&pool);
    let _queued = pool.submit(|| 1);
    let submitting = pool.clone();
    let waiting = thread::spawn(move || submitting.submit(|| 2).result(LONG).unwrap());
    drop(release);
    assert_eq!(waiting.join().unwrap(), 2);
}

#[test]
fn a_submission_that_would_block_the_loop_is_refused() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).queue(1).build();
        let (release, _busy) = blocker(&pool);
        let queued = pool.submit(|| 1);
        let refused = pool.submit(|| 2);
        assert_eq!(refused.state(), FutureState::WouldDeadlock);
        let error = pool.submit_timeout(|| 3, LONG).unwrap_err();
        assert!(matches!(error, SubmitError::WouldDeadlock(_)));
        drop(release);
        assert_eq!(queued.await.unwrap(), 1);
    });
}

#[test]
fn submit_async_awaits_room_and_hands_back_when_closed() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).queue(1).build();
        let (release, _busy) = blocker(&pool);
        let queued = pool.submit_async(|| 1).await.unwrap();
        let mut third = Box::pin(pool.submit_async(|| 2));
        assert!(futures_poll_once(&mut third).await.is_none(), "there is no room");
        // Cancel safety: the job of a submission that is dropped never runs.
        let census = Census::default();
        let guard = census.guard();
        let mut dropped = Box::pin(pool.submit_async(move || drop(guard)));
        assert!(futures_poll_once(&mut dropped).await.is_none());
        drop(dropped);
        assert_eq!(census.alive(), 0);
        drop(release);
        assert_eq!(third.await.unwrap().await.unwrap(), 2);
        assert_eq!(queued.await.unwrap(), 1);
        clean(&pool.shutdown(LONG).await);
        let error = pool.submit_async(|| 4).await.unwrap_err();
        assert!(matches!(error, SubmitError::Closed(_)));
        assert_eq!(error.into_inner()(), 4);
    });
}

async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

/// A done callback may use the pool that runs it.
#[test]
fn a_done_callback_may_wait_for_another_job() {
    let pool = pool_of(1);
    let (told, tell) = mpsc::channel();
    let (release, job) = blocker(&pool);
    let nested = pool.clone();
    job.add_done_callback(move |_| {
        told.send(nested.submit(|| 7).result(LONG).map_err(|error| error.to_string())).unwrap();
    });
    drop(release);
    assert_eq!(tell.recv_timeout(LONG).unwrap(), Ok(7));
}

// map

/// C38, C44: the results of a plain map, in order, with any buffer.
#[test]
fn map_keeps_the_order_of_its_input() {
    block_on(async {
        let pool = pool_of(4);
        for buffer in [1, 2, 5, 100] {
            let mut squares = pool.map(0..50_u64, |n| n * n, buffer);
            for n in 0..50 {
                assert_eq!(next(&mut squares).await.unwrap().unwrap(), n * n);
            }
            assert!(next(&mut squares).await.is_none());
            assert!(next(&mut squares).await.is_none(), "the end stays the end");
        }
    });
}

/// C39: a failing item gives its error in its place, and the stream goes on.
#[test]
fn map_goes_on_after_a_panic() {
    block_on(async {
        let pool = pool_of(2);
        let mut mapped = pool.map(0..5, |n| if n == 2 { panic!("not {n}") } else { n }, 3);
        let mut outcomes = Vec::new();
        while let Some(outcome) = next(&mut mapped).await {
            outcomes.push(outcome.map_err(|error| matches!(error, ResultError::Panicked(_))));
        }
        assert_eq!(outcomes, [Ok(0), Ok(1), Err(true), Ok(3), Ok(4)]);
    });
}

/// C40: a timeout that the work returns is the work's. C41, C58: after a deadline of the caller's
/// the stream is dropped, and what hasn't begun never runs.
#[test]
fn dropping_a_map_keeps_what_has_not_begun_from_running() {
    block_on(async {
        let pool = pool_of(1);
        let mut own = pool.map(0..1, |_| Err::<(), _>("timed out"), 1);
        assert_eq!(next(&mut own).await.unwrap().unwrap(), Err("timed out"));

        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let count = move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            began.send(()).unwrap();
            drop(blocked.lock().map(|blocked| blocked.recv()));
        };
        let mut mapped = pool.map(0..10, count, 10);
        begun.recv_timeout(LONG).unwrap();
        assert!(tokio::time::timeout(SHORT, next(&mut mapped)).await.is_err());
        drop(mapped);
        drop(release);
        clean(&pool.shutdown(LONG).await);
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    });
}

/// C45, C47: endless input; never more taken than the buffer holds. C53: submission is eager.
#[test]
fn map_takes_no_more_than_its_buffer() {
    block_on(async {
        let pool = pool_of(2);
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let endless = (0_usize..).inspect(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let mut mapped = pool.map(endless, |n| n, 4);
        assert_eq!(taken.load(Ordering::SeqCst), 4, "at once, without a reader");
        for n in 0..100 {
            assert_eq!(next(&mut mapped).await.unwrap().unwrap(), n);
            assert_eq!(taken.load(Ordering::SeqCst), n + 5);
        }
    });
}

/// C46: empty input ends at once.
#[test]
fn map_over_nothing_ends_at_once() {
    block_on(async {
        let pool = pool_of(1);
        assert!(next(&mut pool.map(std::iter::empty::<u8>(), |n| n, 1)).await.is_none());
        assert_eq!(pool.stats().workers, 0);
    });
}

/// A buffer that is longer than the queue fills it and waits.
#[test]
fn map_waits_for_a_queue_shorter_than_its_buffer() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(2).queue(1).build();
        let mut mapped = pool.map(0..500, |n| n, 64);
        for n in 0..500 {
            assert_eq!(next(&mut mapped).await.unwrap().unwrap(), n);
        }
        assert!(next(&mut mapped).await.is_none());
    });
}

// initializer

/// C72: it runs in each worker before its work.
#[test]
fn the_initializer_runs_once_in_each_thread() {
    std::thread_local!(static READY: AtomicUsize = const { AtomicUsize::new(0) });
    let initialize = || {
        READY.with(|ready| ready.fetch_add(1, Ordering::SeqCst));
        Ok::<_, String>(())
    };
    let pool = ThreadPool::builder().max_workers(3).initializer(initialize).build();
    let meeting = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        let mut jobs: Vec<_> = (0..3)
            .map(|_| {
                let meeting = Arc::clone(&meeting);
                pool.submit(move || {
                    meeting.wait();
                    READY.with(|ready| ready.load(Ordering::SeqCst))
                })
            })
            .collect();
        assert!(jobs.iter_mut().all(|job| job.result(LONG).unwrap() == 1));
    }
}

/// Threads are initialised next to each other, not one after the other.
#[test]
fn slow_initializers_do_not_wait_for_each_other() {
    let meeting = Arc::new(Barrier::new(3));
    let initialize = move || {
        meeting.wait();
        Ok::<_, String>(())
    };
    let pool = ThreadPool::builder().max_workers(3).initializer(initialize).build();
    let mut jobs: Vec<_> = (0..3).map(|n| pool.submit(move || n)).collect();
    let (done, late) = wait(&mut jobs, LONG, ReturnWhen::AllCompleted).unwrap();
    assert_eq!((done.len(), late.len()), (3, 0));
}

/// C73: a failing one breaks the pool: queued and later jobs fail with the reason.
#[test]
fn a_failing_initializer_breaks_the_pool() {
    let reasons: [fn() -> Result<(), String>; 2] =
        [|| Err("no licence".to_owned()), || panic!("no licence")];
    for initialize in reasons {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let pool = ThreadPool::builder()
            .max_workers(1)
            .initializer(move || {
                drop(blocked.lock().map(|blocked| blocked.recv()));
                initialize()
            })
            .build();
        let mut queued: Vec<_> = (0..5).map(|_| pool.submit(|| ())).collect();
        drop(release);
        for job in &mut queued {
            let error = job.result(LONG).unwrap_err();
            assert!(matches!(refusal(&error), Some(ExecutorError::Broken(_))), "{error:?}");
            assert!(whole(&error).contains("no licence"), "{error}");
        }
        let error = pool.try_submit(|| ()).unwrap_err();
        let SubmitError::Refused(why, _) = error else { panic!("{error:?}") };
        assert!(matches!(why.downcast_ref(), Some(ExecutorError::Broken(_))), "{why:?}");
        let error = block_on(run_in_executor(&pool, || ())).unwrap_err();
        assert!(whole(&error).contains("no licence"), "{error}");
        assert!(pool.is_closed());
        clean(&pool.shutdown_blocking(LONG));
    }
}

// shutdown

/// C59, C92: after shutdown every way in refuses, and shutting down twice is fine.
#[test]
fn a_pool_that_is_shut_down_refuses() {
    let pool = pool_of(1);
    clean(&pool.shutdown_blocking(LONG));
    clean(&pool.shutdown_blocking(Duration::ZERO));
    assert!(pool.is_closed());
    let refused = |error| matches!(refusal(&error), Some(ExecutorError::Closed));
    assert!(refused(pool.submit(|| ()).result(LONG).unwrap_err()));
    assert!(matches!(pool.try_submit(|| ()), Err(SubmitError::Closed(_))));
    assert!(matches!(pool.submit_timeout(|| (), LONG), Err(SubmitError::Closed(_))));
    assert!(refused(block_on(run_in_executor(&pool, || ())).unwrap_err()));
    let mapped = block_on(async { next(&mut pool.map(0..1, |n| n, 1)).await });
    assert!(refused(mapped.unwrap().unwrap_err()));
}

/// C62, C66, C60: accepted work is done and every thread has ended.
#[test]
fn shutdown_lets_accepted_work_finish() {
    let pool = pool_of(4);
    let mut jobs: Vec<_> = (0..50).map(|n| pool.submit(move || n)).collect();
    clean(&pool.shutdown_blocking(LONG));
    assert_eq!(pool.stats().workers, 0);
    for (n, job) in jobs.iter_mut().enumerate() {
        assert_eq!(job.try_result().unwrap().unwrap(), n);
    }
}

/// C48: shutting down right after saturating doesn't hang. C65: nor after a cancel.
#[test]
fn shutdown_right_after_submissions_and_cancels_ends() {
    for _ in 0..50 {
        let pool = pool_of(3);
        let jobs: Vec<_> = (0..9).map(|n| pool.submit(move || n)).collect();
        jobs[8].cancel();
        clean(&pool.shutdown_blocking(LONG));
        assert!(jobs.iter().all(BlockingFuture::is_done));
    }
}

/// C63, C94: at the deadline queued jobs are refused and the ones that run are named.
#[test]
fn shutdown_names_what_is_stuck_at_the_deadline() {
    let pool = ThreadPool::builder().max_workers(2).thread_name("stuck").build();
    let (first, mut first_job) = blocker(&pool);
    let (second, mut second_job) = blocker(&pool);
    let mut queued: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
    let report = pool.shutdown_blocking(SHORT);
    assert_eq!((report.refused, report.threads_left, report.stuck.len()), (10, 2, 2));
    assert!(!report.would_deadlock);
    let names: HashSet<_> = report.stuck.iter().map(|job| job.thread.to_string()).collect();
    assert_eq!(names, HashSet::from(["stuck-0".to_owned(), "stuck-1".to_owned()]));
    assert!(report.stuck.iter().all(|job| job.location.file().ends_with("executor.rs")));
    assert!(report.to_string().contains("stuck-1"), "{report}");
    for job in &mut queued {
        let error = job.result(Duration::ZERO).unwrap_err();
        assert!(matches!(refusal(&error), Some(ExecutorError::Closed)), "{error:?}");
    }
    // What ran goes on to its end.
    drop((first, second));
    first_job.result(LONG).unwrap();
    second_job.result(LONG).unwrap();
    clean(&pool.shutdown_blocking(LONG));
}

/// G14, G15: an awaited shutdown blocks neither the loop nor the pool that its jobs need.
#[test]
fn an_awaited_shutdown_lets_a_job_that_needs_the_loop_end() {
    for event_loop in Loop::both() {
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            let pool = pool_of(1);
            let bridge = Bridge::current();
            let (began, begun) = tokio::sync::oneshot::channel();
            let job = pool.submit(move || {
                began.send(()).unwrap();
                bridge
                    .run_coroutine_threadsafe(async { to_thread(|| 5).await.unwrap() })
                    .result(LONG)
            });
            begun.await.unwrap();
            clean(&pool.shutdown(LONG).await);
            job.await.unwrap().unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), 5);
    }
}

#[test]
fn shutdown_on_a_thread_that_must_not_wait_says_so() {
    let pool = pool_of(1);
    let own = pool.clone();
    let report = pool.submit(move || own.shutdown_blocking(LONG)).result(LONG).unwrap();
    assert!(report.would_deadlock, "on its own thread");
    clean(&pool.shutdown_blocking(LONG));

    let pool = pool_of(1);
    let (release, _busy) = blocker(&pool);
    let report = block_on(async { pool.shutdown_blocking(LONG) });
    assert!(report.would_deadlock, "on the loop");
    assert_eq!(report.stuck.len(), 1);
    drop(release);
    clean(&pool.shutdown_blocking(LONG));
}

/// C67, C68, C64, C70: dropping the pool waits for nothing; accepted work is done, threads end.
#[test]
fn a_dropped_pool_finishes_its_work() {
    let census = Census::default();
    let pool = {
        let census = census.clone();
        ThreadPool::builder()
            .max_workers(2)
            .initializer(move || {
                std::thread_local! {
                    static HERE: std::cell::RefCell<Option<common::Alive>> =
                        const { std::cell::RefCell::new(None) };
                }
                HERE.set(Some(census.guard()));
                Ok::<_, String>(())
            })
            .build()
    };
    let (release, mut busy) = blocker(&pool);
    let mut queued: Vec<_> = (0..20).map(|n| pool.submit(move || n)).collect();
    drop(pool);
    drop(release);
    busy.result(LONG).unwrap();
    for (n, job) in queued.iter_mut().enumerate() {
        assert_eq!(job.result(LONG).unwrap(), n);
    }
    eventually(|| census.alive() == 0);
}

/// Many pools, submitted to from several threads and shut down meanwhile: every job is decided.
#[test]
fn no_submission_hangs_when_the_pool_closes_meanwhile() {
    for _ in 0..100 {
        let pool = ThreadPool::builder().max_workers(2).queue(2).build();
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for n in 0..20 {
                        match pool.submit(move || n).result(LONG) {
                            Ok(value) => assert_eq!(value, n),
                            Err(ref error)
                                if matches!(refusal(error), Some(ExecutorError::Closed)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        // A job that got into the queue just before the end may have been refused.
        let report = pool.shutdown_blocking(LONG);
        assert_eq!((report.threads_left, report.stuck.len()), (0, 0), "{report}");
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    }
}

// nesting

/// G1: two jobs on a pool of one thread run one after the other. G17: the given pool is used.
#[test]
fn a_pool_of_one_runs_one_job_at_a_time() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).thread_name("only").build();
        let inside = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let inside = Arc::clone(&inside);
                run_in_executor(&pool, move || {
                    let together = inside.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    (together, thread::current().name().map(str::to_owned))
                })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), (0, Some("only-0".to_owned())));
        }
    });
}

/// G3, G4, G21: loop, thread, loop, thread and so on ends, on distinct threads, with a pool of one.
#[test]
fn nesting_through_the_loop_ends_in_a_pool_of_one() {
    fn nest(pool: ThreadPool, depth: usize) -> Vec<ThreadId> {
        let mut threads = vec![thread::current().id()];
        if depth > 0 {
            let inner = Bridge::current().run_coroutine_threadsafe(async move {
                let task = tokio::spawn(async move {
                    let nested = pool.clone();
                    run_in_executor(&pool, move || nest(nested, depth - 1)).await
                });
                task.await.unwrap().unwrap()
            });
            threads.extend({ inner }.result(LONG).unwrap());
        }
        threads
    }

    for event_loop in Loop::both() {
        let pool = pool_of(1);
        let nested = pool.clone();
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async move {
            let inner = nested.clone();
            run_in_executor(&nested, move || nest(inner, 4)).await.unwrap()
        });
        let threads = call.result(LONG).unwrap();
        let distinct: HashSet<_> = threads.iter().collect();
        assert_eq!((threads.len(), distinct.len()), (5, 5), "each wait lends its place");
        eventually(|| pool.stats().workers <= 1);
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        assert_eq!(pool.stats().workers, 1, "the extra threads have gone");
    }
}

/// A job that waits for a job of its own pool, and for room in its own pool's queue.
#[test]
fn a_job_may_wait_for_its_own_pool() {
    let pool = ThreadPool::builder().max_workers(1).queue(1).build();
    let nested = pool.clone();
    let mut job = pool.submit(move || {
        let mut jobs: Vec<_> = (0..5).map(|n| nested.submit(move || n)).collect();
        jobs.iter_mut().map(|job| job.result(LONG).unwrap()).sum::<i32>()
    });
    assert_eq!(job.result(LONG).unwrap(), 10);
}

/// G18: an error inside leaves no trace: the next nested call works. G20: a blocker on its own
/// thread doesn't block the one that releases it.
#[test]
fn a_nested_panic_leaves_the_pool_in_order() {
    let pool = pool_of(1);
    for _ in 0..3 {
        let nested = pool.clone();
        let mut job = pool.submit(move || {
            let panicked = nested.submit(|| panic!("inside")).result(LONG);
            let panicked: Result<(), _> = panicked;
            assert!(panicked.is_err());
            nested.submit(|| 1).result(LONG).unwrap()
        });
        assert_eq!(job.result(LONG).unwrap(), 1);
    }
    let pool = pool_of(2);
    let (release, mut blocked) = blocker(&pool);
    pool.submit(move || drop(release)).result(LONG).unwrap();
    blocked.result(LONG).unwrap();
}

/// G23: the loop is there but nobody drives it: the wait in the job ends at its timeout.
#[test]
fn a_job_that_waits_for_a_stopped_loop_times_out() {
    let stopped = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(stopped.handle().clone());
    let mut job =
        pool_of(1).submit(move || bridge.run_coroutine_threadsafe(async {}).result(SHORT));
    assert!(matches!(job.result(LONG).unwrap(), Err(ResultError::TimedOut { .. })));
}
