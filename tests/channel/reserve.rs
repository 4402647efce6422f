//! Room before there is a frame.

use crate::*;
use callbridge::Overflow;
use callbridge::channel::{self, SendError, Sent};

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn a_slot_that_is_reserved_is_nobody_elses() {
    let (sender, mut frames) = channel::channel(2);
    let permit = sender.reserve(None).unwrap();
    assert_eq!(sender.len(), 0);
    assert_eq!(sender.try_send(1), Ok(Sent::Queued { remaining: 0 }));
    assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
    assert_eq!(sender.reserve(AT_ONCE).unwrap_err(), SendError::TimedOut(()));
    assert_eq!(permit.send(3), Ok(Sent::Queued { remaining: 0 }));
    assert_eq!((frames.try_recv(), frames.try_recv()), (Ok(1), Ok(3)));
    let stats = frames.stats();
    assert_balanced(&stats);
    assert_eq!((stats.offered, stats.refused, stats.high_water), (3, 1, 2));
}

#[test]
fn a_permit_that_is_dropped_gives_its_slot_to_the_next_in_line() {
    let (sender, mut frames) = channel::channel(1);
    let permit = sender.reserve(None).unwrap();
    let mut waiting = sender.send_async(1);
    assert!(poll_once(&mut waiting).is_pending());
    assert!(frames.try_recv().is_err());
    drop(permit);
    assert!(poll_once(&mut waiting).is_ready());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(sender.stats().waiting, 0);
}

#[test]
fn reservations_and_frames_stand_in_one_line() {
    let (sender, mut frames) = channel::channel(1);
    sender.send(0).unwrap();
    let mut first = sender.reserve_async();
    let mut second = sender.send_async(2);
    let mut third = sender.reserve_async();
    assert!(poll_once(&mut first).is_pending());
    assert!(poll_once(&mut second).is_pending());
    assert!(poll_once(&mut third).is_pending());
    assert_eq!(sender.stats().waiting, 3);
    assert_eq!(frames.try_recv(), Ok(0));
    let Poll::Ready(Ok(permit)) = poll_once(&mut first) else { panic!("the first has its slot") };
    assert!(poll_once(&mut second).is_pending());
    permit.send(1).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(poll_once(&mut second).is_ready());
    assert!(poll_once(&mut third).is_pending());
    assert_eq!(frames.try_recv(), Ok(2));
    assert!(matches!(poll_once(&mut third), Poll::Ready(Ok(_))));
}

#[test]
fn a_reservation_that_is_given_up_holds_nobody_up() {
    let (sender, mut frames) = channel::channel(1);
    sender.send(0).unwrap();
    // Given up in line, and given up after it was served.
    for served in [false, true] {
        let mut given_up = sender.reserve_async();
        assert!(poll_once(&mut given_up).is_pending());
        let mut waiting = sender.send_async(1);
        assert!(poll_once(&mut waiting).is_pending());
        if served {
            assert_eq!(frames.try_recv(), Ok(1));
            assert!(poll_once(&mut waiting).is_pending());
            drop(given_up);
        } else {
            drop(given_up);
            assert_eq!(frames.try_recv(), Ok(0));
        }
        assert!(poll_once(&mut waiting).is_ready());
    }
    assert_eq!(sender.reserve(Duration::from_millis(1)).unwrap_err(), SendError::TimedOut(()));
    assert_eq!(sender.stats().waiting, 0);
    assert_balanced(&sender.stats());
}

#[test]
fn a_thread_waits_for_its_slot_and_sends_into_it() {
    within(|| {
        let (sender, mut frames) = channel::channel(1);
        sender.send(0).unwrap();
        let source = {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for frame in 1..100 {
                    sender.reserve(None).unwrap().send(frame).unwrap();
                }
            })
        };
        until_parked(&sender, 1);
        drop(sender);
        for frame in 0..100 {
            assert_eq!(frames.recv_blocking(None), Ok(frame));
        }
        source.join().unwrap();
    });
}

#[test]
fn the_end_releases_who_waits_and_refuses_what_is_sent_later() {
    let (sender, frames) = channel::channel(2);
    sender.send(0).unwrap();
    let permit = sender.reserve(None).unwrap();
    let mut waiting = sender.reserve_async();
    assert!(poll_once(&mut waiting).is_pending());
    drop(frames);
    assert_eq!(poll_once(&mut waiting).map(Result::unwrap_err), Poll::Ready(SendError::Closed(())));
    drop(waiting);
    assert_eq!(permit.send(1), Err(SendError::Closed(1)));
    assert_eq!(sender.reserve(None).unwrap_err(), SendError::Closed(()));
    let stats = sender.stats();
    assert_balanced(&stats);
    assert_eq!((stats.offered, stats.refused, stats.waiting), (2, 1, 0));
}

#[test]
fn what_evicts_leaves_reserved_slots_alone() {
    let (sender, mut frames) =
        channel::builder().capacity(2).overflow(Overflow::DropOldest).build().unwrap();
    let permit = sender.reserve(None).unwrap();
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Ok(Sent::Evicted(1)));
    permit.send(3).unwrap();
    assert_eq!((frames.try_recv(), frames.try_recv()), (Ok(2), Ok(3)));

    let (sender, mut frames) = channel::builder().overflow(Overflow::Latest).build().unwrap();
    let permit = sender.reserve(None).unwrap();
    assert_eq!(sender.send(1), Ok(Sent::Dropped(1)), "nothing to evict");
    permit.send(2).unwrap();
    assert_eq!(sender.reserve(AT_ONCE).unwrap_err(), SendError::TimedOut(()), "waits, evicts not");
    assert_eq!(frames.try_recv(), Ok(2));
    assert_balanced(&frames.stats());
}

#[test]
fn a_permit_reserves_a_slot_and_no_weight() {
    let (sender, mut frames) =
        channel::builder().capacity(4).weigh(|weight: &usize| *weight, 4).build().unwrap();
    let [first, second, third] = [(); 3].map(|()| sender.reserve(None).unwrap());
    sender.send(3).unwrap();
    assert_eq!(first.send(2), Err(SendError::Full(2)));
    assert_eq!(second.send(5), Err(SendError::TooHeavy(5)));
    assert!(third.send(1).is_ok());
    assert_eq!((frames.try_recv(), frames.try_recv()), (Ok(3), Ok(1)));
    assert!((0..4).all(|_| sender.try_send(1).is_ok()), "all slots are back");
    assert_balanced(&frames.stats());
}

#[test]
fn an_unbounded_channel_always_has_room() {
    let (sender, _frames) = channel::builder().overflow(Overflow::Unbounded).build().unwrap();
    let permits: Vec<_> = (0..100).map(|_| sender.reserve(AT_ONCE).unwrap()).collect();
    for permit in permits {
        assert_eq!(permit.send(1), Ok(Sent::Queued { remaining: usize::MAX }));
    }
}

#[test]
fn reserving_is_refused_on_a_loop_where_it_would_wait() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel::channel(1);
        runtime.block_on(async {
            sender.reserve(LIMIT).unwrap().send(1).unwrap();
            assert_eq!(sender.reserve(LIMIT).unwrap_err(), SendError::WouldDeadlock(()));
            assert_eq!(sender.send(2), Err(SendError::WouldDeadlock(2)));
            let (permit, first) = tokio::join!(sender.reserve_async(), frames.recv());
            permit.unwrap().send(3).unwrap();
            assert_eq!((first, frames.recv().await), (Some(1), Some(3)));
        });
    }
}
