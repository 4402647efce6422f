//! Waits that could come back to their own thread: those that are told, and those that are served.

use super::{block_on, blocker, pool_of};
use crate::common::tasks::until_asleep;
use crate::common::{LONG, Loop, SHORT, eventually};
use callbridge::{Bridge, DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use std::collections::HashSet;
use std::sync::mpsc;
use std::thread::{self, ThreadId};

#[test]
fn call_blocking_is_refused_where_it_would_deadlock() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(LONG).unwrap();
    let refused = block_on(async { thread.call_blocking(|count| *count += 1, LONG) });
    assert!(matches!(refused, Err(ResultError::WouldDeadlock)), "on the loop");
    let own = thread.clone();
    let refused = thread.call_blocking(move |_| own.call_blocking(|count| *count += 1, LONG), LONG);
    assert!(matches!(refused.unwrap(), Err(ResultError::WouldDeadlock)), "on its own thread");
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 0, "nothing was queued");
    // It may leave work for later, though.
    let own = thread.clone();
    let later = thread.call_blocking(move |_| own.submit(|count| *count += 1), LONG).unwrap();
    { later }.result(LONG).unwrap();
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 1);
    let report = thread.call_blocking(
        {
            let own = thread.clone();
            move |_| own.close_blocking(LONG)
        },
        LONG,
    );
    assert!(report.unwrap().would_deadlock);
}

/// G9, G11: a dedicated thread calls back into the loop, and the loop's tasks use pools, and back.
#[test]
fn a_call_may_use_the_loop_and_the_pool() {
    for event_loop in Loop::both() {
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).await.unwrap();
            let bridge = Bridge::current();
            let pool = ThreadPool::builder().max_workers(1).build().unwrap();
            let nested = thread.call(move |value| {
                let value = *value;
                let inner = bridge.run_coroutine_threadsafe(async move {
                    run_in_executor(&pool, move || value + 1).await.unwrap()
                        + to_thread(move || value + 2).await.unwrap()
                });
                { inner }.result(LONG).unwrap()
            });
            nested.await.unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), 5);
    }
}

/// G19: a call that waits, by way of the loop, for a later call of its own thread is told, whichever
/// comes first: its wait, or the loop's. The later call is served.
#[test]
fn a_wait_for_a_call_of_the_same_thread_through_the_loop_is_told() {
    for event_loop in Loop::both() {
        for the_loop_is_first in [true, false] {
            let builder = DedicatedThread::builder().name("waits-for-loop");
            let thread = builder.spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
            let (own, bridge) = (thread.clone(), event_loop.bridge());
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            let (asked, ask) = mpsc::channel();
            let later = thread.call_blocking(
                move |_| {
                    let mut inner = bridge.run_coroutine_threadsafe(async move {
                        let _ = gone.await;
                        let mut call = own.call(|value| *value);
                        let first = std::future::poll_fn(|cx| {
                            std::task::Poll::Ready(std::pin::Pin::new(&mut call).poll(cx))
                        });
                        assert!(first.await.is_pending());
                        // The thread may have been told by now.
                        let _ = asked.send(());
                        call.await.unwrap()
                    });
                    if the_loop_is_first {
                        drop(go);
                        ask.recv_timeout(LONG).unwrap();
                    } else {
                        thread::spawn(move || {
                            until_asleep("waits-for-loop");
                            drop(go);
                        });
                    }
                    let refused = inner.result(None);
                    assert!(matches!(refused, Err(ResultError::WouldDeadlock)), "{refused:?}");
                    inner
                },
                LONG,
            );
            assert_eq!(later.unwrap().result(LONG).unwrap(), 1);
        }
    }
}

/// Work that has given the call up, and work that doesn't await it, is waited for as ever.
#[test]
fn a_wait_that_is_no_cycle_is_not_refused() {
    let event_loop = Loop::multi(2);
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
    let (own, bridge) = (thread.clone(), event_loop.bridge());
    let waits = move |_: &mut i32| {
        let (dropped, submitted) = (own.clone(), own.clone());
        let gives_up = async move {
            let late = tokio::time::timeout(SHORT, dropped.call(|value| *value)).await;
            late.is_err()
        };
        // Its own wait is over before the thread's begins.
        let mut gave_up = bridge.run_coroutine_threadsafe(gives_up);
        eventually("it gives up", || gave_up.is_done());
        assert!(gave_up.result(LONG).unwrap());
        let leaves_work = async move { [submitted.submit(|value| *value)] };
        let mut left = bridge.run_coroutine_threadsafe(leaves_work);
        left.result(LONG).unwrap()
    };
    let [mut left] = thread.call_blocking(waits, LONG).unwrap();
    assert_eq!(left.result(LONG).unwrap(), 1);
}

/// The thread waits, on itself, for a call of its own.
#[test]
fn a_wait_on_the_thread_for_its_own_call_is_told() {
    let event_loop = Loop::multi(1);
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
    let (own, bridge) = (thread.clone(), event_loop.bridge());
    let waits = move |_: &mut i32| {
        let mut submitted = own.submit(|value| *value);
        let told = [
            submitted.result(None),
            submitted.result(LONG),
            futures_executor::block_on(own.call(|value| *value)),
            bridge.call(own.call(|value| *value), None).unwrap(),
        ];
        let waited = callbridge::wait(
            std::slice::from_mut(&mut submitted),
            None,
            callbridge::future::ReturnWhen::AllCompleted,
        );
        assert_eq!(waited.unwrap().0.len(), 1);
        assert!(
            told.iter().all(|told| matches!(told, Err(ResultError::WouldDeadlock))),
            "{told:?}"
        );
        submitted
    };
    assert_eq!(thread.call_blocking(waits, LONG).unwrap().result(LONG).unwrap(), 1);
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
        eventually("its threads", || pool.stats().workers <= 1);
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        assert_eq!(pool.stats().workers, 1, "the extra threads have gone");
    }
}

/// A job that waits for a job of its own pool, and for room in its own pool's queue.
#[test]
fn a_job_may_wait_for_its_own_pool() {
    let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
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
