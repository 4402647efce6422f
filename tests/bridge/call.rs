//! `Bridge::call`: a future polled on the thread that waits for it.

use crate::common::{Census, LONG, Loop, SHORT, eventually};
use callbridge::future::FutureState;
use callbridge::{Bridge, ResultError};
use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

#[test]
fn a_value_comes_back_and_the_future_may_borrow_and_need_not_be_send() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let mut log = Vec::new();
        let text = String::from("borrowed");
        let answer = bridge.call(
            async {
                let not_send = Rc::new(text.as_str());
                tokio::task::yield_now().await;
                log.push(not_send.len());
                *not_send
            },
            LONG,
        );
        assert_eq!((answer.unwrap(), &*log), ("borrowed", &[8][..]));
        let stats = bridge.stats();
        assert_eq!((stats.submitted, stats.finished, stats.in_flight), (1, 1, 0));
    }
}

/// It is polled by the caller, and by nobody else.
#[test]
fn it_runs_on_the_calling_thread() {
    let runtime = Loop::multi(2);
    let here = thread::current().id();
    let threads = runtime.bridge().call(
        async {
            let first = thread::current().id();
            tokio::time::sleep(Duration::from_millis(1)).await;
            [first, thread::current().id()]
        },
        LONG,
    );
    assert_eq!(threads.unwrap(), [here; 2]);
}

#[test]
fn timers_spawned_tasks_and_sockets_work_inside() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let read = bridge.call(
            async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let peer = tokio::spawn(async move {
                    let mut client = TcpStream::connect(address).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    client.write_all(b"hello").await.unwrap();
                });
                let mut text = String::new();
                listener.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
                peer.await.unwrap();
                text
            },
            LONG,
        );
        assert_eq!(read.unwrap(), "hello");
        let nested = bridge.call(
            async { Bridge::current().run_coroutine_threadsafe(async { 3 }).await.unwrap() },
            LONG,
        );
        assert_eq!(nested.unwrap(), 3);
    }
}

/// When the time is up the future is dropped; the timeout needs no timer of the runtime.
#[test]
fn a_timeout_drops_the_future() {
    let bare = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let driven = Loop::multi(1);
    for handle in [driven.handle(), bare.handle().clone()] {
        let bridge = Bridge::new(handle);
        let census = Census::default();
        let guard = census.guard();
        let late = bridge.call(
            async move {
                let _guard = guard;
                pending::<()>().await;
            },
            SHORT,
        );
        assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::Abandoned })));
        let stats = bridge.stats();
        assert_eq!((census.alive(), stats.cancelled, stats.in_flight), (0, 1, 0));
        assert!(stats.balances());
    }
}

#[test]
fn a_timeout_of_zero_polls_once() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    assert_eq!(bridge.call(async { 1 }, Duration::ZERO).unwrap(), 1);
    let mut polls = 0;
    let late = bridge.call(
        poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }),
        Duration::ZERO,
    );
    let late = late.unwrap_err();
    assert!(matches!(late, ResultError::TimedOut { state: FutureState::Abandoned }));
    let text = "not done in time (abandoned): try again, or give it more time";
    assert_eq!((polls, late.to_string()), (1, text.into()));
    let full = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let _first = full.run_coroutine_threadsafe(pending::<()>());
    let late = full.call(async {}, Duration::ZERO);
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::NoRoom })));
}

/// The timeout covers the wait for room.
#[test]
fn a_call_without_room_times_out_as_such_and_one_with_room_soon_begins() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(2).build().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let _first = bridge.run_coroutine_threadsafe(ended);
    let _second = bridge.run_coroutine_threadsafe(pending::<()>());
    let census = Census::default();
    let guard = census.guard();
    let began = Instant::now();
    let late = bridge.call(async move { drop(guard) }, Duration::from_millis(300));
    assert!(matches!(late, Err(ResultError::TimedOut { state: FutureState::NoRoom })), "{late:?}");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(900), "{took:?}");
    assert_eq!((census.alive(), bridge.stats().refused), (0, 1));
    let waiting = bridge.clone();
    let caller = thread::spawn(move || waiting.call(async { 2 }, LONG));
    end.send(()).unwrap();
    assert_eq!(caller.join().unwrap().unwrap(), 2);
}

/// The wait for room and the wait for the value share one timeout: it doesn't begin anew.
#[test]
fn the_wait_for_room_counts_against_the_timeout() {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
    let first = bridge.run_coroutine_threadsafe(pending::<()>());
    let canceller = first.canceller();
    let freeing = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        canceller.cancel();
    });
    let began = Instant::now();
    let late = bridge.call(pending::<()>(), Duration::from_millis(1_000));
    assert!(
        matches!(late, Err(ResultError::TimedOut { state: FutureState::Abandoned })),
        "{late:?}"
    );
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(1_000) && took < Duration::from_millis(1_600),
        "{took:?}"
    );
    freeing.join().unwrap();
}

#[test]
fn a_panic_is_a_value_and_harms_nobody() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        for suspends in [false, true] {
            let result = bridge.call::<_>(
                async move {
                    if suspends {
                        tokio::task::yield_now().await;
                    }
                    std::panic::panic_any(7_u32)
                },
                LONG,
            );
            let result: Result<(), _> = result;
            let Err(ResultError::Panicked(panic)) = result else { panic!() };
            assert_eq!(panic.into_payload().downcast_ref::<u32>(), Some(&7));
        }
        assert_eq!(bridge.call(async { 1 }, LONG).unwrap(), 1);
        let stats = bridge.stats();
        assert_eq!((stats.panicked, stats.finished, stats.in_flight), (2, 1, 0));
    }
}

/// A destructor that panics is contained; the value is there.
#[test]
fn a_future_whose_destructor_panics_gives_its_value() {
    struct Faulty;
    impl Drop for Faulty {
        fn drop(&mut self) {
            panic!("a destructor's own fault");
        }
    }
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let faulty = Faulty;
    let value = bridge.call(
        poll_fn(move |_| {
            let _ = &faulty;
            Poll::Ready(1)
        }),
        LONG,
    );
    assert_eq!(value.unwrap(), 1);
    let faulty = Faulty;
    let late = bridge.call(
        poll_fn(move |_| {
            let _ = &faulty;
            Poll::<()>::Pending
        }),
        SHORT,
    );
    assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    assert!(bridge.stats().balances() && bridge.in_flight() == 0);
}

#[test]
fn a_token_cancels_it_from_another_thread() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let census = Census::default();
        let (token, guard) = (CancellationToken::new(), census.guard());
        let (began, begun) = mpsc::channel();
        let other = token.clone();
        let canceller = thread::spawn(move || {
            begun.recv_timeout(LONG).unwrap();
            other.cancel();
        });
        let cancelled = bridge.call_until_cancelled(
            &token,
            async move {
                let _guard = guard;
                began.send(()).unwrap();
                pending::<()>().await;
            },
            LONG,
        );
        assert!(matches!(cancelled, Err(ResultError::Cancelled)));
        assert_eq!((census.alive(), bridge.stats().cancelled), (0, 1));
        canceller.join().unwrap();
        let mut polled = false;
        let late = bridge.call_until_cancelled(&token, async { polled = true }, LONG);
        assert!(matches!(late, Err(ResultError::Cancelled)) && !polled, "cancelled before");
        let other = CancellationToken::new();
        assert_eq!(bridge.call_until_cancelled(&other, async { 1 }, LONG).unwrap(), 1);
    }
}

/// Says what became of some calls while `end` ends something: two that were polled, and one that waits
/// for room.
fn released_by(bridge: &Bridge, end: impl FnOnce()) {
    let census = Census::default();
    let begun = AtomicUsize::new(0);
    thread::scope(|scope| {
        let call = || {
            let (begun, guard) = (&begun, census.guard());
            scope.spawn(move || {
                let here = thread::current().id();
                let mut dropped_on = None;
                struct Notes<'a>(&'a mut Option<thread::ThreadId>);
                impl Drop for Notes<'_> {
                    fn drop(&mut self) {
                        *self.0 = Some(thread::current().id());
                    }
                }
                let notes = Notes(&mut dropped_on);
                let result = bridge.call(
                    async move {
                        let _both = (notes, guard);
                        begun.fetch_add(1, Ordering::Relaxed);
                        pending::<()>().await;
                    },
                    LONG,
                );
                assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
                assert_eq!(dropped_on, Some(here), "dropped on the caller");
            })
        };
        let _inside = [call(), call()];
        eventually("both wait", || begun.load(Ordering::Relaxed) == 2);
        let _waits_for_room = call();
        end();
    });
    assert_eq!((census.alive(), begun.load(Ordering::Relaxed)), (0, 2));
    let stats = bridge.stats();
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    assert_eq!((stats.submitted, stats.loop_closed, stats.refused), (2, 2, 1));
}

#[test]
fn a_close_on_another_thread_releases_it() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(2).build().unwrap();
        released_by(&bridge, || {
            let report = bridge.close_blocking(SHORT);
            assert_eq!((report.cut_off, report.in_flight), (2, 0), "{report}");
        });
    }
}

#[test]
fn the_runtimes_drop_releases_it() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(2).build().unwrap();
        released_by(&bridge, || drop(runtime));
    }
}

/// A close lets it end by itself, and the value is the caller's.
#[test]
fn a_close_waits_for_a_call_that_ends_in_time() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let token = bridge.child_token();
    let waiting = bridge.clone();
    let caller = thread::spawn(move || waiting.call(async { token.cancelled().await }, LONG));
    eventually("it waits", || bridge.in_flight() == 1);
    let report = bridge.close_blocking(LONG);
    assert!(report.is_clean() && report.drained == 1, "{report}");
    caller.join().unwrap().unwrap();
    assert!(matches!(bridge.call(async {}, LONG), Err(ResultError::LoopClosed)));
}

/// A poll that blocks can't be ended; the report names where it was called, and by which thread.
#[test]
fn a_close_names_a_call_that_is_inside_its_poll() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let (called, line) = (bridge.clone(), line!() + 2);
    let body = move || {
        called.call(
            async move {
                began.send(()).unwrap();
                let _ = blocked.recv_timeout(LONG);
                pending::<()>().await;
            },
            LONG,
        )
    };
    let caller = thread::Builder::new().name("meter".into()).spawn(body).unwrap();
    begun.recv_timeout(LONG).unwrap();
    let report = bridge.close_blocking(SHORT);
    assert_eq!((report.in_flight, report.stuck.len()), (1, 1), "{report}");
    assert_eq!(report.stuck[0].location.line(), line, "{report}");
    assert_eq!(report.stuck[0].thread.as_deref(), Some("meter"));
    drop(release);
    assert!(matches!(caller.join().unwrap(), Err(ResultError::LoopClosed)));
}

/// A timer panics when its loop goes away meanwhile: that is the loop's end, not the future's panic.
#[test]
fn a_timer_inside_ends_with_its_loop() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let called = bridge.clone();
        let caller = thread::spawn(move || {
            called.call(
                async {
                    loop {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                },
                LONG,
            )
        });
        eventually("it is inside", || bridge.in_flight() == 1);
        drop(runtime);
        let result: Result<(), _> = caller.join().unwrap();
        assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
    }
}

/// So does a timer that finds its loop gone while it is polled.
#[test]
fn a_panic_in_the_poll_that_sees_the_loop_go_is_the_loops_end() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    let polled = async move {
        runtime.shutdown_background();
        panic!("the loop is gone")
    };
    let result: Result<(), _> = bridge.call(polled, LONG);
    assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
}

/// What was called by reference goes on later, where it was.
#[test]
fn a_future_called_by_reference_goes_on_later() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (reply, asked) = oneshot::channel();
    let steps = Cell::new(0);
    let mut future = pin!(async {
        steps.set(steps.get() + 1);
        asked.await.unwrap()
    });
    for _ in 0..3 {
        let late = bridge.call(future.as_mut(), Duration::from_millis(1));
        assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    }
    reply.send(7).unwrap();
    assert_eq!(bridge.call(future, LONG).unwrap(), 7);
    assert_eq!(steps.get(), 1);
}

#[test]
fn it_is_allowed_in_spawn_blocking_and_refused_on_the_loop() {
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let inner = bridge.clone();
        let mut outer = bridge.run_coroutine_threadsafe(async move {
            let on_the_loop = inner.call(async { 1 }, LONG);
            assert!(matches!(on_the_loop, Err(ResultError::WouldDeadlock)));
            let nested = move || {
                let slept = async {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    2
                };
                inner.call(slept, LONG)
            };
            tokio::task::spawn_blocking(nested).await.unwrap().unwrap()
        });
        assert_eq!(outer.result(LONG).unwrap(), 2);
    }
}

/// Whoever would have to wait for somebody inside it is refused; what is ready is given.
#[test]
fn a_call_inside_a_call_is_refused() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let inner = bridge.call(async { bridge.call(async { 1 }, LONG).is_ok() }, LONG);
    assert!(!inner.unwrap());
    // Afterwards the thread may block again.
    assert_eq!(bridge.call(async { 1 }, LONG).unwrap(), 1);
    assert_eq!(bridge.run_coroutine_threadsafe(async { 2 }).result(LONG).unwrap(), 2);
}

/// A runtime without drivers runs what needs none; a timer there is the future's own panic.
#[test]
fn it_works_on_a_loop_without_drivers() {
    let bare = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(bare.handle().clone());
    let value = bridge.call(async { tokio::spawn(async { 5 }).await.unwrap() }, LONG);
    assert_eq!(value.unwrap(), 5);
    let result = bridge.call(async { tokio::time::sleep(SHORT).await }, LONG);
    let Err(ResultError::Panicked(panic)) = result else { panic!("{result:?}") };
    assert!(panic.message().contains("timers are disabled"), "{panic}");
}

/// Many threads, each call woken by the loop.
#[test]
fn many_threads_call_at_once() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(3).build().unwrap();
        let threads: Vec<_> = (0..8)
            .map(|who| {
                let bridge = bridge.clone();
                thread::spawn(move || {
                    for n in 0..100 {
                        let echo =
                            async move { tokio::spawn(async move { n + who }).await.unwrap() };
                        assert_eq!(bridge.call(echo, LONG).unwrap(), n + who);
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = bridge.stats();
        assert_eq!((stats.finished, stats.high_water <= 3), (800, true), "{stats:?}");
    }
}

/// Its wakes come from anywhere, also inside its own poll and after its end.
#[test]
fn wakes_inside_the_poll_and_after_the_end_are_harmless() {
    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    let (mut polls, mut kept) = (0, None);
    let woken = poll_fn(|cx| {
        polls += 1;
        kept = Some(cx.waker().clone());
        cx.waker().wake_by_ref();
        if polls < 100 { Poll::Pending } else { Poll::Ready(()) }
    });
    bridge.call(woken, LONG).unwrap();
    assert_eq!(polls, 100);
    kept.unwrap().wake();
    let late = bridge.call(pending::<()>(), SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    let shared = Arc::new(());
    let held = Arc::clone(&shared);
    bridge.call(async move { drop(held) }, LONG).unwrap();
    assert_eq!(Arc::strong_count(&shared), 1);
}
