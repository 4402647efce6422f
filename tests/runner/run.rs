//! Running: `run`, `run_timeout`, `spawn`.

use crate::common::{Census, LONG, Loop, SHORT, eventually};
use crate::{assert_clean, both, here};
use callbridge::runner::{ReadySignal, StartTaskError};
use callbridge::{ResultError, ThreadRunner};
use std::future::pending;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

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
        assert!(runner.close(SHORT).still_running.is_empty());
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
                    let started = inner.start_task(|_: ReadySignal<()>| async {});
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
fn a_token_ends_a_run_at_once_and_its_watcher_holds_up_no_close() {
    for runner in both() {
        let census = Census::default();
        let alive = census.guard();
        let (token, pressed) = (CancellationToken::new(), CancellationToken::new());
        let (watched, other) = (pressed.clone(), token.clone());
        let loop_of = runner.bridge().unwrap().handle().clone();
        let _watcher = loop_of.spawn(async move {
            watched.cancelled().await;
            other.cancel();
            pending::<()>().await;
        });
        let ended = runner.run_until_cancelled(
            &token,
            async {
                let _alive = alive;
                pressed.cancel();
                pending::<()>().await;
            },
            LONG,
        );
        assert!(matches!(ended, Err(ResultError::Cancelled)), "{ended:?}");
        assert_eq!(census.alive(), 0);
        let late = runner.run_until_cancelled(&CancellationToken::new(), pending::<()>(), SHORT);
        assert!(matches!(late, Err(ResultError::TimedOut { .. })), "{late:?}");
        let report = runner.close(LONG);
        assert!(report.is_clean() && report.cut_off == 0 && report.elapsed < LONG / 2);
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
            assert!(runner.close(SHORT).still_running.is_empty());
            for waiting in waiting {
                assert!(matches!(waiting.join().unwrap(), Err(ResultError::LoopClosed)));
            }
        });
        assert!(matches!(runner.run(async {}), Err(ResultError::LoopClosed)));
        let timer = runner.run(async { tokio::time::sleep(LONG).await });
        assert!(matches!(timer, Err(ResultError::LoopClosed)));
    }
}
