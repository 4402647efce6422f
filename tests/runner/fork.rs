//! A process that forks: the loop stays in the parent, and the child is told so.
//!
//! Each test runs in a process of its own, which forks.

use crate::child::in_a_child;
use crate::common::fork::in_a_fork;
use crate::common::tasks::until_all_others_sleep;
use crate::common::{LONG, SHORT};
use crate::{assert_clean, both};
use callbridge::runner::{EnterError, Outcome, ReadySignal, StartTaskError};
use callbridge::{ResultError, ThreadRunner};
use std::future::pending;
use std::io;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// Lets the loop's threads go to sleep: a lock that one of them holds at the fork stays locked in the
/// child for ever.
fn settle(runner: &ThreadRunner) {
    runner.spawn(async {}).wait(LONG).unwrap();
    until_all_others_sleep();
}

fn forked<T>(result: Result<T, ResultError>) {
    assert!(matches!(result, Err(ResultError::Forked)), "{:?}", result.map(drop));
}

#[test]
fn nothing_of_an_inherited_runner_hangs_in_a_forked_process() {
    in_a_child("fork::nothing_of_an_inherited_runner_hangs_in_a_forked_process", || {
        for runner in both() {
            let open = || async { Ok::<_, String>(()) };
            let close = |_, _| async { Ok::<_, String>(()) };
            let exited = runner.enter_context(open, close).unwrap();
            let dropped = runner.enter_context(open, close).unwrap();
            let (_sender, frames) = callbridge::channel::<u8>(1);
            let mut items = runner.wrap_iter(frames);
            let mut call = runner.spawn(pending::<()>());
            settle(&runner);
            in_a_fork(|| {
                let began = Instant::now();
                forked(call.result(None));
                forked(runner.spawn(async {}).result(None));
                forked(runner.run(pending::<()>()));
                assert_eq!(runner.run(async { 7 }).unwrap(), 7, "the calling thread's own");
                let entered = runner.enter_context(open, close);
                assert!(matches!(entered, Err(EnterError::Loop(ResultError::Forked))));
                let started = runner.start_task(|_: ReadySignal<()>| async {});
                assert!(matches!(started, Err(StartTaskError::Loop(ResultError::Forked))));
                forked(items.next().unwrap());
                assert!(items.next().is_none());
                drop(items);
                let error = exited.exit(Outcome::Ok).unwrap_err();
                let source = std::error::Error::source(&error).unwrap();
                assert!(matches!(source.downcast_ref(), Some(ResultError::Forked)));
                drop(dropped);
                let report = runner.close(LONG);
                assert!(report.forked && !report.is_clean(), "{report}");
                drop(runner);
                assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            });
        }
    });
}

#[test]
fn the_parents_runner_notices_nothing_of_a_fork() {
    in_a_child("fork::the_parents_runner_notices_nothing_of_a_fork", || {
        for runner in both() {
            let session = runner.enter_context(
                || async { Ok::<_, String>(()) },
                |_, _| async { Ok::<_, String>(()) },
            );
            let session = session.unwrap();
            settle(&runner);
            in_a_fork(|| {
                let _ = runner.close(LONG);
                drop(runner.spawn(async {}));
            });
            assert_eq!(runner.run_timeout(async { 1 }, LONG).unwrap(), 1);
            session.exit(Outcome::Ok).unwrap();
            assert_clean(&runner.close(LONG));
        }
    });
}

#[test]
fn a_start_under_way_stays_in_the_parent() {
    in_a_child("fork::a_start_under_way_stays_in_the_parent", || {
        let (go, factory) = crate::held_factory();
        let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
        let late = runner.run_timeout(async {}, SHORT);
        assert!(matches!(late, Err(ResultError::TimedOut { .. })));
        in_a_fork(|| {
            forked(runner.run(async {}));
            forked(runner.bridge());
            assert!(runner.close(LONG).forked);
        });
        drop(go);
        runner.run_timeout(async {}, LONG).unwrap();
    });
}

#[test]
fn runners_and_leases_made_in_a_forked_process_work_there() {
    in_a_child("fork::runners_and_leases_made_in_a_forked_process_work_there", || {
        let unused = ThreadRunner::new();
        let lease = ThreadRunner::shared();
        let mut call = lease.spawn(pending::<()>());
        settle(&lease);
        in_a_fork(|| {
            forked(call.result(None));
            for runner in both() {
                assert_eq!(runner.spawn(async { 1 }).result(LONG).unwrap(), 1);
                assert_clean(&runner.close(LONG));
            }
            let fresh = ThreadRunner::shared();
            assert_eq!(fresh.spawn(async { 2 }).result(LONG).unwrap(), 2);
            assert!(fresh.clone().close(LONG).still_running.is_empty());
            assert_eq!(unused.spawn(async { 3 }).result(LONG).unwrap(), 3, "it starts here");
        });
    });
}

/// A start that failed in the parent is tried again in the child.
#[test]
fn a_failed_start_can_be_tried_again_in_a_forked_process() {
    in_a_child("fork::a_failed_start_can_be_tried_again_in_a_forked_process", || {
        let mut attempts = 0;
        let factory = move || {
            attempts += 1;
            match attempts {
                1 => Err(io::Error::other("not yet")),
                _ => Builder::new_current_thread().build(),
            }
        };
        let runner = ThreadRunner::builder().loop_factory(factory).build().unwrap();
        assert!(matches!(runner.bridge(), Err(ResultError::Refused(_))));
        in_a_fork(|| assert_eq!(runner.spawn(async { 1 }).result(LONG).unwrap(), 1));
    });
}
