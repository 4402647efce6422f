//! DedicatedThread.

mod common;

use callbridge::executor::ExecutorError;
use callbridge::{Bridge, DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use common::{Alive, Census, LONG, Loop, SHORT, refusal, whole};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, future).await.expect("it hangs") })
}

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
        let report = thread.shutdown(LONG).await;
        assert!(report.is_clean(), "{report}");
    });
    assert!(drops.try_recv().unwrap(), "dropped on its own thread, before the shutdown's end");
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
    assert!(matches!(refusal(&refused), Some(ExecutorError::NoThread(_))), "{refused:?}");
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
fn a_call_awaits_room_in_a_full_queue() {
    let builder = DedicatedThread::builder().queue(1);
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
            move |_| own.shutdown_blocking(LONG)
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
    assert!(matches!(refusal(&error), Some(ExecutorError::Broken(_))), "{error:?}");
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(drops.recv_timeout(LONG).unwrap());
    let error = thread.call_blocking(|_| (), LONG).unwrap_err();
    assert!(whole(&error).contains("lost count"), "{error}");
    assert!(thread.is_closed());
    assert!(thread.shutdown_blocking(LONG).is_clean());
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
fn a_rebuild_that_fails_poisons() {
    let builds = Arc::new(AtomicUsize::new(0));
    let build = move || match builds.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err("the device is gone"),
    };
    let thread = DedicatedThread::builder().spawn_rebuilding(build).result(LONG).unwrap();
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

/// C92, C94: a shutdown names what is stuck, refuses the rest, and can be had again.
#[test]
fn shutdown_names_the_call_that_is_stuck() {
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
    let report = thread.shutdown_blocking(SHORT);
    assert_eq!((report.refused, report.threads_left, report.stuck.len()), (1, 1, 1));
    assert_eq!(&*report.stuck[0].thread, "stuck");
    assert!(report.stuck[0].location.file().ends_with("executor_dedicated.rs"));
    let refused = queued.result(LONG);
    assert!(matches!(refusal(&refused.unwrap_err()), Some(ExecutorError::Closed)));
    drop(release);
    busy.result(LONG).unwrap();
    assert!(thread.shutdown_blocking(LONG).is_clean());
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
    assert!(thread.shutdown_blocking(LONG).is_clean());
}

/// G9, G11: a dedicated thread calls back into the loop, and the loop's tasks use pools, and back.
#[test]
fn a_call_may_use_the_loop_and_the_pool() {
    for event_loop in Loop::both() {
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).await.unwrap();
            let bridge = Bridge::current();
            let pool = ThreadPool::builder().max_workers(1).build();
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

/// G19: a call that waits, by way of the loop, for a later call of its own thread: its timeout ends
/// it, and the later call is served.
#[test]
fn a_cycle_ends_with_its_timeout() {
    let event_loop = Loop::multi(1);
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
    let (own, bridge) = (thread.clone(), event_loop.bridge());
    let later = thread.call_blocking(
        move |_| {
            let mut inner = bridge
                .run_coroutine_threadsafe(async move { own.call(|value| *value).await.unwrap() });
            assert!(matches!(inner.result(SHORT), Err(ResultError::TimedOut { .. })));
            inner
        },
        LONG,
    );
    assert_eq!(later.unwrap().result(LONG).unwrap(), 1);
}
