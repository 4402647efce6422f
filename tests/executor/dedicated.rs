//! DedicatedThread.

use super::block_on;
use crate::common::{Alive, Census, HUGE_STACK, LONG, Loop, SHORT, refusal, whole};
use callbridge::future::{FutureState, Refusal};
use callbridge::{Bridge, DedicatedThread, ResultError};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, ThreadId};

/// A value that must not leave its thread, and tells where it was dropped.
pub(super) struct Bound {
    pub(super) numbers: Rc<RefCell<Vec<u32>>>,
    pub(super) home: ThreadId,
    dropped: mpsc::Sender<bool>,
    _alive: Alive,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id() == self.home);
    }
}

pub(super) fn bound(
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
    let huge = DedicatedThread::builder().stack_size(HUGE_STACK);
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
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::Abandoned })));
    drop(release);
    busy.result(LONG).unwrap();
    assert_eq!(thread.call_blocking(|count| *count, LONG).unwrap(), 0, "it never ran");
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
    assert_eq!((report.cut_off, report.still_running.len(), report.stuck.len()), (1, 1, 1));
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

// finish, undo, rebuilding

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
