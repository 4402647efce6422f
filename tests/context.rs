//! Where blocking is refused, and where it is allowed: every row of the context matrix.

use callbridge::{Bridge, ResultError, ReturnWhen, WaitError, as_completed, wait};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::LocalSet;

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Allowed,
}

use Verdict::{Allowed, Refused};

/// What a wait says that would have to block: on a call that never ends, in the place under test.
fn verdict() -> Verdict {
    let elsewhere = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::builder(elsewhere.handle().clone()).max_in_flight(1).build();
    let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    let verdict = match never.result(SHORT) {
        Err(ResultError::WouldDeadlock) => Refused,
        Err(ResultError::TimedOut { .. }) => Allowed,
        other => panic!("{other:?}"),
    };
    // Every other way to block agrees.
    let full = bridge.run_coroutine_threadsafe_timeout(async {}, SHORT).unwrap_err();
    assert_eq!(
        matches!(full, callbridge::SubmitError::WouldDeadlock(_)),
        verdict == Refused,
        "a submission that waits for room: {full:?}"
    );
    let waited = wait(std::slice::from_mut(&mut never), SHORT, ReturnWhen::AllCompleted);
    assert_eq!(waited.is_err(), verdict == Refused, "wait");
    let late = as_completed([never], SHORT).next().unwrap().unwrap_err();
    assert_eq!(late.why == WaitError::WouldDeadlock, verdict == Refused, "as_completed");
    let (sender, stream) = callbridge::channel(1);
    sender.try_send(1).unwrap();
    let send = sender.send_timeout(2, SHORT).unwrap_err();
    assert_eq!(
        matches!(send, callbridge::SendTimeoutError::WouldDeadlock(_)),
        verdict == Refused,
        "a send that waits for room: {send:?}"
    );
    drop(stream);
    elsewhere.shutdown_background();
    verdict
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn both_flavours() -> [Runtime; 2] {
    [current_thread(), multi_thread()]
}

#[test]
fn plain_thread() {
    assert_eq!(verdict(), Allowed);
}

#[test]
fn plain_thread_under_enter() {
    for runtime in both_flavours() {
        let _context = runtime.enter();
        assert_eq!(verdict(), Allowed);
    }
}

#[test]
fn spawned_task() {
    for runtime in both_flavours() {
        let task = runtime.spawn(async { verdict() });
        assert_eq!(runtime.block_on(task).unwrap(), Refused);
    }
}

#[test]
fn call_submitted_through_a_bridge() {
    let multi = multi_thread();
    let mut call =
        Bridge::new(multi.handle().clone()).run_coroutine_threadsafe(async { verdict() });
    assert_eq!(call.result(LONG).unwrap(), Refused);
    let current = current_thread();
    let call = Bridge::new(current.handle().clone()).run_coroutine_threadsafe(async { verdict() });
    assert_eq!(current.block_on(call).unwrap(), Refused);
}

#[test]
fn callback_of_call_soon_threadsafe() {
    let runtime = multi_thread();
    let (said, heard) = mpsc::channel();
    let bridge = Bridge::new(runtime.handle().clone());
    bridge.call_soon_threadsafe(move || said.send(verdict()).unwrap()).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), Refused);
}

#[test]
fn root_of_block_on() {
    for runtime in both_flavours() {
        assert_eq!(runtime.block_on(async { verdict() }), Refused);
    }
}

#[test]
fn root_of_handle_block_on_on_a_plain_thread() {
    for runtime in both_flavours() {
        let handle = runtime.handle().clone();
        let thread = thread::spawn(move || handle.block_on(async { verdict() }));
        assert_eq!(thread.join().unwrap(), Refused);
    }
}

#[test]
fn root_of_handle_block_on_inside_spawn_blocking() {
    for runtime in both_flavours() {
        let task = runtime.spawn(async {
            let handle = Handle::current();
            let blocking = move || handle.block_on(async { verdict() });
            tokio::task::spawn_blocking(blocking).await.unwrap()
        });
        assert_eq!(runtime.block_on(task).unwrap(), Refused);
    }
}

#[test]
fn root_whose_budget_is_used_up() {
    for runtime in both_flavours() {
        runtime.block_on(async {
            while tokio::task::coop::has_budget_remaining() {
                let _ = std::pin::pin!(tokio::task::coop::consume_budget())
                    .as_mut()
                    .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
            }
            assert_eq!(verdict(), Refused);
        });
    }
}

#[test]
fn local_set_root_and_task() {
    for runtime in both_flavours() {
        let local = LocalSet::new();
        let verdicts = local.block_on(&runtime, async {
            let task = tokio::task::spawn_local(async { verdict() });
            (verdict(), task.await.unwrap())
        });
        assert_eq!(verdicts, (Refused, Refused));
    }
}

#[test]
fn spawn_blocking() {
    for runtime in both_flavours() {
        let task = runtime.spawn_blocking(verdict);
        assert_eq!(runtime.block_on(task).unwrap(), Allowed);
    }
}

#[test]
fn block_in_place_in_a_task_in_a_call_and_in_a_root() {
    let runtime = multi_thread();
    let task = runtime.spawn(async { tokio::task::block_in_place(verdict) });
    assert_eq!(runtime.block_on(task).unwrap(), Allowed);
    let bridge = Bridge::new(runtime.handle().clone());
    let mut call = bridge.run_coroutine_threadsafe(async { tokio::task::block_in_place(verdict) });
    assert_eq!(call.result(LONG).unwrap(), Allowed);
    assert_eq!(runtime.block_on(async { tokio::task::block_in_place(verdict) }), Allowed);
}

/// Waits where its future is dropped.
struct WaitsInDrop(mpsc::Sender<Verdict>);

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        let _ = self.0.send(verdict());
    }
}

#[test]
fn destructor_of_a_call_while_its_runtime_is_dropped() {
    for (flavour, runtime) in both_flavours().into_iter().enumerate() {
        let (said, heard) = mpsc::channel();
        let waits = WaitsInDrop(said);
        let bridge = Bridge::new(runtime.handle().clone());
        let (began, begun) = mpsc::channel();
        let call = bridge.run_coroutine_threadsafe(async move {
            let _waits = waits;
            began.send(()).unwrap();
            std::future::pending::<()>().await;
        });
        if flavour == 0 {
            runtime.block_on(tokio::task::yield_now());
        }
        begun.recv_timeout(LONG).unwrap();
        drop(runtime);
        assert_eq!(heard.recv_timeout(LONG).unwrap(), Refused);
        drop(call);
    }
}

/// tokio's probes say nothing here, and nor does the budget: the row that the docs name as one that
/// can't be told. The wait ends by its timeout.
#[test]
fn destructor_of_a_tokio_task_while_a_current_thread_runtime_is_dropped() {
    let runtime = current_thread();
    let (said, heard) = mpsc::channel();
    let waits = WaitsInDrop(said);
    runtime.spawn(async move {
        let _waits = waits;
        std::future::pending::<()>().await;
    });
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), Allowed);
}

#[test]
fn a_result_that_is_there_is_given_everywhere() {
    for runtime in both_flavours() {
        runtime.block_on(async {
            let elsewhere = multi_thread();
            let bridge = Bridge::new(elsewhere.handle().clone());
            let (ended, end) = mpsc::channel();
            let mut call = bridge.run_coroutine_threadsafe(async { 42 });
            call.add_done_callback(move |_| ended.send(()).unwrap());
            end.recv_timeout(LONG).unwrap();
            assert_eq!(call.result(None).unwrap(), 42);
            elsewhere.shutdown_background();
        });
    }
}

#[test]
fn zero_timeouts_never_block_so_they_are_answered_everywhere() {
    let runtime = multi_thread();
    runtime.block_on(async {
        let mut never = Bridge::current().run_coroutine_threadsafe(std::future::pending::<()>());
        let error = never.result(Duration::ZERO).unwrap_err();
        assert!(matches!(error, ResultError::TimedOut { .. }), "{error:?}");
    });
}

#[test]
fn a_submission_that_would_block_the_loop_is_refused() {
    for runtime in both_flavours() {
        runtime.block_on(async {
            let bridge = Bridge::builder(Handle::current()).max_in_flight(1).build();
            let first = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
            let mut second = bridge.run_coroutine_threadsafe(async { 2 });
            assert!(matches!(second.result(None), Err(ResultError::WouldDeadlock)));
            assert_eq!(bridge.stats().refused, 1);
            drop(first);
        });
    }
}

#[test]
fn the_check_leaves_the_budget_as_it_was() {
    let runtime = multi_thread();
    let steps = |check: bool| {
        runtime.block_on(async move {
            if check {
                verdict();
            }
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let mut steps = 0;
            while let std::task::Poll::Ready(permit) = tokio::task::coop::poll_proceed(&mut context)
            {
                permit.made_progress();
                steps += 1;
            }
            steps
        })
    };
    assert_eq!(steps(true), steps(false));
}

// Rows that only `worker_index` tells, which tokio has since 1.54.

/// Whether this thread is known to be a worker.
fn known_as_worker() -> bool {
    #[allow(unused_imports, reason = "tokio before 1.54 has nothing of use here")]
    use tokio::runtime::*;
    worker_index().is_some()
}

/// Takes the place of tokio's own before 1.54.
#[allow(dead_code, reason = "tokio since 1.54 has its own")]
fn worker_index() -> Option<usize> {
    None
}

/// Whether this tokio knows its workers; says so where it doesn't.
fn workers_are_known(row: &str) -> bool {
    let runtime = multi_thread();
    let known = runtime.block_on(runtime.spawn(async { known_as_worker() })).unwrap();
    if !known {
        println!("skipped: tokio before 1.54 has no worker_index, which alone tells {row}");
    }
    known
}

#[test]
fn task_that_opted_out_of_the_budget() {
    if !workers_are_known("a task that opted out of the budget") {
        return;
    }
    for runtime in both_flavours() {
        let task = runtime.spawn(tokio::task::coop::unconstrained(async { verdict() }));
        assert_eq!(runtime.block_on(task).unwrap(), Refused);
    }
}

#[test]
fn root_of_a_current_thread_block_on_that_opted_out_of_the_budget() {
    if !workers_are_known("a current-thread root that opted out of the budget") {
        return;
    }
    let runtime = current_thread();
    let root = tokio::task::coop::unconstrained(async { verdict() });
    assert_eq!(runtime.block_on(root), Refused);
}

#[test]
fn destructor_of_a_tokio_task_while_a_multi_thread_runtime_is_dropped() {
    if !workers_are_known("a destructor that a worker runs at its runtime's end") {
        return;
    }
    let runtime = multi_thread();
    let (said, heard) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let waits = WaitsInDrop(said);
    runtime.spawn(async move {
        let _waits = waits;
        began.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    begun.recv_timeout(LONG).unwrap();
    drop(runtime);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), Refused);
}

#[test]
fn hook_of_a_worker_that_is_about_to_sleep() {
    if !workers_are_known("a hook that a worker runs before it sleeps") {
        return;
    }
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let (said, heard) = mpsc::channel();
        let first = AtomicBool::new(true);
        let once = move || {
            if first.swap(false, Ordering::Relaxed) {
                said.send(verdict()).unwrap();
            }
        };
        let runtime = builder.worker_threads(1).on_thread_park(once).enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::sleep(SHORT).await });
        assert_eq!(heard.recv_timeout(LONG).unwrap(), Refused);
    }
}
