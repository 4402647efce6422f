//! CapacityLimiter.

use super::block_on;
use crate::common::{LONG, SHORT};
use callbridge::WaitError;
use callbridge::executor::{CapacityLimiter, Permit};
use callbridge::{ThreadPool, to_thread};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

type Acquiring = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// One that stands in line.
fn waiter(limiter: &CapacityLimiter) -> Acquiring {
    let mut acquiring: Acquiring = Box::pin(limiter.acquire());
    assert!(poll(&mut acquiring).is_none());
    acquiring
}

fn poll(acquiring: &mut Acquiring) -> Option<Permit> {
    match acquiring.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Some(permit),
        Poll::Pending => None,
    }
}

/// A56: 0 is allowed and admits nobody; A63: without any loop.
#[test]
fn zero_admits_nobody() {
    let limiter = CapacityLimiter::new(0);
    assert!(limiter.try_acquire().is_none());
    assert_eq!(limiter.acquire_blocking(SHORT).unwrap_err(), WaitError::TimedOut);
    assert_eq!(limiter.stats().waiting, 0, "who gave up has left the line");
    limiter.set_limit(1);
    assert!(limiter.acquire_blocking(LONG).is_ok());
}

/// A55 (what isn't types), A60: no limit at all.
#[test]
fn no_limit_admits_everybody() {
    let limiter = CapacityLimiter::new(None);
    let permits: Vec<_> = (0..1000).map(|_| limiter.try_acquire().unwrap()).collect();
    assert_eq!((limiter.stats().limit, limiter.stats().in_use), (None, 1000));
    drop(permits);
    assert_eq!(limiter.stats().in_use, 0);
}

/// A57: the count of permits, and mutual exclusion at 1.
#[test]
fn one_permit_is_mutual_exclusion() {
    let limiter = CapacityLimiter::new(1);
    let inside = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (limiter, inside) = (limiter.clone(), Arc::clone(&inside));
            thread::spawn(move || {
                for _ in 0..500 {
                    let _permit = limiter.acquire_blocking(LONG).unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(limiter.stats().in_use, 0);
}

/// A59: raising the limit wakes as many as there is room for.
#[test]
fn raising_the_limit_admits_the_right_number() {
    let limiter = CapacityLimiter::new(1);
    let _first = limiter.try_acquire().unwrap();
    let mut waiters: Vec<_> = (0..4).map(|_| waiter(&limiter)).collect();
    limiter.set_limit(3);
    let admitted: Vec<_> = waiters.iter_mut().filter_map(poll).collect();
    assert_eq!(admitted.len(), 2);
    assert_eq!((limiter.stats().in_use, limiter.stats().waiting), (3, 2));
    limiter.set_limit(None);
    assert_eq!(limiter.stats().waiting, 0);
}

#[test]
fn lowering_the_limit_takes_nothing_away() {
    let limiter = CapacityLimiter::new(2);
    let (first, second) = (limiter.try_acquire().unwrap(), limiter.try_acquire().unwrap());
    limiter.set_limit(1);
    drop(first);
    assert!(limiter.try_acquire().is_none(), "one is still out");
    drop(second);
    assert!(limiter.try_acquire().is_some());
}

/// A60: statistics of who has one and who waits.
#[test]
fn stats_count_permits_and_waiters() {
    let limiter = CapacityLimiter::new(1);
    let permit = limiter.try_acquire().unwrap();
    let waiting = waiter(&limiter);
    let stats = limiter.stats();
    assert_eq!((stats.limit, stats.in_use, stats.waiting), (Some(1), 1, 1));
    drop((waiting, permit));
    let stats = limiter.stats();
    assert_eq!((stats.in_use, stats.waiting), (0, 0));
}

/// A61, A64: one that is being woken and goes away hands its permit on.
#[test]
fn a_cancelled_waiter_loses_no_permit() {
    let limiter = CapacityLimiter::new(1);
    let permit = limiter.try_acquire().unwrap();
    let (first, mut second, third) = (waiter(&limiter), waiter(&limiter), waiter(&limiter));
    drop(third);
    drop(permit);
    drop(first);
    let permit = poll(&mut second).unwrap();
    drop(second);
    drop(permit);
    assert!(limiter.try_acquire().is_some());
}

#[test]
fn a_waiter_that_moves_to_another_task_wakes_the_new_one() {
    let limiter = CapacityLimiter::new(1);
    let held = limiter.try_acquire().unwrap();
    // The first waker does nothing.
    let mut acquiring = waiter(&limiter);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        block_on(poll_fn(|cx| {
            let polled = acquiring.as_mut().poll(cx).map(drop);
            tell.send(polled).unwrap();
            polled
        }));
    });
    assert_eq!(told.recv_timeout(LONG), Ok(Poll::Pending));
    drop(held);
    assert_eq!(told.recv_timeout(LONG), Ok(Poll::Ready(())));
}

#[test]
fn a_permit_that_was_granted_is_not_the_next_ones() {
    let limiter = CapacityLimiter::new(1);
    let held = limiter.try_acquire().unwrap();
    let (mut first, mut second) = (waiter(&limiter), waiter(&limiter));
    drop(held);
    assert!(poll(&mut second).is_none());
    assert!(poll(&mut first).is_some());
    assert!(poll(&mut second).is_some());
}

/// A62: served in the order of their arrival.
#[test]
fn waiters_are_served_in_order() {
    block_on(async {
        let limiter = CapacityLimiter::new(1);
        let permit = limiter.acquire().await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..10 {
            let order = Arc::clone(&order);
            let mut acquiring = waiter(&limiter);
            tasks.push(tokio::spawn(async move {
                let _permit = poll_fn(|cx| acquiring.as_mut().poll(cx)).await;
                order.lock().unwrap().push(n);
            }));
        }
        drop(permit);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<_>>());
    });
}

/// A65: full is told without waiting. A66: a freed permit can't be stolen from the one who waits.
#[test]
fn try_acquire_steals_nothing() {
    let limiter = CapacityLimiter::new(1);
    let permit = limiter.try_acquire().unwrap();
    assert!(limiter.try_acquire().is_none());
    let mut waiting = waiter(&limiter);
    drop(permit);
    assert!(limiter.try_acquire().is_none(), "it belongs to the waiter, who hasn't run yet");
    assert!(poll(&mut waiting).is_some());
}

#[test]
fn acquire_blocking_is_refused_on_a_loop_only_when_it_would_wait() {
    let limiter = CapacityLimiter::new(1);
    block_on(async {
        let permit = limiter.acquire_blocking(LONG).unwrap();
        let refused = limiter.acquire_blocking(LONG).unwrap_err();
        assert_eq!(refused, WaitError::WouldDeadlock);
        drop(permit);
    });
}

/// A43: never more calls at a time than the limit says, and the count is right.
#[test]
fn calls_run_within_the_limit() {
    block_on(async {
        let limiter = CapacityLimiter::new(3);
        let inside = Arc::new(AtomicUsize::new(0));
        let calls: Vec<_> = (0..30)
            .map(|_| {
                let inside = Arc::clone(&inside);
                let counting = limiter.clone();
                tokio::spawn(limiter.to_thread(move || {
                    let together = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    assert!(counting.stats().in_use <= 3);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    together
                }))
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap().unwrap() <= 3);
        }
        assert_eq!(limiter.stats().in_use, 0);
    });
}

/// A call that is abandoned keeps its permit until its thread really ends.
#[test]
fn an_abandoned_call_keeps_its_permit() {
    let limiter = CapacityLimiter::new(1);
    let pool = ThreadPool::builder().build().unwrap();
    let (began, begun) = tokio::sync::oneshot::channel();
    let (release, blocked) = mpsc::channel::<()>();
    block_on(async {
        let permit = limiter.acquire().await;
        let mut call = pin!(callbridge::run_in_executor(&pool, move || {
            let _permit = permit;
            began.send(()).unwrap();
            let _ = blocked.recv();
        }));
        tokio::select! {
            _ = &mut call => panic!("it is blocked"),
            begun = begun => begun.unwrap(),
        }
    });
    assert_eq!(limiter.stats().in_use, 1, "the call is gone, its thread isn't");
    assert!(limiter.acquire_blocking(SHORT).is_err());
    drop(release);
    drop(limiter.acquire_blocking(LONG).unwrap());
}

/// A panicking call gives its permit back.
#[test]
fn a_panicking_call_gives_its_permit_back() {
    let limiter = CapacityLimiter::new(1);
    block_on(async {
        assert!(limiter.to_thread(|| panic!("permit and all")).await.is_err());
        assert_eq!(limiter.stats().in_use, 0);
        assert_eq!(limiter.to_thread(|| 1).await.unwrap(), 1);
    });
}

/// A permit can be taken along by hand as well; a call that never begins gives it back.
#[test]
fn a_call_that_never_begins_gives_its_permit_back() {
    let limiter = CapacityLimiter::new(1);
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).build().unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let busy = pool.submit(move || {
            let _ = blocked.recv();
        });
        let permit = limiter.acquire().await;
        let queued = callbridge::run_in_executor(&pool, move || drop(permit));
        drop(queued);
        assert_eq!(limiter.stats().in_use, 0);
        drop(release);
        busy.await.unwrap();
        to_thread(|| ()).await.unwrap();
    });
}
