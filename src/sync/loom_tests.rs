//! Model checks of all waiting: the parker, the monitor, the limiter and the alarm of a timeout.
//!
//! `RUSTFLAGS="--cfg callbridge_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --lib sync`
//!
//! A lost wake-up shows as a deadlock; so does a thread that is left waiting at the end of a model.

use super::*;
use loom::thread::{self, JoinHandle};
use std::future::{Future, pending};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    park_until(Deadline::Never, |cx| future.as_mut().poll(cx)).expect("there is no deadline")
}

/// A deadline that has passed, but isn't the one that doesn't wait: loom has no clock.
fn passed() -> Deadline {
    let deadline = Deadline::after(Duration::from_nanos(1));
    while !deadline.passed() {}
    deadline
}

fn far() -> Deadline {
    Deadline::after(Duration::from_secs(3600))
}

fn poll_once(future: &mut (impl Future + Unpin)) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[derive(Default)]
struct Woke(AtomicUsize);

impl Wake for Woke {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

// The parker.

#[test]
fn a_wake_is_never_lost_by_the_parker() {
    loom::model(|| {
        let parker = Parker::new();
        let threads = [(); 2].map(|()| {
            let waker = parker.waker().clone();
            thread::spawn(move || waker.wake())
        });
        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_wake_after_a_wait_that_was_woken_ends_the_next_one() {
    loom::model(|| {
        let parker = Parker::new();
        let first = parker.waker().clone();
        let second = thread::spawn(move || first.wake_by_ref());
        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
        second.join().unwrap();
        let waker = parker.waker().clone();
        let second = thread::spawn(move || waker.wake());
        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
        second.join().unwrap();
    });
}

#[test]
fn a_wait_whose_time_is_up_looks_once_more() {
    loom::model(|| {
        let mut looks = 0;
        let late = wait(passed(), |_| {
            looks += 1;
            Poll::<()>::Pending
        });
        assert_eq!((late, looks), (Err(WaitError::TimedOut), 2));
    });
}

// The monitor.

fn add_one(monitor: &Arc<Monitor<usize>>) -> JoinHandle<()> {
    let monitor = Arc::clone(monitor);
    thread::spawn(move || monitor.change(|count| *count += 1))
}

fn reached(goal: usize) -> impl FnMut(&mut usize) -> Option<usize> {
    move |count| (*count >= goal).then_some(*count)
}

#[test]
fn a_waiter_misses_no_change() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let changes = [(); 2].map(|()| add_one(&monitor));
        assert_eq!(monitor.wait(Deadline::Never, reached(2)), Ok(2));
        changes.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_change_reaches_a_thread_and_a_task_that_wait() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let waiter = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || monitor.wait(Deadline::Never, reached(1)))
        };
        let task = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || block_on(monitor.until(reached(1))))
        };
        monitor.change(|count| *count += 1);
        assert_eq!(waiter.join().unwrap(), Ok(1));
        assert_eq!(task.join().unwrap(), 1);
    });
}

#[test]
fn a_waiter_that_leaves_takes_no_change_along() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let leaver = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || monitor.wait(passed(), reached(1)).is_ok())
        };
        let waiter = {
            let monitor = Arc::clone(&monitor);
            thread::spawn(move || monitor.wait(Deadline::Never, reached(1)))
        };
        monitor.change(|count| *count += 1);
        assert_eq!(waiter.join().unwrap(), Ok(1));
        leaver.join().unwrap();
    });
}

#[test]
fn a_task_that_changes_its_waker_is_woken_through_the_last_one() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let change = add_one(&monitor);
        let wakers = [(); 2].map(|()| Arc::new(Woke::default()));
        let mut until = monitor.until(reached(1));
        let polled = wakers.clone().map(|waker| {
            Pin::new(&mut until).poll(&mut Context::from_waker(&Waker::from(waker))).is_ready()
        });
        change.join().unwrap();
        if polled == [false, false] {
            assert_eq!(wakers[1].0.load(SeqCst), 1);
        }
    });
}

// The limiter.

/// A limiter of one permit, which is in use.
fn full() -> Arc<Limiter> {
    let limiter = Arc::new(Limiter::new(1));
    limiter.try_acquire().unwrap();
    limiter
}

/// Acquires, and gives back at once what it gets.
fn acquire_on_thread(limiter: &Arc<Limiter>) -> JoinHandle<Result<(), NoPermit>> {
    let limiter = Arc::clone(limiter);
    thread::spawn(move || {
        let acquired = block_on(AcquirePermit::new(&limiter));
        if acquired.is_ok() {
            limiter.release();
        }
        acquired
    })
}

/// Stands in line for a moment only.
fn leave_on_thread(limiter: &Arc<Limiter>) -> JoinHandle<()> {
    let limiter = Arc::clone(limiter);
    thread::spawn(move || {
        if poll_once(&mut AcquirePermit::new(&limiter)) {
            limiter.release();
        }
    })
}

fn assert_unused(limiter: &Limiter) {
    assert_eq!((limiter.in_use(), limiter.waiting()), (0, 0));
}

#[test]
fn freed_room_lets_a_waiter_in() {
    loom::model(|| {
        let limiter = full();
        let waiter = acquire_on_thread(&limiter);
        limiter.release();
        waiter.join().unwrap().unwrap();
        assert_unused(&limiter);
    });
}

#[test]
fn two_waiters_share_one_place() {
    loom::model(|| {
        let (limiter, inside) = (full(), Arc::new(AtomicUsize::new(0)));
        let waiters = [(); 2].map(|()| {
            let (limiter, inside) = (Arc::clone(&limiter), Arc::clone(&inside));
            thread::spawn(move || {
                block_on(AcquirePermit::new(&limiter)).unwrap();
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                inside.fetch_sub(1, SeqCst);
                limiter.release();
            })
        });
        limiter.release();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert_unused(&limiter);
        assert_eq!(limiter.high_water(), 1);
    });
}

#[test]
fn two_that_leave_let_two_waiters_in() {
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(2));
        limiter.try_acquire().unwrap();
        limiter.try_acquire().unwrap();
        let waiters = [(); 2].map(|()| acquire_on_thread(&limiter));
        let releaser = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.release())
        };
        limiter.release();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
        releaser.join().unwrap();
        assert_unused(&limiter);
    });
}

#[test]
fn the_first_in_line_is_served_first() {
    loom::model(|| {
        let (limiter, order) = (full(), Arc::new(std::sync::Mutex::new(Vec::new())));
        let mut first = AcquirePermit::new(&limiter);
        assert!(!poll_once(&mut first));
        let second = {
            let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
            thread::spawn(move || {
                block_on(AcquirePermit::new(&limiter)).unwrap();
                order.lock().unwrap().push(2);
                limiter.release();
            })
        };
        limiter.release();
        block_on(first).unwrap();
        order.lock().unwrap().push(1);
        limiter.release();
        second.join().unwrap();
        assert_eq!(*order.lock().unwrap(), [1, 2]);
        assert_unused(&limiter);
    });
}

#[test]
fn nobody_overtakes_the_line() {
    loom::model(|| {
        let limiter = full();
        let mut first = AcquirePermit::new(&limiter);
        assert!(!poll_once(&mut first));
        let releaser = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.release())
        };
        assert_eq!(limiter.try_acquire(), Err(NoPermit::Full));
        block_on(first).unwrap();
        releaser.join().unwrap();
        limiter.release();
        assert_unused(&limiter);
    });
}

#[test]
fn two_that_do_not_wait_share_one_place() {
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(1));
        let inside = Arc::new(AtomicUsize::new(0));
        let try_it = |limiter: &Limiter, inside: &AtomicUsize| {
            if limiter.try_acquire().is_ok() {
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                inside.fetch_sub(1, SeqCst);
                limiter.release();
            }
        };
        let other = {
            let (limiter, inside) = (Arc::clone(&limiter), Arc::clone(&inside));
            thread::spawn(move || try_it(&limiter, &inside))
        };
        try_it(&limiter, &inside);
        other.join().unwrap();
        assert_unused(&limiter);
        assert_eq!(limiter.high_water(), 1);
    });
}

#[test]
fn close_releases_every_waiter() {
    loom::model(|| {
        let limiter = full();
        let waiters = [(); 2].map(|()| acquire_on_thread(&limiter));
        limiter.close();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(NoPermit::Closed));
        }
        limiter.release();
        assert_unused(&limiter);
        assert_eq!(limiter.try_acquire(), Err(NoPermit::Closed));
    });
}

#[test]
fn a_release_and_a_close_race_for_a_waiter() {
    loom::model(|| {
        let limiter = full();
        let waiter = acquire_on_thread(&limiter);
        let closer = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.close())
        };
        limiter.release();
        assert_ne!(waiter.join().unwrap(), Err(NoPermit::Full));
        closer.join().unwrap();
        assert_unused(&limiter);
    });
}

#[test]
fn a_waiter_that_leaves_hands_its_grant_on() {
    loom::model(|| {
        let limiter = full();
        let leaver = leave_on_thread(&limiter);
        let waiter = acquire_on_thread(&limiter);
        limiter.release();
        waiter.join().unwrap().unwrap();
        leaver.join().unwrap();
        assert_unused(&limiter);
    });
}

#[test]
fn a_waiter_that_leaves_meets_a_release_and_a_close() {
    loom::model(|| {
        let limiter = full();
        let mut leaving = AcquirePermit::new(&limiter);
        assert!(!poll_once(&mut leaving));
        let waiter = acquire_on_thread(&limiter);
        let closer = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.close())
        };
        limiter.release();
        drop(leaving);
        let _ = waiter.join().unwrap();
        closer.join().unwrap();
        assert_unused(&limiter);
    });
}

#[test]
fn a_raised_limit_lets_waiters_in() {
    loom::model(|| {
        let limiter = Arc::new(Limiter::new(0));
        let waiters = [(); 2].map(|()| acquire_on_thread(&limiter));
        limiter.set_limit(1);
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
        assert_unused(&limiter);
        assert_eq!(limiter.high_water(), 1);
    });
}

#[test]
fn a_lowered_limit_meets_a_release_and_is_raised_again() {
    loom::model(|| {
        let limiter = full();
        let waiter = acquire_on_thread(&limiter);
        let releaser = {
            let limiter = Arc::clone(&limiter);
            thread::spawn(move || limiter.release())
        };
        limiter.set_limit(0);
        limiter.set_limit(1);
        waiter.join().unwrap().unwrap();
        releaser.join().unwrap();
        assert_unused(&limiter);
    });
}

// The alarm of a timeout.

#[test]
fn an_alarm_ends_what_never_ends() {
    loom::model(|| {
        assert_eq!(block_on(timeout(passed(), "alarm", pending::<()>())), None);
    });
}

#[test]
fn an_alarm_races_what_it_limits() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let change = add_one(&monitor);
        let found = block_on(timeout(passed(), "alarm", monitor.until(reached(1))));
        assert!(found.is_none_or(|count| count == 1));
        change.join().unwrap();
    });
}

/// The alarm's thread ends, too: loom waits for it.
#[test]
fn an_alarm_that_is_not_needed_is_given_up() {
    loom::model(|| {
        let monitor = Arc::new(Monitor::new(0));
        let change = add_one(&monitor);
        let found = block_on(timeout(far(), "alarm", monitor.until(reached(1))));
        assert_eq!(found, Some(1));
        change.join().unwrap();
    });
}
