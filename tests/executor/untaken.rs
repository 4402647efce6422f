//! What a dedicated thread has for somebody who may be gone: its value at the end, and results that nobody
//! takes.

use super::block_on;
use super::dedicated::bound;
use crate::common::{Census, LONG, SHORT, refusal};
use callbridge::future::Refusal;
use callbridge::{DedicatedThread, ResultError};
use std::sync::mpsc;

/// A device that is opened after its caller gave up is closed on its thread, and can be opened again.
#[test]
fn a_value_that_comes_after_its_caller_gave_up_is_dropped_at_home() {
    let (build, drops) = bound(&Census::default());
    let (go, gone) = mpsc::channel::<()>();
    let mut slow = build;
    let mut first = DedicatedThread::builder().spawn(move || {
        let _ = gone.recv();
        slow()
    });
    assert!(matches!(first.result(SHORT), Err(ResultError::TimedOut { .. })));
    drop(first);
    drop(go);
    assert!(drops.recv_timeout(LONG).unwrap());
}

#[test]
fn finish_hands_the_value_over_after_the_accepted_calls() {
    let (build, drops) = bound(&Census::default());
    let thread = DedicatedThread::builder().capacity(1).spawn(build).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let _busy = thread.submit(move |_| {
        began.send(()).unwrap();
        let _ = blocked.recv();
    });
    begun.recv_timeout(LONG).unwrap();
    let _queued = thread.submit(|bound| bound.numbers.borrow_mut().push(7));
    let mut finished = thread.finish(|bound| {
        let numbers = bound.numbers.borrow().clone();
        drop(bound);
        Err::<(), _>(numbers)
    });
    assert!(thread.is_closed());
    let refused = thread.call_blocking(|_| (), LONG).unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::Closed)), "{refused:?}");
    let refused = thread.finish(|_| ()).result(LONG).unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::Closed)), "{refused:?}");
    drop(release);
    assert_eq!(finished.result(LONG).unwrap(), Err(vec![7]), "with the error of its close");
    assert!(drops.try_recv().unwrap(), "at home");
    assert!(thread.close_blocking(LONG).is_clean());
}

#[test]
fn finish_contains_a_panic_and_may_be_cancelled_or_refused() {
    let spawn = || {
        let (build, drops) = bound(&Census::default());
        (DedicatedThread::spawn(build).result(LONG).unwrap(), drops)
    };
    let (thread, drops) = spawn();
    let panicked = thread.finish(|_| panic!("in the end")).result(LONG);
    assert!(matches!(panicked, Err(ResultError::Panicked(_))));
    assert!(drops.recv_timeout(LONG).unwrap());
    assert!(thread.close_blocking(LONG).is_clean());

    let (thread, drops) = spawn();
    let (release, blocked) = mpsc::channel::<()>();
    let _busy = thread.submit(move |_| blocked.recv().is_ok());
    let mut cancelled = thread.finish(|_| unreachable!("it is cancelled"));
    cancelled.cancel();
    drop(release);
    assert!(matches!(cancelled.result(LONG), Err(ResultError::Cancelled)));
    assert!(drops.recv_timeout(LONG).unwrap());

    let (thread, _drops) = spawn();
    let (release, blocked) = mpsc::channel::<()>();
    let _panics = thread.submit(move |_| {
        let _ = blocked.recv();
        panic!("first");
    });
    let mut refused = thread.finish(|_| ());
    drop(release);
    let refused = refused.result(LONG).unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::Broken(_))), "{refused:?}");
}

/// What holds a thread up, and tells that it has begun, until the sender is dropped.
fn holder() -> (impl FnOnce() + Send, tokio::sync::oneshot::Receiver<()>, mpsc::Sender<()>) {
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let hold = move || {
        began.send(()).unwrap();
        let _ = blocked.recv();
    };
    (hold, begun, release)
}

/// A transaction is begun by a call that its caller has given up: it is rolled back before the next one.
#[test]
fn a_result_that_nobody_takes_is_undone_before_the_next_call() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(LONG).unwrap();
    let begin = |open: &mut i32| *open += 1;
    let undo = |open: &mut i32, ()| *open -= 1;
    block_on(async {
        thread.call_or_undo(begin, undo).await.unwrap();
        assert_eq!(thread.call(|open| *open).await.unwrap(), 1, "it was taken");

        // Given up while it runs.
        let (hold, begun, release) = holder();
        let call = thread.call_or_undo(
            move |open| {
                hold();
                begin(open);
            },
            undo,
        );
        begun.await.unwrap();
        let next = thread.call(|open| *open);
        drop(call);
        drop(release);
        assert_eq!(next.await.unwrap(), 1);

        // Done, and never looked at; others are queued already.
        let call = thread.call_or_undo(begin, undo);
        thread.call(|_| ()).await.unwrap();
        let (hold, begun, release) = holder();
        let _busy = thread.submit(move |_| hold());
        begun.await.unwrap();
        let next = thread.call(|open| *open);
        drop(call);
        drop(release);
        assert_eq!(next.await.unwrap(), 1);

        // Cancelled before it began: there is nothing to undo.
        let (hold, begun, release) = holder();
        let _busy = thread.submit(move |_| hold());
        begun.await.unwrap();
        drop(thread.call_or_undo(begin, |_, ()| panic!("nothing was begun")));
        drop(release);
        assert_eq!(thread.call(|open| *open).await.unwrap(), 1);

        // Accepted calls run to the end, and what they leave behind is undone.
        let (hold, begun, release) = holder();
        let call = thread.call_or_undo(
            move |open| {
                hold();
                begin(open);
            },
            undo,
        );
        begun.await.unwrap();
        let finished = thread.finish(|open| open);
        drop(call);
        drop(release);
        assert_eq!(finished.await.unwrap(), 1);
        assert!(thread.close(LONG).await.is_clean());
    });
}

#[test]
fn a_result_of_a_thread_that_is_gone_is_dropped() {
    let census = Census::default();
    let guard = census.guard();
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(())).result(LONG).unwrap();
    let call = thread.call_or_undo(move |()| guard, |(), _| unreachable!("its thread is gone"));
    assert!(thread.close_blocking(LONG).is_clean());
    assert_eq!(census.alive(), 1);
    drop(call);
    assert_eq!(census.alive(), 0);
}
