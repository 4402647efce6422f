//! Loops that die, and loops that nobody drives.

use crate::child::in_a_child;
use crate::common::{Census, LONG, Loop, SHORT, eventually};
use callbridge::future::FutureState;
use callbridge::{Bridge, ResultError, run_coroutine_threadsafe};
use std::cell::RefCell;
use std::future::pending;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

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
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(8).build().unwrap();
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

/// Runs a current-thread runtime in a thread-local of a thread, lets `future` wait on it, and ends the
/// thread; the result for who waits.
fn on_a_runtime_in_a_thread_local(
    future: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ResultError> {
    thread_local!(static RUNTIME: RefCell<Option<Runtime>> = const { RefCell::new(None) });
    let (give, given) = mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let thread = thread::spawn(move || {
        // Registered before tokio's own thread-locals, so destroyed after them.
        RUNTIME.with(|slot| {
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            *slot.borrow_mut() = Some(runtime);
        });
        RUNTIME.with(|slot| {
            let slot = slot.borrow();
            let runtime = slot.as_ref().unwrap();
            give.send(Bridge::new(runtime.handle().clone())).unwrap();
            let _ = runtime.block_on(ended);
        });
    });
    let bridge = given.recv_timeout(LONG).unwrap();
    let mut call = bridge.run_coroutine_threadsafe(future);
    eventually("it waits", || call.is_running());
    end.send(()).unwrap();
    thread.join().unwrap();
    call.result(LONG)
}

/// tokio supports the drop of a runtime by a thread-local's destructor; in a process of its own, which
/// a panic there would abort.
#[test]
fn a_runtime_dropped_by_a_thread_local_releases_its_callers() {
    let name = "end_of_loop::a_runtime_dropped_by_a_thread_local_releases_its_callers";
    in_a_child(name, || {
        let result = on_a_runtime_in_a_thread_local(pending());
        assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
        let result = on_a_runtime_in_a_thread_local(tokio_sleep());
        assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
    });
}

async fn tokio_sleep() {
    tokio::time::sleep(LONG).await;
}

/// Nobody drives it at all: work is accepted, never begun, and a timeout says so; a bridge from
/// elsewhere doesn't help.
#[test]
fn calls_on_an_undriven_loop_time_out_as_not_started_and_run_once_it_is_driven() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let mut calls = [1, 2].map(|n| bridge.run_coroutine_threadsafe(async move { n }));
    for call in &mut calls {
        let late = call.result(SHORT).unwrap_err();
        let not_started = FutureState::NotStarted;
        assert!(matches!(late, ResultError::TimedOut { state } if state == not_started));
    }
    // What the calling thread polls itself needs nobody, as long as nothing in it does.
    assert_eq!(bridge.call(async { 3 }, LONG).unwrap(), 3);
    let values = undriven.block_on(async {
        let [first, second] = calls;
        (first.await.unwrap(), second.await.unwrap())
    });
    assert_eq!(values, (1, 2));
}

#[test]
fn a_call_that_others_are_begun_before_is_queued() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (begin, begun) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let mut first = bridge.run_coroutine_threadsafe(async move {
        begin.send(()).unwrap();
        released.recv_timeout(LONG).unwrap();
    });
    let mut second = bridge.run_coroutine_threadsafe(async {});
    assert_eq!(second.state(), FutureState::NotStarted);
    let driver = thread::spawn(move || undriven.block_on(bridge.close(LONG)));
    begun.recv_timeout(LONG).unwrap();
    let late = second.result(SHORT).unwrap_err();
    assert!(matches!(late, ResultError::TimedOut { state: FutureState::Queued }), "{late}");
    release.send(()).unwrap();
    assert!(driver.join().unwrap().is_clean());
    assert!(first.result(LONG).is_ok() && second.result(LONG).is_ok());
}
