//! Submitting, parallelism, and what a slow poll may hold up.

use crate::common::{Census, LONG, Loop, eventually};
use callbridge::bridge::BridgeStats;
use callbridge::{Bridge, run_coroutine_threadsafe};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

#[test]
fn the_free_function_and_the_handle_extension_reach_the_loop() {
    for runtime in Loop::both() {
        let handle = runtime.handle();
        assert_eq!(run_coroutine_threadsafe(async { 1 }, &handle).result(LONG).unwrap(), 1);
        let mut call = Bridge::new(handle.clone()).run_coroutine_threadsafe(async { 2 });
        assert_eq!(call.result(LONG).unwrap(), 2);
    }
}

/// A11: no loop here is an error, and `current` names the caller's line.
#[test]
fn current_needs_a_loop() {
    assert!(Bridge::try_current().is_err());
    let panic = thread::spawn(Bridge::current).join().unwrap_err();
    assert!(panic.downcast_ref::<&str>().unwrap().contains("no event loop runs here"));
}

/// b77. neon: a call that a thread joins sees the state of the time it runs, not of its submission.
#[test]
fn a_call_sees_the_state_of_the_time_it_runs() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (submitted, wait_for_it) = mpsc::channel();
    let (answer, answered) = oneshot::channel();
    let waiter = thread::spawn(move || {
        let state = Arc::new(AtomicUsize::new(1));
        let seen = Arc::clone(&state);
        let mut call = bridge.run_coroutine_threadsafe(async move { seen.load(Ordering::SeqCst) });
        state.store(2, Ordering::SeqCst);
        submitted.send(()).unwrap();
        answer.send(call.result(LONG)).unwrap();
    });
    wait_for_it.recv_timeout(LONG).unwrap();
    assert_eq!(undriven.block_on(answered).unwrap().unwrap(), 2);
    waiter.join().unwrap();
}

#[test]
fn timers_and_spawned_tasks_work_inside() {
    for runtime in Loop::both() {
        let mut call = runtime.bridge().run_coroutine_threadsafe(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let nested = tokio::spawn(async { Bridge::current() }).await.unwrap();
            nested.run_coroutine_threadsafe(async { 3 }).await.unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), 3);
    }
}

/// Rule 10: two calls that block until both run meet when they run at once. tokio itself strands
/// one of two such tasks once in some thousand times, so not every meeting needs to come about.
#[test]
fn calls_run_in_parallel_on_all_workers() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let mut met = 0;
    for _ in 0..20 {
        let (here, there) = (mpsc::channel(), mpsc::channel());
        let sides = [(here.0, there.1), (there.0, here.1)];
        let calls = sides.map(|(said, heard)| {
            bridge.run_coroutine_threadsafe(async move {
                said.send(()).unwrap();
                heard.recv_timeout(Duration::from_secs(1)).is_ok()
            })
        });
        // One after the other, the first would wait in vain.
        met += usize::from(calls.into_iter().all(|mut call| call.result(LONG).unwrap()));
    }
    assert!(met >= 15, "{met} of 20");
}

/// Rule 10: one slow poll delays no other work while a worker is free; also work that a waker
/// brings.
#[test]
fn a_slow_poll_delays_no_other_work_on_a_free_worker() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let (wake, woken) = oneshot::channel::<()>();
    let mut suspended = bridge.run_coroutine_threadsafe(woken);
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let mut slow = bridge.run_coroutine_threadsafe(async move {
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    for n in 0..1_000 {
        assert_eq!(bridge.run_coroutine_threadsafe(async move { n }).result(LONG).unwrap(), n);
    }
    wake.send(()).unwrap();
    suspended.result(LONG).unwrap().unwrap();
    let (said, heard) = mpsc::channel();
    drop(bridge.run_coroutine_threadsafe(async move { said.send(()).unwrap() }));
    heard.recv_timeout(LONG).unwrap();
    assert!(!slow.is_done());
    drop(release);
    slow.result(LONG).unwrap();
}

/// tokio replaces a worker that is inside `block_in_place`; the drivers must not be fewer.
#[test]
fn calls_inside_block_in_place_leave_the_bridge_working() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let meeting = Arc::new(Barrier::new(8));
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let meeting = Arc::clone(&meeting);
            bridge.run_coroutine_threadsafe(async move {
                tokio::task::block_in_place(|| meeting.wait());
            })
        })
        .collect();
    for mut call in calls {
        call.result(LONG).unwrap();
    }
}

#[test]
fn other_tasks_of_the_loop_get_their_turns_under_a_flood() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticker = runtime.handle().spawn({
        let ticks = Arc::clone(&ticks);
        async move {
            loop {
                ticks.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    // Each call wakes itself for ever: the loop never runs out of ready calls.
    let flood: Vec<_> = (0..100)
        .map(|_| {
            bridge.run_coroutine_threadsafe(std::future::poll_fn(|cx| {
                cx.waker().wake_by_ref();
                std::task::Poll::<()>::Pending
            }))
        })
        .collect();
    let before = ticks.load(Ordering::Relaxed);
    eventually("the ticker goes on", || ticks.load(Ordering::Relaxed) > before + 100);
    ticker.abort();
    for call in flood {
        drop(call.cancel_on_drop());
    }
}

/// Of two workers one computes, in a call that a call woke; the other is free and wakes a third call,
/// which runs there at once.
#[test]
fn a_call_woken_on_a_free_worker_is_not_kept_behind_a_slow_one() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let (wake_slow, slow_woken) = oneshot::channel::<()>();
    let (wake_quick, quick_woken) = oneshot::channel::<()>();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let slow = bridge.run_coroutine_threadsafe(async move {
        slow_woken.await.unwrap();
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    let mut quick = bridge.run_coroutine_threadsafe(async move { quick_woken.await.unwrap() });
    eventually("both wait", || slow.is_running() && quick.is_running());
    let _waking = bridge.run_coroutine_threadsafe(async move { wake_slow.send(()).unwrap() });
    begun.recv_timeout(LONG).unwrap();
    runtime.handle().spawn(async move { wake_quick.send(()).unwrap() });
    quick.result(LONG).unwrap();
    drop(release);
}

/// Of three workers two compute, one of them in a call that the other woke: what a plain thread
/// submits runs on the third.
#[test]
fn a_call_of_a_plain_thread_is_not_kept_waiting_while_a_worker_is_free() {
    let runtime = Loop::multi(3);
    let bridge = runtime.bridge();
    let (wake, woken) = oneshot::channel::<()>();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let (release_waker, blocked_waker) = mpsc::channel::<()>();
    let slow = bridge.run_coroutine_threadsafe(async move {
        woken.await.unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    eventually("it waits", || slow.is_running());
    let _waking = bridge.run_coroutine_threadsafe(async move {
        wake.send(()).unwrap();
        began.send(()).unwrap();
        let _ = blocked_waker.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
    drop((release, release_waker));
}

/// A task makes a bridge of its own loop, gives it away, and computes until the call is through, which
/// runs on the other worker.
#[test]
fn a_bridge_made_in_a_task_runs_calls_while_that_task_computes() {
    let runtime = Loop::multi(2);
    let (told, heard) = mpsc::channel();
    let computing = runtime.handle().spawn(async move {
        let bridge = Bridge::current();
        let caller =
            thread::spawn(move || bridge.run_coroutine_threadsafe(async {}).result(LONG).is_ok());
        told.send(caller.join().unwrap()).unwrap();
    });
    assert!(heard.recv_timeout(LONG).unwrap());
    drop(computing);
}

/// The statistics agree with a count of one's own, and statistics that are wrong don't balance.
#[test]
fn the_counters_agree_with_a_census() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let census = Census::default();
    let mut calls: Vec<_> = (0..30)
        .map(|n| {
            let guard = census.guard();
            bridge.run_coroutine_threadsafe(async move {
                let _guard = guard;
                if n % 3 == 0 {
                    pending::<()>().await;
                }
            })
        })
        .collect();
    for (n, call) in calls.iter_mut().enumerate() {
        if n % 3 != 0 {
            call.result(LONG).unwrap();
        }
    }
    let stats = bridge.stats();
    assert_eq!((stats.submitted, stats.finished, stats.in_flight), (30, 20, 10));
    assert_eq!(census.alive(), 10);
    for call in &mut calls {
        let _ = call.cancel_and_wait(LONG).unwrap();
    }
    let stats = bridge.stats();
    assert_eq!((stats.cancelled, stats.in_flight, census.alive()), (10, 0, 0));
    assert!(stats.balances());
    for wrong in [
        |stats: &mut BridgeStats| stats.submitted += 1,
        |stats: &mut BridgeStats| stats.in_flight += 1,
        |stats: &mut BridgeStats| stats.finished -= 1,
        |stats: &mut BridgeStats| stats.cancelled += 1,
        |stats: &mut BridgeStats| stats.panicked += 1,
        |stats: &mut BridgeStats| stats.loop_closed += 1,
    ] {
        let mut stats = stats;
        wrong(&mut stats);
        assert!(!stats.balances(), "{stats:?}");
    }
}

/// The counters balance at every moment, also while calls begin and end.
#[test]
fn the_counters_balance_at_every_look() {
    let runtime = Loop::multi(2);
    let bridge = runtime.bridge();
    let submitters: Vec<_> = (0..2)
        .map(|_| {
            let bridge = bridge.clone();
            thread::spawn(move || {
                for n in 0..3_000 {
                    let call = bridge.run_coroutine_threadsafe(async move {
                        if n % 2 == 0 {
                            tokio::task::yield_now().await;
                        }
                        assert!(n % 100 != 7, "now and then");
                    });
                    if n % 3 == 0 {
                        call.cancel();
                    }
                }
            })
        })
        .collect();
    let mut looks = 0;
    while submitters.iter().any(|submitter| !submitter.is_finished()) {
        let stats = bridge.stats();
        assert!(stats.balances(), "{stats:?}");
        looks += 1;
    }
    assert!(looks > 0);
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    assert!(bridge.close_blocking(LONG).is_clean());
    assert_eq!(bridge.stats().submitted, 6_000);
}
