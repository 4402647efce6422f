//! Model checks of a call's shared state: every interleaving of its two ends.

use super::*;
use loom::thread;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

struct Place;

impl Origin for Place {}

fn call() -> (Promise<usize>, BlockingFuture<usize>) {
    promise_of(Arc::new(Place))
}

#[test]
fn a_waiter_meets_a_value() {
    loom::model(|| {
        let (promise, mut future) = call();
        let work = thread::spawn(move || promise.resolve(Ok(7)));
        assert_eq!(future.result(None).unwrap(), 7);
        work.join().unwrap();
    });
}

#[test]
fn a_waiter_meets_a_dropped_promise() {
    loom::model(|| {
        let (promise, mut future) = call();
        let work = thread::spawn(move || drop(promise));
        assert!(matches!(future.result(None), Err(ResultError::LoopClosed)));
        work.join().unwrap();
    });
}

/// Invariant 5: the working side sees the cancel, by itself or because it is told.
#[test]
fn a_cancel_reaches_work_that_is_about_to_suspend() {
    struct Told(loom::sync::Mutex<bool>, loom::sync::Condvar);
    impl Origin for Told {
        fn cancel(&self, place: u32) {
            assert_eq!(place, 5);
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    loom::model(|| {
        let told = Arc::new(Told(loom::sync::Mutex::new(false), loom::sync::Condvar::new()));
        let origin = Arc::clone(&told) as Arc<dyn Origin>;
        let (promise, mut future) = promise_of::<usize>(origin);
        let work = thread::spawn(move || {
            promise.start();
            if !promise.suspend(5) {
                let mut seen = told.0.lock().unwrap();
                while !*seen {
                    seen = told.1.wait(seen).unwrap();
                }
            }
            assert!(promise.cancel_requested());
            promise.resolve(Err(ResultError::Cancelled));
        });
        assert!(future.cancel());
        assert!(matches!(future.result(None), Err(ResultError::Cancelled)));
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
        assert_eq!(future.result(None).unwrap(), 1);
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
        let (promise, future) = promise_of(Arc::new(Place));
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
