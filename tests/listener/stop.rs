//! Stop and close: who may wait where, and what a report says.

use crate::common::LONG;
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{Interrupter, Listener, LoopHandle, TcpServer};
use callbridge::{FrameStream, Overflow};
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;
use tokio_util::sync::CancellationToken;

/// A source that nothing can wake, until it is let go.
fn stuck() -> (Listener, FrameStream<()>, mpsc::Sender<()>) {
    let (release, blocked) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let source = FromFn(move || {
        let _ = entered.send(());
        let _ = blocked.recv();
        Ok(None)
    });
    let (listener, frames) = Listener::builder(source).name("stuck").spawn().unwrap();
    inside.recv_timeout(LONG).unwrap();
    (listener, frames, release)
}

/// The hook of one stream's end stops another listener, whose stream's hook lets go of the first.
#[test]
fn a_listener_may_be_dropped_inside_its_own_end_by_way_of_another() {
    let waits = |sink: LoopHandle<()>| {
        let _stop = sink.wait_stop(None);
        Ok(())
    };
    let stop = CancellationToken::new();
    let (first, mut frames) = Listener::from_fn(waits).stop_on(stop.clone()).spawn().unwrap();
    let (second, mut others) = Listener::from_fn(waits).spawn().unwrap();
    let first = Mutex::new(Some(first));
    let (tell, told) = mpsc::channel();
    frames.on_ready(move || second.stop());
    others.on_ready(move || {
        let first = first.lock().unwrap().take();
        drop(first);
        let _ = tell.send(());
    });
    let stopping = thread::spawn(move || stop.cancel());
    assert_eq!(told.recv_timeout(LONG), Ok(()), "it waits for itself");
    stopping.join().unwrap();
}

/// The interrupter has a library call back, and what is called back stops the listener.
#[test]
fn an_interrupter_may_stop_its_own_listener() {
    let own = Arc::new(OnceLock::<Listener>::new());
    let ((tell, told), stops) = (mpsc::channel(), Arc::downgrade(&own));
    let waits = move |sink: LoopHandle<()>| {
        let (release, released) = mpsc::channel();
        let _guard = sink.on_stop(Interrupter::new(move || {
            let _again = release.send(());
            stops.upgrade().iter().filter_map(|own| own.get()).for_each(Listener::stop);
        }));
        tell.send("ready").unwrap();
        // Nothing else ends the loop.
        released.recv().map_err(io::Error::other)
    };
    let (listener, _frames) = Listener::from_fn(waits).spawn().unwrap();
    own.set(listener).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok("ready"));
    own.get().unwrap().stop();
    assert!(own.get().unwrap().close_blocking(LONG).is_clean());
}

/// It comes after the stop, so it runs at once; what it does tells of the stop once more.
#[test]
fn an_interrupter_that_comes_late_does_not_run_inside_itself() {
    let own = Arc::new(OnceLock::<Listener>::new());
    let (stops, inside) = (Arc::downgrade(&own), Mutex::new(()));
    let ((go, gone), (tell, told)) = (mpsc::channel::<()>(), mpsc::channel());
    let late = move |sink: LoopHandle<()>| {
        gone.recv().map_err(io::Error::other)?;
        let done = tell.clone();
        let _guard = sink.on_stop(Interrupter::new(move || {
            let alone = inside.try_lock();
            tell.send(alone.is_ok()).unwrap();
            stops.upgrade().iter().filter_map(|own| own.get()).for_each(Listener::stop);
        }));
        done.send(true).map_err(io::Error::other)
    };
    let (listener, _frames) = Listener::from_fn(late).spawn().unwrap();
    own.set(listener).unwrap();
    own.get().unwrap().stop();
    go.send(()).unwrap();
    assert_eq!([(); 2].map(|()| told.recv_timeout(LONG)), [Ok(true); 2]);
    assert!(own.get().unwrap().close_blocking(LONG).is_clean());
}

#[test]
fn a_deadline_that_passes_names_the_straggler_and_a_later_wait_succeeds() {
    let (listener, _frames, release) = stuck();
    for deadline in [Duration::ZERO, Duration::from_millis(30)] {
        let report = listener.close_blocking(deadline);
        assert_eq!(report.still_running, ["stuck"]);
        assert!(!report.is_clean() && !report.would_deadlock);
        assert!(report.to_string().contains("still running: stuck"), "{report}");
    }
    drop(release);
    assert!(listener.close_blocking(Duration::MAX).is_clean());
}

#[tokio::test]
async fn the_async_shutdown_keeps_its_deadline_without_a_timer() {
    let (listener, _frames, release) = stuck();
    for deadline in [Duration::ZERO, Duration::from_millis(30)] {
        assert_eq!(listener.close(deadline).await.still_running, ["stuck"]);
    }
    drop(release);
    assert!(listener.close(Duration::MAX).await.is_clean());
}

#[tokio::test]
async fn an_async_shutdown_that_is_dropped_leaves_the_stop_asked_for() {
    let (listener, frames, release) = stuck();
    tokio::time::timeout(Duration::from_millis(20), listener.close(Duration::MAX))
        .await
        .expect_err("it is stuck");
    drop(release);
    assert!(listener.close(LONG).await.is_clean());
    drop(frames);
}

#[tokio::test]
async fn a_blocking_shutdown_on_the_loop_is_refused_not_waited_for() {
    let (listener, _frames, release) = stuck();
    let report = listener.close_blocking(LONG);
    assert!(report.would_deadlock);
    assert_eq!(report.still_running, ["stuck"]);
    drop(release);
    assert!(listener.close(LONG).await.is_clean());
    assert!(!listener.close_blocking(LONG).would_deadlock, "nothing to wait for any more");
}

#[test]
fn a_shutdown_on_the_listeners_own_thread_is_refused_and_stops_it_all_the_same() {
    let (give, take) = mpsc::channel::<Arc<Listener>>();
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::from_fn::<(), _>(move |sink| {
        let myself = take.recv_timeout(LONG).map_err(io::Error::other)?;
        tell.send(myself.close_blocking(LONG)).map_err(io::Error::other)?;
        assert!(sink.is_stopping());
        Ok(())
    })
    .spawn()
    .unwrap();
    let listener = Arc::new(listener);
    give.send(Arc::clone(&listener)).unwrap();
    assert!(told.recv_timeout(LONG).unwrap().would_deadlock);
    assert_eq!(end(&mut frames), Ending::Aborted);
    clean(&listener);
}

#[test]
fn a_loss_hook_may_stop_its_listener() {
    let slot = Arc::new(Mutex::new(None::<Listener>));
    let inside = Arc::clone(&slot);
    let (tell, told) = mpsc::channel();
    let (listener, frames) = Listener::builder(FromFn(|| Ok(Some(0_u8))))
        .capacity(1)
        .overflow(Overflow::DropNewest)
        .on_loss(move |_| {
            if let Some(listener) = inside.lock().unwrap().as_ref() {
                let _ = tell.send(listener.close_blocking(LONG).would_deadlock);
            }
        })
        .spawn()
        .unwrap();
    *slot.lock().unwrap() = Some(listener);
    assert!(told.recv_timeout(LONG).unwrap());
    let listener = slot.lock().unwrap().take().unwrap();
    clean(&listener);
    drop(frames);
}

#[test]
fn stop_can_be_asked_for_by_many_at_once() {
    let (source, client) = udp();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    client.send(b"x").unwrap();
    next(&mut frames);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| listener.stop());
            scope.spawn(|| clean(&listener));
        }
    });
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_flood_of_connections_that_get_no_codec_holds_up_no_stop() {
    let (asks, is_asked) = mpsc::channel();
    let server = TcpServer::bind("127.0.0.1:0", 100, move || -> LinesCodec {
        let _nobody_counts = asks.send(());
        thread::sleep(2 * MS); // Others connect meanwhile.
        std::panic::resume_unwind(Box::new("no codec"))
    })
    .unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, _connections) = Listener::builder(server).spawn().unwrap();
    let over = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _turned_away = TcpStream::connect(addr);
                    thread::sleep(MS / 10);
                }
            });
        }
        assert_eq!(is_asked.iter().take(20).count(), 20);
        listener.stop();
        let report = listener.close_blocking(10 * SECOND);
        over.store(true, Ordering::Relaxed);
        report
    });
    assert!(report.is_clean(), "{report}");
}
