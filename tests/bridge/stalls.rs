//! The alarm of a bridge: what stalls it is told, and nothing else is.

use crate::common::{LONG, Loop, eventually};
use callbridge::Bridge;
use callbridge::bridge::Stall;
use callbridge::listener::{Listener, UdpSource};
use std::future::pending;
use std::net::UdpSocket;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};

const AFTER: Duration = Duration::from_millis(40);

fn watched(handle: Handle) -> (Bridge, Receiver<Stall>) {
    let (tell, told) = mpsc::channel();
    let hook = move |stall: &Stall| tell.send(stall.clone()).unwrap();
    (Bridge::builder(handle).name("watched").stall_after(AFTER, hook).build().unwrap(), told)
}

fn loop_stall(told: &Receiver<Stall>) -> Duration {
    match told.recv_timeout(LONG).unwrap() {
        stall @ Stall::Loop(waited) => {
            assert_eq!(
                stall.to_string(),
                format!("the loop has begun with nothing for {waited:?}")
            );
            waited
        }
        other => panic!("another stall: {other}"),
    }
}

#[test]
fn a_loop_that_nobody_drives_is_told_once_each_time() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (bridge, told) = watched(runtime.handle().clone());
    for round in 1..=2 {
        let mut call = bridge.run_coroutine_threadsafe(async { 7 });
        assert!(loop_stall(&told) >= AFTER);
        assert!(told.recv_timeout(4 * AFTER).is_err(), "once");
        assert_eq!(bridge.stats().stalls, round);
        // The probe is gone with the call.
        runtime.block_on(async { tokio::task::yield_now().await });
        assert_eq!(call.result(LONG).unwrap(), 7);
    }
}

#[test]
fn a_loop_that_other_work_blocks_is_told() {
    let driven = Loop::current();
    let (bridge, told) = watched(driven.handle());
    let (release, released) = mpsc::channel::<()>();
    driven.handle().spawn(async move { released.recv() });
    let mut call = bridge.run_coroutine_threadsafe(async { 7 });
    loop_stall(&told);
    release.send(()).unwrap();
    assert_eq!(call.result(LONG).unwrap(), 7);
}

#[test]
fn a_poll_that_holds_its_thread_is_told_with_its_place() {
    let driven = Loop::multi(2);
    let (bridge, told) = watched(driven.handle());
    let (release, released) = mpsc::channel::<()>();
    let line = line!() + 1;
    let mut held = bridge.run_coroutine_threadsafe(async move { released.recv().is_ok() });
    let Stall::Poll(call, time) = told.recv_timeout(LONG).unwrap() else { panic!("not the poll") };
    assert_eq!((call.location.file(), call.location.line()), (file!(), line));
    assert!(call.thread.is_some() && time >= AFTER);
    release.send(()).unwrap();
    assert!(held.result(LONG).unwrap());
}

#[test]
fn a_handler_that_holds_the_listeners_thread_is_told_with_the_threads_name() {
    let driven = Loop::multi(1);
    let (bridge, told) = watched(driven.handle());
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let addr = source.local_addr().unwrap();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let line = line!() + 7;
    let listener = Listener::builder(source)
        .name("held")
        .serve(&bridge, move |_: callbridge::listener::Datagram| {
            released.lock().unwrap().recv().unwrap();
            async { Some("y") }
        })
        .spawn()
        .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", addr).unwrap();
    let Stall::Poll(call, _) = told.recv_timeout(LONG).unwrap() else { panic!("not the poll") };
    assert_eq!(call.thread.as_deref(), Some("held"));
    assert_eq!((call.location.file(), call.location.line()), (file!(), line));
    release.send(()).unwrap();
    client.recv(&mut [0; 8]).unwrap();
    assert!(listener.close_blocking(LONG).is_clean());
}

#[test]
fn calls_that_wait_and_an_idle_bridge_are_no_stall() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (idle, told_idle) = watched(runtime.handle().clone());
    let driven = Loop::multi(1);
    let (waiting, told) = watched(driven.handle());
    let _call = waiting.run_coroutine_threadsafe(pending::<()>());
    // Polled here, and parked here.
    assert!(waiting.call(pending::<()>(), 8 * AFTER).is_err());
    assert!(told_idle.try_recv().is_err(), "nothing is in flight");
    let poll = told.try_iter().find(|stall| matches!(stall, Stall::Poll(..)));
    assert!(poll.is_none(), "{poll:?}");
    assert_eq!(idle.stats().stalls, 0);
    assert_eq!(runtime.metrics().num_alive_tasks(), 1, "the watch of the loop, and no probe");
}

#[test]
fn a_loop_that_is_waited_for_again_stalls_anew() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let (bridge, told) = watched(undriven.handle().clone());
    for _ in 0..2 {
        // Polled here, it needs no loop to end.
        assert!(bridge.call(pending::<()>(), 4 * AFTER).is_err());
        assert!(loop_stall(&told) >= AFTER);
        assert!(told.recv_timeout(4 * AFTER).is_err(), "nobody waits for the loop");
    }
}

#[test]
fn polls_in_quick_succession_are_not_taken_for_one() {
    let driven = Loop::multi(1);
    let (bridge, told) = watched(driven.handle());
    let mut busy = bridge.run_coroutine_threadsafe(async {
        for _ in 0..u64::MAX {
            // Each look is to find one of them.
            let began = Instant::now();
            while began.elapsed() < AFTER / 200 {}
            tokio::task::yield_now().await;
        }
    });
    let stall = told.recv_timeout(6 * AFTER);
    assert!(!matches!(stall, Ok(Stall::Poll(..))), "{stall:?}");
    busy.cancel_and_wait(LONG).unwrap();
}

#[test]
fn a_hook_that_panics_is_contained_and_goes_with_its_bridge() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let (tell, told) = mpsc::channel();
    let hook = move |_: &Stall| {
        tell.send(()).unwrap();
        panic!("a bug in a hook");
    };
    let bridge =
        Bridge::builder(runtime.handle().clone()).stall_after(AFTER, hook).build().unwrap();
    for _ in 0..2 {
        let mut call = bridge.run_coroutine_threadsafe(async {});
        told.recv_timeout(LONG).unwrap();
        runtime.block_on(async { tokio::task::yield_now().await });
        call.result(LONG).unwrap();
    }
    drop((bridge, runtime));
    eventually("the hook is gone", || {
        told.recv_timeout(Duration::from_millis(1)) == Err(mpsc::RecvTimeoutError::Disconnected)
    });
}
