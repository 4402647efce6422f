//! `start_task`.

use crate::both;
use crate::common::LONG;
use callbridge::ResultError;
use callbridge::runner::{ReadySignal, StartTaskError};
use std::future::pending;
use tokio::sync::oneshot;

/// A32: the value that the task reports, or none to speak of, and its future.
#[test]
fn start_task_gives_what_the_task_reports() {
    for runner in both() {
        let ((), mut quiet) = runner
            .start_task(|started: ReadySignal<()>| async move {
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
        let crashed = runner.start_task(|started: ReadySignal<()>| async move {
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
        let ended = runner.start_task(|started: ReadySignal<()>| async move {
            let _started = started;
            3
        });
        assert!(matches!(ended, Err(StartTaskError::Ended(3))));
        let silent = runner.start_task(|started: ReadySignal<()>| async {
            drop(started);
            pending::<()>().await;
        });
        assert!(matches!(silent, Err(StartTaskError::Dropped)));
        let forgotten = runner.start_task(|_: ReadySignal<()>| pending::<()>()).unwrap_err();
        assert!(forgotten.to_string().contains("let it call `set` first"), "{forgotten}");
    }
}
