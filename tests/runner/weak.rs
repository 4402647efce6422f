//! `WeakRunner`.

use crate::assert_clean;
use crate::common::{LONG, SHORT, eventually};
use callbridge::runner::Outcome;
use callbridge::{ResultError, ThreadRunner};
use std::future::pending;
use std::sync::mpsc;
use std::thread;

/// What a signal's handler does, on a thread of its own.
#[test]
fn a_handler_that_is_never_dropped_can_close_the_runner() {
    let runner = ThreadRunner::new();
    let (told, tell) = mpsc::channel();
    let _session =
        runner
            .enter_context(
                || async { Ok::<_, String>(()) },
                move |_, outcome| async move {
                    told.send(outcome.to_string()).map_err(|e| e.to_string())
                },
            )
            .unwrap()
            .leave_open();
    let weak = runner.downgrade();
    let (press, pressed) = mpsc::channel();
    let handler = thread::spawn(move || {
        pressed.recv().unwrap();
        let report = weak.close_with(Outcome::error("interrupted"), SHORT);
        assert!(report.unwrap().still_running.is_empty());
        pressed.recv().unwrap();
        eventually("the handle keeps nothing alive", || weak.close(LONG).is_none());
    });
    thread::scope(|scope| {
        let running = scope.spawn(|| runner.run(pending::<()>()));
        while runner.bridge().unwrap().in_flight() == 0 {
            thread::yield_now();
        }
        press.send(()).unwrap();
        assert!(matches!(running.join().unwrap(), Err(ResultError::LoopClosed)));
    });
    assert_eq!(tell.recv_timeout(LONG).unwrap(), "interrupted");
    assert!(runner.close(LONG).still_running.is_empty());
    drop(runner);
    press.send(()).unwrap();
    handler.join().unwrap();
}

#[test]
fn a_weak_handle_starts_nothing_and_keeps_nothing() {
    let runner = ThreadRunner::new();
    let weak = runner.downgrade();
    let other = weak.clone();
    assert_clean(&weak.close(LONG).unwrap());
    assert!(runner.is_closed() && !runner.is_started());
    drop(runner);
    assert!(weak.close(LONG).is_none() && other.close(LONG).is_none());
}
