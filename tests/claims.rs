//! What the front page claims and no room's tests show. `docs/TESTING.md` has the whole list.

mod common;

use callbridge::executor::{DedicatedThread, ThreadPool};
use callbridge::{Bridge, Listener};
use common::{LONG, Loop};
use std::sync::{Arc, mpsc};
use std::thread;

/// Holds whoever waits in it until the last sender has gone; says when somebody does.
struct Stuck {
    begun: mpsc::Sender<()>,
    held: mpsc::Receiver<()>,
}

impl Stuck {
    fn new() -> (Self, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, is_stuck) = mpsc::channel();
        let (release, held) = mpsc::channel();
        (Stuck { begun, held }, is_stuck, release)
    }

    fn wait(self) {
        self.begun.send(()).unwrap();
        let _ = self.held.recv();
    }
}

/// Drops what `make` makes on a thread of its own, while the work that it gave to `Stuck` is stuck.
fn is_dropped_though_stuck<T>(what: &str, make: impl FnOnce(Stuck) -> T + Send + 'static) {
    let (stuck, is_stuck, release) = Stuck::new();
    let (tell, dropped) = mpsc::channel();
    let dropper = thread::spawn(move || {
        let made = make(stuck);
        is_stuck.recv_timeout(LONG).unwrap();
        drop(made);
        tell.send(()).unwrap();
    });
    assert!(dropped.recv_timeout(LONG).is_ok(), "the drop of {what} waits for what is stuck");
    drop(release);
    dropper.join().unwrap();
}

#[test]
fn drops_wait_for_nothing_that_is_stuck() {
    let event_loop = Loop::multi(2);
    let bridge = event_loop.bridge();
    is_dropped_though_stuck("a bridge and a call", move |stuck| {
        let call = bridge.run_coroutine_threadsafe(async { stuck.wait() });
        (call.cancel_on_drop(), bridge)
    });
    is_dropped_though_stuck("a listener", |stuck| {
        let body = move |sink: callbridge::listener::LoopHandle<()>| {
            stuck.wait();
            drop(sink);
            Ok(())
        };
        Listener::from_fn(body).spawn().unwrap()
    });
    is_dropped_though_stuck("a pool", |stuck| {
        let pool = ThreadPool::builder().max_workers(1).build().unwrap();
        (pool.submit(move || stuck.wait()), pool)
    });
    is_dropped_though_stuck("a dedicated thread", |stuck| {
        let thread = DedicatedThread::spawn(|| Ok::<_, String>(())).result(LONG).unwrap();
        (thread.submit(move |()| stuck.wait()), thread)
    });
}

/// The three whose drop waits, for a second or so: on a loop that doesn't come back, all the same no longer.
#[cfg(feature = "runner")]
#[test]
fn drops_of_a_runners_types_come_back_from_a_stuck_loop() {
    use callbridge::ThreadRunner;
    use common::in_parallel;
    use futures_util::stream;
    use std::task::Poll;

    let a_runner = || {
        is_dropped_though_stuck("a runner", |stuck| {
            let runner = ThreadRunner::new();
            let call = runner.spawn(async { stuck.wait() });
            (runner, call)
        });
    };
    // Here the runner goes after what is looked at, or its own drop would end that.
    let a_guard = || {
        let runner = ThreadRunner::new();
        let (stuck, _is_stuck, release) = Stuck::new();
        let guard = runner.enter_context(
            || async { Ok::<_, String>(()) },
            |_, _| async move {
                stuck.wait();
                Ok::<_, String>(())
            },
        );
        drop(guard.unwrap());
        drop(release);
    };
    let an_iterator = || {
        let runner = ThreadRunner::new();
        let (stuck, is_stuck, release) = Stuck::new();
        let mut stuck = Some(stuck);
        let items = runner.wrap_iter(stream::poll_fn(move |_| {
            stuck.take().into_iter().for_each(Stuck::wait);
            Poll::Ready(None::<()>)
        }));
        is_stuck.recv_timeout(LONG).unwrap();
        drop(items);
        drop(release);
    };
    let all: [&(dyn Fn() + Sync); 3] = [&a_runner, &a_guard, &an_iterator];
    in_parallel(all, |is_dropped| is_dropped());
}

#[test]
fn a_bridge_keeps_no_runtime_alive() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    let owned = Arc::new(());
    let kept = Arc::clone(&owned);
    let mut call = bridge.run_coroutine_threadsafe(async move {
        std::future::pending::<()>().await;
        drop(kept);
    });
    drop(runtime);
    assert_eq!(Arc::strong_count(&owned), 1, "what the loop owned is gone");
    assert!(bridge.is_closed());
    assert!(call.result(None).is_err());
}
