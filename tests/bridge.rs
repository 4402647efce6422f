//! `Bridge`: submitting, order, parallelism, callbacks, closing, and loops that die.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.

mod common;

use callbridge::{Bridge, ResultError, SubmitError, run_coroutine_threadsafe};
use common::{Census, LONG, Loop, SHORT, eventually};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
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
    assert!(panic.downcast_ref::<String>().unwrap().contains("no event loop runs here"));
}

#[test]
fn submissions_of_one_thread_start_in_order() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let order = Arc::new(Mutex::new(Vec::new()));
    let calls: Vec<_> = (0..1_000)
        .map(|n| {
            let order = Arc::clone(&order);
            bridge.run_coroutine_threadsafe(async move { order.lock().unwrap().push(n) })
        })
        .collect();
    for mut call in calls {
        call.result(LONG).unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq(0..1_000));
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

// call_soon_threadsafe

/// On a current-thread loop those of one thread run in order, as in asyncio; a multi-thread loop runs
/// all of them, several at once.
#[test]
fn callbacks_all_run_and_in_order_on_a_current_thread_loop() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|who| {
                let (bridge, order) = (bridge.clone(), order.clone());
                thread::spawn(move || {
                    for n in 0..500 {
                        let order = order.clone();
                        let callback = move || order.lock().unwrap().push((who, n));
                        bridge.call_soon_threadsafe(callback).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(bridge.close_blocking(LONG).is_clean(), "close lets accepted callbacks run");
        let mut order = order.lock().unwrap().clone();
        if let Loop::Multi(_) = runtime {
            order.sort_unstable();
        }
        assert_eq!(order.len(), 2_000);
        for who in 0..4 {
            let of_one = order.iter().filter(|(thread, _)| *thread == who).map(|(_, n)| *n);
            assert!(of_one.eq(0..500));
        }
    }
}

/// C85: the loop's own thread may post, too, and its posts run in order. (C86 is lost: tokio may run
/// them before what was posted elsewhere earlier.)
#[test]
fn posts_from_the_loop_run_in_order() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let (said, heard) = mpsc::channel();
    let poster = bridge.clone();
    let mut call = bridge.run_coroutine_threadsafe(async move {
        for n in 0..100 {
            let said = said.clone();
            poster.call_soon_threadsafe(move || said.send(n).unwrap()).unwrap();
        }
    });
    call.result(LONG).unwrap();
    assert!(heard.iter().eq(0..100));
}

/// b72
#[test]
fn a_panicking_callback_does_not_end_the_lane() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (said, heard) = mpsc::channel();
    bridge.call_soon_threadsafe(|| panic!("in a callback")).unwrap();
    bridge.call_soon_threadsafe(move || said.send(()).unwrap()).unwrap();
    heard.recv_timeout(LONG).unwrap();
}

#[test]
fn callbacks_that_a_dead_loop_never_ran_are_dropped() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let census = Census::default();
    for _ in 0..10 {
        let guard = census.guard();
        bridge.call_soon_threadsafe(move || drop(guard)).unwrap();
    }
    assert_eq!(census.alive(), 10);
    drop(undriven);
    assert_eq!(census.alive(), 0);
    assert!(matches!(bridge.call_soon_threadsafe(|| {}), Err(SubmitError::Closed(_))));
}

// Close

/// A18: closing lets the work in flight finish.
#[test]
fn close_drains_what_ends_in_time() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let token = bridge.child_token();
        let mut call = bridge.run_coroutine_threadsafe(async move {
            token.cancelled().await;
            "told, and ended by itself"
        });
        let report = bridge.close_blocking(LONG);
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.drained, 1, "also if it ended the moment it was told");
        assert_eq!(call.result(None).unwrap(), "told, and ended by itself");
        assert!(bridge.is_closed());
        let mut late = bridge.run_coroutine_threadsafe(async {});
        assert!(matches!(late.result(None), Err(ResultError::LoopClosed)));
        assert!(bridge.close_blocking(Duration::ZERO).is_clean(), "twice is fine");
        // Only the bridge is closed: the loop goes on.
        assert_eq!(runtime.bridge().run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
    }
}

/// A17: what is left at the deadline is dropped, and its waiters are released.
#[test]
fn close_cancels_what_is_left_at_the_deadline() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let census = Census::default();
        let mut calls: Vec<_> = (0..10)
            .map(|_| {
                let guard = census.guard();
                bridge.run_coroutine_threadsafe(async move {
                    let _guard = guard;
                    pending::<()>().await;
                })
            })
            .collect();
        let report = bridge.close_blocking(SHORT);
        assert_eq!((report.drained, report.cancelled, report.stuck.len()), (0, 10, 0));
        assert_eq!(census.alive(), 0);
        for call in &mut calls {
            assert!(matches!(call.result(None), Err(ResultError::LoopClosed)));
        }
        assert!(bridge.stats().balances());
        assert_eq!(bridge.stats().loop_closed, 10);
    }
}

#[test]
fn close_names_the_call_that_does_not_come_out_of_its_poll() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let line = line!() + 1;
    let mut call = bridge.run_coroutine_threadsafe(async move {
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
        pending::<()>().await;
    });
    begun.recv_timeout(LONG).unwrap();
    let report = bridge.close_blocking(SHORT);
    assert_eq!((report.cancelled, report.stuck.len()), (0, 1), "{report}");
    assert_eq!(report.stuck[0].location.line(), line);
    assert!(report.to_string().contains("bridge.rs"), "{report}");
    drop(release);
    assert!(matches!(call.result(LONG), Err(ResultError::LoopClosed)), "dropped at its await");
}

/// Only tokio can drop a task, and does so when the runtime goes.
#[test]
fn a_close_on_a_loop_that_nobody_drives_releases_whoever_waits() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let census = Census::default();
    let guard = census.guard();
    let mut call = bridge.run_coroutine_threadsafe(async move { drop(guard) });
    let mut awaited = bridge.run_coroutine_threadsafe(async {});
    let waiter = thread::spawn(move || call.result(None));
    let report = bridge.close_blocking(SHORT);
    assert_eq!((report.cancelled, report.in_flight, report.stuck.len()), (0, 2, 0), "{report}");
    assert!(matches!(waiter.join().unwrap(), Err(ResultError::LoopClosed)));
    let elsewhere = Builder::new_current_thread().build().unwrap();
    assert!(matches!(elsewhere.block_on(&mut awaited), Err(ResultError::LoopClosed)));
    drop(undriven);
    assert_eq!((census.alive(), bridge.in_flight()), (0, 0));
}

#[test]
fn close_can_be_awaited_without_timers_and_refuses_to_block_the_loop() {
    for runtime in [
        Builder::new_current_thread().build().unwrap(),
        Builder::new_multi_thread().worker_threads(1).build().unwrap(),
    ] {
        runtime.block_on(async {
            let bridge = Bridge::current();
            let call = bridge.run_coroutine_threadsafe(pending::<()>());
            let refused = bridge.close_blocking(LONG);
            assert!(refused.would_deadlock && refused.in_flight == 1, "{refused:?}");
            let report = bridge.close(SHORT).await;
            assert_eq!((report.cancelled, report.would_deadlock), (1, false), "{report:?}");
            assert!(matches!(call.await, Err(ResultError::LoopClosed)));
            assert!(bridge.close(Duration::MAX).await.is_clean());
        });
    }
}

#[test]
fn child_tokens_are_cancelled_by_close_and_by_the_loops_end() {
    let runtime = Loop::multi(1);
    let (closed, died) = (runtime.bridge(), runtime.bridge());
    let tokens = [closed.child_token(), died.child_token()];
    assert!(closed.close_blocking(Duration::ZERO).is_clean());
    assert!(tokens[0].is_cancelled() && !tokens[1].is_cancelled());
    drop(runtime);
    assert!(tokens[1].is_cancelled() && died.is_closed());
}

// Loops that die

/// b127: the whole crowd is released at once.
#[test]
fn a_thousand_waiters_are_released_when_the_runtime_is_dropped() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let census = Census::default();
        let waiting = Arc::new(Barrier::new(1_001));
        let waiters: Vec<_> = (0..1_000)
            .map(|_| {
                let (bridge, waiting) = (bridge.clone(), Arc::clone(&waiting));
                let guard = census.guard();
                thread::Builder::new()
                    .stack_size(64 * 1024)
                    .spawn(move || {
                        let mut call = bridge.run_coroutine_threadsafe(async move {
                            let _guard = guard;
                            pending::<()>().await;
                        });
                        waiting.wait();
                        call.result(None)
                    })
                    .unwrap()
            })
            .collect();
        waiting.wait();
        drop(runtime);
        for waiter in waiters {
            assert!(matches!(waiter.join().unwrap(), Err(ResultError::LoopClosed)));
        }
        assert_eq!(census.alive(), 0);
        assert!(bridge.is_closed() && bridge.stats().balances());
    }
}

/// A12, C5, b128: submitting to a loop that is gone is an error, not a panic and not a hang, the work is
/// dropped unpolled, and it is counted once.
#[test]
fn a_submission_after_the_loops_end_resolves_at_once() {
    for runtime in Loop::both() {
        let (bridge, handle) = (runtime.bridge(), runtime.handle());
        drop(runtime);
        let (ran, runs) = mpsc::channel();
        let work = || {
            let ran = ran.clone();
            async move { ran.send(()).unwrap() }
        };
        let mut call = bridge.run_coroutine_threadsafe(work());
        assert!(matches!(call.result(None), Err(ResultError::LoopClosed)));
        assert_eq!((bridge.stats().submitted, bridge.stats().refused), (0, 1));
        let mut fresh = run_coroutine_threadsafe(work(), &handle);
        assert!(matches!(fresh.result(None), Err(ResultError::LoopClosed)));
        assert!(Bridge::new(handle.clone()).try_run_coroutine_threadsafe(work()).is_err());
        drop(ran);
        assert_eq!(runs.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}

#[test]
fn an_undriven_loop_that_is_dropped_releases_its_waiters() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (waiting, waits) = mpsc::channel();
    let waiter = thread::spawn(move || {
        let mut call = bridge.run_coroutine_threadsafe(async {});
        drop(bridge);
        waiting.send(()).unwrap();
        call.result(None)
    });
    waits.recv_timeout(LONG).unwrap();
    drop(undriven);
    assert!(matches!(waiter.join().unwrap(), Err(ResultError::LoopClosed)));
}

/// b57. Swift only logs a continuation that is dropped unresolved. Work that outlives every bridge
/// still ends with its loop.
#[test]
fn a_waiter_without_a_bridge_is_released_when_the_runtime_is_dropped() {
    for runtime in Loop::both() {
        let mut call = runtime.bridge().run_coroutine_threadsafe(async {
            tokio::task::yield_now().await;
            pending::<()>().await;
        });
        eventually("it runs", || call.is_running());
        drop(runtime);
        assert!(matches!(call.result(None), Err(ResultError::LoopClosed)));
    }
}

#[test]
fn a_future_whose_destructor_submits_again_does_not_hang_the_runtimes_drop() {
    struct Submits(Bridge, mpsc::Sender<bool>);
    impl Drop for Submits {
        fn drop(&mut self) {
            let mut call = self.0.run_coroutine_threadsafe(async {});
            let _ = self.1.send(matches!(call.result(None), Err(ResultError::LoopClosed)));
        }
    }
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let (said, heard) = mpsc::channel();
        let submits = Submits(bridge.clone(), said);
        let call = bridge.run_coroutine_threadsafe(async move {
            let _submits = submits;
            pending::<()>().await;
        });
        eventually("it runs", || call.is_running());
        drop(runtime);
        assert!(heard.recv_timeout(LONG).unwrap());
    }
}

/// b64. Node: a loop that is torn down while threads call. Whatever the moment, every submission is
/// refused or resolves, and nothing stays alive.
#[test]
fn a_runtime_dropped_at_any_moment_leaves_nobody_waiting() {
    for round in 0..200_u64 {
        let runtime = if round % 2 == 0 { Loop::current() } else { Loop::multi(2) };
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(8).build();
        let census = Census::default();
        let threads: Vec<_> = (0..4_u64)
            .map(|who| {
                let (bridge, census) = (bridge.clone(), census.clone());
                thread::spawn(move || {
                    let mut n = 0_u64;
                    while !bridge.is_closed() {
                        let guard = census.guard();
                        n += 1;
                        let kind = (n + who) % 4;
                        let mut call = bridge.clone().run_coroutine_threadsafe(async move {
                            let _guard = guard;
                            match kind {
                                0 => {}
                                1 => tokio::task::yield_now().await,
                                2 => tokio::time::sleep(Duration::from_micros(50)).await,
                                _ => pending::<()>().await,
                            }
                        });
                        if kind == 3 {
                            call.cancel();
                        }
                        match call.result(LONG) {
                            Ok(()) | Err(ResultError::LoopClosed | ResultError::Cancelled) => {}
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for _ in 0..round * 50 {
            std::hint::spin_loop();
        }
        drop(runtime);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(census.alive(), 0);
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    }
}

#[test]
fn a_runtime_shut_down_in_the_background_releases_waiters_behind_a_stuck_poll() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let mut stuck = bridge.run_coroutine_threadsafe(async move {
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    let mut queued = bridge.run_coroutine_threadsafe(async {});
    runtime.abandon();
    drop(release);
    // The poll that was inside ends on its own; the one behind it ran, or was dropped.
    assert!(stuck.wait(LONG).is_ok() && queued.wait(LONG).is_ok());
}

/// A bridge keeps nothing running once it is gone and its work is done. b29. Kotlin: a view without
/// work leaves nothing to its base, which may have gone. b79. neon: a handle that is dropped on a
/// worker lets go as well.
#[test]
fn drivers_leave_with_the_last_bridge_and_the_last_call() {
    for runtime in Loop::both() {
        let handle = runtime.handle();
        // The loop of `Loop::current` is a bare `block_on`, which is no task.
        let tasks = || handle.metrics().num_alive_tasks();
        drop(runtime.bridge());
        eventually("an unused bridge's watch has left", || tasks() == 0);
        for on_the_loop in [false, true] {
            let bridge = runtime.bridge();
            let (end, ended) = oneshot::channel::<()>();
            let last = on_the_loop.then(|| bridge.clone());
            let mut call = bridge.run_coroutine_threadsafe(async move {
                let in_time = ended.await.is_ok();
                drop(last);
                in_time
            });
            bridge.call_soon_threadsafe(|| {}).unwrap();
            assert!(tasks() >= 1);
            drop(bridge);
            end.send(()).unwrap();
            assert!(call.result(LONG).unwrap(), "work in flight goes on without a bridge");
            eventually("the drivers have left", || tasks() == 0);
        }
    }
}
