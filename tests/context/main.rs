//! Where blocking is refused, and where it is allowed: every row of the context matrix, for
//! every method of the crate that blocks.

mod methods;

use callbridge::{Bridge, ResultError};
use methods::Verdict::{Allowed, Refused};
use methods::{LONG, METHODS, Place, SHORT, Verdict};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::LocalSet;

/// The methods that don't say in this place what is expected there; an empty list.
fn odd(expected: Verdict) -> Vec<&'static str> {
    let place = Place { expected };
    let odd = METHODS.iter().filter(|(_, method)| method(&place) != expected);
    odd.map(|(name, _)| *name).collect()
}

const NONE: [&str; 0] = [];

pub(crate) fn current_thread() -> Runtime {
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
    assert_eq!(odd(Allowed), NONE);
}

#[test]
fn plain_thread_under_enter() {
    for runtime in both_flavours() {
        let _context = runtime.enter();
        assert_eq!(odd(Allowed), NONE);
    }
}

#[test]
fn spawned_task() {
    for runtime in both_flavours() {
        let task = runtime.spawn(async { odd(Refused) });
        assert_eq!(runtime.block_on(task).unwrap(), NONE);
    }
}

#[test]
fn call_submitted_through_a_bridge() {
    let multi = multi_thread();
    let mut call =
        Bridge::new(multi.handle().clone()).run_coroutine_threadsafe(async { odd(Refused) });
    assert_eq!(call.result(LONG).unwrap(), NONE);
    let current = current_thread();
    let call =
        Bridge::new(current.handle().clone()).run_coroutine_threadsafe(async { odd(Refused) });
    assert_eq!(current.block_on(call).unwrap(), NONE);
}

#[test]
fn callback_of_call_soon_threadsafe() {
    let runtime = multi_thread();
    let (said, heard) = mpsc::channel();
    let bridge = Bridge::new(runtime.handle().clone());
    bridge.call_soon_threadsafe(move || said.send(odd(Refused)).unwrap()).unwrap();
    assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
}

#[test]
fn root_of_block_on() {
    for runtime in both_flavours() {
        assert_eq!(runtime.block_on(async { odd(Refused) }), NONE);
    }
}

#[test]
fn root_of_handle_block_on_on_a_plain_thread() {
    for runtime in both_flavours() {
        let handle = runtime.handle().clone();
        let thread = thread::spawn(move || handle.block_on(async { odd(Refused) }));
        assert_eq!(thread.join().unwrap(), NONE);
    }
}

#[test]
fn root_of_handle_block_on_inside_spawn_blocking() {
    for runtime in both_flavours() {
        let task = runtime.spawn(async {
            let handle = Handle::current();
            let blocking = move || handle.block_on(async { odd(Refused) });
            tokio::task::spawn_blocking(blocking).await.unwrap()
        });
        assert_eq!(runtime.block_on(task).unwrap(), NONE);
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
            assert_eq!(odd(Refused), NONE);
        });
    }
}

#[test]
fn local_set_root_and_task() {
    for runtime in both_flavours() {
        let local = LocalSet::new();
        let verdicts = local.block_on(&runtime, async {
            let task = tokio::task::spawn_local(async { odd(Refused) });
            (odd(Refused), task.await.unwrap())
        });
        assert_eq!(verdicts, (vec![], vec![]));
    }
}

#[test]
fn spawn_blocking() {
    for runtime in both_flavours() {
        let task = runtime.spawn_blocking(|| odd(Allowed));
        assert_eq!(runtime.block_on(task).unwrap(), NONE);
    }
}

#[test]
fn block_in_place_in_a_task_in_a_call_and_in_a_root() {
    let runtime = multi_thread();
    let task = runtime.spawn(async { tokio::task::block_in_place(|| odd(Allowed)) });
    assert_eq!(runtime.block_on(task).unwrap(), NONE);
    let bridge = Bridge::new(runtime.handle().clone());
    let mut call =
        bridge.run_coroutine_threadsafe(async { tokio::task::block_in_place(|| odd(Allowed)) });
    assert_eq!(call.result(LONG).unwrap(), NONE);
    assert_eq!(runtime.block_on(async { tokio::task::block_in_place(|| odd(Allowed)) }), NONE);
}

/// Waits where its future is dropped.
struct WaitsInDrop(mpsc::Sender<Vec<&'static str>>, Verdict);

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        let _ = self.0.send(odd(self.1));
    }
}

#[test]
fn destructor_of_a_call_while_its_runtime_is_dropped() {
    for (flavour, runtime) in both_flavours().into_iter().enumerate() {
        let (said, heard) = mpsc::channel();
        let waits = WaitsInDrop(said, Refused);
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
        assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
        drop(call);
    }
}

/// tokio's probes say nothing here, and nor does the budget: the row that the docs name as one that
/// can't be told. The wait ends by its timeout.
#[test]
fn destructor_of_a_tokio_task_while_a_current_thread_runtime_is_dropped() {
    let runtime = current_thread();
    let (said, heard) = mpsc::channel();
    let waits = WaitsInDrop(said, Allowed);
    runtime.spawn(async move {
        let _waits = waits;
        std::future::pending::<()>().await;
    });
    runtime.block_on(tokio::task::yield_now());
    drop(runtime);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
}

/// What a future that its caller polls does there, it would do on the loop.
#[test]
fn future_of_a_call_on_the_callers_thread() {
    for runtime in both_flavours() {
        let bridge = Bridge::new(runtime.handle().clone());
        assert_eq!(bridge.call(async { odd(Refused) }, LONG).unwrap(), NONE);
        let later = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            odd(Refused)
        };
        if runtime.handle().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread {
            assert_eq!(bridge.call(later, LONG).unwrap(), NONE);
        }
        assert_eq!(odd(Allowed), NONE, "afterwards");
    }
}

#[test]
fn destructor_of_a_future_that_its_caller_drops() {
    let runtime = multi_thread();
    let (said, heard) = mpsc::channel();
    let waits = WaitsInDrop(said, Refused);
    let body = async move {
        let _waits = waits;
        pending::<()>().await;
    };
    let late = Bridge::new(runtime.handle().clone()).call(body, SHORT);
    assert!(matches!(late, Err(ResultError::TimedOut { .. })));
    assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
}

#[test]
fn destructor_of_a_call_that_is_cancelled_closed_or_ends() {
    for how in ["cancelled", "closed", "ends"] {
        let runtime = multi_thread();
        let (said, heard) = mpsc::channel();
        let waits = WaitsInDrop(said, Refused);
        let bridge = Bridge::new(runtime.handle().clone());
        let call = bridge.run_coroutine_threadsafe(async move {
            let _waits = waits;
            if how != "ends" {
                pending::<()>().await;
            }
        });
        match how {
            "cancelled" => drop(call.cancel_on_drop()),
            "closed" => drop(bridge.close_blocking(SHORT)),
            _ => drop(call),
        }
        assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE, "{how}");
    }
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
            let bridge = Bridge::builder(Handle::current()).max_in_flight(1).build().unwrap();
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
                odd(Refused);
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
        let task = runtime.spawn(tokio::task::coop::unconstrained(async { odd(Refused) }));
        assert_eq!(runtime.block_on(task).unwrap(), NONE);
    }
}

#[test]
fn root_of_a_current_thread_block_on_that_opted_out_of_the_budget() {
    if !workers_are_known("a current-thread root that opted out of the budget") {
        return;
    }
    let runtime = current_thread();
    let root = tokio::task::coop::unconstrained(async { odd(Refused) });
    assert_eq!(runtime.block_on(root), NONE);
}

#[test]
fn destructor_of_a_tokio_task_while_a_multi_thread_runtime_is_dropped() {
    if !workers_are_known("a destructor that a worker runs at its runtime's end") {
        return;
    }
    let runtime = multi_thread();
    let (said, heard) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    let waits = WaitsInDrop(said, Refused);
    runtime.spawn(async move {
        let _waits = waits;
        began.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    begun.recv_timeout(LONG).unwrap();
    drop(runtime);
    assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
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
                said.send(odd(Refused)).unwrap();
            }
        };
        let runtime = builder.worker_threads(1).on_thread_park(once).enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::sleep(SHORT).await });
        assert_eq!(heard.recv_timeout(LONG).unwrap(), NONE);
    }
}
