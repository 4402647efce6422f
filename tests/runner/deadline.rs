//! What can't keep a close from its deadline.

use crate::common::{Census, LONG, SHORT, eventually, in_parallel};
use crate::{assert_clean, both};
use callbridge::runner::{EnterError, ReadySignal, StartTaskError};
use callbridge::{ResultError, ThreadRunner};
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// The close of an ancestor hangs on a task that ignores its cancel.
#[test]
fn a_task_that_ignores_cancellation_cannot_hang_close() {
    for runner in both() {
        let census = Census::default();
        let alive = census.guard();
        let stubborn = runner.spawn(async move {
            let _alive = alive;
            loop {
                tokio::task::yield_now().await;
            }
        });
        let report = runner.close(SHORT);
        assert_eq!((report.cut_off, report.still_running.is_empty()), (1, true));
        assert_eq!(census.alive(), 0);
        drop(stubborn);
    }
}

/// A28: what is stuck is named, by where it was submitted; its thread is left behind.
#[test]
fn a_poll_that_blocks_cannot_hang_close() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let mut stuck = runner.spawn(async move {
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
        });
        begun.recv_timeout(LONG).unwrap();
        let asked = Instant::now();
        let report = runner.close(SHORT);
        assert!(asked.elapsed() < LONG / 2, "{report}");
        assert!(!report.is_clean() && !report.still_running.is_empty(), "{report}");
        let location = report.stuck[0].location;
        assert_eq!(location.file(), file!(), "{report}");
        drop(release);
        stuck.result(LONG).unwrap();
        let again = runner.close(LONG);
        assert_eq!((again.drained, again.cut_off), (0, 0), "nothing is left to close");
    }
}

#[test]
fn a_blocking_job_cannot_hang_close() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        runner
            .run(async move {
                drop(tokio::task::spawn_blocking(move || {
                    began.send(()).unwrap();
                    let _ = blocked.recv_timeout(LONG);
                }));
            })
            .unwrap();
        begun.recv_timeout(LONG).unwrap();
        let asked = Instant::now();
        let report = runner.close(SHORT);
        assert!(asked.elapsed() < LONG / 2, "{report}");
        assert!(!report.still_running.is_empty(), "{report}");
        drop(release);
    }
}

#[test]
fn a_patient_close_waits_for_blocking_jobs() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let done = Arc::new(AtomicUsize::new(0));
        let job_done = Arc::clone(&done);
        runner
            .run(async move {
                drop(tokio::task::spawn_blocking(move || {
                    began.send(()).unwrap();
                    let _ = blocked.recv_timeout(LONG);
                    job_done.store(1, Ordering::SeqCst);
                }));
            })
            .unwrap();
        begun.recv_timeout(LONG).unwrap();
        let token = runner.bridge().unwrap().child_token();
        thread::scope(|scope| {
            let closing = scope.spawn(|| runner.close(LONG));
            eventually("the close has begun", || token.is_cancelled());
            drop(release);
            assert_clean(&closing.join().unwrap());
        });
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}

/// Blocks whoever drops it, until the sender of the channel goes.
struct Blocks(mpsc::Receiver<()>);

impl Drop for Blocks {
    fn drop(&mut self) {
        let _ = self.0.recv_timeout(LONG);
    }
}

/// Users' destructors run on the loop; the deadline is the closer's own.
#[test]
fn a_destructor_that_blocks_cannot_hang_close_or_drop() {
    let ends = [false, true].into_iter().flat_map(|forget| both().map(|runner| (forget, runner)));
    in_parallel(ends, |(forget, runner)| {
        let mut holds = Vec::new();
        let mut blocks = || {
            let (hold, blocked) = mpsc::channel();
            holds.push(hold);
            Blocks(blocked)
        };
        let (suspended, spawned, unpolled) = (blocks(), blocks(), blocks());
        let _call = runner.spawn(async move {
            let _held = suspended;
            pending::<()>().await;
        });
        let task = tokio::spawn;
        runner
            .run(async move {
                task(async move {
                    let _held = spawned;
                    pending::<()>().await;
                });
            })
            .unwrap();
        runner.spawn(tokio::task::yield_now()).result(LONG).unwrap();
        let _late = runner.spawn(async move { drop(unpolled) });
        let asked = Instant::now();
        if forget {
            drop(runner);
        } else {
            let report = runner.close(Duration::from_millis(50));
            assert!(!report.still_running.is_empty(), "{report}");
        }
        assert!(asked.elapsed() < LONG / 10, "{:?}", asked.elapsed());
        drop(holds);
    });
}

/// The loop's thread isn't gone before its thread-locals are, and these may block.
#[test]
fn a_thread_local_of_the_loop_is_waited_for_until_the_deadline() {
    std::thread_local!(static LEFT: std::cell::Cell<Option<Blocks>> = const { std::cell::Cell::new(None) });
    for patience in [SHORT, LONG] {
        let runner = ThreadRunner::new();
        let (hold, blocked) = mpsc::channel();
        runner.spawn(async move { LEFT.set(Some(Blocks(blocked))) }).result(LONG).unwrap();
        thread::scope(|scope| {
            let closer = scope.spawn(|| runner.close(patience));
            if patience == LONG {
                let token = runner.bridge().map(|bridge| bridge.child_token());
                drop((hold, token));
                assert_clean(&closer.join().unwrap());
            } else {
                let report = closer.join().unwrap();
                assert!(!report.still_running.is_empty(), "{report}");
                drop(hold);
                assert!(runner.close(LONG).still_running.is_empty(), "it can be waited for again");
            }
        });
    }
}

/// Whoever waits for what a blocked loop doesn't bring is released by the close, not by the loop.
#[test]
fn a_close_releases_whoever_waits_for_a_loop_that_is_blocked() {
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let runner = ThreadRunner::new();
    let _stuck = runner.spawn(async move {
        began.send(()).unwrap();
        let _ = blocked.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    let (_sender, frames) = callbridge::channel::<u8>(1);
    let mut items = runner.wrap_iter(frames);
    let bridge = runner.bridge().unwrap();
    thread::scope(|scope| {
        let entering = scope.spawn(|| {
            let close = |_: Arc<()>, _| async { Ok::<_, String>(()) };
            runner.enter_context(|| async { Ok::<_, String>(()) }, close).map(drop)
        });
        let starting = scope.spawn(|| runner.start_task(|_: ReadySignal<()>| async {}).map(drop));
        let reading = scope.spawn(move || (items.next(), items));
        eventually("the task and the reader are submitted", || bridge.in_flight() == 3);
        let asked = Instant::now();
        let report = runner.close(SHORT);
        assert!(!report.still_running.is_empty(), "{report}");
        let entered = entering.join().unwrap();
        assert!(matches!(entered, Err(EnterError::Loop(ResultError::LoopClosed))), "{entered:?}");
        let started = starting.join().unwrap();
        assert!(matches!(started, Err(StartTaskError::Loop(ResultError::LoopClosed))));
        let (last, items) = reading.join().unwrap();
        assert!(matches!(last, Some(Err(ResultError::LoopClosed))), "{last:?}");
        assert!(asked.elapsed() < LONG / 2, "{:?}", asked.elapsed());
        drop(release);
        drop(items);
    });
}
