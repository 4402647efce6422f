//! Many rounds of the moments in which something ends, and ends that go wrong.

use crate::common::{Census, LONG, Loop, eventually, rounds};
use callbridge::{BlockingFuture, Bridge, ResultError};
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Spins a little, by another amount in every round.
fn stagger(round: usize) {
    for _ in 0..round * 7_919 % 3_000 {
        std::hint::spin_loop();
    }
}

/// On a busy machine a loop may take longer to drop what was cancelled than a close waits for that.
fn all_is_over(bridge: &Bridge, census: &Census, round: usize) {
    eventually("nothing is in flight", || bridge.stats().in_flight == 0);
    let stats = bridge.stats();
    assert!(stats.balances() && census.alive() == 0, "round {round}: {stats:?}");
}

/// 64 calls, four of them polled by their callers, are woken at the very moment that `end` ends
/// everything; half of them would go on waiting.
fn woken_at_the_end(bridge: &Bridge, round: usize, end: impl FnOnce()) {
    let census = Census::default();
    let (open, gate) = watch::channel(false);
    let waiting = Arc::new(AtomicUsize::new(0));
    let work = |n: usize| {
        let (mut gate, waiting, guard) = (gate.clone(), Arc::clone(&waiting), census.guard());
        async move {
            let _guard = guard;
            waiting.fetch_add(1, Ordering::Relaxed);
            let _ = gate.changed().await;
            if n % 2 == 0 {
                pending::<()>().await;
            }
        }
    };
    let calls: Vec<_> = (0..60).map(|n| bridge.run_coroutine_threadsafe(work(n))).collect();
    let moment = Barrier::new(2);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|n| {
                let work = work(n);
                scope.spawn(move || bridge.call(work, LONG))
            })
            .collect();
        let waker = scope.spawn(|| {
            moment.wait();
            stagger(round);
            open.send(true).unwrap();
        });
        eventually("all wait", || waiting.load(Ordering::Relaxed) == 64);
        moment.wait();
        stagger(round / 64);
        end();
        waker.join().unwrap();
        let results = callers.into_iter().map(|caller| caller.join().unwrap());
        for result in results.chain(calls.into_iter().map(|mut call| call.result(LONG))) {
            assert!(matches!(result, Ok(()) | Err(ResultError::LoopClosed)), "{round}: {result:?}");
        }
    });
    all_is_over(bridge, &census, round);
}

#[test]
fn a_close_forgets_no_call_that_is_woken_just_then() {
    for runtime in Loop::both() {
        for round in 0..rounds(100) {
            let bridge = runtime.bridge();
            woken_at_the_end(&bridge, round, || drop(bridge.close_blocking(Duration::ZERO)));
        }
    }
}

#[test]
fn a_runtimes_drop_forgets_no_call_that_is_woken_just_then() {
    for round in 0..rounds(200) {
        let runtime = if round % 2 == 0 { Loop::current() } else { Loop::multi(2) };
        let bridge = runtime.bridge();
        woken_at_the_end(&bridge, round, || drop(runtime));
    }
}

/// The calls are woken on and on while the bridge closes, and then never again.
#[test]
fn a_close_forgets_no_call_of_a_busy_bridge() {
    let runtime = Loop::multi(4);
    for round in 0..rounds(100) {
        let bridge = runtime.bridge();
        let census = Census::default();
        let (ping, seen) = watch::channel(0_u64);
        let calls: Vec<_> = (0..48)
            .map(|_| {
                let (mut seen, guard) = (seen.clone(), census.guard());
                bridge.run_coroutine_threadsafe(async move {
                    let _guard = guard;
                    while seen.changed().await.is_ok() {}
                })
            })
            .collect();
        let stop = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    ping.send_modify(|n| *n += 1);
                }
            });
            for _ in 0..round * 7_919 % 700 {
                std::hint::spin_loop();
            }
            let closing = scope.spawn(|| bridge.close_blocking(Duration::ZERO));
            stagger(round);
            stop.store(1, Ordering::Relaxed);
            drop(closing.join().unwrap());
        });
        for mut call in calls {
            assert!(matches!(call.result(LONG), Err(ResultError::LoopClosed)), "round {round}");
        }
        all_is_over(&bridge, &census, round);
        drop(ping);
    }
}

/// How long a chain is.
const CHAIN: usize = 25_000;

/// A chain of calls, each of which awaits the one before.
fn chain(bridge: &Bridge) -> BlockingFuture<usize> {
    let first = bridge.run_coroutine_threadsafe(pending());
    (0..CHAIN).fold(first, |before, _| {
        bridge.run_coroutine_threadsafe(async move { before.await.unwrap_or(0) + 1 })
    })
}

/// Runs a body on a stack of 512 KiB: 20 bytes for each call of a chain. The loops' own have 2 MiB.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(512 << 10).spawn(body).unwrap().join().unwrap();
}

/// An end that went from call to call would overflow any stack.
#[test]
fn a_long_chain_of_calls_is_closed() {
    for runtime in Loop::both() {
        on_a_small_stack(move || {
            let bridge = Bridge::builder(runtime.handle()).unbounded().build().unwrap();
            let mut last = chain(&bridge);
            eventually("the last one waits", || last.is_running());
            let report = bridge.close_blocking(Duration::ZERO);
            assert!(matches!(last.result(LONG), Err(ResultError::LoopClosed)));
            // So many of them may take longer than the close gives them.
            eventually("all are dropped", || bridge.in_flight() == 0);
            let stats = bridge.stats();
            assert!(stats.balances(), "{stats:?}, {report}");
            assert_eq!(stats.submitted as usize, CHAIN + 1);
        });
    }
}

#[test]
fn a_long_chain_of_calls_is_dropped_with_its_runtime() {
    for runtime in Loop::both() {
        on_a_small_stack(move || {
            let bridge = Bridge::builder(runtime.handle()).unbounded().build().unwrap();
            let mut last = chain(&bridge);
            eventually("the last one waits", || last.is_running());
            drop(runtime);
            assert!(last.result(LONG).is_err() || bridge.is_closed());
            let stats = bridge.stats();
            assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        });
    }
}

/// The same on a loop that never began: none of them was polled.
#[test]
fn a_long_chain_of_calls_is_dropped_with_a_runtime_that_nobody_drove() {
    on_a_small_stack(|| {
        let undriven = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bridge = Bridge::builder(undriven.handle().clone()).unbounded().build().unwrap();
        let mut last = chain(&bridge);
        drop(undriven);
        assert!(matches!(last.result(LONG), Err(ResultError::LoopClosed)));
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    });
}

/// The first one ends, and the end runs through all of them.
#[test]
fn a_long_chain_of_calls_ends_from_its_beginning() {
    for runtime in Loop::both() {
        on_a_small_stack(move || {
            let bridge = Bridge::builder(runtime.handle()).unbounded().build().unwrap();
            let mut canceller = None;
            let first = bridge.run_coroutine_threadsafe(pending::<usize>());
            canceller.replace(first.canceller());
            let mut last = (0..CHAIN).fold(first, |before, _| {
                bridge.run_coroutine_threadsafe(async move { before.await.unwrap_or(0) + 1 })
            });
            canceller.unwrap().cancel();
            assert_eq!(last.result(LONG).unwrap(), CHAIN);
        });
    }
}

/// Wakes everybody else where it is dropped, under a lock that everybody's destructor takes; some
/// then block for a while, some panic.
struct Entangled {
    lock: Arc<Mutex<()>>,
    wakers: Arc<Mutex<Vec<Waker>>>,
    number: usize,
}

impl Drop for Entangled {
    fn drop(&mut self) {
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        wakers.iter().for_each(Waker::wake_by_ref);
        match self.number % 8 {
            3 => thread::sleep(Duration::from_millis(1)),
            5 => panic!("a destructor's own fault"),
            _ => {}
        }
    }
}

#[test]
fn destructors_that_lock_wake_block_and_panic_hang_nobody() {
    for by_close in [true, false] {
        for runtime in Loop::both() {
            let bridge = runtime.bridge();
            let (lock, wakers) = (Arc::default(), Arc::<Mutex<Vec<Waker>>>::default());
            let waiting = Arc::new(AtomicUsize::new(0));
            let work = |number: usize| {
                let (waiting, wakers) = (Arc::clone(&waiting), Arc::clone(&wakers));
                let entangled =
                    Entangled { lock: Arc::clone(&lock), wakers: wakers.clone(), number };
                async move {
                    let _entangled = entangled;
                    let mut first = true;
                    poll_fn(|cx| {
                        if std::mem::take(&mut first) {
                            let mut wakers = wakers.lock().unwrap_or_else(PoisonError::into_inner);
                            wakers.push(cx.waker().clone());
                            waiting.fetch_add(1, Ordering::Relaxed);
                        }
                        Poll::<()>::Pending
                    })
                    .await;
                }
            };
            let calls: Vec<_> = (0..60).map(|n| bridge.run_coroutine_threadsafe(work(n))).collect();
            let callers: Vec<_> = (60..64)
                .map(|n| {
                    let (bridge, work) = (bridge.clone(), work(n));
                    thread::spawn(move || bridge.call(work, LONG))
                })
                .collect();
            eventually("all wait", || waiting.load(Ordering::Relaxed) == 64);
            let began = Instant::now();
            if by_close {
                drop(bridge.close_blocking(Duration::ZERO));
            } else {
                drop(runtime);
            }
            assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
            let results = callers.into_iter().map(|caller| caller.join().unwrap());
            for result in results.chain(calls.into_iter().map(|mut call| call.result(LONG))) {
                assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
            }
            // A close that has waited long enough for destructors releases the waiters before.
            eventually("all are dropped", || bridge.in_flight() == 0);
            let stats = bridge.stats();
            assert!(stats.balances() && stats.loop_closed == 64, "{stats:?}");
        }
    }
}
