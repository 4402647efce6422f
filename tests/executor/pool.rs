//! to_thread, run_in_executor and ThreadPool.

use super::{block_on, blocker, pool_of};
use crate::child::in_a_child;
use crate::common::{Census, HUGE_STACK, LONG, Loop, eventually, refusal};
use callbridge::SettingError;
use callbridge::future::{Refusal, ReturnWhen};
use callbridge::{Bridge, ResultError, ThreadPool, run_in_executor, to_thread, wait};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

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
    super::clean(&pool.close_blocking(LONG));
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
    super::clean(&pool.close_blocking(LONG));
}

/// C50, C43: zero workers, no room, a buffer of zero are refused; each error names its setting.
#[test]
fn settings_that_make_no_sense_are_refused() {
    let pool = ThreadPool::builder;
    for (refused, name) in [
        (pool().max_workers(0), "max_workers"),
        (pool().capacity(0), "capacity"),
        (pool().max_workers(3).max_threads(2), "max_threads"),
        (pool().name("a\0b"), "name"),
    ] {
        let error = refused.build().unwrap_err();
        assert_eq!(error.setting(), name, "{error}");
    }
    let thread = callbridge::DedicatedThread::builder;
    for refused in [thread().name("a\0b"), thread().capacity(0)] {
        let error = refused.spawn(|| Ok::<_, String>(())).result(LONG).unwrap_err();
        assert!(
            matches!(&error, ResultError::Refused(Refusal::NotStarted(why)) if why.is::<SettingError>()),
            "{error:?}"
        );
    }
    assert!(thread::spawn(|| drop(pool_of(1).map(0..1, |n| n, 0))).join().is_err());
}

/// C54, A60: the documented default.
#[test]
fn the_defaults_are_as_documented() {
    assert_eq!(ThreadPool::builder().build().unwrap().max_workers(), 64);
    assert_eq!(ThreadPool::shared().max_workers(), 64);
}

/// C93: the shared pool can be set up before it is used, and not afterwards.
#[test]
fn the_shared_pool_is_set_up_before_its_first_use_or_not_at_all() {
    in_a_child("pool::the_shared_pool_is_set_up_before_its_first_use_or_not_at_all", || {
        let narrow = || ThreadPool::builder().max_workers(1);
        assert!(std::ptr::eq(narrow().build_shared().unwrap(), ThreadPool::shared()));
        assert_eq!(ThreadPool::shared().max_workers(), 1);
        let refused = narrow().max_workers(2).build_shared().unwrap_err();
        assert!(refused.to_string().contains("build_shared"), "{refused}");
        assert_eq!(ThreadPool::shared().max_workers(), 1);
    });
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
    eventually("its threads", || pool.stats().workers == 4);
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
    let pool = ThreadPool::builder().idle_timeout(Duration::from_millis(1)).build().unwrap();
    for _ in 0..5 {
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        eventually("its threads", || pool.stats().workers == 0);
    }
    let busy = ThreadPool::builder().idle_timeout(Duration::ZERO).build().unwrap();
    for n in 0..2000 {
        assert_eq!(busy.submit(move || n).result(LONG).unwrap(), n);
    }
}

/// C69: a given prefix, and numbers behind it.
#[test]
fn threads_have_names() {
    let name = || thread::current().name().unwrap().to_owned();
    let named = ThreadPool::builder().name("disk").build().unwrap();
    assert_eq!(named.submit(name).result(LONG).unwrap(), "disk-0");
    let unnamed = ThreadPool::builder().build().unwrap();
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
    let pool = ThreadPool::builder().stack_size(HUGE_STACK).build().unwrap();
    for _ in 0..3 {
        let error = pool.submit(|| ()).result(LONG).unwrap_err();
        assert!(matches!(refusal(&error), Some(Refusal::NotStarted(_))), "{error:?}");
    }
    assert_eq!(pool.stats().workers, 0);
    super::clean(&pool.close_blocking(LONG));
}

/// G1: two jobs on a pool of one thread run one after the other. G17: the given pool is used.
#[test]
fn a_pool_of_one_runs_one_job_at_a_time() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).name("only").build().unwrap();
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
