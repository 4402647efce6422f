//! `Listener::from_fn`: loops that exist already.

use crate::common::LONG;
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{Interrupter, Listener};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

#[test]
fn a_legacy_loop_runs_on_the_named_thread_until_it_is_told_to_stop() {
    let (listener, mut frames) = Listener::from_fn(|sink| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        sink.send(name).map_err(io::Error::other)?;
        sink.wait_stop(LONG).unwrap();
        assert!(sink.is_stopping());
        Ok(())
    })
    .name("legacy")
    .spawn()
    .unwrap();
    assert_eq!(next(&mut frames), "legacy");
    clean(&listener);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_legacy_loop_that_fails_or_panics_says_so() {
    let (_l, mut frames) =
        Listener::from_fn::<(), _>(|_| Err(io::Error::other("no carrier"))).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    let (_l, mut frames) = Listener::from_fn::<(), _>(|_| panic!("bug")).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Panicked);
}

/// b6. Kotlin: a failure in the builder cancels what it started.
#[test]
fn threads_of_a_legacy_loop_that_fails_are_told_to_stop() {
    for panics in [false, true] {
        let (tell, told) = mpsc::channel();
        let (_listener, mut frames) = Listener::from_fn::<u8, _>(move |sink| {
            thread::spawn(move || tell.send((sink.wait_stop(None).is_ok(), sink.send(1).is_err())));
            if panics {
                panic!("bug");
            }
            Err(io::Error::other("no carrier"))
        })
        .spawn()
        .unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok((true, true)));
        let expected = if panics { Ending::Panicked } else { Ending::Failed };
        assert_eq!(end(&mut frames), expected);
    }
}

/// b5. Kotlin: a close inside the builder ends the collector although the builder hangs.
#[test]
fn a_legacy_loop_that_closes_its_stream_and_hangs_keeps_no_consumer() {
    let (release, blocked) = mpsc::channel::<()>();
    let (listener, mut frames) = Listener::from_fn(move |sink| {
        sink.send(1).map_err(io::Error::other)?;
        assert!(sink.sender().close());
        let _ = blocked.recv();
        Ok(())
    })
    .name("hangs")
    .spawn()
    .unwrap();
    assert_eq!(next(&mut frames), 1);
    assert_eq!(end(&mut frames), Ending::Finished);
    assert_eq!(listener.close_blocking(Duration::ZERO).still_running, ["hangs"]);
    drop(release);
    clean(&listener);
}

#[test]
fn the_stream_ends_with_the_loop_whatever_sinks_are_left() {
    let (give, take) = mpsc::channel();
    let (_listener, mut frames) =
        Listener::from_fn::<u8, _>(move |sink| give.send(sink.clone()).map_err(io::Error::other))
            .spawn()
            .unwrap();
    let sink = take.recv_timeout(LONG).unwrap();
    assert_eq!(end(&mut frames), Ending::Finished);
    assert!(sink.send(1).is_err());
}

/// The stop reaches a loop that blocks in its own way, and the error that this makes of it is no failure.
#[test]
fn an_error_that_the_stop_brought_about_is_no_failure() {
    for drains in [false, true] {
        let (ours, _theirs) = pair();
        let (tell, told) = mpsc::channel();
        let (listener, mut frames) = Listener::from_fn::<u8, _>(move |sink| {
            let handle = ours.try_clone()?;
            let _guard = sink.on_stop(Interrupter::new(move || {
                drop(handle.shutdown(std::net::Shutdown::Both));
            }));
            tell.send(()).unwrap();
            let read = (&ours).read(&mut [0; 8])?;
            Err(io::Error::other(format!("the line is dead after {read} bytes")))
        })
        .spawn()
        .unwrap();
        told.recv_timeout(LONG).unwrap();
        if !drains {
            listener.stop();
        }
        let report = listener.close_blocking(LONG);
        assert!(report.is_clean() && report.error.is_none(), "{report}");
        assert_eq!(report.ending, Some(Ending::Aborted));
        assert_eq!(end(&mut frames), Ending::Aborted);
    }
}

/// What an interrupter uses may be freed once its guard is dropped: none runs any more.
#[test]
fn no_interrupter_runs_after_its_guard_was_dropped() {
    for _ in 0..20 {
        let freed = Arc::new(AtomicBool::new(false));
        let (entered, entry) = mpsc::channel();
        let used = Arc::clone(&freed);
        let (outcome, seen) = mpsc::channel();
        let (listener, _frames) = Listener::from_fn::<u8, _>(move |sink| {
            let own = Arc::clone(&used);
            let guard = sink.on_stop(Interrupter::new(move || {
                entered.send(()).unwrap();
                thread::sleep(5 * MS);
                outcome.send(own.load(Ordering::SeqCst)).unwrap();
            }));
            entry.recv_timeout(LONG).unwrap();
            drop(guard);
            used.store(true, Ordering::SeqCst);
            Ok(())
        })
        .spawn()
        .unwrap();
        clean(&listener);
        assert!(seen.try_iter().all(|was_freed| !was_freed), "used after it was freed");
        assert!(freed.load(Ordering::SeqCst));
    }
}

/// A guard may be dropped by its own interrupter.
#[test]
fn an_interrupter_may_drop_its_own_guard() {
    let (listener, _frames) = Listener::from_fn::<u8, _>(move |sink| {
        let slot = Arc::new(std::sync::Mutex::new(None));
        let own = Arc::clone(&slot);
        let guard = sink.on_stop(Interrupter::new(move || drop(own.lock().unwrap().take())));
        *slot.lock().unwrap() = Some(guard);
        sink.wait_stop(None).map_err(io::Error::other)
    })
    .spawn()
    .unwrap();
    clean(&listener);
}

/// On a loop's thread, the wait for a stop that another task gives would hang both.
#[test]
fn waiting_for_a_stop_on_a_loops_thread_doesnt_hang_the_loop() {
    let (hand, handed) = mpsc::channel();
    let (listener, _frames) = Listener::from_fn::<(), _>(move |sink| {
        hand.send(sink.clone()).unwrap();
        sink.wait_stop(None).map_err(io::Error::other)
    })
    .spawn()
    .unwrap();
    let sink = handed.recv_timeout(LONG).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let waits = tokio::spawn(async move { sink.wait_stop(None) });
        let refused = waits.await.unwrap();
        assert_eq!(refused, Err(callbridge::WaitError::WouldDeadlock));
        listener.stop();
    });
    clean(&listener);
}
