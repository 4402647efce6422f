//! What a close does to contexts.

use crate::both;
use crate::common::{LONG, SHORT, eventually, whole};
use crate::contexts::{Diary, enter};
use callbridge::ThreadRunner;
use callbridge::runner::{Guard, Outcome};
use std::future::pending;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Instant;
use tokio::sync::oneshot;

#[test]
fn close_exits_contexts_last_in_first_out() {
    for runner in both() {
        let diary = Diary::default();
        let kept = ["a", "b", "c"].map(|name| enter(&runner, &diary, name));
        let [a, b, c] = kept;
        let value = a.leave_open();
        b.exit(Outcome::Ok).unwrap();
        let d = enter(&runner, &diary, "d");
        let report = runner.close(LONG);
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.contexts, 3);
        assert_eq!(diary.lines(), ["+a", "+b", "+c", "-b: ok", "+d", "-d: ok", "-c: ok", "-a: ok"]);
        // Guards that the close was faster than have nothing left to do.
        assert_eq!((*value, *c), ("a", "c"));
        d.exit(Outcome::Ok).unwrap();
        drop(c);
        assert_eq!(diary.lines().len(), 8);
    }
}

#[test]
fn close_tells_contexts_how_the_program_ended() {
    let runner = ThreadRunner::new();
    let diary = Diary::default();
    let _a = enter(&runner, &diary, "a").leave_open();
    let report = runner.close_with(Outcome::error("disk full"), LONG);
    assert!(report.is_clean(), "{report}");
    assert_eq!(diary.lines(), ["+a", "-a: disk full"]);
}

#[test]
fn a_dropped_runner_exits_its_contexts() {
    let diary = Diary::default();
    let runner = ThreadRunner::new();
    let _a = enter(&runner, &diary, "a").leave_open();
    drop(runner);
    assert_eq!(diary.lines(), ["+a", "-a: ok"]);
}

#[test]
fn errors_of_exits_are_collected() {
    for runner in both() {
        let failing = |text: &'static str| {
            runner
                .enter_context(
                    || async { Ok::<_, String>(()) },
                    move |_, _| async move {
                        if text == "panics" {
                            panic!("{text}");
                        }
                        Err(text)
                    },
                )
                .unwrap()
        };
        let _first = failing("first").leave_open();
        let _second = failing("panics").leave_open();
        drop(failing("dropped"));
        let told = failing("told").exit(Outcome::Ok).unwrap_err();
        assert!(whole(&told).ends_with(": told"), "{told}");
        let report = runner.close(LONG);
        let errors: Vec<_> = report.exit_errors.iter().map(|error| whole(error)).collect();
        let ends = ["dropped", "the work panicked: panics", "first"];
        assert_eq!(errors.len(), ends.len(), "{errors:?}");
        for (error, end) in errors.iter().zip(ends) {
            assert!(error.ends_with(end), "{error}");
        }
        assert!(!report.is_clean());
        let text = report.to_string();
        assert!(text.contains(" 2 contexts exited, "), "{text}");
        assert!(ends.iter().all(|end| text.contains(end)), "{text}");
        assert!(runner.close(LONG).exit_errors.is_empty(), "told once");
    }
}

/// The 65th error and later ones are only counted.
#[test]
fn many_errors_of_dropped_guards_do_not_pile_up() {
    let runner = ThreadRunner::new();
    for _ in 0..70 {
        let close = |_: Arc<()>, _| async { Err::<(), _>("late") };
        drop(runner.enter_context(|| async { Ok::<_, String>(()) }, close).unwrap());
    }
    let report = runner.close(LONG);
    assert_eq!((report.exit_errors.len(), report.more_exit_errors), (64, 6));
}

#[test]
fn an_exit_that_hangs_cannot_hang_close() {
    for runner in both() {
        let diary = Diary::default();
        let _first = enter(&runner, &diary, "first").leave_open();
        let _hanging = runner
            .enter_context(
                || async { Ok::<_, String>(()) },
                |_, _| async {
                    pending::<()>().await;
                    Ok::<_, String>(())
                },
            )
            .unwrap()
            .leave_open();
        let asked = Instant::now();
        let report = runner.close(SHORT);
        assert!(asked.elapsed() < LONG / 2);
        assert_eq!(
            (report.contexts, report.exit_errors.len(), report.still_running.is_empty()),
            (2, 1, true)
        );
        assert_eq!(diary.lines(), ["+first", "-first: ok"], "told although time was up");
    }
}

/// A guard dropped on the loop can't wait; its exit and the exit's error aren't lost.
#[test]
fn a_guard_dropped_on_the_loop_exits_without_waiting() {
    let runner = ThreadRunner::new();
    let guard = runner
        .enter_context(|| async { Ok::<_, String>(()) }, |_, _| async { Err("late") })
        .unwrap();
    runner.run_timeout(async move { drop(guard) }, LONG).unwrap();
    let report = runner.close(LONG);
    assert!(whole(&report.exit_errors[0]).ends_with(": late"), "{report}");
}

/// A context whose exit waits for a word; `begun` says that it has begun.
fn slow_to_exit(
    runner: &ThreadRunner,
    diary: &Diary,
) -> (Guard<()>, mpsc::Receiver<()>, oneshot::Sender<()>) {
    let closed = diary.clone();
    let ((began, begun), (go, going)) = (mpsc::channel(), oneshot::channel());
    let guard = runner.enter_context(
        || async { Ok::<_, String>(()) },
        move |_, _| async move {
            began.send(()).unwrap();
            let _ = going.await;
            closed.note("-slow");
            Ok::<_, String>(())
        },
    );
    (guard.unwrap(), begun, go)
}

/// A context that its guard is just exiting is still the last that was entered.
#[test]
fn close_waits_for_an_exit_that_a_guard_has_begun() {
    for runner in both() {
        let diary = Diary::default();
        let _db = enter(&runner, &diary, "db").leave_open();
        let (session, begun, go) = slow_to_exit(&runner, &diary);
        let _later = enter(&runner, &diary, "later").leave_open();
        thread::scope(|scope| {
            let exiting = scope.spawn(|| session.exit(Outcome::Ok));
            begun.recv_timeout(LONG).unwrap();
            let closing = scope.spawn(|| runner.close(LONG));
            eventually("the last one is told", || diary.lines().len() == 3);
            for _ in 0..20 {
                assert!(runner.run_timeout(async {}, SHORT).is_err());
                assert_eq!(diary.lines(), ["+db", "+later", "-later: ok"]);
                thread::sleep(SHORT / 10);
            }
            go.send(()).unwrap();
            exiting.join().unwrap().unwrap();
            let report = closing.join().unwrap();
            assert!(report.is_clean(), "{report}");
            assert_eq!(report.contexts, 2, "the guard told the third");
        });
        assert_eq!(diary.lines(), ["+db", "+later", "-later: ok", "-slow", "-db: ok"]);
    }
}

/// Of an exit that a guard has begun and that is late, the report tells; so does the guard.
#[test]
fn an_exit_that_a_guard_has_begun_and_that_is_late_is_reported() {
    for drops in [false, true] {
        let runner = ThreadRunner::new();
        let diary = Diary::default();
        let _db = enter(&runner, &diary, "db").leave_open();
        let (session, begun, _go) = slow_to_exit(&runner, &diary);
        thread::scope(|scope| {
            let exiting = scope.spawn(|| {
                if drops {
                    drop(session);
                    return Ok(());
                }
                session.exit(Outcome::Ok)
            });
            begun.recv_timeout(LONG).unwrap();
            let report = runner.close(SHORT);
            assert_eq!(report.exit_errors.len(), 1, "{report}");
            assert!(!report.is_clean() && report.still_running.is_empty(), "{report}");
            assert_eq!(exiting.join().unwrap().is_ok(), drops);
        });
        assert_eq!(diary.lines(), ["+db", "-db: ok"]);
    }
}

/// Put back by guards that couldn't wait, they keep their places in the order.
#[test]
fn an_exit_that_a_guard_left_keeps_its_place() {
    let runner = ThreadRunner::new();
    let diary = Diary::default();
    let _db = enter(&runner, &diary, "db").leave_open();
    let (session, begun, go) = slow_to_exit(&runner, &diary);
    let _later = enter(&runner, &diary, "later").leave_open();
    runner.run_timeout(async move { drop(session) }, LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    thread::scope(|scope| {
        let closing = scope.spawn(|| runner.close(LONG));
        eventually("the last one is told", || diary.lines().len() == 3);
        go.send(()).unwrap();
        let report = closing.join().unwrap();
        assert!(report.is_clean(), "{report}");
    });
    assert_eq!(diary.lines(), ["+db", "+later", "-later: ok", "-slow", "-db: ok"]);
}

/// Guards that exit, drop and leave while the runner closes: each context exits once.
#[test]
fn every_context_exits_once_whoever_is_faster() {
    for round in 0..100 {
        let runner = ThreadRunner::builder().worker_threads(1 + round % 2).build().unwrap();
        let entered = Mutex::new(Vec::new());
        let exited = Arc::new(Mutex::new(Vec::new()));
        let user = |first: usize| {
            for number in first.. {
                let told = Arc::clone(&exited);
                let guard = runner.enter_context(
                    || async { Ok::<_, String>(()) },
                    move |_, _| async move {
                        tokio::task::yield_now().await;
                        told.lock().unwrap().push(number);
                        Ok::<_, String>(())
                    },
                );
                let Ok(guard) = guard else { return };
                entered.lock().unwrap().push(number);
                match number % 4 {
                    0 => guard.exit(Outcome::Ok).unwrap(),
                    1 => drop(guard),
                    2 => drop(guard.leave_open()),
                    // A thread of the loop can't wait for it.
                    _ => drop(runner.spawn(async move { drop(guard) })),
                }
            }
        };
        let report = thread::scope(|scope| {
            let user = &user;
            (0..4).for_each(|thread| drop(scope.spawn(move || user(thread * 1_000_000))));
            let closer = || {
                eventually("some are entered", || entered.lock().unwrap().len() >= 8);
                runner.close(LONG)
            };
            let closers = [scope.spawn(closer), scope.spawn(closer)];
            closers.map(|closer| closer.join().unwrap())
        });
        for report in report {
            assert!(report.exit_errors.is_empty() && report.still_running.is_empty(), "{report}");
        }
        let mut entered = entered.into_inner().unwrap();
        let mut exited = std::mem::take(&mut *exited.lock().unwrap());
        entered.sort_unstable();
        exited.sort_unstable();
        // One whose opening the close overtook is told to exit, too, though nobody got its guard.
        let known = exited.iter().filter(|number| entered.binary_search(number).is_ok()).count();
        assert_eq!(known, entered.len(), "round {round}");
        exited.dedup();
        assert!(exited.len() - known <= 4, "round {round}");
    }
}
