//! A process that forks: a channel has no threads, so the child has a copy of its own. What feeds or
//! empties the parent's stays in the parent.

use crate::child::in_a_child;
use crate::common::fork::in_a_fork;
use crate::common::tasks::until_all_others_sleep;
use crate::common::{LONG, SHORT};
use crate::*;
use callbridge::channel;
use callbridge::channel::{RecvError, SendError};

#[test]
fn each_process_has_a_channel_of_its_own_after_a_fork() {
    in_a_child("fork::each_process_has_a_channel_of_its_own_after_a_fork", || {
        let (sender, mut frames) = channel(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        in_a_fork(|| {
            assert_eq!(frames.recv_blocking(None), Ok(1), "what is there is given");
            sender.send(3).unwrap();
            assert!(sender.send_timeout(4, SHORT).is_err());
            assert_eq!([frames.recv_blocking(None), frames.recv_blocking(None)], [Ok(2), Ok(3)]);
            let own = sender.clone();
            let source = std::thread::spawn(move || own.send(5).is_ok());
            assert_eq!(frames.recv_blocking(LONG), Ok(5), "its own threads feed it");
            assert!(source.join().unwrap());
            assert_eq!(frames.recv_blocking(SHORT), Err(RecvError::TimedOut));
            assert_balanced(&frames.stats());
            sender.close();
            assert_eq!(frames.recv_blocking(None), Err(RecvError::Ended));
        });
        assert_eq!([frames.recv_blocking(None), frames.recv_blocking(None)], [Ok(1), Ok(2)]);
        sender.send(6).unwrap();
        assert_eq!(frames.recv_blocking(None), Ok(6), "the parent's has noticed nothing");
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_sender_that_waits_in_the_parent_is_served_there_alone() {
    in_a_child("fork::a_sender_that_waits_in_the_parent_is_served_there_alone", || {
        let (sender, mut frames) = channel(1);
        sender.send(1).unwrap();
        let waits = sender.clone();
        let waiting = std::thread::spawn(move || waits.send(2).is_ok());
        until_parked(&sender, 1);
        // A lock that the thread holds at the fork would stay locked in the child.
        until_all_others_sleep();
        in_a_fork(|| {
            // The copy of its frame comes all the same; the thread isn't here to be woken.
            assert_eq!([frames.recv_blocking(LONG), frames.recv_blocking(LONG)], [Ok(1), Ok(2)]);
            frames.close();
            assert!(matches!(sender.send(3), Err(SendError::Closed(3))));
        });
        assert_eq!([frames.recv_blocking(LONG), frames.recv_blocking(LONG)], [Ok(1), Ok(2)]);
        assert!(waiting.join().unwrap());
    });
}
