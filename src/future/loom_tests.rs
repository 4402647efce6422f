//! Model checks of the parker and of a call's shared state: every interleaving of its two ends.

use super::*;
use crate::sync::{Deadline, Woken, with_parker};
use loom::thread;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

struct Place;

impl Origin for Place {
    fn turns(&self) -> u32 {
        0
    }
}

fn call() -> (Promise<usize>, BlockingFuture<usize>) {
    promise(Arc::new(Place))
}

/// Waits as `result(None)` does, without asking tokio about the thread.
fn wait_for(future: &mut BlockingFuture<usize>) -> Result<usize, ResultError> {
    with_parker(|parker| {
        while !future.register(parker.waker()) {
            assert_eq!(parker.park(Deadline::Never), Woken::Notified);
        }
    });
    future.try_result().expect("the wait is over")
}

#[test]
fn a_wake_is_never_lost_by_the_parker() {
    loom::model(|| {
        with_parker(|parker| {
            let wakers = [parker.waker().clone(), parker.waker().clone()];
            let threads = wakers.map(|waker| thread::spawn(move || waker.wake()));
            assert_eq!(parker.park(Deadline::Never), Woken::Notified);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    });
}

#[test]
fn a_waiter_meets_a_value() {
    loom::model(|| {
        let (promise, mut future) = call();
        let work = thread::spawn(move || promise.resolve(Ok(7)));
        assert_eq!(wait_for(&mut future).unwrap(), 7);
        work.join().unwrap();
    });
}

#[test]
fn a_waiter_meets_a_dropped_promise() {
    loom::model(|| {
        let (promise, mut future) = call();
        let work = thread::spawn(move || drop(promise));
        assert!(matches!(wait_for(&mut future), Err(ResultError::LoopClosed)));
        work.join().unwrap();
    });
}

/// Invariant 4: the working side sees the cancel, by itself or by the nudge.
#[test]
fn a_cancel_reaches_work_that_is_about_to_suspend() {
    struct Nudged(loom::sync::Mutex<bool>, loom::sync::Condvar);
    impl Origin for Nudged {
        fn turns(&self) -> u32 {
            0
        }
        fn nudge(&self, place: u32) {
            assert_eq!(place, 5);
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    loom::model(|| {
        let nudged = Arc::new(Nudged(loom::sync::Mutex::new(false), loom::sync::Condvar::new()));
        let (promise, mut future) = promise(Arc::clone(&nudged) as Arc<dyn Origin>);
        let work = thread::spawn(move || {
            promise.start();
            if !promise.suspend(5) {
                let mut seen = nudged.0.lock().unwrap();
                while !*seen {
                    seen = nudged.1.wait(seen).unwrap();
                }
            }
            assert!(promise.cancel_requested());
            promise.resolve(Err(Failure::Cancelled));
        });
        assert!(future.cancel());
        assert!(matches!(wait_for(&mut future), Err(ResultError::Cancelled)));
        work.join().unwrap();
    });
}

/// Two who ask and one end: at most one of them was the one.
#[test]
fn cancels_race_each_other_and_the_end() {
    loom::model(|| {
        let (promise, mut future) = call();
        let canceller = future.canceller();
        let other = thread::spawn(move || canceller.cancel());
        let work = thread::spawn(move || promise.resolve(Ok(1)));
        let asked = future.cancel();
        assert!(!(other.join().unwrap() && asked));
        work.join().unwrap();
        assert_eq!(wait_for(&mut future).unwrap(), 1);
    });
}

#[test]
fn a_done_callback_runs_once_however_late_it_comes() {
    loom::model(|| {
        let (promise, future) = call();
        let runs = Arc::new(AtomicUsize::new(0));
        let work = thread::spawn(move || promise.resolve(Ok(1)));
        let counted = Arc::clone(&runs);
        future.add_done_callback(move |state| {
            assert_eq!(state, FutureState::Finished);
            counted.fetch_add(1, SeqCst);
        });
        work.join().unwrap();
        assert_eq!(runs.load(SeqCst), 1);
    });
}

#[test]
fn a_value_that_meets_a_leaving_waiter_is_dropped_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (promise, future) = promise(Arc::new(Place));
        let counted = Counted(Arc::clone(&drops));
        let work = thread::spawn(move || promise.resolve(Ok(counted)));
        drop(future);
        work.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn an_awaiting_task_that_changes_its_waker_is_woken_through_the_last_one() {
    struct Flag(AtomicUsize);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    loom::model(|| {
        let (promise, mut future) = call();
        let work = thread::spawn(move || promise.resolve(Ok(1)));
        let flags = [(); 2].map(|()| Arc::new(Flag(AtomicUsize::new(0))));
        let polled = flags.clone().map(|flag| {
            let waker = Waker::from(flag);
            std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_ready()
        });
        work.join().unwrap();
        if !polled[0] && !polled[1] {
            assert_eq!(flags[1].0.load(SeqCst), 1, "the last waker is woken");
            let mut context = Context::from_waker(Waker::noop());
            assert!(matches!(
                std::pin::Pin::new(&mut future).poll(&mut context),
                Poll::Ready(Ok(1))
            ));
        }
    });
}
