//! The start of the loop: by whom, when, of what, and how it fails.

use crate::common::{HUGE_STACK, LONG, SHORT, whole};
use crate::{assert_clean, both, held_factory, here};
use callbridge::future::{FutureState, Refusal};
use callbridge::{ResultError, ThreadRunner};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};

#[test]
fn nothing_is_started_before_the_first_use() {
    let runner = ThreadRunner::new();
    assert!(!runner.is_started());
    assert_eq!(runner.run(async { 1 }).unwrap(), 1);
    assert!(runner.is_started());
}

/// The lazy start of an ancestor left three of four racing first callers hanging.
#[test]
fn racing_first_users_start_exactly_one_loop() {
    for _ in 0..50 {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let runner = ThreadRunner::builder()
            .loop_factory(move || {
                counter.fetch_add(1, Ordering::SeqCst);
                Builder::new_current_thread().build()
            })
            .build()
            .unwrap();
        let line = Barrier::new(8);
        let mut threads: Vec<_> = thread::scope(|scope| {
            let user = || {
                line.wait();
                runner.spawn(here()).result(LONG).unwrap()
            };
            let users: Vec<_> = (0..8).map(|_| scope.spawn(user)).collect();
            users.into_iter().map(|user| user.join().unwrap()).collect()
        });
        threads.dedup();
        assert_eq!((threads.len(), started.load(Ordering::SeqCst)), (1, 1));
    }
}

/// A22: a start that fails is an error of every caller that waited for it, and of later ones.
#[test]
fn a_failing_start_reaches_every_waiting_caller() {
    let (fail, failing) = mpsc::channel::<()>();
    let runner = ThreadRunner::builder()
        .loop_factory(move || {
            let _ = failing.recv_timeout(LONG);
            Err(io::Error::other("no more descriptors"))
        })
        .build()
        .unwrap();
    let line = &Barrier::new(5);
    let told: Vec<_> = thread::scope(|scope| {
        let runner = &runner;
        let users: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    line.wait();
                    whole(&runner.run(async {}).unwrap_err())
                })
            })
            .collect();
        line.wait();
        drop(fail);
        users.into_iter().map(|user| user.join().unwrap()).collect()
    });
    let text = "the work never began: see `source()`: \
                what was to do the work could not be started: see `source()`, and try again: \
                no more descriptors";
    assert_eq!(told, [text; 4]);
    assert!(matches!(runner.spawn(async {}).result(LONG), Err(ResultError::Refused(_))));
    assert!(matches!(runner.bridge(), Err(ResultError::Refused(_))));
    assert_clean(&runner.close(LONG));
}

/// A22: a factory that panics is told like one that fails.
#[test]
fn a_panicking_factory_is_the_reason_of_the_refusal() {
    let runner =
        ThreadRunner::builder().loop_factory(|| panic!("bad configuration")).build().unwrap();
    let error = runner.bridge().unwrap_err();
    assert!(whole(&error).ends_with("it panicked: bad configuration"), "{error}");
}

/// tokio panics where a loop can't be made, for want of threads or of memory.
#[test]
fn a_loop_that_cannot_be_made_is_the_reason_of_the_refusal() {
    let runner = ThreadRunner::builder().worker_threads(usize::MAX).build().unwrap();
    for _ in 0..2 {
        let refused = runner.run_timeout(async {}, LONG).unwrap_err();
        assert!(whole(&refused).contains("it panicked: "), "{refused:?}");
    }
    assert_clean(&runner.close(LONG));
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error_value() {
    let runner = ThreadRunner::builder().stack_size(HUGE_STACK).build().unwrap();
    let refused = runner.run(async {});
    assert!(matches!(refused, Err(ResultError::Refused(Refusal::NotStarted(_)))), "{refused:?}");
}

/// The factory runs on the loop's thread, which can't wait for itself.
#[test]
fn a_factory_that_uses_its_own_runner_is_refused() {
    let (give, given) = mpsc::channel::<Arc<ThreadRunner>>();
    let (said, heard) = mpsc::channel();
    let runner = ThreadRunner::builder()
        .loop_factory(move || {
            let runner = given.recv_timeout(LONG).unwrap();
            said.send(matches!(runner.run(async {}), Err(ResultError::WouldDeadlock))).unwrap();
            Builder::new_current_thread().build()
        })
        .build()
        .unwrap();
    let runner = Arc::new(runner);
    give.send(Arc::clone(&runner)).unwrap();
    runner.run_timeout(async {}, LONG).unwrap();
    assert!(heard.recv_timeout(LONG).unwrap());
}

#[test]
fn a_slow_start_is_within_the_timeout_of_run_timeout() {
    let (go, factory) = held_factory();
    let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
    let late = runner.run_timeout(async {}, SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::Abandoned })));
    drop(go);
    runner.run_timeout(async {}, LONG).unwrap();
}

#[test]
fn a_close_during_the_start_does_not_wait_beyond_its_deadline() {
    let (go, factory) = held_factory();
    let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
    thread::scope(|scope| {
        let user = scope.spawn(|| runner.run(async {}));
        // The start is under way once somebody has waited for it in vain.
        let waited = runner.run_timeout(async {}, SHORT);
        assert!(matches!(waited, Err(ResultError::TimedOut { .. })));
        let report = runner.close(SHORT);
        assert!(!report.still_running.is_empty(), "{report}");
        drop(go);
        assert!(matches!(user.join().unwrap(), Err(ResultError::LoopClosed)));
    });
    assert!(runner.close(LONG).still_running.is_empty());
}

/// C102: the supplied loop is the one that is used.
#[test]
fn the_factorys_runtime_is_used() {
    for build in [Builder::new_current_thread as fn() -> Builder, Builder::new_multi_thread] {
        let (said, heard) = mpsc::channel();
        let runner = ThreadRunner::builder()
            .loop_factory(move || {
                let runtime = build().worker_threads(2).build()?;
                said.send(runtime.handle().id()).unwrap();
                Ok(runtime)
            })
            .build()
            .unwrap();
        let used = runner.run(async { Handle::current().id() }).unwrap();
        assert_eq!(used, heard.recv_timeout(LONG).unwrap());
    }
}

#[test]
fn one_worker_is_a_current_thread_loop_and_more_are_a_multi_thread_one() {
    let flavors = both().map(|r| r.run(async { Handle::current().runtime_flavor() }).unwrap());
    assert_eq!(flavors, [RuntimeFlavor::CurrentThread, RuntimeFlavor::MultiThread]);
}

/// A21: a given name is the thread's; names that aren't given differ.
#[test]
fn the_loop_thread_is_named() {
    let name = |runner: &ThreadRunner| {
        runner.spawn(async { thread::current().name().unwrap().to_owned() }).result(LONG).unwrap()
    };
    let named = ThreadRunner::builder().name("weather").build().unwrap();
    assert_eq!(name(&named), "weather");
    let others = [ThreadRunner::new(), ThreadRunner::new()];
    assert_eq!(name(&others[0]), others[0].name());
    assert_ne!(name(&others[0]), name(&others[1]));
}

/// A descriptor limit that was reached for a moment isn't the end of the runner.
#[test]
fn a_start_that_failed_is_tried_again_by_the_next_use() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let runner = ThreadRunner::builder()
        .loop_factory(move || match counter.fetch_add(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("no more descriptors")),
            1 => panic!("no more descriptors"),
            _ => Builder::new_current_thread().enable_all().build(),
        })
        .build()
        .unwrap();
    for _ in 0..2 {
        let refused = runner.run_timeout(async {}, LONG).unwrap_err();
        assert!(whole(&refused).ends_with("no more descriptors"), "{}", whole(&refused));
        assert!(!runner.is_started() && !runner.is_closed());
    }
    assert_eq!(runner.run_timeout(async { 1 }, LONG).unwrap(), 1);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    assert_clean(&runner.close(LONG));
}

#[test]
fn racing_users_of_failing_starts_each_get_an_answer() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let runner = ThreadRunner::builder()
        .loop_factory(move || match counter.fetch_add(1, Ordering::SeqCst) {
            n if n < 20 => Err(io::Error::other("not yet")),
            _ => Builder::new_current_thread().build(),
        })
        .build()
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Err(error) = runner.run_timeout(async {}, LONG) {
                    assert!(matches!(error, ResultError::Refused(_)), "{error}");
                }
            });
        }
    });
    assert_eq!(attempts.load(Ordering::SeqCst), 21, "one loop, and no start after it");
    assert_clean(&runner.close(LONG));
}

/// Whoever waits for a start that hangs is released by a close, not by the factory's end.
#[test]
fn a_close_releases_who_waits_for_a_start_that_hangs() {
    for patience in [Duration::ZERO, LONG] {
        let (go, factory) = held_factory();
        let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
        thread::scope(|scope| {
            let user = scope.spawn(|| runner.run(async {}));
            let waited = runner.run_timeout(async {}, SHORT);
            assert!(matches!(waited, Err(ResultError::TimedOut { .. })));
            let closer = scope.spawn(|| runner.close(patience));
            assert!(matches!(user.join().unwrap(), Err(ResultError::LoopClosed)));
            assert!(runner.is_closed());
            drop(go);
            let report = closer.join().unwrap();
            assert!(report.still_running.is_empty() || patience.is_zero(), "{report}");
        });
        assert!(runner.close(LONG).still_running.is_empty());
    }
}

/// Users, a close and starts that may fail, all at once: everybody gets an answer, and none is lost.
#[test]
fn racing_starts_and_closes_answer_everybody() {
    for round in 0..200_usize {
        let mut attempts = round;
        let factory = move || {
            attempts += 1;
            if attempts % 3 == 0 {
                return Err(io::Error::other("not now"));
            }
            Builder::new_current_thread().build()
        };
        let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
        let line = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    line.wait();
                    for _ in 0..3 {
                        match runner.spawn(async { 1 }).result(LONG) {
                            Ok(1) | Err(ResultError::LoopClosed | ResultError::Refused(_)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            scope.spawn(|| {
                line.wait();
                (0..round % 64).for_each(|_| thread::yield_now());
                assert!(runner.close(LONG).still_running.is_empty());
            });
        });
        assert!(matches!(runner.run(async {}), Err(ResultError::LoopClosed)));
        assert!(runner.close(LONG).still_running.is_empty());
    }
}
