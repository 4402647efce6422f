//! Model checks of calls, over the real core: its suspended calls, its end, and who waits for it.
//!
//! Each task has a thread of its own, on which it is polled whenever it is woken, and dropped. That
//! a task is woken while it waits to be polled shows as a wake that comes before its thread sleeps.

use super::core::Timings;
use super::task::Task;
use super::*;
use crate::future::{BlockingFuture, Origin, ResultError, SubmitError, promise_of};
use crate::sync::{Began, Deadline, Monitor, park_until};
use loom::thread::{self, JoinHandle};
use std::future::{Future, pending};
use std::panic::Location;
use std::pin::pin;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// A core whose loop is loom's threads; the runtime only gives it a handle.
fn core(limit: usize) -> Arc<Core> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().build().unwrap());
    Core::new(Bridge::builder(RUNTIME.handle().clone()).max_in_flight(limit), Timings::none())
}

fn submit<F>(core: &Arc<Core>, future: F) -> BlockingFuture<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let submitted = core.admit(Deadline::Never).unwrap();
    core.start(future, Location::caller(), submitted)
}

fn call<F: Future>(core: &Core, future: F) -> Result<F::Output, ResultError> {
    core.call(future, Deadline::Never, None, Location::caller())
}

/// What a call waits for.
#[derive(Clone)]
struct Gate(Arc<Monitor<bool>>);

impl Gate {
    fn new() -> Self {
        Gate(Arc::new(Monitor::new(false)))
    }

    fn open_on_thread(&self) -> JoinHandle<()> {
        let gate = self.clone();
        thread::spawn(move || gate.0.change(|open| *open = true))
    }

    async fn opened(&self) {
        self.0.until(|open| open.then_some(())).await;
    }
}

fn assert_closed<T: fmt::Debug>(result: Result<T, ResultError>) {
    assert!(matches!(result, Err(ResultError::LoopClosed)), "{result:?}");
}

/// Nothing is in flight, and every call is counted.
fn assert_ended(core: &Core, calls: u64) {
    let stats = core.stats();
    assert!(stats.balances(), "{stats:?}");
    assert_eq!((stats.submitted, stats.in_flight), (calls, 0), "{stats:?}");
}

#[test]
fn a_suspended_call_is_released_by_an_abort() {
    loom::model(|| {
        let core = core(1);
        let mut waiting = submit(&core, pending::<()>());
        core.abort();
        assert_closed(waiting.result(None));
        assert_ended(&core, 1);
    });
}

/// Between its wake and its poll a call is known to nobody but the loop.
#[test]
fn a_call_that_is_woken_at_the_moment_of_an_abort_is_released() {
    loom::model(|| {
        let (core, gate) = (core(1), Gate::new());
        let mut waiting = {
            let gate = gate.clone();
            submit(&core, async move {
                gate.opened().await;
                pending::<()>().await;
            })
        };
        let opener = gate.open_on_thread();
        core.abort();
        assert_closed(waiting.result(None));
        opener.join().unwrap();
        assert_ended(&core, 1);
    });
}

#[test]
fn a_cancel_reaches_a_call_that_suspends() {
    loom::model(|| {
        let core = core(1);
        let mut waiting = submit(&core, pending::<()>());
        assert!(waiting.cancel());
        assert!(matches!(waiting.result(None), Err(ResultError::Cancelled)));
        assert_ended(&core, 1);
    });
}

#[test]
fn a_cancel_races_the_suspension_and_the_end() {
    loom::model(|| {
        let (core, gate) = (core(1), Gate::new());
        let mut waiting = {
            let gate = gate.clone();
            submit(&core, async move { gate.opened().await })
        };
        let opener = gate.open_on_thread();
        let asked = waiting.cancel();
        match waiting.result(None) {
            Ok(()) => {}
            Err(error) => assert!(asked && matches!(error, ResultError::Cancelled), "{error}"),
        }
        opener.join().unwrap();
        assert_ended(&core, 1);
    });
}

/// A cancel looks for a call under its old place, where the next one may stand.
#[test]
fn a_late_cancel_does_no_harm_to_the_next_call() {
    loom::model(|| {
        let (core, gate) = (core(2), Gate::new());
        let waiting = submit(&core, pending::<()>());
        let canceller = waiting.canceller();
        let cancels = thread::spawn(move || canceller.cancel());
        let mut next = {
            let gate = gate.clone();
            submit(&core, async move { gate.opened().await })
        };
        gate.0.change(|open| *open = true);
        assert!(next.result(None).is_ok());
        cancels.join().unwrap();
    });
}

#[test]
fn a_cancel_and_an_abort_race_for_a_call() {
    loom::model(|| {
        let core = core(1);
        let mut waiting = submit(&core, pending::<()>());
        let aborter = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.abort())
        };
        waiting.cancel();
        let ended = waiting.result(None);
        assert!(matches!(ended, Err(ResultError::Cancelled | ResultError::LoopClosed)));
        aborter.join().unwrap();
        assert_ended(&core, 1);
    });
}

#[test]
fn close_waits_until_the_result_is_there_and_its_callback_has_run() {
    loom::model(|| {
        let core = core(1);
        let mut ready = submit(&core, async { 7 });
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        ready.add_done_callback(move |_| {
            counted.fetch_add(1, SeqCst);
        });
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        assert_eq!(runs.load(SeqCst), 1);
        match ready.try_result() {
            // The close may have come before the first poll: it drains what is in flight, though.
            Some(result) => assert_eq!(result.unwrap(), 7),
            None => panic!("in flight after the close"),
        }
        assert_ended(&core, 1);
    });
}

#[test]
fn the_last_of_two_calls_wakes_whoever_closes() {
    loom::model(|| {
        let core = core(2);
        let calls = [1, 2].map(|n| submit(&core, async move { n }));
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        for (call, n) in calls.into_iter().zip(1..) {
            assert_eq!({ call }.try_result().unwrap().unwrap(), n);
        }
        assert_ended(&core, 2);
    });
}

#[test]
fn a_close_and_an_end_race_for_who_waits_for_room() {
    loom::model(|| {
        let core = core(1);
        let mut first = submit(&core, async { 1 });
        let submitter = {
            let core = Arc::clone(&core);
            thread::spawn(move || match core.admit(Deadline::Never) {
                Ok(_) => {
                    core.end(None, None, Began::UNMEASURED);
                    core.settled();
                }
                Err(refused) => assert!(matches!(refused, SubmitError::Closed(())), "{refused:?}"),
            })
        };
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        assert_eq!(first.try_result().unwrap().unwrap(), 1);
        submitter.join().unwrap();
        assert!(core.stats().balances());
        assert!(matches!(core.admit(Deadline::Now), Err(SubmitError::Closed(()))));
    });
}

/// Polls two calls that are ready at once, one after the other, as far as they are admitted.
fn first_polls_on_thread(core: &Arc<Core>) -> JoinHandle<()> {
    let core = Arc::clone(core);
    thread::spawn(move || {
        let polls = core.first_polls(Location::caller()).unwrap();
        let mut slot = Box::pin(None);
        for n in [1, 2] {
            match polls.call_or_start(|| async move { n }, &mut slot) {
                Ok(Polled::Ready(outcome)) => assert_eq!(outcome.unwrap(), n),
                Ok(Polled::Started(_)) => unreachable!("it is ready"),
                Err(SubmitError::Closed(()) | SubmitError::Full(())) => {}
                Err(refused) => unreachable!("{refused:?}"),
            }
        }
    })
}

#[test]
fn calls_that_are_ready_at_once_leave_their_room_to_who_waits_for_it() {
    loom::model(|| {
        let core = core(1);
        let polls = first_polls_on_thread(&core);
        core.admit(Deadline::Never).unwrap();
        core.end(None, None, Began::UNMEASURED);
        core.settled();
        polls.join().unwrap();
        assert!(core.stats().balances());
        assert!(core.is_idle());
    });
}

#[test]
fn a_close_waits_for_calls_that_are_ready_at_once() {
    loom::model(|| {
        let core = core(2);
        let polls = first_polls_on_thread(&core);
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        let ended = core.stats().ended();
        polls.join().unwrap();
        assert_eq!(core.stats().ended(), ended, "nothing begins behind a close");
        assert!(core.stats().balances());
    });
}

/// Room that comes when the time is up is taken, or was never given.
#[test]
fn a_submitter_that_is_late_leaves_no_call_behind() {
    loom::model(|| {
        let deadline = Deadline::after(Duration::from_nanos(1));
        while !deadline.passed() {}
        let core = core(1);
        let mut first = submit(&core, async { 1 });
        match core.admit(deadline) {
            Ok(_) => {
                core.end(None, None, Began::UNMEASURED);
                core.settled();
            }
            Err(refused) => assert!(matches!(refused, SubmitError::TimedOut(()))),
        }
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        assert_eq!(first.try_result().unwrap().unwrap(), 1);
        assert!(core.stats().balances());
    });
}

#[test]
fn a_close_releases_who_waits_for_room_in_vain() {
    loom::model(|| {
        let core = core(1);
        core.admit(Deadline::Now).unwrap();
        let submitter = {
            let core = Arc::clone(&core);
            thread::spawn(move || core.admit(Deadline::Never))
        };
        core.begin_close();
        assert!(matches!(submitter.join().unwrap(), Err(SubmitError::Closed(()))));
    });
}

#[test]
fn an_abort_releases_a_call_that_its_thread_polls() {
    loom::model(|| {
        let (core, gate) = (core(1), Gate::new());
        let caller = {
            let (core, gate) = (Arc::clone(&core), gate.clone());
            thread::spawn(move || {
                assert_closed(call(&core, async {
                    gate.opened().await;
                    pending::<()>().await;
                }));
            })
        };
        let opener = gate.open_on_thread();
        core.abort();
        core.wait_idle(Deadline::Never).unwrap();
        caller.join().unwrap();
        opener.join().unwrap();
        assert!(core.stats().balances());
    });
}

#[test]
fn a_close_waits_for_a_call_that_its_thread_polls() {
    loom::model(|| {
        let (core, gate) = (core(1), Gate::new());
        let caller = {
            let (core, gate) = (Arc::clone(&core), gate.clone());
            thread::spawn(move || call(&core, gate.opened()))
        };
        let opener = gate.open_on_thread();
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        assert_eq!(core.limiter.in_use(), 0);
        match caller.join().unwrap() {
            Ok(()) => assert_ended(&core, 1),
            refused => assert_closed(refused),
        }
        opener.join().unwrap();
    });
}

#[test]
fn another_thread_cancels_a_call_that_its_thread_polls() {
    loom::model(|| {
        let core = core(1);
        let token = CancellationToken::new();
        let cancels = {
            let token = token.clone();
            thread::spawn(move || token.cancel())
        };
        let place = Location::caller();
        let cancelled = core.call(pending::<()>(), Deadline::Never, Some(&token), place);
        assert!(matches!(cancelled, Err(ResultError::Cancelled)));
        cancels.join().unwrap();
        assert_ended(&core, 1);
    });
}

#[test]
fn a_done_callback_runs_once_however_late_it_comes() {
    loom::model(|| {
        let core = core(1);
        let call = submit(&core, async {});
        let runs = Arc::new(AtomicUsize::new(0));
        let callbacks = [(); 2].map(|()| {
            let runs = Arc::clone(&runs);
            move |state| {
                assert_eq!(state, crate::future::FutureState::Finished);
                runs.fetch_add(1, SeqCst);
            }
        });
        callbacks.into_iter().for_each(|callback| call.add_done_callback(callback));
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        assert_eq!(runs.load(SeqCst), 2);
    });
}

/// The loop holds the task and never polls it again.
#[test]
fn whoever_waits_is_released_when_the_call_is_given_up() {
    loom::model(|| {
        let core = core(1);
        core.admit(Deadline::Now).unwrap();
        let (promise, mut waiting) = promise_of(Arc::clone(&core) as Arc<dyn Origin>);
        let task = Task::new(pending::<()>(), promise, Began::UNMEASURED, Location::caller());
        let waiter = thread::spawn(move || {
            assert_closed(waiting.result(None));
            waiting
        });
        core.give_up();
        let mut waiting = waiter.join().unwrap();
        // The loop goes at last.
        drop(task);
        assert_closed(waiting.result(None));
        assert_ended(&core, 1);
    });
}

#[test]
fn a_task_that_awaits_a_call_is_released_when_it_is_given_up() {
    loom::model(|| {
        let core = core(1);
        core.admit(Deadline::Now).unwrap();
        let (promise, waiting) = promise_of::<()>(Arc::clone(&core) as Arc<dyn Origin>);
        let awaiter = thread::spawn(move || {
            let mut waiting = pin!(waiting);
            let ended = park_until(Deadline::Never, |cx| waiting.as_mut().poll(cx));
            assert_closed(ended.unwrap());
        });
        core.give_up();
        awaiter.join().unwrap();
        drop(promise);
    });
}

/// A task that its runtime drops releases whoever waits for it.
#[test]
fn the_drop_of_a_task_races_a_cancel_and_a_close() {
    loom::model(|| {
        let core = core(1);
        core.admit(Deadline::Now).unwrap();
        let (promise, mut waiting) = promise_of(Arc::clone(&core) as Arc<dyn Origin>);
        let task = Task::new(pending::<()>(), promise, Began::UNMEASURED, Location::caller());
        let runtime = thread::spawn(move || drop(task));
        waiting.cancel();
        core.begin_close();
        core.wait_idle(Deadline::Never).unwrap();
        let ended = waiting.try_result().unwrap();
        assert!(matches!(ended, Err(ResultError::Cancelled | ResultError::LoopClosed)));
        runtime.join().unwrap();
        assert_ended(&core, 1);
    });
}

/// The task that watches the loop ends with the last bridge: loom waits for it.
#[test]
fn the_watch_ends_with_the_last_bridge() {
    loom::model(|| {
        let core = core(1);
        core.watch_loop();
        core.release();
    });
}
