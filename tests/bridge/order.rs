//! What starts in order, and where.

use crate::common::{LONG, Loop};
use callbridge::Bridge;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

#[test]
fn submissions_of_one_thread_start_in_order() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let order = Arc::new(Mutex::new(Vec::new()));
    let calls: Vec<_> = (0..1_000)
        .map(|n| {
            let order = Arc::clone(&order);
            bridge.run_coroutine_threadsafe(async move { order.lock().unwrap().push(n) })
        })
        .collect();
    for mut call in calls {
        call.result(LONG).unwrap();
    }
    assert!(order.lock().unwrap().iter().copied().eq(0..1_000));
}

/// On a current-thread loop those of one thread run in order, as in asyncio; a multi-thread loop runs
/// all of them, several at once.
#[test]
fn callbacks_all_run_and_in_order_on_a_current_thread_loop() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let order = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|who| {
                let (bridge, order) = (bridge.clone(), order.clone());
                thread::spawn(move || {
                    for n in 0..500 {
                        let order = order.clone();
                        let callback = move || order.lock().unwrap().push((who, n));
                        bridge.call_soon_threadsafe(callback).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(bridge.close_blocking(LONG).is_clean(), "close lets accepted callbacks run");
        let mut order = order.lock().unwrap().clone();
        if let Loop::Multi(_) = runtime {
            order.sort_unstable();
        }
        assert_eq!(order.len(), 2_000);
        for who in 0..4 {
            let of_one = order.iter().filter(|(thread, _)| *thread == who).map(|(_, n)| *n);
            assert!(of_one.eq(0..500));
        }
    }
}

/// C85: the loop's own thread may post, too, and its posts run in order. (C86 is lost: tokio may run
/// them before what was posted elsewhere earlier.)
#[test]
fn posts_from_the_loop_run_in_order() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let (said, heard) = mpsc::channel();
    let poster = bridge.clone();
    let mut call = bridge.run_coroutine_threadsafe(async move {
        for n in 0..100 {
            let said = said.clone();
            poster.call_soon_threadsafe(move || said.send(n).unwrap()).unwrap();
        }
    });
    call.result(LONG).unwrap();
    assert!(heard.iter().eq(0..100));
}

/// As in asyncio: a flush that is submitted after a put finds what was put, on a loop that was busy
/// meanwhile.
#[test]
fn a_call_runs_after_the_callback_posted_before_it() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
    let release = runtime.hold();
    let _earlier = bridge.run_coroutine_threadsafe(async {});
    let slot = Arc::new(AtomicUsize::new(0));
    let put = Arc::clone(&slot);
    bridge.call_soon_threadsafe(move || put.store(7, Ordering::SeqCst)).unwrap();
    let mut flush = bridge.run_coroutine_threadsafe(async move { slot.load(Ordering::SeqCst) });
    release.send(()).unwrap();
    assert_eq!(flush.result(LONG).unwrap(), 7, "the flush overtook the put");
}

/// The same without arranging anything: 10 000 pairs back to back, and 10 000 on an idle loop.
#[test]
fn ten_thousand_flushes_find_what_was_put_before_them() {
    let runtime = Loop::current();
    let bridge = runtime.bridge();
    let slot = Arc::new(AtomicUsize::new(0));
    let put_and_flush = |n| {
        let (put, see) = (Arc::clone(&slot), Arc::clone(&slot));
        bridge.call_soon_threadsafe(move || put.store(n, Ordering::SeqCst)).unwrap();
        bridge.run_coroutine_threadsafe(async move { see.load(Ordering::SeqCst) })
    };
    let calls: Vec<_> = (1..=10_000).map(put_and_flush).collect();
    for (n, mut call) in (1..).zip(calls) {
        assert!(call.result(LONG).unwrap() >= n, "flush {n} overtook its put");
    }
    for n in 1..=10_000 {
        assert_eq!(put_and_flush(n).result(LONG).unwrap(), n, "on an idle loop");
    }
}

/// Where order matters on a loop with several workers, one call in flight keeps it.
#[test]
fn one_call_in_flight_keeps_messages_in_order() {
    let runtime = Loop::multi(2);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    for n in 0..50_u64 {
        let log = Arc::clone(&log);
        let _call = bridge.run_coroutine_threadsafe(async move {
            for _ in 0..n * 7 % 5 {
                tokio::task::yield_now().await;
            }
            log.lock().unwrap().push(n);
        });
    }
    assert!(bridge.close_blocking(LONG).is_clean());
    assert!(log.lock().unwrap().iter().copied().eq(0..50));
}
