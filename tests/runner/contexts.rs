//! `enter_context`, `wrap_context`, guards.

use crate::both;
use crate::common::{LONG, whole};
use callbridge::runner::{AsyncContext, EnterError, Guard, Outcome, ScopeError};
use callbridge::{ResultError, ThreadRunner};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use tokio::sync::oneshot;

/// What contexts did, in order.
#[derive(Clone, Default)]
pub(crate) struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    pub(crate) fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A context that keeps a diary.
pub(crate) fn enter(
    runner: &ThreadRunner,
    diary: &Diary,
    name: &'static str,
) -> Guard<&'static str> {
    let (opened, closed) = (diary.clone(), diary.clone());
    runner
        .enter_context(
            move || async move {
                opened.note(format!("+{name}"));
                Ok::<_, String>(name)
            },
            move |value, outcome| async move {
                closed.note(format!("-{value}: {outcome}"));
                Ok::<_, String>(())
            },
        )
        .unwrap()
}

/// What polls the current task is woken by: the same for all of a task, and for no other.
async fn waker() -> Waker {
    poll_fn(|cx| Poll::Ready(cx.waker().clone())).await
}

/// A context that looks at the task it runs in.
struct Bound {
    entered_by: Option<Waker>,
    same: mpsc::Sender<bool>,
}

impl AsyncContext for Bound {
    type Value = ();
    type Error = String;

    async fn enter(&mut self) -> Result<(), String> {
        self.entered_by = Some(waker().await);
        Ok(())
    }

    async fn exit(self, _outcome: Outcome) -> Result<(), String> {
        tokio::task::yield_now().await;
        let same = waker().await.will_wake(&self.entered_by.unwrap());
        self.same.send(same).map_err(|error| error.to_string())
    }
}

/// A29: the value comes in, and the end is told.
#[test]
fn a_context_gives_its_value_and_is_told_of_the_end() {
    for runner in both() {
        let diary = Diary::default();
        let guard = enter(&runner, &diary, "session");
        assert_eq!(*guard, "session");
        guard.exit(Outcome::Ok).unwrap();
        assert_eq!(diary.lines(), ["+session", "-session: ok"]);
    }
}

/// A29: the body's error reaches the exit and comes out again.
#[test]
fn a_scopes_error_reaches_the_exit_and_the_caller() {
    let runner = ThreadRunner::new();
    let diary = Diary::default();
    let failed = enter(&runner, &diary, "a").scope(|_| Err::<(), _>("no such station"));
    assert!(matches!(failed, Err(ScopeError::Body("no such station"))));
    let value = enter(&runner, &diary, "b").scope(|name| Ok::<_, String>(name.len()));
    assert_eq!(value.unwrap(), 1);
    assert_eq!(diary.lines(), ["+a", "-a: no such station", "+b", "-b: ok"]);
}

#[test]
fn a_scopes_panic_reaches_the_exit_and_goes_on() {
    let runner = ThreadRunner::new();
    let diary = Diary::default();
    let guard = enter(&runner, &diary, "a");
    let scope = || guard.scope(|_| -> Result<(), String> { panic!("boom") });
    let payload = catch_unwind(AssertUnwindSafe(scope)).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"boom"));
    assert_eq!(diary.lines(), ["+a", "-a: the body panicked"]);
}

#[test]
fn a_dropped_guard_exits_its_context() {
    let runner = ThreadRunner::new();
    let diary = Diary::default();
    drop(enter(&runner, &diary, "a"));
    let guard = enter(&runner, &diary, "b");
    let unwinding = move || {
        let _guard = guard;
        panic!("boom")
    };
    let _ = catch_unwind(AssertUnwindSafe(unwinding)).unwrap_err();
    assert_eq!(diary.lines(), ["+a", "-a: ok", "+b", "-b: the body panicked"]);
}

/// An ancestor ran enter and exit as different tasks.
#[test]
fn enter_and_exit_run_in_one_task() {
    for runner in both() {
        let (same, heard) = mpsc::channel();
        drop(runner.wrap_context(Bound { entered_by: None, same: same.clone() }).unwrap());
        let open = || async { Ok::<_, String>(waker().await) };
        let guard = runner.enter_context(open, move |entered_by, _| async move {
            same.send(waker().await.will_wake(&entered_by)).map_err(|error| error.to_string())
        });
        guard.unwrap().exit(Outcome::Ok).unwrap();
        assert_eq!(heard.iter().take(2).collect::<Vec<_>>(), [true; 2]);
        let other = runner.spawn(waker()).result(None).unwrap();
        let same = runner.spawn(async move { waker().await.will_wake(&other) }).result(None);
        assert!(!same.unwrap());
    }
}

/// A31: what fails inside the context surfaces at its exit; nothing hangs.
#[test]
fn a_childs_failure_surfaces_at_the_exit() {
    for runner in both() {
        let guard = runner
            .enter_context(
                || async {
                    let child = tokio::spawn(async { panic!("child") });
                    Ok::<_, String>(tokio::sync::Mutex::new(child))
                },
                |child, _| async move {
                    let child: Result<(), _> = (&mut *child.lock().await).await;
                    child.map_err(|error| error.to_string())
                },
            )
            .unwrap();
        let error = guard.exit(Outcome::Ok).unwrap_err();
        assert!(whole(&error).contains("panicked"), "{error}");
        assert!(error.location().file().ends_with("contexts.rs"));
    }
}

#[test]
fn a_context_that_cannot_be_entered_is_an_error() {
    for runner in both() {
        let close = |_: Arc<()>, _| async { Err::<(), _>("never entered, never exited") };
        let refused = runner.enter_context(|| async { Err(404) }, close);
        assert!(matches!(refused, Err(EnterError::Open(404))));
        let open = || async { if true { panic!("boom") } else { Ok::<_, ()>(()) } };
        match runner.enter_context(open, close) {
            Err(EnterError::Loop(ResultError::Panicked(panic))) => {
                assert_eq!(panic.message(), "boom");
            }
            other => panic!("{other:?}"),
        }
        let report = runner.close(LONG);
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.contexts, 0);
        let late = runner.enter_context(|| async { Ok::<_, ()>(()) }, close);
        assert!(matches!(late, Err(EnterError::Loop(ResultError::LoopClosed))));
    }
}

#[test]
fn a_context_cannot_be_entered_on_its_own_loop() {
    let runner = Arc::new(ThreadRunner::new());
    let inner = Arc::clone(&runner);
    let refused = runner.run(async move {
        let close = |_: Arc<()>, _| async { Ok::<(), String>(()) };
        let entered = inner.enter_context(|| async { Ok::<_, ()>(()) }, close);
        matches!(entered, Err(EnterError::Loop(ResultError::WouldDeadlock)))
    });
    assert!(refused.unwrap());
}

#[test]
fn contexts_do_not_count_as_calls_in_flight() {
    let runner = ThreadRunner::builder().max_in_flight(1).build().unwrap();
    let diary = Diary::default();
    let _guards = ["a", "b"].map(|name| enter(&runner, &diary, name));
    assert_eq!(runner.run_timeout(async { 1 }, LONG).unwrap(), 1);
    assert_eq!(runner.bridge().unwrap().in_flight(), 0);
}

/// Calls of other threads use what a context opened.
#[test]
fn threads_use_a_contexts_value_on_the_loop() {
    let runner = ThreadRunner::new();
    let (requests, mut serve) = tokio::sync::mpsc::channel::<(u32, oneshot::Sender<u32>)>(4);
    let service = runner
        .enter_context(
            move || async move {
                let server = tokio::spawn(async move {
                    while let Some((number, reply)) = serve.recv().await {
                        let _ = reply.send(number * 2);
                    }
                });
                Ok::<_, String>((requests, server))
            },
            |service, _| async move {
                let (requests, server) = Arc::into_inner(service).ok_or("still in use")?;
                drop(requests);
                server.await.map_err(|_| "the server panicked")
            },
        )
        .unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let requests = service.0.clone();
            let runner = &runner;
            scope.spawn(move || {
                let doubled = runner.run(async move {
                    let (reply, answer) = oneshot::channel();
                    requests.send((number, reply)).await.unwrap();
                    answer.await.unwrap()
                });
                assert_eq!(doubled.unwrap(), number * 2);
            });
        }
    });
    service.exit(Outcome::Ok).unwrap();
}
