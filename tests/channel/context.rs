//! Where a sender and a blocking consumer may wait.

use crate::*;
use callbridge::WaitError;
use callbridge::channel;
use callbridge::channel::{LossReason, RecvError, SendError};
use std::cell::RefCell;

/// Every blocking call on a thread that drives a loop is refused with its frame, and works there
/// as long as it needn't wait.
fn refused_here() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Err(SendError::WouldDeadlock(2)));
    assert_eq!(sender.send_timeout(3, LIMIT), Err(SendError::WouldDeadlock(3)));
    let zero = Duration::ZERO;
    assert_eq!(sender.send_timeout(3, zero), Err(SendError::TimedOut(3)));
    assert_eq!(sender.closed(LIMIT), Err(WaitError::WouldDeadlock));
    sender.callback()(4);
    assert_eq!(sender.stats().lost.would_deadlock, 1);
    assert_eq!(frames.recv_blocking(None), Ok(1));
    assert_eq!(frames.recv_blocking(LIMIT), Err(RecvError::WouldDeadlock));
    assert_eq!(frames.recv_blocking(zero), Err(RecvError::TimedOut));
    let stats = sender.stats();
    assert_eq!((stats.refused, stats.blocked.count), (3, 0));
    assert_balanced(&stats);
}

/// Blocking is free here: a full channel is waited for.
fn allowed_here() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    let consumer = {
        let sender = sender.clone();
        std::thread::spawn(move || {
            until_parked(&sender, 1);
            let first = frames.recv_blocking(LIMIT);
            (first, frames)
        })
    };
    sender.send(2).unwrap();
    let (first, mut frames) = consumer.join().unwrap();
    assert_eq!((first, frames.recv_blocking(LIMIT)), (Ok(1), Ok(2)));
    let short = Duration::from_millis(1);
    assert_eq!(frames.recv_blocking(short), Err(RecvError::TimedOut));
    assert_eq!(sender.closed(short), Err(WaitError::TimedOut));
}

/// b126. tokio's `blocking_send` panics there, with room or without.
#[test]
fn waiting_is_refused_in_a_task_and_in_the_root_of_a_loop() {
    for runtime in runtimes() {
        within(move || {
            runtime.block_on(async { refused_here() });
            runtime.block_on(async { tokio::spawn(async { refused_here() }).await.unwrap() });
        });
    }
}

/// b126
#[test]
fn waiting_is_free_where_it_blocks_no_loop() {
    within(allowed_here);
    for runtime in runtimes() {
        let allowed = async { tokio::task::spawn_blocking(allowed_here).await.unwrap() };
        runtime.block_on(async { tokio::time::timeout(LIMIT, allowed).await.unwrap() });
        within(move || {
            let _entered = runtime.enter();
            allowed_here();
        });
    }
    within(|| {
        let [_, runtime] = runtimes();
        let allowed = async { tokio::task::block_in_place(allowed_here) };
        runtime.block_on(async { tokio::spawn(allowed).await.unwrap() });
    });
}

#[test]
fn the_loss_hook_sees_a_callback_that_must_not_wait() {
    let (report, losses) = mpsc::channel();
    let (sender, _frames) = channel::builder()
        .capacity(1)
        .on_loss(move |loss: callbridge::channel::Loss<'_, u8>| {
            report.send((*loss.frame, loss.reason)).unwrap();
        })
        .build()
        .unwrap();
    let callback = sender.callback();
    within(move || {
        let [runtime, _] = runtimes();
        runtime.block_on(async {
            callback(1);
            callback(2);
        });
    });
    assert_eq!(losses.try_recv(), Ok((2, LossReason::WouldDeadlock)));
    assert!(losses.try_recv().is_err());
}

#[test]
fn a_sender_works_in_a_destructor_of_a_thread_local() {
    struct AtExit(Option<Sender<u32>>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                sender.send(1).unwrap();
                sender.send(2).unwrap();
                sender.send(3).unwrap();
            }
        }
    }
    std::thread_local! {
        static AT_EXIT: RefCell<AtExit> = const { RefCell::new(AtExit(None)) };
    }
    let (sender, mut frames) = channel(1);
    let weak = sender.downgrade();
    let thread = std::thread::spawn(move || AT_EXIT.with_borrow_mut(|slot| slot.0 = Some(sender)));
    assert_eq!(frames.recv_blocking(LIMIT), Ok(1));
    assert_eq!(frames.recv_blocking(LIMIT), Ok(2));
    assert_eq!(frames.recv_blocking(LIMIT), Ok(3));
    thread.join().unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_sender_works_while_its_thread_unwinds() {
    struct LastWords(Sender<u32>);
    impl Drop for LastWords {
        fn drop(&mut self) {
            self.0.send(1).unwrap();
            self.0.send(2).unwrap();
        }
    }
    let (sender, mut frames) = channel(1);
    let words = LastWords(sender);
    let thread = std::thread::spawn(move || {
        let _words = words;
        panic!("the source's own fault");
    });
    assert_eq!(frames.recv_blocking(LIMIT), Ok(1));
    assert_eq!(frames.recv_blocking(LIMIT), Ok(2));
    assert!(thread.join().is_err());
    assert_eq!(frames.recv_blocking(LIMIT), Err(RecvError::Ended));
    assert_eq!(frames.ending(), Some(callbridge::channel::Ending::Panicked));
}
