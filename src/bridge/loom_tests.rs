//! Model checks of the limit and of the run queue.

use super::ledger::{Ledger, Refusal};
use super::run_queue::{Help, Next, RunQueue};
use crate::sync::{Deadline, Woken, with_parker};
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

#[test]
fn a_freed_slot_lets_a_waiting_submitter_in() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(1));
        ledger.try_admit().unwrap();
        let waiting = Arc::clone(&ledger);
        let submitter = thread::spawn(move || {
            waiting.admit(Deadline::Never).unwrap();
            waiting.release(None);
        });
        ledger.release(None);
        submitter.join().unwrap();
        let stats = ledger.stats();
        assert!(stats.balances() && stats.in_flight == 0 && stats.finished == 2);
    });
}

#[test]
fn two_waiting_submitters_and_one_slot_at_a_time() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(1));
        ledger.try_admit().unwrap();
        let submitters = [(); 2].map(|()| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || {
                ledger.admit(Deadline::Never).unwrap();
                assert_eq!(ledger.stats().in_flight, 1);
                ledger.release(None);
            })
        });
        ledger.release(None);
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        assert_eq!(ledger.stats().high_water, 1);
    });
}

#[test]
fn close_releases_every_waiting_submitter() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(1));
        ledger.try_admit().unwrap();
        let submitters = [(); 2].map(|()| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || assert_eq!(ledger.admit(Deadline::Never), Err(Refusal::Closed)))
        });
        ledger.close();
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    });
}

#[test]
fn the_last_release_wakes_whoever_waits_for_the_drain() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(2));
        ledger.try_admit().unwrap();
        ledger.try_admit().unwrap();
        let calls = [(); 2].map(|()| {
            let ledger = Arc::clone(&ledger);
            thread::spawn(move || ledger.release(None))
        });
        ledger.close();
        assert_eq!(ledger.wait_drained(Deadline::Never), 0);
        calls.into_iter().for_each(|call| assert!(call.join().unwrap() < 2));
    });
}

type Queue = RunQueue<usize, ()>;

/// A driver that stays until it was told to leave; adds up what it polled.
fn drive(queue: &Queue, in_flight: impl Fn() -> usize, polled: &AtomicUsize) {
    with_parker(|parker| {
        let Some(driver) = queue.enter() else { return };
        queue.woke(driver);
        loop {
            match queue.next(driver, parker.waker(), |_| (), &in_flight) {
                Next::Poll(item, help) => {
                    give(help);
                    polled.fetch_add(item, SeqCst);
                }
                Next::Sleep => {
                    assert_eq!(parker.park(Deadline::Never), Woken::Notified);
                    queue.woke(driver);
                }
                Next::Leave => return,
            }
        }
    });
}

fn give(help: Help) {
    match help {
        Help::Wake(waker) => waker.wake(),
        Help::Spawn | Help::None => {}
    }
}

/// A cap of one driver, which is there from the start: no push asks for another.
#[test]
fn no_pushed_item_is_left_behind_by_a_driver_that_goes_to_sleep() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, false));
        let polled = Arc::new(AtomicUsize::new(0));
        let driver = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || {
                let left = || usize::from(polled.load(SeqCst) != 3);
                drive(&queue, left, &polled);
            })
        };
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || give(queue.push(1).unwrap()))
        };
        give(queue.push(2).unwrap());
        pusher.join().unwrap();
        queue.abandon().into_iter().for_each(std::task::Waker::wake);
        driver.join().unwrap();
        assert_eq!(polled.load(SeqCst), 3);
    });
}

#[test]
fn an_item_pushed_while_the_queue_dies_is_polled_taken_out_or_given_back() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, false));
        let polled = Arc::new(AtomicUsize::new(0));
        let driver = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || drive(&queue, || 1, &polled))
        };
        let pusher = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || match queue.push(1) {
                Ok(help) => {
                    give(help);
                    0
                }
                Err(item) => item,
            })
        };
        let remains = queue.kill();
        remains.wakers.into_iter().for_each(std::task::Waker::wake);
        let given_back = pusher.join().unwrap();
        driver.join().unwrap();
        assert_eq!(polled.load(SeqCst) + given_back + remains.ready.iter().sum::<usize>(), 1);
    });
}

#[test]
fn suspended_work_is_woken_by_the_queues_death_or_told_of_it() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, false));
        let suspender = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                with_parker(|parker| {
                    if queue.suspend(parker.waker().clone(), ()).is_some() {
                        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
                    }
                });
            })
        };
        queue.kill().wakers.into_iter().for_each(std::task::Waker::wake);
        suspender.join().unwrap();
    });
}
