//! The bridge from the submission to the result: limit, tasks, calls that their thread polls, and every end.

use super::*;
use crate::future::{ReturnWhen, SubmitError};
use crate::sync::model::drop_loop;
use crate::{BlockingFuture, Bridge, FrameStream, ResultError, as_completed, channel};
use shuttle::future::{block_on, yield_now};
use shuttle::thread::{self, JoinHandle};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_millis(1);

fn bridge(limit: usize) -> Bridge {
    Bridge::builder(handle()).max_in_flight(limit).spin_before_park(maybe()).build().unwrap()
}

/// What suspended calls wait for, opened by a foreign thread.
#[derive(Clone, Default)]
struct Gate(Arc<shuttle::sync::Mutex<(bool, Vec<Waker>)>>);

impl Gate {
    fn open(&self) {
        let mut gate = self.0.lock().unwrap();
        gate.0 = true;
        let wakers = std::mem::take(&mut gate.1);
        drop(gate);
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn opened(&self) {
        std::future::poll_fn(|cx| {
            let mut gate = self.0.lock().unwrap();
            if gate.0 {
                return Poll::Ready(());
            }
            gate.1.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Work of one of all kinds; its value is dropped once, whatever happens.
async fn work(value: Counted, gate: Gate, bridge: Bridge) -> Counted {
    match any(7) {
        0 => {}
        1 => yield_now().await,
        2 => gate.opened().await,
        3 => {
            gate.opened().await;
            yield_now().await;
        }
        4 => std::future::pending().await,
        // Woken, and waiting again: for the end only.
        5 => {
            gate.opened().await;
            std::future::pending().await
        }
        _ => {
            // Never awaited in vain: refused at once, or it ends with the bridge.
            if let Ok(call) = bridge.try_run_coroutine_threadsafe(yield_now()) {
                let _ = call.await;
            }
        }
    }
    value
}

/// Submits a call in one of all ways; notes in the tally what becomes of it.
fn submit(bridge: &Bridge, gate: &Gate, tally: &Tally) -> Option<BlockingFuture<Counted>> {
    let value = tally.make();
    let id = value.id;
    let future = work(value, gate.clone(), bridge.clone());
    let submitted = match any(3) {
        0 => Some(bridge.run_coroutine_threadsafe(future)),
        1 => bridge.try_run_coroutine_threadsafe(future).ok(),
        _ => match bridge.run_coroutine_threadsafe_timeout(future, SOON) {
            Ok(call) => Some(call),
            Err(SubmitError::TimedOut(_) | SubmitError::Closed(_)) => None,
            Err(error) => panic!("{error}"),
        },
    };
    match &submitted {
        Some(call) => {
            let tally = tally.clone();
            call.add_done_callback(move |state| tally.note(id, name(state)));
        }
        None => tally.note(id, "refused"),
    }
    submitted
}

/// Polls a call on this thread in one of all ways; notes in the tally what becomes of it.
fn call(bridge: &Bridge, gate: &Gate, tally: &Tally) {
    let value = tally.make();
    let id = value.id;
    let future = work(value, gate.clone(), bridge.clone());
    let result = match any(4) {
        0 => bridge.call(future, Duration::ZERO),
        1 => bridge.call(future, SOON),
        2 => bridge.call(future, None),
        _ => {
            let token = CancellationToken::new();
            let cancelled = token.clone();
            let other = thread::spawn(move || cancelled.cancel());
            let result = bridge.call_until_cancelled(&token, future, None);
            other.join().unwrap();
            result
        }
    };
    tally.note(
        id,
        match result {
            Ok(_) => "finished",
            Err(ResultError::LoopClosed) => "loop closed",
            Err(ResultError::TimedOut { state: FutureState::NoRoom }) => "refused",
            // An end of the future's own: its thread has given it up.
            Err(ResultError::Cancelled | ResultError::TimedOut { .. }) => "cancelled",
            Err(error) => panic!("{error}"),
        },
    );
}

/// Leaves a callback on the loop; notes in the tally what becomes of it.
fn call_soon(bridge: &Bridge, tally: &Tally) {
    let value = tally.make();
    let (id, ran) = (value.id, tally.clone());
    let callback = move || {
        ran.note(value.id, "finished");
    };
    let accepted = match maybe() {
        true => bridge.call_soon_threadsafe(callback),
        false => bridge.try_call_soon_threadsafe(callback),
    };
    if accepted.is_err() {
        tally.note(id, "refused");
    }
}

/// Waits in one of all ways, or gives the call up.
fn wait(mut call: BlockingFuture<Counted>) {
    let result = match any(7) {
        0 => call.result(None),
        1 => match call.result(SOON) {
            Err(ResultError::TimedOut { .. }) => call.result(None),
            result => result,
        },
        2 => {
            call.cancel();
            call.result(None)
        }
        3 => match call.cancel_and_wait(None) {
            Ok(_) => call.try_result().unwrap(),
            Err(error) => Err(error),
        },
        4 => block_on(call),
        5 => {
            let canceller = call.canceller();
            let other = thread::spawn(move || canceller.cancel());
            let result = call.result(None);
            other.join().unwrap();
            result
        }
        _ if maybe() => return drop(call.cancel_on_drop()),
        _ => return,
    };
    match result {
        Ok(_) | Err(ResultError::Cancelled | ResultError::LoopClosed) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Waits for some of the calls together before each is seen to.
fn wait_for_all(mut calls: Vec<BlockingFuture<Counted>>) {
    match any(4) {
        0 => {
            let (_, not_done) = crate::wait(&mut calls, None, ReturnWhen::AllCompleted).unwrap();
            assert!(not_done.is_empty());
        }
        1 => {
            let when = if maybe() { ReturnWhen::FirstCompleted } else { ReturnWhen::FirstError };
            drop(crate::wait(&mut calls, SOON, when).unwrap());
        }
        2 => {
            let ended = as_completed(std::mem::take(&mut calls), None);
            // Done, or given up.
            calls.extend(ended.map(Result::unwrap));
        }
        _ => {}
    }
    calls.into_iter().for_each(wait);
}

/// Ends the bridge or its loop in one of all ways.
fn end(bridge: &Bridge) {
    match any(3) {
        0 => drop(bridge.close_blocking(SOON)),
        1 => drop(block_on(bridge.close(SOON))),
        _ => drop_loop(),
    }
}

/// The counters agree with what became of the calls that were submitted from outside.
fn assert_ended(bridge: &Bridge, tally: &Tally) {
    let stats = bridge.stats();
    assert!(stats.balances(), "{stats:?}");
    assert_eq!(stats.in_flight, 0, "{stats:?}");
    assert!(stats.cancelled as usize >= tally.count("cancelled"), "{stats:?}");
    assert!(stats.finished as usize >= tally.count("finished"), "{stats:?}");
    let closed = (stats.loop_closed + stats.refused) as usize;
    assert!(closed >= tally.count("loop closed") + tally.count("refused"), "{stats:?}");
    tally.assert_settled();
}

#[test]
fn every_call_ends_once_however_the_bridge_ends() {
    check(|| {
        let (tally, gate, limit) = (Tally::default(), Gate::default(), 1 + any(3));
        let bridge = bridge(limit);
        let threads = [(); 2].map(|()| {
            let (bridge, gate, tally) = (bridge.clone(), gate.clone(), tally.clone());
            thread::spawn(move || {
                let calls = [(); 2].map(|()| submit(&bridge, &gate, &tally));
                if maybe() {
                    call(&bridge, &gate, &tally);
                }
                wait_for_all(calls.into_iter().flatten().collect());
            })
        });
        let opener = thread::spawn(move || gate.open());
        let ender = {
            let bridge = bridge.clone();
            thread::spawn(move || end(&bridge))
        };
        threads.into_iter().chain([opener, ender]).for_each(|thread| thread.join().unwrap());
        drop_loop();
        assert!(bridge.stats().high_water <= limit);
        assert_ended(&bridge, &tally);
    });
}

/// Nobody ends the bridge before every answer is there: no call may need the end to be found, and
/// no submitter whose time is up may take another's wake with it.
#[test]
fn every_call_is_answered_while_the_bridge_is_open() {
    check(|| {
        let gate = Gate::default();
        let bridge = bridge(1 + any(3));
        let threads = [(); 3].map(|()| {
            let (bridge, gate) = (bridge.clone(), gate.clone());
            thread::spawn(move || {
                for answer in 0..2 {
                    let gate = gate.clone();
                    let (waits, yields) = (maybe(), maybe());
                    let future = async move {
                        if waits {
                            gate.opened().await;
                        }
                        if yields {
                            yield_now().await;
                        }
                        answer
                    };
                    let call = match any(4) {
                        0 => bridge.run_coroutine_threadsafe_timeout(future, SOON).ok(),
                        1 => {
                            assert_eq!(bridge.call(future, None).unwrap(), answer);
                            None
                        }
                        _ => Some(bridge.run_coroutine_threadsafe(future)),
                    };
                    if let Some(mut call) = call {
                        assert_eq!(call.result(None).unwrap(), answer);
                    }
                }
            })
        });
        gate.open();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let stats = bridge.stats();
        assert_eq!((stats.finished + stats.refused, stats.in_flight), (6, 0), "{stats:?}");
        // What watches the loop leaves with the bridge.
        drop(bridge);
        crate::sync::model::wait_for_tasks();
    });
}

/// The order isn't looked at: the model's loop runs its tasks at once, as one with many workers does.
#[test]
fn every_callback_that_is_accepted_runs_unless_the_loop_dies() {
    check(|| {
        let tally = Tally::default();
        let bridge = bridge(1 + any(2));
        let callers = [(); 2].map(|()| {
            let (bridge, tally) = (bridge.clone(), tally.clone());
            thread::spawn(move || (0..2).for_each(|_| call_soon(&bridge, &tally)))
        });
        let way = any(3);
        let ender = {
            let bridge = bridge.clone();
            thread::spawn(move || match way {
                0 => drop_loop(),
                1 => drop(bridge.close_blocking(Duration::MAX)),
                _ => drop(block_on(bridge.close(Duration::MAX))),
            })
        };
        callers.into_iter().chain([ender]).for_each(|thread| thread.join().unwrap());
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        assert_eq!(stats.finished as usize, tally.count("finished"), "{stats:?}");
        assert_eq!(stats.refused as usize, tally.count("refused"), "{stats:?}");
        tally.assert_gone();
        if way > 0 {
            assert_eq!(stats.loop_closed, 0, "{stats:?}");
            drop(bridge);
            crate::sync::model::wait_for_tasks();
        }
    });
}

fn relay(bridge: &Bridge, mut frames: FrameStream<Counted>) -> JoinHandle<usize> {
    let bridge = bridge.clone();
    thread::spawn(move || {
        let mut call = bridge.run_coroutine_threadsafe(async move {
            let mut count = 0;
            while let Some(frame) = frames.recv().await {
                frame.became("read");
                count += 1;
            }
            count
        });
        call.result(None).unwrap_or(usize::MAX)
    })
}

/// Calls that read a channel, fed by a foreign thread that asks the same loop for each frame.
#[test]
fn a_call_that_reads_a_channel_ends_with_the_source_or_the_loop() {
    check(|| {
        let tally = Tally::default();
        let bridge = bridge(2 + any(2));
        let (sender, frames) = channel(1);
        let reader = relay(&bridge, frames);
        let source = {
            let (bridge, tally) = (bridge.clone(), tally.clone());
            thread::spawn(move || {
                let mut sent = 0;
                for _ in 0..2 {
                    let frame = tally.make();
                    let Ok(frame) = bridge.run_coroutine_threadsafe(async { frame }).result(None)
                    else {
                        continue;
                    };
                    match sender.send(frame) {
                        Ok(_) => sent += 1,
                        Err(error) => drop(error.into_inner()),
                    }
                }
                sent
            })
        };
        let ends = maybe();
        let ender = {
            let bridge = bridge.clone();
            thread::spawn(move || {
                if ends {
                    end(&bridge);
                }
            })
        };
        let (read, sent) = (reader.join().unwrap(), source.join().unwrap());
        ender.join().unwrap();
        if !ends {
            assert_eq!((read, sent), (2, 2));
        }
        if read != usize::MAX {
            assert_eq!((read, tally.count("read")), (sent, sent));
        }
        drop_loop();
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        tally.assert_gone();
    });
}
