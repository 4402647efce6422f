//! Closing: the report, the deadline, who is waited for.

use crate::common::{Census, LONG, Loop, eventually};
use crate::{assert_clean, both};
use callbridge::future::ReturnWhen;
use callbridge::runner::StartTaskError;
use callbridge::{ResultError, ThreadRunner, wait};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// C103, A23, A12: afterwards every entrance refuses, and the loop is gone.
#[test]
fn a_closed_runner_refuses() {
    for runner in both() {
        let bridge = runner.bridge().unwrap();
        runner.run(async {}).unwrap();
        assert_clean(&runner.close(LONG));
        assert!(runner.is_closed());
        let refusals = [
            runner.run(async {}),
            runner.run_timeout(async {}, LONG),
            runner.spawn(async {}).result(LONG),
            runner.start_task(|started| async { started.set(()) }).map_or_else(
                |error| match error {
                    StartTaskError::Loop(error) => Err(error),
                    other => panic!("{other:?}"),
                },
                |_| Ok(()),
            ),
            bridge.run_coroutine_threadsafe(async {}).result(LONG),
        ];
        for refusal in refusals {
            assert!(matches!(refusal, Err(ResultError::LoopClosed)), "{refusal:?}");
        }
    }
}

/// C104, C105: closing twice is fine, used or not, and nothing opens it again.
#[test]
fn closing_is_idempotent_and_final() {
    let unused = ThreadRunner::new();
    for _ in 0..2 {
        assert_clean(&unused.close(LONG));
        assert!(matches!(unused.run(async {}), Err(ResultError::LoopClosed)));
    }
    assert!(!unused.is_started(), "a closed runner is not started any more");
    let used = ThreadRunner::new();
    used.run(async {}).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_clean(&used.close(LONG)));
        }
    });
    assert_clean(&used.close(Duration::ZERO));
}

/// A18: a close that has time lets both blocked callers finish.
#[test]
fn a_patient_close_lets_calls_finish() {
    for runner in both() {
        let token = runner.bridge().unwrap().child_token();
        let (go, going) = tokio::sync::watch::channel(false);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..2)
                .map(|n| {
                    let mut going = going.clone();
                    let mut call = runner.spawn(async move {
                        going.wait_for(|go| *go).await.unwrap();
                        n
                    });
                    scope.spawn(move || call.result(LONG))
                })
                .collect();
            let closing = scope.spawn(|| runner.close(LONG));
            eventually("the close has begun", || token.is_cancelled());
            go.send(true).unwrap();
            let report = closing.join().unwrap();
            assert_clean(&report);
            assert_eq!(report.drained, 2);
            for (n, caller) in callers.into_iter().enumerate() {
                assert_eq!(caller.join().unwrap().unwrap(), n);
            }
        });
    }
}

/// A17, C100: a close without patience cancels: callers are released, leftovers dropped.
#[test]
fn an_impatient_close_cancels_calls_and_tasks() {
    for runner in both() {
        let census = Census::default();
        let hang = |alive| async move {
            let _alive = alive;
            pending::<()>().await;
        };
        let task = hang(census.guard());
        runner.run(async move { drop(tokio::spawn(task)) }).unwrap();
        let calls = [runner.spawn(hang(census.guard())), runner.spawn(hang(census.guard()))];
        thread::scope(|scope| {
            let callers = calls.map(|mut call| scope.spawn(move || call.result(LONG)));
            let report = runner.close(Duration::ZERO);
            assert_eq!(report.cut_off, 2, "{report}");
            assert!(report.still_running.is_empty(), "{report}");
            for caller in callers {
                assert!(matches!(caller.join().unwrap(), Err(ResultError::LoopClosed)));
            }
        });
        assert_eq!(census.alive(), 0, "the task that nobody waited for is gone, too");
    }
}

/// C101: an error that a leftover makes at the end is reported; the main result stands.
#[test]
fn a_leftover_that_fails_at_the_end_is_told() {
    for runner in both() {
        let bridge = runner.bridge().unwrap();
        let token = bridge.child_token();
        let mut leftover = runner.spawn(async move {
            token.cancelled().await;
            panic!("at the end");
        });
        assert_eq!(runner.run(async { "main" }).unwrap(), "main");
        assert!(runner.close(LONG).still_running.is_empty());
        assert!(matches!(leftover.result(LONG), Err::<(), _>(ResultError::Panicked(_))));
        assert_eq!(bridge.stats().panicked, 1);
    }
}

/// A40: a close wakes a wait for several futures.
#[test]
fn a_close_wakes_a_wait_for_many() {
    let runner = ThreadRunner::new();
    let mut calls = [runner.spawn(pending::<()>()), runner.spawn(pending::<()>())];
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let (done, left) = wait(&mut calls, LONG, ReturnWhen::AllCompleted).unwrap();
            (done.len(), left.len())
        });
        assert!(runner.close(Duration::ZERO).still_running.is_empty());
        assert_eq!(waiting.join().unwrap(), (2, 0));
    });
}

/// C99: on its own loop a close waits for nothing, and happens all the same.
#[test]
fn a_close_on_its_own_loop_is_done_by_another_thread() {
    for runner in both() {
        let runner = Arc::new(runner);
        let inner = Arc::clone(&runner);
        let mut call = runner.spawn(async move {
            let report = inner.close(LONG);
            (
                report.would_deadlock,
                report.still_running.is_empty(),
                inner.spawn(async {}).await.is_err(),
            )
        });
        assert_eq!(call.result(LONG).unwrap(), (true, false, true));
        drop(call);
        assert!(runner.close(LONG).still_running.is_empty());
    }
}

/// A drop is a close without patience for calls.
#[test]
fn a_dropped_runner_ends_its_work() {
    for runner in both() {
        let census = Census::default();
        let alive = census.guard();
        let mut call = runner.spawn(async move {
            let _alive = alive;
            pending::<()>().await;
        });
        drop(runner);
        assert_eq!(census.alive(), 0);
        assert!(matches!(call.result(LONG), Err(ResultError::LoopClosed)));
    }
}

#[test]
fn a_drop_on_its_own_loop_does_not_block_it() {
    for runner in both() {
        let runner = Arc::new(runner);
        let census = Census::default();
        let (give, given) = oneshot::channel::<Arc<ThreadRunner>>();
        let alive = census.guard();
        let call = runner.spawn(async move {
            let _alive = alive;
            drop(given.await.unwrap());
        });
        give.send(runner).unwrap();
        drop(call);
        eventually("the loop has ended", || census.alive() == 0);
    }
}

/// A54: a closed runner keeps nothing of what it ran.
#[test]
fn nothing_is_kept_after_the_close() {
    for runner in both() {
        let probe = Arc::new(());
        for _ in 0..10 {
            let held = Arc::clone(&probe);
            runner.run(async move { drop(held) }).unwrap();
            let held = Arc::clone(&probe);
            drop(runner.spawn(async move {
                let _held = held;
                pending::<()>().await;
            }));
        }
        assert!(runner.close(Duration::ZERO).still_running.is_empty());
        assert_eq!(Arc::strong_count(&probe), 1);
    }
}

/// A9, A52: no thread is left behind, those of blocking jobs included.
#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left_behind() {
    let named = |name: &str| {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .filter(|comm| comm.starts_with(name))
            .count()
    };
    for workers in [1, 2] {
        let name = format!("census-{workers}");
        let runner = ThreadRunner::builder().worker_threads(workers).name(&name);
        let runner = runner.build().unwrap();
        for _ in 0..5 {
            runner.run(async { tokio::task::spawn_blocking(|| {}).await.unwrap() }).unwrap();
        }
        assert!(named(&name) > workers, "the loop and a thread for blocking jobs");
        assert_clean(&runner.close(LONG));
        eventually("the system has reaped the threads", || named(&name) == 0);
    }
}

#[test]
fn a_close_on_its_own_loop_refuses_from_then_on() {
    for runner in both() {
        let runner = Arc::new(runner);
        let inner = Arc::clone(&runner);
        let mut call = runner.spawn(async move {
            let _report = inner.close(LONG);
            inner.is_closed()
        });
        assert!(call.result(LONG).unwrap());
        assert!(runner.close(LONG).still_running.is_empty());
    }
}

#[test]
fn async_code_awaits_a_close() {
    for outer in Loop::both() {
        for runner in both() {
            let census = Census::default();
            let alive = census.guard();
            let (go, going) = oneshot::channel::<()>();
            let call = runner.spawn(async move {
                let _alive = alive;
                let _ = going.await;
            });
            let closing = outer.bridge().run_coroutine_threadsafe(async move {
                let mut closing = pin!(runner.close_async(LONG));
                let first = poll_fn(|cx| Poll::Ready(closing.as_mut().poll(cx).is_pending())).await;
                assert!(first && runner.is_closed(), "it has begun, and waits for the call");
                drop(go);
                closing.await
            });
            let report = { closing }.result(LONG).unwrap();
            assert_clean(&report);
            assert!(call.is_done() && census.alive() == 0);
        }
    }
}

/// A close that nobody awaits any more goes on.
#[test]
fn an_abandoned_async_close_goes_on() {
    let runner = ThreadRunner::new();
    runner.run(async {}).unwrap();
    let bridge = runner.bridge().unwrap();
    let mut closing = Box::pin(runner.close_async(LONG));
    let _pending = closing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(closing);
    assert!(runner.is_closed());
    assert!(runner.close(LONG).still_running.is_empty());
    assert!(bridge.is_closed());
}

#[test]
fn a_close_without_a_limit_waits_for_the_work() {
    let runner = ThreadRunner::new();
    let (go, going) = oneshot::channel::<()>();
    let call = runner.spawn(going);
    let token = runner.bridge().unwrap().child_token();
    thread::scope(|scope| {
        let closing = scope.spawn(|| runner.close(None));
        eventually("the close has begun", || token.is_cancelled());
        go.send(()).unwrap();
        assert_clean(&closing.join().unwrap());
    });
    assert!(call.is_done());
}
