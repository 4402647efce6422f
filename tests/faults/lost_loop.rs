//! The runtime is dropped at every await of a scripted run.

use crate::common::{Census, LONG};
use crate::until;
use callbridge::listener::Datagram;
use callbridge::{Bridge, Listener, ResultError, listener::UdpSource, to_thread};
use std::future::poll_fn;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use tokio::runtime::Builder;

/// Gives way `turns` times; true once `finished` is.
async fn turns(turns: usize, finished: Arc<AtomicBool>) -> bool {
    let mut left = turns;
    poll_fn(move |cx| {
        if finished.load(Ordering::SeqCst) {
            return Poll::Ready(true);
        }
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Runs the script, for `turns` turns of its loop at most; whether it came to its end.
fn run(limit: usize) -> bool {
    let census = Census::default();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(2).build().unwrap();
    let (sender, mut frames) = callbridge::channel(1);
    let (back, answers) = callbridge::channel(1);
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    let served = Listener::builder(source)
        .serve(&bridge, |request: Datagram| async move {
            tokio::task::yield_now().await;
            Some(request.payload)
        })
        .spawn()
        .unwrap();
    client.send(b"hello").unwrap();

    let guard = census.guard();
    let producer = std::thread::spawn(move || {
        let _guard = guard;
        (0..3_u32).try_for_each(|n| sender.send(n).map(drop)).is_ok()
    });
    let callers: Vec<_> = (0..3)
        .map(|n| {
            let (bridge, guard) = (bridge.clone(), census.guard());
            std::thread::spawn(move || {
                let mut call = bridge.run_coroutine_threadsafe(async move {
                    let _guard = guard;
                    tokio::task::yield_now().await;
                    n
                });
                match call.result(LONG) {
                    Ok(value) => assert_eq!(value, n),
                    Err(ResultError::LoopClosed) => {}
                    Err(other) => panic!("{other:?}"),
                }
            })
        })
        .collect();
    let finished = Arc::new(AtomicBool::new(false));
    let (done, guard, closing) = (Arc::clone(&finished), census.guard(), bridge.clone());
    runtime.spawn(async move {
        let _guard = guard;
        while let Some(frame) = frames.recv().await {
            let frame = to_thread(move || frame).await.unwrap();
            if back.send_async(frame).await.is_err() {
                break;
            }
        }
        let _ = served.close(LONG).await;
        let _ = closing.close(LONG).await;
        done.store(true, Ordering::SeqCst);
    });
    let guard = census.guard();
    let mut answers = answers;
    runtime.spawn(async move {
        let _guard = guard;
        while answers.recv().await.is_some() {}
    });
    let ended = runtime.block_on(turns(limit, finished));
    drop(runtime);
    producer.join().unwrap();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    assert!(bridge.is_closed());
    // The listener's thread may be in the middle of a submission that it will be refused.
    until("the counters to close", || bridge.stats().in_flight == 0);
    let stats = bridge.stats();
    assert!(stats.balances(), "{limit} turns: {stats:?}");
    assert_eq!(census.alive(), 0, "{limit} turns");
    ended
}

#[test]
fn a_loop_that_is_dropped_at_any_await_releases_everybody_and_keeps_nothing() {
    for limit in 0..100 {
        run(limit);
    }
    assert!(run(usize::MAX), "undisturbed, the script comes to its end");
}
