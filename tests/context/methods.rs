//! Every method of the crate that blocks, and what it says when it may not.

use crate::current_thread;
use callbridge::channel::{RecvError, SendError};
use callbridge::executor::{CancelToken, CapacityLimiter};
use callbridge::future::{FutureState, ReturnWhen, SubmitError};
use callbridge::listener::LoopHandle;
use callbridge::{
    BlockingFuture, Bridge, DedicatedThread, Listener, ResultError, ThreadPool, WaitError,
    as_completed, wait,
};
use std::future::pending;
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(crate) const SHORT: Duration = Duration::from_millis(5);
pub(crate) const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused,
    Allowed,
}

use Verdict::{Allowed, Refused};

/// Where a method is called.
pub(crate) struct Place {
    /// What every method should say there.
    pub(crate) expected: Verdict,
}

impl Place {
    /// Calls `blocks`, whose wait `release` ends, soon where it may wait, and late where it shouldn't.
    fn until_released<R>(
        &self,
        release: impl FnOnce() + Send + 'static,
        blocks: impl FnOnce() -> R,
    ) -> R {
        let patience = if self.expected == Allowed { SHORT } else { Duration::from_secs(2) };
        let (back, is_back) = mpsc::channel::<()>();
        let releasing = thread::spawn(move || {
            let _ = is_back.recv_timeout(patience);
            release();
        });
        let result = blocks();
        drop(back);
        releasing.join().unwrap();
        result
    }
}

type Method = fn(&Place) -> Verdict;

/// Every method of the crate that blocks, on something that doesn't come by itself.
pub(crate) const METHODS: &[(&str, Method)] = &[
    ("BlockingFuture::result", |_| by_result(never().result(SHORT))),
    ("BlockingFuture::wait", |_| by_result(never().wait(SHORT))),
    ("BlockingFuture::cancel_and_wait", |_| by_result(never().cancel_and_wait(SHORT))),
    ("wait", |_| {
        // A wait that ends with its timeout splits.
        match wait(&mut [never()], SHORT, ReturnWhen::AllCompleted) {
            Ok(_) => Allowed,
            Err(error) => by_wait::<()>(Err(error)),
        }
    }),
    ("as_completed", |_| {
        by_wait::<()>(Err(as_completed([never()], SHORT).next().unwrap().unwrap_err().why))
    }),
    ("the future of a promise", |_| {
        let (_completer, mut future) = callbridge::future::promise::<()>();
        by_result(future.result(SHORT))
    }),
    ("Bridge::call", |_| by_result(elsewhere().call(pending::<()>(), SHORT))),
    ("Bridge::call, ready", |_| by_result(elsewhere().call(async {}, SHORT))),
    ("Bridge::call, full", |_| by_result(full().0.call(async {}, SHORT))),
    ("Bridge::call_until_cancelled", |_| {
        let token = CancellationToken::new();
        by_result(elsewhere().call_until_cancelled(&token, pending::<()>(), SHORT))
    }),
    ("Bridge::run_coroutine_threadsafe", |place| {
        let (bridge, first) = full();
        let end = first.canceller();
        let submit = || bridge.run_coroutine_threadsafe(async {});
        match place.until_released(move || _ = end.cancel(), submit).state() {
            FutureState::WouldDeadlock => Refused,
            _ => Allowed,
        }
    }),
    ("Bridge::run_coroutine_threadsafe_timeout", |_| {
        by_submit(full().0.run_coroutine_threadsafe_timeout(async {}, SHORT))
    }),
    ("Bridge::call_soon_threadsafe", |place| {
        let (bridge, first) = full();
        let end = first.canceller();
        let submit = || bridge.call_soon_threadsafe(|| {});
        by_submit(place.until_released(move || _ = end.cancel(), submit))
    }),
    ("Bridge::close_blocking", |_| said(full().0.close_blocking(SHORT).would_deadlock)),
    ("Sender::send", |place| {
        let (sender, mut frames) = callbridge::channel(1);
        sender.try_send(1).unwrap();
        let drain = move || while frames.try_recv().is_ok() {};
        match place.until_released(drain, || sender.send(2)) {
            Err(SendError::WouldDeadlock(_)) => Refused,
            // The stream may go as soon as it is drained.
            _ => Allowed,
        }
    }),
    ("Sender::send_timeout", |_| {
        let (sender, _frames) = callbridge::channel(1);
        sender.try_send(1).unwrap();
        match sender.send_timeout(2, SHORT).unwrap_err() {
            SendError::WouldDeadlock(_) => Refused,
            SendError::TimedOut(_) => Allowed,
            other => panic!("{other:?}"),
        }
    }),
    ("Sender::callback", |place| {
        let (sender, mut frames) = callbridge::channel(1);
        sender.try_send(1).unwrap();
        let callback = sender.callback();
        let (drained, is_drained) = mpsc::channel();
        let drain = move || {
            while frames.try_recv().is_ok() {}
            drained.send(frames).unwrap();
        };
        place.until_released(drain, || callback(2));
        let _frames = is_drained.recv_timeout(LONG).unwrap();
        // Where it can't wait the frame is lost, and counted.
        let stats = sender.stats();
        said(stats.offered > stats.delivered + stats.queued + stats.refused)
    }),
    ("Sender::closed", |_| {
        let (sender, _frames) = callbridge::channel::<u8>(1);
        by_wait(sender.closed(SHORT))
    }),
    ("Sender::reserve", |_| {
        let (sender, _frames) = callbridge::channel(1);
        sender.try_send(1).unwrap();
        match sender.reserve(SHORT).unwrap_err() {
            SendError::WouldDeadlock(()) => Refused,
            SendError::TimedOut(()) => Allowed,
            other => panic!("{other:?}"),
        }
    }),
    ("Sender::flush", |_| {
        let (sender, _frames) = callbridge::channel(1);
        sender.try_send(1).unwrap();
        by_wait(sender.flush(SHORT))
    }),
    ("FrameStream::recv_blocking", |_| {
        let (_sender, mut frames) = callbridge::channel::<u8>(1);
        match frames.recv_blocking(SHORT).unwrap_err() {
            RecvError::WouldDeadlock => Refused,
            RecvError::TimedOut => Allowed,
            other => panic!("{other:?}"),
        }
    }),
    ("CapacityLimiter::acquire_blocking", |_| {
        let limiter = CapacityLimiter::new(1);
        let _permit = limiter.try_acquire().unwrap();
        by_wait(limiter.acquire_blocking(SHORT))
    }),
    ("CancelToken::wait", |_| by_wait(TOKEN.wait(SHORT))),
    ("ThreadPool::submit", |place| {
        let (pool, release) = full_pool();
        match place.until_released(move || drop(release), || pool.submit(|| {})).state() {
            FutureState::WouldDeadlock => Refused,
            _ => Allowed,
        }
    }),
    ("ThreadPool::submit_timeout", |_| {
        let (pool, _release) = full_pool();
        by_submit(pool.submit_timeout(|| {}, SHORT))
    }),
    ("ThreadPool::close_blocking", |_| {
        let (pool, _release) = full_pool();
        said(pool.close_blocking(SHORT).would_deadlock)
    }),
    ("DedicatedThread::call_blocking", |_| {
        let (thread, _release) = full_thread();
        by_result(thread.call_blocking(|()| {}, SHORT))
    }),
    ("DedicatedThread::submit", |place| {
        let (thread, release) = full_thread();
        match place.until_released(move || drop(release), || thread.submit(|()| {})).state() {
            FutureState::WouldDeadlock => Refused,
            _ => Allowed,
        }
    }),
    ("DedicatedThread::close_blocking", |_| {
        let (thread, _release) = full_thread();
        said(thread.close_blocking(SHORT).would_deadlock)
    }),
    ("Listener::close_blocking", |_| {
        let (release, blocked) = mpsc::channel::<()>();
        let body = move |_: LoopHandle<u8>| {
            let _ = blocked.recv_timeout(LONG);
            Ok(())
        };
        let (listener, _frames) = Listener::from_fn(body).spawn().unwrap();
        let report = listener.close_blocking(SHORT);
        drop(release);
        said(report.would_deadlock)
    }),
    ("LoopHandle::wait_stop", |_| by_wait(SINK.wait_stop(SHORT))),
    ("LoopHandle::send", |place| {
        let (hand, handed) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let body = move |sink: LoopHandle<u8>| {
            hand.send(sink).unwrap();
            let _ = blocked.recv_timeout(LONG);
            Ok(())
        };
        let (listener, mut frames) = Listener::from_fn(body).capacity(1).spawn().unwrap();
        let sink = handed.recv_timeout(LONG).unwrap();
        sink.sender().try_send(1).unwrap();
        let drain = move || while frames.try_recv().is_ok() {};
        let sent = place.until_released(drain, || sink.send(2));
        drop((release, listener));
        said(matches!(sent, Err(SendError::WouldDeadlock(_))))
    }),
    #[cfg(feature = "runner")]
    ("ThreadRunner::run", |place| {
        let (end, ended) = oneshot::channel::<()>();
        by_result(place.until_released(|| _ = end.send(()), || RUNNER.run(ended)))
    }),
    #[cfg(feature = "runner")]
    ("ThreadRunner::run_timeout", |_| by_result(RUNNER.run_timeout(pending::<()>(), SHORT))),
    #[cfg(feature = "runner")]
    ("ThreadRunner::run_until_cancelled", |_| {
        let token = CancellationToken::new();
        by_result(RUNNER.run_until_cancelled(&token, pending::<()>(), SHORT))
    }),
    #[cfg(feature = "runner")]
    ("ThreadRunner::start_task", |place| {
        let (end, ended) = oneshot::channel::<()>();
        let start = || {
            RUNNER.start_task(|started: callbridge::runner::ReadySignal<()>| async move {
                let _ = ended.await;
                started.set(());
            })
        };
        match place.until_released(|| _ = end.send(()), start) {
            Err(callbridge::runner::StartTaskError::Loop(error)) => by_result::<()>(Err(error)),
            started => started.map(|_| Allowed).unwrap(),
        }
    }),
    #[cfg(feature = "runner")]
    ("ThreadRunner::enter_context", |place| {
        let (end, ended) = oneshot::channel::<()>();
        let open = async move || {
            let _ = ended.await;
            Ok::<_, String>(())
        };
        let close = async |_: std::sync::Arc<()>, _| Ok::<_, String>(());
        match place.until_released(|| _ = end.send(()), || RUNNER.enter_context(open, close)) {
            Err(callbridge::runner::EnterError::Loop(error)) => by_result::<()>(Err(error)),
            entered => entered.map(|_| Allowed).unwrap(),
        }
    }),
    #[cfg(feature = "runner")]
    ("WrapIter::next_timeout", |_| {
        let (sender, frames) = callbridge::channel::<u8>(1);
        let mut items = RUNNER.wrap_iter(frames);
        let verdict = by_result(items.next_timeout(SHORT));
        drop(sender);
        verdict
    }),
    #[cfg(feature = "runner")]
    ("WrapIter::next", |place| {
        let (sender, frames) = callbridge::channel::<u8>(1);
        let mut items = RUNNER.wrap_iter(frames);
        by_result(place.until_released(move || _ = sender.send(1), || items.next().unwrap()))
    }),
    #[cfg(feature = "runner")]
    ("ThreadRunner::close", |_| {
        let runner = aside(|| {
            let runner = callbridge::ThreadRunner::new();
            drop(runner.spawn(pending::<()>()));
            runner
        });
        said(runner.close(SHORT).would_deadlock)
    }),
    #[cfg(feature = "runner")]
    ("Guard::exit", |place| {
        let (end, ended) = oneshot::channel::<()>();
        let guard = aside(|| {
            let open = async || Ok::<_, String>(());
            let close = async move |_: std::sync::Arc<()>, _| {
                let _ = ended.await;
                Ok::<_, String>(())
            };
            RUNNER.enter_context(open, close).unwrap()
        });
        let exit = || guard.exit(callbridge::runner::Outcome::Ok);
        let exited = place.until_released(|| _ = end.send(()), exit);
        let cause = exited.as_ref().err().and_then(std::error::Error::source);
        said(matches!(cause.and_then(|it| it.downcast_ref()), Some(ResultError::WouldDeadlock)))
    }),
    #[cfg(feature = "runner")]
    ("BlockingIo::read", |place| {
        let (here, there) = tokio::io::duplex(1);
        let mut there = RUNNER.wrap_io(there).unwrap();
        let read = || std::io::Read::read(&mut there, &mut [0]);
        by_kind(&place.until_released(|| drop(here), read))
    }),
    #[cfg(feature = "runner")]
    ("BlockingIo::write", |place| {
        let (here, there) = tokio::io::duplex(1);
        let mut here = RUNNER.wrap_io(here).unwrap();
        let write = || std::io::Write::write_all(&mut here, b"two");
        by_kind(&place.until_released(|| drop(there), write))
    }),
    #[cfg(feature = "runner")]
    ("WeakRunner::close", |_| {
        let runner = aside(|| {
            let runner = callbridge::ThreadRunner::new();
            drop(runner.spawn(pending::<()>()));
            runner
        });
        said(runner.downgrade().close(SHORT).unwrap().would_deadlock)
    }),
    #[cfg(feature = "testing")]
    ("Script::wait_taken", |_| {
        let (_source, script) = callbridge::testing::script::<()>();
        by_wait(script.block().wait_taken(SHORT))
    }),
    #[cfg(feature = "ffi")]
    ("UserData::unregister", |_| ffi::unregister()),
];

fn said(refused: bool) -> Verdict {
    if refused { Refused } else { Allowed }
}

fn by_result<T>(result: Result<T, ResultError>) -> Verdict {
    match result {
        Err(ResultError::WouldDeadlock) => Refused,
        Ok(_) | Err(ResultError::TimedOut { .. }) => Allowed,
        Err(other) => panic!("{other:?}"),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "what a method returned")]
fn by_wait<T>(result: Result<T, WaitError>) -> Verdict {
    match result {
        Err(WaitError::WouldDeadlock) => Refused,
        Ok(_) | Err(WaitError::TimedOut) => Allowed,
        Err(other) => panic!("{other:?}"),
    }
}

fn by_submit<T, F>(result: Result<T, SubmitError<F>>) -> Verdict {
    match result {
        Err(SubmitError::WouldDeadlock(_)) => Refused,
        Ok(_) | Err(SubmitError::TimedOut(_)) => Allowed,
        Err(other) => panic!("{other:?}"),
    }
}

/// Does what has to wait itself on a thread that may.
fn aside<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(body).join().unwrap())
}

/// A loop that isn't the place's.
static ELSEWHERE: LazyLock<Runtime> =
    LazyLock::new(|| aside(|| Builder::new_multi_thread().worker_threads(1).build().unwrap()));

/// One that nobody drives.
static UNDRIVEN: LazyLock<Runtime> = LazyLock::new(|| aside(current_thread));

fn elsewhere() -> Bridge {
    Bridge::new(ELSEWHERE.handle().clone())
}

/// A call that doesn't even end by a cancel.
fn never() -> BlockingFuture<()> {
    Bridge::new(UNDRIVEN.handle().clone()).run_coroutine_threadsafe(pending())
}

/// A bridge without room, and the call that takes it.
fn full() -> (Bridge, BlockingFuture<()>) {
    let bridge = Bridge::builder(ELSEWHERE.handle().clone()).max_in_flight(1).build().unwrap();
    let first = bridge.run_coroutine_threadsafe(pending());
    (bridge, first)
}

/// A pool without room, until the sender is dropped.
fn full_pool() -> (ThreadPool, mpsc::Sender<()>) {
    aside(|| {
        let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        drop(pool.submit(move || {
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
        }));
        begun.recv_timeout(LONG).unwrap();
        drop(pool.submit(|| {}));
        (pool, release)
    })
}

/// A dedicated thread without room, until the sender is dropped.
fn full_thread() -> (DedicatedThread<()>, mpsc::Sender<()>) {
    aside(|| {
        let build = || Ok::<_, std::io::Error>(());
        let thread = DedicatedThread::builder().capacity(1).spawn(build).result(LONG).unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        drop(thread.submit(move |()| {
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
        }));
        begun.recv_timeout(LONG).unwrap();
        drop(thread.submit(|()| {}));
        (thread, release)
    })
}

/// The token of a job that runs as long as the process.
static TOKEN: LazyLock<CancelToken> = LazyLock::new(|| {
    aside(|| {
        let (hand, handed) = mpsc::channel();
        let pool = ThreadPool::builder().max_workers(1).build().unwrap();
        drop(pool.submit(move || {
            hand.send(CancelToken::current().unwrap()).unwrap();
            thread::park_timeout(Duration::MAX);
        }));
        std::mem::forget(pool);
        handed.recv_timeout(LONG).unwrap()
    })
});

/// The sink of a listener that runs as long as the process.
static SINK: LazyLock<LoopHandle<u8>> = LazyLock::new(|| {
    let (hand, handed) = mpsc::channel();
    let body = move |sink: LoopHandle<u8>| {
        hand.send(sink).unwrap();
        thread::park_timeout(Duration::MAX);
        Ok(())
    };
    std::mem::forget(Listener::from_fn(body).spawn().unwrap());
    handed.recv_timeout(LONG).unwrap()
});

#[cfg(feature = "runner")]
fn by_kind<T>(result: &std::io::Result<T>) -> Verdict {
    said(result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::Deadlock))
}

#[cfg(feature = "runner")]
static RUNNER: LazyLock<callbridge::ThreadRunner> = LazyLock::new(|| {
    aside(|| {
        let runner = callbridge::ThreadRunner::new();
        runner.run(async {}).unwrap();
        runner
    })
});

#[cfg(feature = "ffi")]
mod ffi {
    #![allow(unsafe_code, reason = "plays the part of C")]

    use super::{Allowed, LONG, Refused, SHORT, Verdict};
    use callbridge::ffi::{UnregisterError, UserData};
    use std::ffi::{c_int, c_void};
    use std::ptr::without_provenance_mut;
    use std::sync::{Mutex, mpsc};

    type Inside = (mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);

    callbridge::trampoline! {
        fn stay(user_data: *mut c_void) -> c_int;
        |inside: Mutex<Inside> = user_data| {
            let inside = inside.lock().unwrap();
            inside.0.send(()).unwrap();
            let _ = inside.1.lock().unwrap().recv_timeout(LONG);
            0
        }
        panicked -1, swallowed -2
    }

    /// Of a registration that a call is inside of.
    pub(super) fn unregister() -> Verdict {
        let (entered, inside) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let user_data = UserData::<Mutex<Inside>>::new(Mutex::new((entered, Mutex::new(left))));
        let held = user_data.as_ptr().addr();
        let caller = std::thread::spawn(move || {
            // SAFETY: any user data may come, and there is no other pointer.
            unsafe { stay(without_provenance_mut(held)) }
        });
        inside.recv_timeout(LONG).unwrap();
        let refused = user_data.unregister(SHORT).map(drop).unwrap_err();
        drop(leave);
        caller.join().unwrap();
        match refused {
            UnregisterError::WouldDeadlock(_) => Refused,
            UnregisterError::TimedOut(_) => Allowed,
            other => panic!("{other:?}"),
        }
    }
}
