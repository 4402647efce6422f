//! `ThreadRunner`: the start, running, readiness.
#![cfg(feature = "runner")]

mod common;

use callbridge::{
    FutureState, ResultError, RunnerCloseReport, StartTaskError, Started, ThreadRunner,
};
use common::{Census, LONG, Loop, SHORT, whole};
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;

/// Waits for what another thread is about to make true.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

/// Runners of either flavour.
fn both() -> [ThreadRunner; 2] {
    [1, 2].map(|workers| ThreadRunner::builder().worker_threads(workers).build().unwrap())
}

async fn here() -> thread::ThreadId {
    thread::current().id()
}

fn assert_clean(report: &RunnerCloseReport) {
    assert!(report.is_clean(), "{report}");
}

// The start.

#[test]
fn nothing_is_started_before_the_first_use() {
    let runner = ThreadRunner::new();
    assert!(!runner.is_started());
    assert_eq!(runner.run(async { 1 }).unwrap(), 1);
    assert!(runner.is_started());
}

#[test]
fn an_eager_runner_is_started_by_its_builder() {
    assert!(ThreadRunner::builder().eager().build().unwrap().is_started());
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
    let text = "the work was refused before it began: see the reason, and submit it elsewhere: \
                the event loop could not be started: see the reason: no more descriptors";
    assert_eq!(told, [text; 4]);
    assert!(matches!(runner.spawn(async {}).result(LONG), Err(ResultError::Refused(_))));
    assert!(matches!(runner.bridge(), Err(ResultError::Refused(_))));
    assert_clean(&runner.close(LONG));
}

/// A22: the builder of an eager runner says why there is none.
#[test]
fn a_failing_eager_start_is_the_builders_error() {
    let error = ThreadRunner::builder()
        .loop_factory(|| panic!("bad configuration"))
        .eager()
        .build()
        .unwrap_err();
    assert!(whole(&error).ends_with("it panicked: bad configuration"), "{error}");
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error_value() {
    let builder = || ThreadRunner::builder().thread_stack_size(1 << 60);
    assert!(builder().eager().build().is_err());
    let lazy = builder().build().unwrap();
    assert!(matches!(lazy.run(async {}), Err(ResultError::Refused(_))));
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
    let (go, going) = mpsc::channel::<()>();
    let runner = ThreadRunner::builder()
        .loop_factory(move || {
            let _ = going.recv_timeout(LONG);
            Builder::new_current_thread().build()
        })
        .build()
        .unwrap();
    let late = runner.run_timeout(async {}, SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::NotStarted })));
    drop(go);
    runner.run_timeout(async {}, LONG).unwrap();
}

#[test]
fn a_close_during_the_start_does_not_wait_beyond_its_deadline() {
    let (go, going) = mpsc::channel::<()>();
    let runner = ThreadRunner::builder()
        .loop_factory(move || {
            let _ = going.recv_timeout(LONG);
            Builder::new_current_thread().build()
        })
        .build()
        .unwrap();
    thread::scope(|scope| {
        let user = scope.spawn(|| runner.run(async {}));
        // The start is under way once somebody has waited for it in vain.
        let waited = runner.run_timeout(async {}, SHORT);
        assert!(matches!(waited, Err(ResultError::TimedOut { .. })));
        let report = runner.close(SHORT);
        assert!(!report.joined, "{report}");
        drop(go);
        assert!(matches!(user.join().unwrap(), Err(ResultError::LoopClosed)));
    });
    assert!(runner.close(LONG).joined);
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
    let named = ThreadRunner::builder().thread_name("weather").build().unwrap();
    assert_eq!(name(&named), "weather");
    let others = [ThreadRunner::new(), ThreadRunner::new()];
    assert_eq!(name(&others[0]), others[0].name());
    assert_ne!(name(&others[0]), name(&others[1]));
}

// Running.

/// C97, A15: the value comes out; so does an error, as the value that it is.
#[test]
fn run_returns_the_value_or_the_error() {
    for runner in both() {
        assert_eq!(runner.run(async { 7 }).unwrap(), 7);
        let failed = runner.run(async { Err::<(), _>("no such station") }).unwrap();
        assert_eq!(failed, Err("no such station"));
    }
}

/// C97, A38: a panic reaches the caller, and the runner lives on and closes.
#[test]
fn a_panic_reaches_the_caller_and_nobody_else() {
    for runner in both() {
        let bystander = runner.spawn(pending::<()>());
        match runner.run(async { panic!("boom") }) {
            Err(ResultError::Panicked(panic)) => assert_eq!(panic.message(), "boom"),
            other => panic!("{other:?}"),
        }
        assert_eq!(runner.run(async { 1 }).unwrap(), 1);
        assert!(!bystander.is_done());
        assert!(runner.close(SHORT).joined);
    }
}

/// A20, A6, G5: spawned work runs on another thread; timers, tasks and blocking jobs work inside.
#[test]
fn spawned_work_runs_on_the_loops_own_thread() {
    for runner in both() {
        assert_ne!(runner.spawn(here()).result(LONG).unwrap(), thread::current().id());
        let sum = runner.run(async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let one = tokio::spawn(async { 1 }).await.unwrap();
            let two = tokio::task::spawn_blocking(|| 2).await.unwrap();
            one + two
        });
        assert_eq!(sum.unwrap(), 3);
    }
}

/// C106: what lives on the loop lives on between runs.
#[test]
fn state_persists_between_runs() {
    for runner in both() {
        let (ask, mut asked) = tokio::sync::mpsc::channel::<oneshot::Sender<u32>>(1);
        runner
            .run(async move {
                tokio::spawn(async move {
                    let mut count = 0;
                    while let Some(reply) = asked.recv().await {
                        count += 1;
                        let _ = reply.send(count);
                    }
                });
            })
            .unwrap();
        for expected in 1..=3 {
            let ask = ask.clone();
            let count = runner.run_timeout(
                async move {
                    let (reply, answer) = oneshot::channel();
                    ask.send(reply).await.unwrap();
                    answer.await.unwrap()
                },
                LONG,
            );
            assert_eq!(count.unwrap(), expected);
        }
    }
}

/// A8, G7: any number of plain threads can use it at once.
#[test]
fn threads_share_a_runner() {
    for runner in both() {
        thread::scope(|scope| {
            for n in 0..8 {
                let runner = &runner;
                scope.spawn(move || {
                    for i in 0..100 {
                        assert_eq!(runner.run(async move { n * i }).unwrap(), n * i);
                    }
                });
            }
        });
    }
}

/// A10: an error crosses back from the loop, through a blocking job, to the task that awaits it.
#[test]
fn an_error_crosses_loop_thread_and_loop() {
    let outer = Loop::multi(2);
    let mut call = outer.bridge().run_coroutine_threadsafe(async {
        tokio::task::spawn_blocking(|| {
            let runner = ThreadRunner::new();
            runner.run(async { Err::<(), _>(io::ErrorKind::BrokenPipe) }).unwrap()
        })
        .await
        .unwrap()
    });
    assert_eq!(call.result(LONG).unwrap(), Err(io::ErrorKind::BrokenPipe));
}

/// C99, A19, G6: blocking on a loop's thread is refused, and the future never runs.
#[test]
fn blocking_on_its_own_loop_is_refused() {
    for runner in both() {
        let runner = Arc::new(runner);
        let inner = Arc::clone(&runner);
        runner
            .run_timeout(
                async move {
                    let never = || async { unreachable!("refused before it runs") };
                    let runs = [inner.run(never()).err(), inner.run_timeout(never(), LONG).err()];
                    assert!(runs.iter().all(|e| matches!(e, Some(ResultError::WouldDeadlock))));
                    let started = inner.start_task(|_: Started<()>| async {});
                    assert!(matches!(
                        started,
                        Err(StartTaskError::Loop(ResultError::WouldDeadlock))
                    ));
                    assert_eq!(inner.spawn(async { 1 }).await.unwrap(), 1);
                },
                LONG,
            )
            .unwrap();
    }
}

/// C99, A39: inside another loop, blocking is refused too; starting it there and awaiting isn't.
#[test]
fn another_loop_can_start_it_and_await() {
    let outer = Loop::current();
    let mut call = outer.bridge().run_coroutine_threadsafe(async {
        let runner = Arc::new(ThreadRunner::new());
        assert!(matches!(runner.run(async {}), Err(ResultError::WouldDeadlock)));
        let thread = runner.spawn(here()).await.unwrap();
        let shared = Arc::clone(&runner);
        let again = tokio::task::spawn_blocking(move || shared.spawn(here()).result(LONG).unwrap())
            .await
            .unwrap();
        assert_eq!(thread, again);
        assert_ne!(thread, thread::current().id());
    });
    call.result(LONG).unwrap();
}

/// G3, G4: below a blocking job, the inner async part runs on the original loop.
#[test]
fn nested_calls_come_back_to_the_same_loop() {
    let runner = Arc::new(ThreadRunner::new());
    let inner = Arc::clone(&runner);
    let mut nested = runner.spawn(async move {
        let job = tokio::task::spawn_blocking(move || inner.spawn(here()).result(LONG).unwrap());
        (here().await, job.await.unwrap())
    });
    let (outer_thread, inner_thread) = nested.result(LONG).unwrap();
    assert_eq!(outer_thread, inner_thread);
}

#[test]
fn run_timeout_cancels_what_is_late() {
    for runner in both() {
        let census = Census::default();
        let alive = census.guard();
        let late = runner.run_timeout(
            async move {
                let _alive = alive;
                pending::<()>().await;
            },
            SHORT,
        );
        assert!(matches!(late, Err(ResultError::TimedOut { .. })));
        eventually("the late work is dropped", || census.alive() == 0);
    }
}

#[test]
fn run_timeout_covers_the_wait_for_a_free_place() {
    let runner = ThreadRunner::builder().max_in_flight(1).build().unwrap();
    let first = runner.spawn(pending::<()>());
    let second = runner.run_timeout(async {}, SHORT);
    assert!(matches!(second, Err(ResultError::TimedOut { .. })));
    drop(first.cancel_on_drop());
    runner.run_timeout(async {}, LONG).unwrap();
}

/// A24: spawned calls interleave.
#[test]
fn spawned_calls_interleave() {
    for runner in both() {
        let (ping, pinged) = oneshot::channel();
        let (pong, ponged) = oneshot::channel();
        let mut first = runner.spawn(async move {
            ping.send(()).unwrap();
            ponged.await.unwrap()
        });
        let mut second = runner.spawn(async move {
            pinged.await.unwrap();
            pong.send(5).unwrap();
        });
        second.result(LONG).unwrap();
        assert_eq!(first.result(LONG).unwrap(), 5);
    }
}

/// A25, A37: cancelled later, it is cancelled after the close, and nothing else is to be told.
#[test]
fn a_running_call_can_be_cancelled() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        let mut call = runner.spawn(async move {
            began.send(()).unwrap();
            pending::<()>().await;
        });
        begun.recv_timeout(LONG).unwrap();
        call.cancel();
        assert_clean(&runner.close(LONG));
        assert!(matches!(call.result(LONG), Err(ResultError::Cancelled)));
    }
}

/// A26: cancelled straight after the submission, it ends all the same.
#[test]
fn a_call_can_be_cancelled_at_once() {
    for runner in both() {
        for _ in 0..200 {
            let mut call = runner.spawn(pending::<()>());
            assert!(call.cancel());
            assert!(matches!(call.result(LONG), Err(ResultError::Cancelled)));
        }
    }
}

/// A27: a cancel works while a close is waiting for the call.
#[test]
fn a_call_can_be_cancelled_while_the_runner_closes() {
    for runner in both() {
        let token = runner.bridge().unwrap().child_token();
        let mut call = runner.spawn(pending::<()>());
        thread::scope(|scope| {
            let closing = scope.spawn(|| runner.close(LONG));
            eventually("the close has begun", || token.is_cancelled());
            call.cancel();
            assert_clean(&closing.join().unwrap());
        });
        assert!(matches!(call.result(LONG), Err(ResultError::Cancelled)));
    }
}

#[test]
fn run_polls_borrowed_futures_on_the_caller() {
    for runner in both() {
        let caller = thread::current().id();
        let mut seen = Vec::new();
        let not_send = std::rc::Rc::new(3);
        let value = runner.run(async {
            seen.push(here().await);
            tokio::time::sleep(Duration::from_millis(1)).await;
            tokio::spawn(async {}).await.unwrap();
            seen.push(here().await);
            *not_send
        });
        assert_eq!((value.unwrap(), seen), (3, vec![caller; 2]));
    }
}

#[test]
fn run_goes_on_with_a_future_that_it_left() {
    let runner = ThreadRunner::new();
    let (send, mut receive) = oneshot::channel();
    let early = async { tokio::time::timeout(SHORT, &mut receive).await };
    assert!(runner.run(early).unwrap().is_err());
    send.send(9).unwrap();
    assert_eq!(runner.run(&mut receive).unwrap(), Ok(9));
}

#[test]
fn code_inside_run_may_not_block_and_its_panics_are_values() {
    let runner = ThreadRunner::new();
    let nested = runner.run(async { runner.run(async { 4 }) }).unwrap();
    assert!(matches!(nested, Err(ResultError::WouldDeadlock)));
    let Err(ResultError::Panicked(panic)) = runner.run(async { panic!("mine") }) else { panic!() };
    assert_eq!(panic.message(), "mine");
}

/// G23: a loop that ends releases who polls beside it. b129: tokio's `block_on` goes on after the
/// end with plain futures and panics with timers; here both are refused.
#[test]
fn run_ends_with_the_loop() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        thread::scope(|scope| {
            let waiting = [
                scope.spawn(|| {
                    runner.run(async {
                        began.send(()).unwrap();
                        pending::<()>().await;
                    })
                }),
                scope.spawn(|| runner.run(async { tokio::time::sleep(LONG * 10).await })),
            ];
            begun.recv_timeout(LONG).unwrap();
            assert!(runner.close(SHORT).joined);
            for waiting in waiting {
                assert!(matches!(waiting.join().unwrap(), Err(ResultError::LoopClosed)));
            }
        });
        assert!(matches!(runner.run(async {}), Err(ResultError::LoopClosed)));
        let timer = runner.run(async { tokio::time::sleep(LONG).await });
        assert!(matches!(timer, Err(ResultError::LoopClosed)));
    }
}

// Readiness.

/// A32: the value that the task reports, or none to speak of, and its future.
#[test]
fn start_task_gives_what_the_task_reports() {
    for runner in both() {
        let ((), mut quiet) = runner
            .start_task(|started: Started<()>| async move {
                started.set(());
                5
            })
            .unwrap();
        assert_eq!(quiet.result(LONG).unwrap(), 5);
        let (go, going) = oneshot::channel();
        let (port, mut server) = runner
            .start_task(|started| async move {
                started.set(8080);
                going.await.unwrap()
            })
            .unwrap();
        assert_eq!(port, 8080);
        assert!(!server.is_done());
        go.send("done").unwrap();
        assert_eq!(server.result(LONG).unwrap(), "done");
    }
}

/// A33: what goes wrong before is the start's error.
#[test]
fn a_panic_before_readiness_is_the_starts_error() {
    for runner in both() {
        let crashed = runner.start_task(|started: Started<()>| async move {
            let _started = started;
            panic!("port taken")
        });
        match crashed {
            Err(StartTaskError::<()>::Loop(ResultError::Panicked(panic))) => {
                assert_eq!(panic.message(), "port taken");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A34: what goes wrong afterwards is the future's.
#[test]
fn a_panic_after_readiness_is_the_futures_error() {
    for runner in both() {
        let ((), mut call) = runner
            .start_task(|started| async move {
                started.set(());
                tokio::task::yield_now().await;
                panic!("later");
            })
            .unwrap();
        assert!(matches!(call.result(LONG), Err::<(), _>(ResultError::Panicked(_))));
    }
}

/// A35, b57, b81: a task that ends, or goes on, without a word is an error and no hang.
#[test]
fn a_task_that_never_reports_is_an_error() {
    for runner in both() {
        let ended = runner.start_task(|started: Started<()>| async move {
            let _started = started;
            3
        });
        assert!(matches!(ended, Err(StartTaskError::Ended(3))));
        let silent = runner.start_task(|started: Started<()>| async {
            drop(started);
            pending::<()>().await;
        });
        assert!(matches!(silent, Err(StartTaskError::Dropped)));
        let forgotten = runner.start_task(|_: Started<()>| pending::<()>()).unwrap_err();
        assert!(forgotten.to_string().contains("let it call `set` first"), "{forgotten}");
    }
}
