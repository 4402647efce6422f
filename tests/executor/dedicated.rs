//! DedicatedThread.

use super::block_on;
use crate::common::{Alive, Census, LONG, Loop, SHORT, refusal, whole};
use callbridge::future::Refusal;
use callbridge::{Bridge, DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

/// A value that must not leave its thread, and tells where it was dropped.
struct Bound {
    numbers: Rc<RefCell<Vec<u32>>>,
    home: ThreadId,
    dropped: mpsc::Sender<bool>,
    _alive: Alive,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id() == self.home);
    }
}

fn bound(
    census: &Census,
) -> (impl FnMut() -> Result<Bound, String> + Send + use<>, mpsc::Receiver<bool>) {
    let (dropped, drops) = mpsc::channel();
    let census = census.clone();
    let build = move || {
        Ok(Bound {
            numbers: Rc::default(),
            home: thread::current().id(),
            dropped: dropped.clone(),
            _alive: census.guard(),
        })
    };
    (build, drops)
}

/// G10: all work on one other thread; G12: built, used and dropped there.
#[test]
fn the_value_never_leaves_its_thread() {
    let (build, drops) = bound(&Census::default());
    let thread = DedicatedThread::builder().name("gpio").spawn(build).result(LONG).unwrap();
    block_on(async {
        for n in 0..10 {
            let here = thread.call(move |bound| {
                bound.numbers.borrow_mut().push(n);
                assert_eq!(thread::current().name(), Some("gpio"));
                thread::current().id() == bound.home
            });
            assert!(here.await.unwrap());
        }
        let numbers = thread.call(|bound| bound.numbers.borrow().clone()).await.unwrap();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        let report = thread.close(LONG).await;
        assert!(report.is_clean(), "{report}");
    });
    assert!(drops.try_recv().unwrap(), "dropped on its own thread, before the close's end");
}

/// A22, A33: a failing start reaches the caller, as an error, a panic, or no thread at all.
#[test]
fn a_failing_start_reaches_the_caller() {
    let failed = DedicatedThread::spawn(|| Err::<(), _>("no device")).result(LONG).unwrap_err();
    assert!(whole(&failed).contains("no device"), "{failed}");
    let panicked = DedicatedThread::spawn(|| -> Result<(), String> { panic!("no bus") });
    let panicked = block_on(panicked).unwrap_err();
    assert!(whole(&panicked).contains("no bus"), "{panicked}");
    let huge = DedicatedThread::builder().stack_size(usize::MAX / 4);
    let refused = huge.spawn(|| Ok::<_, String>(())).result(LONG).unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::NotStarted(_))), "{refused:?}");
}

/// Nobody waits for the start: the value is built and dropped again, and the thread ends.
#[test]
fn a_handle_that_nobody_takes_ends_the_thread() {
    let (build, drops) = bound(&Census::default());
    drop(DedicatedThread::spawn(build));
    assert!(drops.recv_timeout(LONG).unwrap());
}

#[test]
fn calls_run_in_order() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(Vec::new())).result(LONG).unwrap();
    block_on(async {
        let calls: Vec<_> = (0..100).map(|n| thread.call(move |list| list.push(n))).collect();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(thread.call(|list| list.clone()).await.unwrap(), (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_call_needs_no_room_in_the_queue() {
    let builder = DedicatedThread::builder().capacity(1);
    let thread = builder.spawn(|| Ok::<_, String>(Vec::new())).result(LONG).unwrap();
    block_on(async {
        let (release, blocked) = mpsc::channel::<()>();
        let busy = thread.call(move |_| {
            let _ = blocked.recv();
        });
        let calls: Vec<_> = (0..10).map(|n| thread.call(move |list| list.push(n))).collect();
        drop(release);
        busy.await.unwrap();
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(thread.call(|list| list.len()).await.unwrap(), 10);
    });
}

#[test]
fn a_queued_call_that_is_dropped_never_runs() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let mut busy = thread.submit(move |_| {
        let _ = blocked.recv();
    });
    drop(thread.call(|count| *count += 1));
    drop(release);
    busy.result(LONG).unwrap();
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 0);
}

#[test]
fn call_blocking_gives_up_at_its_timeout() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let mut busy = thread.submit(move |_| {
        began.send(()).unwrap();
        let _ = blocked.recv();
    });
    begun.recv_timeout(LONG).unwrap();
    let late = thread.call_blocking(|count| *count += 1, SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    drop(release);
    busy.result(LONG).unwrap();
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 0, "it never ran");
}

#[test]
fn call_blocking_is_refused_where_it_would_deadlock() {
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(LONG).unwrap();
    let refused = block_on(async { thread.call_blocking(|count| *count += 1, LONG) });
    assert!(matches!(refused, Err(ResultError::WouldDeadlock)), "on the loop");
    let own = thread.clone();
    let refused = thread.call_blocking(move |_| own.call_blocking(|count| *count += 1, LONG), LONG);
    assert!(matches!(refused.unwrap(), Err(ResultError::WouldDeadlock)), "on its own thread");
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 0, "nothing was queued");
    // It may leave work for later, though.
    let own = thread.clone();
    let later = thread.call_blocking(move |_| own.submit(|count| *count += 1), LONG).unwrap();
    { later }.result(LONG).unwrap();
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 1);
    let report = thread.call_blocking(
        {
            let own = thread.clone();
            move |_| own.close_blocking(LONG)
        },
        LONG,
    );
    assert!(report.unwrap().would_deadlock);
}

/// C76: a panic is a value for its caller; it poisons the thread, and everybody else is told why.
#[test]
fn a_panic_poisons() {
    let census = Census::default();
    let (build, drops) = bound(&census);
    let thread = DedicatedThread::spawn(build).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let mut panicking = thread.submit(move |_| {
        let _ = blocked.recv();
        panic!("lost count");
    });
    let mut queued = thread.submit(|_| ());
    drop(release);
    assert!(matches!(panicking.result(LONG), Err(ResultError::Panicked(_))));
    let error = queued.result(LONG).unwrap_err();
    assert!(matches!(refusal(&error), Some(Refusal::Broken(_))), "{error:?}");
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(drops.recv_timeout(LONG).unwrap());
    let error = thread.call_blocking(|_| (), LONG).unwrap_err();
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(thread.is_closed());
    assert!(thread.close_blocking(LONG).is_clean());
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_panic_rebuilds_by_choice() {
    let census = Census::default();
    let (build, drops) = bound(&census);
    let thread = DedicatedThread::builder().spawn_rebuilding(build).result(LONG).unwrap();
    for _ in 0..3 {
        thread.call_blocking(|bound| bound.numbers.borrow_mut().push(1), LONG).unwrap();
        let panicked = thread.call_blocking(|_| panic!("lost count"), LONG);
        assert!(matches!(panicked, Err(ResultError::Panicked(_))));
        let length = thread.call_blocking(|bound| bound.numbers.borrow().len(), LONG);
        assert_eq!(length.unwrap(), 0, "a new value");
        assert!(drops.recv_timeout(LONG).unwrap(), "the old one was dropped at home");
        assert_eq!(census.alive(), 1);
    }
}

#[test]
fn rebuilds_that_fail_poison() {
    let builds = Arc::new(AtomicUsize::new(0));
    let build = move || match builds.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err("the device is gone"),
    };
    let builder = DedicatedThread::builder().rebuilds(2).rebuild_backoff(SHORT);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    assert!(thread.call_blocking(|()| panic!("once"), LONG).is_err());
    let error = thread.call_blocking(|()| (), LONG).unwrap_err();
    assert!(whole(&error).contains("the device is gone"), "{error}");
}

/// C67: the last handle goes: accepted calls still run, then the value is dropped at home.
#[test]
fn the_last_handle_ends_the_thread_when_its_work_is_done() {
    let (build, drops) = bound(&Census::default());
    let thread = DedicatedThread::spawn(build).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let mut busy = thread.submit(move |_| {
        let _ = blocked.recv();
    });
    let mut queued: Vec<_> = (0..10).map(|n| thread.submit(move |_| n)).collect();
    drop(thread);
    drop(release);
    busy.result(LONG).unwrap();
    for (n, call) in queued.iter_mut().enumerate() {
        assert_eq!(call.result(LONG).unwrap(), n);
    }
    assert!(drops.recv_timeout(LONG).unwrap());
}

/// C92, C94: a close names what is stuck, refuses the rest, and can be had again.
#[test]
fn close_names_the_call_that_is_stuck() {
    let builder = DedicatedThread::builder().name("stuck");
    let thread = builder.spawn(|| Ok::<_, String>(())).result(LONG).unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let mut busy = thread.submit(move |()| {
        began.send(()).unwrap();
        let _ = blocked.recv();
    });
    begun.recv_timeout(LONG).unwrap();
    let mut queued = thread.submit(|()| ());
    let report = thread.close_blocking(SHORT);
    assert_eq!((report.cancelled, report.still_running.len(), report.stuck.len()), (1, 1, 1));
    assert_eq!(report.stuck[0].thread.as_deref().unwrap(), "stuck");
    assert!(report.stuck[0].location.file().ends_with("dedicated.rs"));
    let refused = queued.result(LONG);
    assert!(matches!(refusal(&refused.unwrap_err()), Some(Refusal::Closed)));
    drop(release);
    busy.result(LONG).unwrap();
    assert!(thread.close_blocking(LONG).is_clean());
}

#[test]
fn a_value_that_panics_in_its_drop_does_no_harm() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in the destructor");
        }
    }
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(Bad)).result(LONG).unwrap();
    assert!(thread.close_blocking(LONG).is_clean());
}

/// G9, G11: a dedicated thread calls back into the loop, and the loop's tasks use pools, and back.
#[test]
fn a_call_may_use_the_loop_and_the_pool() {
    for event_loop in Loop::both() {
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).await.unwrap();
            let bridge = Bridge::current();
            let pool = ThreadPool::builder().max_workers(1).build().unwrap();
            let nested = thread.call(move |value| {
                let value = *value;
                let inner = bridge.run_coroutine_threadsafe(async move {
                    run_in_executor(&pool, move || value + 1).await.unwrap()
                        + to_thread(move || value + 2).await.unwrap()
                });
                { inner }.result(LONG).unwrap()
            });
            nested.await.unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), 5);
    }
}

/// G19: a call that waits, by way of the loop, for a later call of its own thread is told, whichever
/// comes first: its wait, or the loop's. The later call is served.
#[test]
fn a_wait_for_a_call_of_the_same_thread_through_the_loop_is_told() {
    for event_loop in Loop::both() {
        for the_loop_is_first in [true, false] {
            let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
            let (own, bridge) = (thread.clone(), event_loop.bridge());
            let (go, gone) = tokio::sync::oneshot::channel::<()>();
            let (asked, ask) = mpsc::channel();
            let later = thread.call_blocking(
                move |_| {
                    let mut inner = bridge.run_coroutine_threadsafe(async move {
                        let _ = gone.await;
                        let mut call = own.call(|value| *value);
                        let first = std::future::poll_fn(|cx| {
                            std::task::Poll::Ready(std::pin::Pin::new(&mut call).poll(cx))
                        });
                        assert!(first.await.is_pending());
                        // The thread may have been told by now.
                        let _ = asked.send(());
                        call.await.unwrap()
                    });
                    if the_loop_is_first {
                        drop(go);
                        ask.recv_timeout(LONG).unwrap();
                    } else {
                        thread::spawn(move || {
                            thread::sleep(SHORT);
                            drop(go);
                        });
                    }
                    let refused = inner.result(None);
                    assert!(matches!(refused, Err(ResultError::WouldDeadlock)), "{refused:?}");
                    inner
                },
                LONG,
            );
            assert_eq!(later.unwrap().result(LONG).unwrap(), 1);
        }
    }
}

/// Work that has given the call up, and work that doesn't await it, is waited for as ever.
#[test]
fn a_wait_that_is_no_cycle_is_not_refused() {
    let event_loop = Loop::multi(2);
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
    let (own, bridge) = (thread.clone(), event_loop.bridge());
    let waits = move |_: &mut i32| {
        let (dropped, submitted) = (own.clone(), own.clone());
        let gives_up = async move {
            let late = tokio::time::timeout(SHORT, dropped.call(|value| *value)).await;
            late.is_err()
        };
        // Its own wait is over before the thread's begins.
        let mut gave_up = bridge.run_coroutine_threadsafe(gives_up);
        thread::sleep(5 * SHORT);
        assert!(gave_up.result(LONG).unwrap());
        let leaves_work = async move { [submitted.submit(|value| *value)] };
        let mut left = bridge.run_coroutine_threadsafe(leaves_work);
        left.result(LONG).unwrap()
    };
    let [mut left] = thread.call_blocking(waits, LONG).unwrap();
    assert_eq!(left.result(LONG).unwrap(), 1);
}

/// The thread waits, on itself, for a call of its own.
#[test]
fn a_wait_on_the_thread_for_its_own_call_is_told() {
    let event_loop = Loop::multi(1);
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
    let (own, bridge) = (thread.clone(), event_loop.bridge());
    let waits = move |_: &mut i32| {
        let mut submitted = own.submit(|value| *value);
        let told = [
            submitted.result(None),
            submitted.result(LONG),
            futures_executor::block_on(own.call(|value| *value)),
            bridge.call(own.call(|value| *value), None).unwrap(),
        ];
        let waited = callbridge::wait(
            std::slice::from_mut(&mut submitted),
            None,
            callbridge::future::ReturnWhen::AllCompleted,
        );
        assert_eq!(waited.unwrap().0.len(), 1);
        assert!(
            told.iter().all(|told| matches!(told, Err(ResultError::WouldDeadlock))),
            "{told:?}"
        );
        submitted
    };
    assert_eq!(thread.call_blocking(waits, LONG).unwrap().result(LONG).unwrap(), 1);
}

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

// finish, undo, rebuilding

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

/// So many panics in a row, with pauses that grow; a good call in between starts anew.
#[test]
fn rebuilding_has_a_limit_and_pauses() {
    let builds = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&builds);
    let build = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, String>(())
    };
    let pause = std::time::Duration::from_millis(20);
    let builder = DedicatedThread::builder().rebuilds(3).rebuild_backoff(pause);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    let panics = || assert!(thread.call_blocking(|()| panic!("again"), LONG).is_err());
    for _ in 0..5 {
        panics();
        thread.call_blocking(|()| (), LONG).unwrap();
    }
    assert_eq!(builds.load(Ordering::SeqCst), 6);
    let began = std::time::Instant::now();
    for _ in 0..4 {
        panics();
    }
    assert!(began.elapsed() >= 3 * pause, "0, then 20 ms, then 40 ms");
    let error = thread.call_blocking(|()| (), LONG).unwrap_err();
    assert!(whole(&error).contains("again"), "{error}");
    assert_eq!(builds.load(Ordering::SeqCst), 9);
}

/// A device that comes back after a while: builds that fail are tried again.
#[test]
fn a_rebuild_that_fails_is_tried_again() {
    let builds = Arc::new(AtomicUsize::new(0));
    let build = move || match builds.fetch_add(1, Ordering::SeqCst) {
        0 | 3 => Ok(()),
        _ => Err("not there yet"),
    };
    let builder = DedicatedThread::builder().rebuilds(3).rebuild_backoff(SHORT);
    let thread = builder.spawn_rebuilding(build).result(LONG).unwrap();
    assert!(thread.call_blocking(|()| panic!("once"), LONG).is_err());
    thread.call_blocking(|()| (), LONG).unwrap();
}

/// A close ends the pause: what was accepted is served.
#[test]
fn a_close_does_not_wait_for_a_pause() {
    let builder = DedicatedThread::builder().rebuild_backoff(10 * LONG);
    let thread = builder.spawn_rebuilding(|| Ok::<_, String>(7)).result(LONG).unwrap();
    for _ in 0..2 {
        assert!(thread.call_blocking(|_| panic!("again"), LONG).is_err());
    }
    let mut accepted = thread.submit(|value| *value);
    assert!(thread.close_blocking(LONG).is_clean());
    assert_eq!(accepted.result(LONG).unwrap(), 7);
}

/// The spawner's loop is current while the value is built; a call has that of its own caller, or none.
#[test]
fn the_thread_does_not_stay_in_the_loop_that_it_was_spawned_in() {
    let event_loop = Loop::multi(1);
    let build = || Ok::<_, String>(Bridge::current().handle().id());
    let spawned = async move { DedicatedThread::spawn(build).await };
    let thread =
        event_loop.bridge().run_coroutine_threadsafe(spawned).result(LONG).unwrap().unwrap();
    let home = thread.call_blocking(|home| (*home, Bridge::try_current().is_err()), LONG);
    assert_eq!(home.unwrap(), (event_loop.handle().id(), true));
}
