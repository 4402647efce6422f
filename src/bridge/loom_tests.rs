//! Model checks of the limit and of the run queue.

use super::ledger::{Ledger, Refusal};
use super::run_queue::{From, Help, Next, RunQueue};
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
        let inside = Arc::new(AtomicUsize::new(1));
        ledger.try_admit().unwrap();
        let submitters = [(); 2].map(|()| {
            let (ledger, inside) = (Arc::clone(&ledger), Arc::clone(&inside));
            thread::spawn(move || {
                ledger.admit(Deadline::Never).unwrap();
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                inside.fetch_sub(1, SeqCst);
                ledger.release(None);
            })
        });
        inside.fetch_sub(1, SeqCst);
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
fn a_release_and_a_close_race_for_a_waiting_submitter() {
    loom::model(|| {
        let ledger = Arc::new(Ledger::new(1));
        ledger.try_admit().unwrap();
        let waiting = Arc::clone(&ledger);
        let submitter = thread::spawn(move || match waiting.admit(Deadline::Never) {
            Ok(()) => waiting.release(None),
            Err(refusal) => assert_eq!(refusal, Refusal::Closed),
        });
        let closing = Arc::clone(&ledger);
        let closer = thread::spawn(move || closing.close());
        ledger.release(None);
        submitter.join().unwrap();
        closer.join().unwrap();
        assert_eq!(ledger.wait_drained(Deadline::Never), 0);
        assert!(ledger.stats().balances());
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
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

type Queue = RunQueue<usize, ()>;

/// A driver that stays until it was told to leave; adds up what it polled.
fn drive(queue: &Arc<Queue>, in_flight: &(impl Fn() -> usize + Sync), polled: &Arc<AtomicUsize>) {
    with_parker(|parker| {
        let Some(mut place) = queue.enter(From::Outside) else { return };
        loop {
            match queue.next(&mut place, parker.waker(), || false, |_| (), in_flight) {
                Next::Poll(item, help) => {
                    give(queue, help, polled);
                    polled.fetch_add(item, SeqCst);
                }
                Next::Sleep => assert_eq!(parker.park(Deadline::Never), Woken::Notified),
                Next::Linger => unreachable!("nobody asked for it"),
                Next::Leave => return,
            }
        }
    });
}

/// Does what is to be done; a driver that is asked for leaves when it finds nothing.
fn give(queue: &Arc<Queue>, help: Help, polled: &Arc<AtomicUsize>) {
    match help {
        Help::Wake(waker) => waker.wake(),
        Help::Spawn(from) => {
            let (queue, polled) = (Arc::clone(queue), Arc::clone(polled));
            thread::spawn(move || {
                let Some(mut place) = queue.enter(from) else { return };
                let noop = std::task::Waker::noop();
                while let Next::Poll(item, _) = queue.next(&mut place, noop, || true, |_| (), || 1)
                {
                    polled.fetch_add(item, SeqCst);
                }
            });
        }
        Help::None => {}
    }
}

/// One driver, there from the start.
#[test]
fn no_pushed_item_is_left_behind_by_a_driver_that_goes_to_sleep() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, false));
        let polled = Arc::new(AtomicUsize::new(0));
        ask_for_the_first_driver(&queue);
        let driver = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || {
                let total = Arc::clone(&polled);
                drive(&queue, &move || usize::from(total.load(SeqCst) != 3), &polled);
            })
        };
        let pusher = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || give(&queue, queue.push(1, From::Outside).unwrap(), &polled))
        };
        give(&queue, queue.push(2, From::Outside).unwrap(), &polled);
        pusher.join().unwrap();
        queue.abandon().into_iter().for_each(std::task::Waker::wake);
        driver.join().unwrap();
        assert_eq!(polled.load(SeqCst), 3);
    });
}

/// What the bridge does when it is made: the driver to come counts as notified.
fn ask_for_the_first_driver(queue: &Arc<Queue>) {
    assert!(matches!(queue.first_driver(), Help::Spawn(From::Outside)));
}

#[test]
fn an_item_pushed_while_the_queue_dies_is_polled_taken_out_or_given_back() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(1, false));
        let polled = Arc::new(AtomicUsize::new(0));
        ask_for_the_first_driver(&queue);
        let driver = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || drive(&queue, &|| 1, &polled))
        };
        let pusher = {
            let (queue, polled) = (Arc::clone(&queue), Arc::clone(&polled));
            thread::spawn(move || match queue.push(1, From::Outside) {
                Ok(help) => {
                    give(&queue, help, &polled);
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

/// A second driver steals from the first one's seat what a slow poll keeps waiting.
#[test]
fn an_item_behind_a_slow_poll_is_taken_by_another_driver() {
    loom::model(|| {
        let queue = Arc::new(Queue::new(2, true));
        ask_for_the_first_driver(&queue);
        for item in [1, 2, 3] {
            drop(queue.push(item, From::Outside));
        }
        let mut slow = queue.enter(From::Outside).unwrap();
        let noop = std::task::Waker::noop();
        let first = queue.next(&mut slow, noop, || false, |_| (), || 1);
        assert!(matches!(first, Next::Poll(1, _)));
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut place = queue.enter(From::Outside).unwrap();
                let mut sum = 0;
                while let Next::Poll(item, _) =
                    queue.next(&mut place, std::task::Waker::noop(), || true, |_| (), || 1)
                {
                    sum += item;
                }
                sum
            })
        };
        assert_eq!(other.join().unwrap(), 5);
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
                    if queue.suspend(parker.waker().clone()).is_some() {
                        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
                    }
                });
            })
        };
        queue.kill().wakers.into_iter().for_each(std::task::Waker::wake);
        suspender.join().unwrap();
    });
}
