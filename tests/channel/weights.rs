//! Frames that weigh.

use crate::overflow::{Losses, drain};
use crate::*;
use callbridge::channel::{SendError, Sent};
use callbridge::{Overflow, channel};

/// b53. Swift: one item of weight 3 counts as 3.
#[test]
fn weights_and_slots_must_both_have_room() {
    let (sender, mut frames) =
        channel::builder().capacity(3).weigh(|frame: &usize| *frame, 10).build().unwrap();
    sender.try_send(6).unwrap();
    assert_eq!(sender.try_send(5), Err(SendError::Full(5)));
    sender.try_send(4).unwrap();
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    sender.try_send(0).unwrap();
    assert_eq!(sender.try_send(0), Err(SendError::Full(0)), "no slot left");
    assert_eq!(frames.try_recv(), Ok(6));
    sender.try_send(6).unwrap();
    assert_balanced(&frames.stats());
}

#[test]
fn a_frame_that_can_never_fit_is_handed_back_and_counted_as_lost() {
    let losses = Losses::default();
    let log = Arc::clone(&losses);
    let (sender, frames) = channel::builder()
        .weigh(|frame: &usize| *frame, 10)
        .on_loss(move |loss| log.lock().unwrap().push((*loss.frame, loss.reason)))
        .build()
        .unwrap();
    assert_eq!(sender.send(11), Err(SendError::TooHeavy(11)));
    assert_eq!(sender.try_send(usize::MAX), Err(SendError::TooHeavy(usize::MAX)));
    let stats = frames.stats();
    assert_eq!((stats.lost.too_heavy, stats.refused, stats.offered), (2, 0, 2));
    assert_eq!(losses.lock().unwrap().len(), 2);
    assert_balanced(&stats);
}

#[test]
fn weights_that_add_up_past_the_largest_number_do_not_wrap() {
    let (sender, mut frames) =
        channel::builder().weigh(|frame: &usize| *frame, usize::MAX).build().unwrap();
    sender.try_send(usize::MAX).unwrap();
    assert_eq!(sender.try_send(usize::MAX), Err(SendError::Full(usize::MAX)));
    assert_eq!(drain(&mut frames).len(), 1);
    sender.try_send(1).unwrap();
}

#[test]
fn the_room_that_a_send_reports_knows_the_budget() {
    let (sender, mut frames) =
        channel::builder().capacity(3).weigh(|frame: &usize| *frame, 4).build().unwrap();
    assert_eq!(sender.send(3), Ok(Sent::Queued { remaining: 1 }));
    assert_eq!(sender.send(1), Ok(Sent::Queued { remaining: 0 }));
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    assert_eq!(drain(&mut frames), [3, 1]);
    assert_eq!(sender.send(0), Ok(Sent::Queued { remaining: 2 }));
}

#[test]
fn one_heavy_frame_evicts_as_many_light_ones_as_it_takes() {
    let losses = Losses::default();
    let log = Arc::clone(&losses);
    let (sender, mut frames) = channel::builder()
        .weigh(|frame: &usize| *frame, 10)
        .overflow(Overflow::DropOldest)
        .on_loss(move |loss| log.lock().unwrap().push((*loss.frame, loss.reason)))
        .build()
        .unwrap();
    for frame in [1, 2, 3, 4] {
        sender.send(frame).unwrap();
    }
    assert_eq!(sender.send(6), Ok(Sent::Evicted(1)));
    let evicted: Vec<_> = losses.lock().unwrap().iter().map(|(frame, _)| *frame).collect();
    assert_eq!(evicted, [1, 2, 3]);
    assert_eq!(drain(&mut frames), [4, 6]);
    assert_eq!(frames.stats().lost.evicted, 3);
    assert_balanced(&frames.stats());
}

#[test]
fn a_heavy_frame_in_line_is_not_overtaken_by_light_ones() {
    let (sender, mut frames) =
        channel::builder().capacity(8).weigh(|frame: &usize| *frame, 10).build().unwrap();
    sender.send(7).unwrap();
    sender.send(2).unwrap();
    let mut heavy = sender.send_async(9);
    assert!(poll_once(&mut heavy).is_pending());
    assert_eq!(sender.try_send(1), Err(SendError::Full(1)));
    let mut light = sender.send_async(1);
    assert!(poll_once(&mut light).is_pending());
    assert_eq!(drain(&mut frames), [7, 2, 9, 1]);
    assert!(poll_once(&mut heavy).is_ready() && poll_once(&mut light).is_ready());
}

#[test]
fn a_heavy_frame_that_gives_up_lets_the_light_one_behind_it_in() {
    let (sender, mut frames) =
        channel::builder().capacity(8).weigh(|frame: &usize| *frame, 10).build().unwrap();
    sender.send(7).unwrap();
    let mut heavy = sender.send_async(9);
    assert!(poll_once(&mut heavy).is_pending());
    let mut light = sender.send_async(1);
    assert!(poll_once(&mut light).is_pending());
    drop(heavy);
    assert!(poll_once(&mut light).is_ready());
    assert_eq!(drain(&mut frames), [7, 1]);
    assert_eq!(frames.stats().lost.send_cancelled, 1);
}

#[test]
fn a_weigh_function_that_panics_makes_the_frame_too_heavy() {
    let (sender, frames) = channel::builder()
        .weigh(|frame: &u32| if *frame == 13 { panic!("bad luck") } else { 1 }, 10)
        .build()
        .unwrap();
    assert_eq!(sender.send(13), Err(SendError::TooHeavy(13)));
    sender.send(1).unwrap();
    assert_balanced(&frames.stats());
}

#[test]
fn a_frame_that_cannot_be_weighed_is_too_heavy_for_any_budget() {
    let weigh = |frame: &u32| if *frame == 13 { panic!("bad luck") } else { 1 };
    let (sender, frames) = channel::builder().weigh(weigh, usize::MAX).build().unwrap();
    assert_eq!(sender.try_send(13), Err(SendError::TooHeavy(13)));
    assert_eq!(frames.stats().lost.too_heavy, 1);
}
