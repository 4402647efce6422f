//! A process that ends with everything still at work; each test runs its body in a child of its
//! own.

use crate::child::in_a_child;
use crate::common::{LONG, Loop};
use crate::until;
use callbridge::listener::{Listener, UdpSource};
use callbridge::{Bridge, Overflow, channel};
use std::cell::RefCell;
use std::future::pending;
use std::mem::forget;
use std::thread;

/// b63, b80. Node: a bridge that nobody refers to, with items pending, and one that was leaked,
/// keep no process from its end.
#[test]
fn what_is_pending_or_leaked_keeps_no_process_alive() {
    in_a_child("exit::what_is_pending_or_leaked_keeps_no_process_alive", || {
        let (bounded, frames) = channel::channel(1);
        let source = bounded.clone();
        thread::spawn(move || (0..).all(|frame| source.send(frame).is_ok()));
        until("a parked sender", || bounded.stats().waiting == 1);

        let (unbounded, more_frames) =
            channel::builder().overflow(Overflow::Unbounded).build().unwrap();
        thread::spawn(move || (0_u64..).all(|frame| unbounded.send(frame).is_ok()));
        until("frames in the queue", || more_frames.len() > 100);

        let runtime = Loop::multi(1);
        let bridge = Bridge::builder(runtime.handle()).max_in_flight(1).build().unwrap();
        let mut call = bridge.run_coroutine_threadsafe(pending::<()>());
        thread::spawn(move || call.result(None));
        let submitter = bridge.clone();
        thread::spawn(move || submitter.run_coroutine_threadsafe(async {}).result(None));

        let source = UdpSource::bind("127.0.0.1:0").unwrap();
        forget(Listener::builder(source).spawn().unwrap());
        // The unbounded one is dropped, lest its source fill the memory.
        drop(more_frames);
        forget((bounded, frames, bridge, runtime));
    });
}

/// b76. napi-rs: two bridges in one process, both dropped while it ends.
#[test]
fn two_bridges_may_go_while_their_thread_ends() {
    std::thread_local! {
        static AT_EXIT: RefCell<Vec<Bridge>> = const { RefCell::new(Vec::new()) };
    }
    in_a_child("exit::two_bridges_may_go_while_their_thread_ends", || {
        let runtimes = Loop::both();
        let mut calls = Vec::new();
        for runtime in &runtimes {
            let bridge = runtime.bridge();
            assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(LONG).unwrap(), 1);
            calls.push(bridge.run_coroutine_threadsafe(pending::<()>()));
            AT_EXIT.with_borrow_mut(|bridges| bridges.push(bridge));
        }
        // Only the thread's own destructors drop them now, on the way out of the process.
        forget((runtimes, calls));
    });
}
