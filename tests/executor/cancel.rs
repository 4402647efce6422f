//! Cancelling blocking work: what a job is told, and what becomes of who waits for it.

use super::block_on;
use crate::common::{Census, LONG, Loop, SHORT};
use callbridge::WaitError;
use callbridge::executor::{CancelToken, ThreadCall};
use callbridge::future::FutureState;
use callbridge::{Bridge, DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use std::future::Future;
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn token() -> CancelToken {
    CancelToken::current().unwrap()
}

/// A call that runs until it is told to stop, and then until it is released.
struct Slow {
    call: ThreadCall<&'static str>,
    begun: tokio::sync::oneshot::Receiver<()>,
    told: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
}

fn slow(pool: &ThreadPool) -> Slow {
    let (began, begun) = tokio::sync::oneshot::channel();
    let (tell, told) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel();
    let call = run_in_executor(pool, move || {
        began.send(()).unwrap();
        token().wait(LONG).unwrap();
        tell.send(()).unwrap();
        let _ = released.recv();
        end.send(()).unwrap();
        "put away"
    });
    Slow { call, begun, told, release, ended }
}

/// C16: cancelled before it begins, it never runs, and the waiter is told at once. C81.
#[test]
fn a_queued_job_is_cancelled_at_once_though_no_thread_is_free() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let mut busy = pool.submit(move || {
        let _ = blocked.recv();
    });
    let census = Census::default();
    let guard = census.guard();
    let mut queued = pool.submit(move || drop(guard));
    assert!(queued.cancel());
    assert!(!queued.cancel(), "asked before");
    assert!(matches!(queued.result(LONG), Err(ResultError::Cancelled)));
    assert_eq!(census.alive(), 0);
    drop(release);
    busy.result(LONG).unwrap();
}

/// C16, C82: a running job is told and its value kept; one that has ended can't be cancelled.
#[test]
fn a_running_job_that_is_cancelled_keeps_its_value() {
    let pool = ThreadPool::builder().build().unwrap();
    let (began, begun) = mpsc::channel();
    let mut job = pool.submit(move || {
        assert!(!token().is_cancelled());
        began.send(()).unwrap();
        token().wait(None).unwrap();
        token().is_cancelled()
    });
    begun.recv_timeout(LONG).unwrap();
    assert!(job.cancel());
    assert_eq!(job.cancel_and_wait(LONG).unwrap(), FutureState::Finished);
    assert!(job.result(LONG).unwrap());
    assert!(pool.submit(|| ()).result(LONG).is_ok());
}

/// A1: the awaiting side is cancelled; the thread sees it and stops early.
/// A44 without abandoning, b27: the await ends after the thread.
#[test]
fn waiting_on_cancel_ends_with_the_thread() {
    block_on(async {
        let pool = ThreadPool::builder().build().unwrap();
        let Slow { call, begun, told, release, ended } = slow(&pool);
        let cancel = CancellationToken::new();
        let waiting_cancel = cancel.clone();
        let waiting = tokio::spawn(async move { call.wait_on_cancel(&waiting_cancel).await });
        begun.await.unwrap();
        cancel.cancel();
        to_thread(move || told.recv_timeout(LONG)).await.unwrap().unwrap();
        assert!(!waiting.is_finished());
        drop(release);
        assert_eq!(waiting.await.unwrap().unwrap(), "put away");
        ended.try_recv().unwrap();
    });
}

/// A44 with abandoning: the await ends before the thread. A2: the thread is told all the same.
/// A45: it completes by itself.
#[test]
fn abandoning_on_cancel_ends_before_the_thread() {
    block_on(async {
        let pool = ThreadPool::builder().build().unwrap();
        let Slow { call, begun, told, release, ended } = slow(&pool);
        let cancel = CancellationToken::new();
        let waiting_cancel = cancel.clone();
        let waiting = tokio::spawn(async move { call.abandon_on_cancel(&waiting_cancel).await });
        begun.await.unwrap();
        cancel.cancel();
        assert!(matches!(waiting.await.unwrap(), Err(ResultError::Cancelled)));
        assert!(ended.try_recv().is_err(), "the thread is still at it");
        told.recv_timeout(LONG).unwrap();
        drop(release);
        ended.recv_timeout(LONG).unwrap();
    });
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    block_on(async {
        let never = CancellationToken::new();
        assert_eq!(to_thread(|| 1).wait_on_cancel(&never).await.unwrap(), 1);
        assert_eq!(to_thread(|| 2).abandon_on_cancel(&never).await.unwrap(), 2);
    });
}

/// A41: cancelled while it is queued, a call gives `Cancelled` and never runs.
#[test]
fn waiting_on_cancel_for_a_queued_call_ends_at_once() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).build().unwrap();
        let Slow { call: busy, begun, release, .. } = slow(&pool);
        begun.await.unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let queued = run_in_executor(&pool, || ());
        let result = queued.wait_on_cancel(&cancel).await;
        assert!(matches!(result, Err(ResultError::Cancelled)));
        drop((busy, release));
    });
}

/// A3: outside of a job there is no token to ask.
#[test]
fn there_is_no_token_outside_a_job() {
    assert!(CancelToken::current().is_none());
    block_on(async { assert!(CancelToken::current().is_none()) });
    let (kept, keep) = mpsc::channel();
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    pool.submit(move || kept.send(token()).unwrap()).result(LONG).unwrap();
    let first = keep.recv_timeout(LONG).unwrap();
    let mut second = pool.submit(|| token().wait(LONG).is_ok());
    assert!(!first.is_cancelled(), "each job has a token of its own");
    second.cancel();
    second.wait(LONG).unwrap();
    assert!(!first.is_cancelled());
}

/// A4: async code that a job runs sees the job's cancel, if the job passes it on.
/// A5: otherwise it is left to finish.
#[test]
fn async_code_below_a_job_sees_its_cancel_when_it_is_passed_on() {
    let event_loop = Loop::multi(2);
    let bridge = event_loop.bridge();
    let pool = ThreadPool::builder().build().unwrap();
    let (began, begun) = mpsc::channel();
    let passing_on = bridge.clone();
    let mut job = pool.submit(move || {
        let mut inner = passing_on.run_coroutine_threadsafe(async move {
            began.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        let canceller = inner.canceller();
        let _hook = token().on_cancel(move || {
            let _ = canceller.cancel();
        });
        inner.result(LONG).unwrap_err().to_string()
    });
    begun.recv_timeout(LONG).unwrap();
    job.cancel();
    assert_eq!(job.result(LONG).unwrap(), ResultError::Cancelled.to_string());

    let (began, begun) = mpsc::channel();
    let (release, released) = tokio::sync::oneshot::channel();
    let mut job = pool.submit(move || {
        let mut inner = bridge.run_coroutine_threadsafe(async move {
            began.send(()).unwrap();
            released.await.unwrap()
        });
        inner.result(LONG).unwrap()
    });
    begun.recv_timeout(LONG).unwrap();
    job.cancel();
    release.send("finished").unwrap();
    assert_eq!(job.result(LONG).unwrap(), "finished");
}

#[test]
fn a_wait_on_the_token_has_a_timeout() {
    let pool = ThreadPool::builder().build().unwrap();
    let waits = || {
        let none = token().wait(Duration::ZERO);
        let some = token().wait(SHORT);
        (none, some, token().wait(Duration::MAX))
    };
    let (began, begun) = mpsc::channel();
    let mut job = pool.submit(move || {
        began.send(()).unwrap();
        waits()
    });
    begun.recv_timeout(LONG).unwrap();
    assert!(matches!(job.result(Duration::from_millis(50)), Err(ResultError::TimedOut { .. })));
    job.cancel();
    let timed_out = Err(WaitError::TimedOut);
    assert_eq!(job.result(LONG).unwrap(), (timed_out, timed_out, Ok(())));
}

#[test]
fn the_token_is_not_waited_for_on_a_loop() {
    let (kept, keep) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let pool = ThreadPool::builder().build().unwrap();
    let mut job = pool.submit(move || {
        kept.send(token()).unwrap();
        blocked.recv().unwrap_err();
    });
    let theirs = keep.recv_timeout(LONG).unwrap();
    assert_eq!(block_on(async { theirs.wait(LONG) }), Err(WaitError::WouldDeadlock));
    // Awaiting is fine, in many tasks at once, and giving up is, too.
    block_on(async {
        assert!(tokio::time::timeout(SHORT, theirs.cancelled()).await.is_err());
        let tasks: Vec<_> = (0..10).map(|_| tokio::spawn(theirs.cancelled())).collect();
        tokio::task::yield_now().await;
        job.cancel();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(theirs.wait(LONG), Ok(()));
    drop(release);
    job.result(LONG).unwrap();
}

/// A thread that is blocked in a read is woken by the function that the job left for that.
#[test]
fn a_wake_function_ends_a_blocked_read() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (began, begun) = tokio::sync::oneshot::channel();
    let read = block_on(async move {
        let mut call = to_thread(move || {
            let other_end = silent.try_clone().unwrap();
            let _hook = token().on_cancel(move || drop(other_end.shutdown(Shutdown::Both)));
            began.send(()).unwrap();
            silent.read(&mut [0; 8])
        });
        begun.await.unwrap();
        call.cancel();
        call.await
    });
    assert_eq!(read.unwrap().unwrap(), 0);
}

#[test]
fn a_wake_function_runs_once_or_not_at_all() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counting = || {
        let runs = Arc::clone(&runs);
        move || {
            runs.fetch_add(1, Ordering::SeqCst);
        }
    };
    let (withdrawn, kept, late) = (counting(), counting(), counting());
    let (began, begun) = mpsc::channel();
    let pool = ThreadPool::builder().build().unwrap();
    let mut job = pool.submit(move || {
        drop(token().on_cancel(withdrawn));
        let panics = token().on_cancel(|| panic!("a wake function of the user's"));
        let kept = token().on_cancel(kept);
        began.send(()).unwrap();
        token().wait(LONG).unwrap();
        let late = token().on_cancel(late);
        drop((panics, kept, late));
    });
    begun.recv_timeout(LONG).unwrap();
    job.cancel();
    job.result(LONG).unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2, "the one that was kept and the one that came late");
}

/// Dropping an awaited call tells its job; dropping a submitted job's future doesn't.
#[test]
fn dropping_the_waiting_side_tells_an_awaited_call_only() {
    let pool = ThreadPool::builder().build().unwrap();
    let (tell, told) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let call = run_in_executor(&pool, move || {
        began.send(()).unwrap();
        tell.send(token().wait(LONG)).unwrap();
    });
    begun.recv_timeout(LONG).unwrap();
    drop(call);
    assert_eq!(told.recv_timeout(LONG).unwrap(), Ok(()));

    let (tell, told) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let job = pool.submit(move || {
        began.send(()).unwrap();
        let _ = blocked.recv();
        tell.send(token().is_cancelled()).unwrap();
    });
    begun.recv_timeout(LONG).unwrap();
    drop(job);
    drop(release);
    assert!(!told.recv_timeout(LONG).unwrap());
}

/// A close that reaches its deadline tells the jobs, and those that listen end in time.
#[test]
fn close_tells_running_jobs_at_its_deadline() {
    let (began, begun) = mpsc::channel();
    let pool = ThreadPool::builder().build().unwrap();
    let pooled = began.clone();
    let mut job = pool.submit(move || {
        pooled.send(()).unwrap();
        token().wait(LONG)
    });
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(())).result(LONG).unwrap();
    let mut call = thread.submit(move |()| {
        began.send(()).unwrap();
        token().wait(LONG)
    });
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    for report in [pool.close_blocking(SHORT), thread.close_blocking(SHORT)] {
        assert!(report.is_clean(), "{report}");
    }
    assert_eq!(job.result(LONG).unwrap(), Ok(()));
    assert_eq!(call.result(LONG).unwrap(), Ok(()));
}

/// A40, G22: cancelling the outer await reaches the async work below a blocked thread.
#[test]
fn a_cancel_travels_through_a_blocked_thread() {
    let event_loop = Loop::multi(2);
    let census = Census::default();
    let guard = census.guard();
    let (began, begun) = mpsc::channel();
    let mut outer = event_loop.bridge().run_coroutine_threadsafe(async move {
        to_thread(move || {
            let mut inner = Bridge::current().run_coroutine_threadsafe(async move {
                let _guard = guard;
                began.send(()).unwrap();
                std::future::pending::<()>().await;
            });
            let canceller = inner.canceller();
            let _hook = token().on_cancel(move || {
                let _ = canceller.cancel();
            });
            let _ = inner.wait(LONG);
        })
        .await
    });
    begun.recv_timeout(LONG).unwrap();
    assert_eq!(outer.cancel_and_wait(LONG).unwrap(), FutureState::Cancelled);
    let start = std::time::Instant::now();
    while census.alive() > 0 {
        assert!(start.elapsed() < LONG);
        thread::yield_now();
    }
}

/// A helper that works for a job isn't left behind by it.
#[test]
fn waits_on_a_token_end_with_the_job() {
    let census = Census::default();
    let guard = census.guard();
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (began, begun) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let mut job = pool.submit(move || {
        let token = token();
        let hook = token.on_cancel(move || drop(guard));
        began.send((token, hook)).unwrap();
        let _ = blocked.recv();
    });
    let (theirs, _hook) = begun.recv_timeout(LONG).unwrap();
    let waiting = theirs.clone();
    let helper = thread::spawn(move || waiting.wait(None));
    block_on(async {
        let task = tokio::spawn(theirs.cancelled());
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(release);
        task.await.unwrap();
    });
    assert_eq!(helper.join().unwrap(), Ok(()));
    job.result(LONG).unwrap();
    assert!(!theirs.is_cancelled(), "nobody asked");
    assert_eq!(census.alive(), 0, "its hooks are withdrawn");
    job.cancel();
    drop(theirs.on_cancel(|| unreachable!("the job is over")));
    assert_eq!(theirs.wait(Duration::ZERO), Ok(()));
}

/// A waker of somebody's own executor that is broken.
struct Broken;

impl Wake for Broken {
    fn wake(self: Arc<Self>) {
        panic!("a broken waker");
    }
}

/// A job that has entered a broken waker first and a wake function second, which it waits for.
fn job_with_a_broken_waker(
    pool: &ThreadPool,
) -> (callbridge::BlockingFuture<()>, mpsc::Receiver<()>) {
    let (raise, raised) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let call = pool.submit(move || {
        let token = token();
        let mut cancelled = pin!(token.cancelled());
        let broken = Waker::from(Arc::new(Broken));
        assert!(cancelled.as_mut().poll(&mut Context::from_waker(&broken)).is_pending());
        let (woken, wait) = mpsc::channel();
        let _hook = token.on_cancel(move || {
            raise.send(()).unwrap();
            let _ = woken.send(());
        });
        began.send(()).unwrap();
        let _ = wait.recv_timeout(LONG);
    });
    begun.recv_timeout(LONG).unwrap();
    (call, raised)
}

#[test]
fn a_broken_waker_keeps_no_cancel_hook_from_running() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (mut call, raised) = job_with_a_broken_waker(&pool);
    assert!(call.cancel());
    raised.recv_timeout(LONG).unwrap();
    call.result(LONG).unwrap();
    let (_call, raised) = job_with_a_broken_waker(&pool);
    let _late = pool.close_blocking(Duration::ZERO);
    raised.recv_timeout(LONG).unwrap();
    assert!(pool.close_blocking(LONG).is_clean());
}
