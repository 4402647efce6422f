//! `Bridge::call` of a future that is ready allocates nothing, and no call leaves anything behind.
//!
//! A binary of its own, with one test, so that nobody else allocates meanwhile.

#[path = "common/heap.rs"]
mod heap;

use callbridge::Bridge;
use heap::{live_bytes, once_warm};
use std::future::{pending, poll_fn};
use std::task::Poll;
use std::thread;
use std::time::Duration;

#[test]
fn nothing_is_allocated_for_a_future_that_is_ready() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    for timeout in [None, Some(Duration::from_secs(60)), Some(Duration::ZERO)] {
        let before = live_bytes();
        let allocations = once_warm(|| {
            for n in 0..1_000_u64 {
                assert_eq!(bridge.call(async { n }, timeout).unwrap(), n);
            }
        });
        assert_eq!(allocations, 0, "{timeout:?}");
        assert!(live_bytes() - before < 4_096, "the thread's own parker and slot at most");
    }

    calls_that_wait_leave_nothing_behind(&bridge);
}

/// Is ready at the `last` poll, and woken until then.
fn ready_at(last: u32) -> impl Future<Output = ()> + Send {
    let mut polls = 0;
    poll_fn(move |cx| {
        polls += 1;
        cx.waker().wake_by_ref();
        if polls < last { Poll::Pending } else { Poll::Ready(()) }
    })
}

fn calls_that_wait_leave_nothing_behind(bridge: &Bridge) {
    bridge.run_coroutine_threadsafe(ready_at(2)).result(None).unwrap();
    let before = live_bytes();
    let kept = || live_bytes() - before;
    bridge.call(ready_at(10_000), None).unwrap();
    bridge.run_coroutine_threadsafe(ready_at(10_000)).result(None).unwrap();
    assert!(kept() < 4_096, "{} bytes are kept of two calls", kept());
    (0..2_000).for_each(|_| bridge.call(ready_at(2), None).unwrap());
    assert!(kept() < 4_096, "{} bytes are kept of one call after the other", kept());
    let on_a_new_thread = || {
        thread::scope(|scope| scope.spawn(|| bridge.call(async {}, None).unwrap()).join().unwrap());
    };
    (0..500).for_each(|_| on_a_new_thread());
    assert!(kept() < 4_096, "{} bytes are kept of threads that have ended", kept());
    let mut burst: Vec<_> =
        (0..5_000).map(|_| bridge.run_coroutine_threadsafe(pending::<()>())).collect();
    for call in &mut burst {
        call.cancel_and_wait(None).unwrap();
    }
    drop(burst);
    assert!(kept() < 64 << 10, "{} bytes are kept of a burst", kept());
}
