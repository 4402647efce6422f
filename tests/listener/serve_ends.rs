//! Serving comes to its limits and its end: no room, stops, a loop that goes away.

use crate::common::{LONG, SHORT, eventually};
use crate::support::*;
use callbridge::Bridge;
use callbridge::channel::Ending;
use callbridge::listener::{Datagram, FirstPoll, FrameSource, Listener, Request, RequestSource};
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

#[test]
fn a_peer_that_doesnt_read_its_replies_loses_its_connection_only() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server.with_linger(MS))
        .poll_timeout(Duration::from_millis(5))
        .write_timeout(Duration::from_millis(50))
        .serve(&bridge, |_: Request<String>| async move { Some("x".repeat(1 << 20)) })
        .pipeline(4)
        .spawn()
        .unwrap();
    let deaf = talk(addr);
    // More than any buffer between the two takes.
    say(deaf.get_ref(), &"more\n".repeat(200));
    wait_for(&listener, |stats| stats.accepted == 1 && stats.open == 0);
    let mut client = talk(addr);
    say(client.get_ref(), "me\n");
    assert_eq!(hear(&mut client).len(), 1 << 20);
    let stats = clean(&listener);
    assert!(stats.reply_errors > 0, "{stats:?}");
}

#[test]
fn a_bridge_with_little_room_serves_all_the_same() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build().unwrap();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            tokio::task::yield_now().await;
            Some(request.frame)
        })
        .pipeline(16)
        .spawn()
        .unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut client = talk(addr);
                say(client.get_ref(), &(0..50).map(|n| format!("{n}\n")).collect::<String>());
                for n in 0..50 {
                    assert_eq!(hear(&mut client), n.to_string());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(clean(&listener).replies, 200);
}

#[test]
fn a_bridge_without_room_in_time_makes_the_request_late() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build().unwrap();
    let hog = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .reply_timeout(Duration::from_millis(60))
        .fallback(|_| Some("busy".into()))
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "anyone?"), "busy");
    client.send(b"again").unwrap();
    wait_for(&listener, |stats| stats.requests == 2);
    let stats = clean(&listener);
    assert_eq!(stats.late + stats.aborted, 2);
    drop(hog);
}

#[test]
fn a_stop_with_handlers_that_hang_is_prompt_and_cancels_them() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .reply_timeout(Duration::MAX)
        .pipeline(4)
        .spawn()
        .unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| talk(addr)).collect();
    clients.iter_mut().for_each(|client| say(client.get_ref(), "a\nb\nc\nd\ne\n"));
    wait_for(&listener, |stats| stats.in_flight == 16);
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.aborted), (20, 20), "what was read and not begun included");
    assert_eq!(listener.ending(), Some(Ending::Aborted));
    // Their futures were dropped, not left behind.
    let patience = Instant::now() + LONG;
    while bridge.in_flight() > 0 {
        assert!(Instant::now() < patience);
        thread::yield_now();
    }
}

/// Nobody can end the handlers there; a close of the bridge gives them up.
#[test]
fn a_service_ends_with_its_bridge_on_a_loop_that_nobody_drives() {
    let idle = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(idle.handle().clone());
    let (source, client) = udp();
    let datagrams = Listener::builder(source)
        .serve(&bridge, |_: Datagram| std::future::pending::<Option<&str>>())
        .reply_timeout(Duration::MAX)
        .spawn()
        .unwrap();
    client.send(b"anyone?").unwrap();
    let (server, addr) = lines(1 << 20);
    let connections = Listener::builder(server)
        .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .reply_timeout(Duration::MAX)
        .spawn()
        .unwrap();
    let peer = talk(addr);
    say(peer.get_ref(), "a\nb\n");
    let both = [(datagrams, 1), (connections, 2)];
    eventually("the handlers wait", || bridge.in_flight() == 3);
    let report = bridge.close_blocking(SHORT);
    assert_eq!(report.in_flight, 3, "{report}");
    for (listener, requests) in both {
        eventually("the service has ended", || listener.is_finished());
        assert_eq!(listener.ending(), Some(Ending::LoopClosed));
        let stats = listener.stats();
        assert!(stats.aborted == requests && stats.balances(), "{stats:?}");
    }
}

#[test]
fn a_handler_may_stop_its_own_listener() {
    let (_runtime, bridge) = event_loop();
    // By a token.
    let (source, client) = udp();
    let token = CancellationToken::new();
    let cancel = token.clone();
    let listener = Listener::builder(source)
        .stop_on(token)
        .serve(&bridge, move |d: Datagram| {
            let cancel = cancel.clone();
            async move {
                cancel.cancel();
                Some(d.payload)
            }
        })
        .spawn()
        .unwrap();
    client.send(b"stop").unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(clean(&listener).requests, 1);

    // By the handle, even waiting for the end: the handler is cancelled at that await.
    let (source, client) = udp();
    let slot = Arc::new(Mutex::new(None::<Arc<Listener>>));
    let inside = Arc::clone(&slot);
    let listener = Listener::builder(source)
        .serve(&bridge, move |d: Datagram| {
            let listener = inside.lock().unwrap().clone();
            async move {
                if let Some(listener) = listener {
                    assert!(listener.close_blocking(LONG).would_deadlock);
                    let _ = listener.close(LONG).await;
                }
                Some(d.payload)
            }
        })
        .spawn()
        .unwrap();
    let listener = Arc::new(listener);
    *slot.lock().unwrap() = Some(Arc::clone(&listener));
    client.send(b"stop").unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(clean(&listener).requests, 1);
    slot.lock().unwrap().take();
}

#[test]
fn a_runtime_that_is_dropped_ends_the_listener_as_loop_gone() {
    for asked in [false, true] {
        let (runtime, bridge) = event_loop();
        let (server, addr) = lines(1 << 20);
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
            .spawn()
            .unwrap();
        let client = talk(addr);
        if asked {
            say(client.get_ref(), "anyone?\n");
            wait_for(&listener, |stats| stats.in_flight == 1);
        }
        drop(runtime);
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.ending(), Some(Ending::LoopClosed));
        assert_eq!(clean(&listener).aborted, u64::from(asked));
    }
}

#[test]
fn a_bridge_that_is_closed_ends_the_listener_as_loop_gone() {
    let (_runtime, bridge) = event_loop();
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hi"), "hi");
    assert!(bridge.close_blocking(LONG).is_clean());
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::LoopClosed));

    // And one that was closed before.
    let (source, _client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .spawn()
        .unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::LoopClosed));
}

#[test]
fn a_loop_that_nobody_drives_makes_requests_late() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .first_poll(FirstPoll::OnLoop)
        .reply_timeout(Duration::from_millis(20))
        .fallback(|_| Some("nobody home".into()))
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hello?"), "nobody home");
    assert_eq!(clean(&listener).late, 1);
}

#[test]
fn a_source_that_panics_or_fails_while_requests_are_at_work_settles_them() {
    struct Once(Option<&'static str>, bool);
    impl FrameSource for Once {
        type Frame = &'static str;
        fn next_frame(&mut self) -> io::Result<Option<&'static str>> {
            self.next_ready()
        }
        fn next_ready(&mut self) -> io::Result<Option<&'static str>> {
            match self.0.take() {
                Some(frame) => Ok(Some(frame)),
                None if self.1 => panic!("a bug in a driver"),
                None => Err(io::Error::other("unplugged")),
            }
        }
    }
    impl RequestSource<()> for Once {
        type Address = ();
        fn address(&mut self, _: &mut &'static str) {}
        fn answer(&mut self, _: (), _: ()) -> io::Result<bool> {
            Ok(true)
        }
    }
    let (_runtime, bridge) = event_loop();
    for (panics, ending) in [(true, Ending::Panicked), (false, Ending::Failed)] {
        let listener = Listener::builder(Once(Some("request"), panics))
            .serve(&bridge, move |_: &str| async move {
                match panics {
                    true => std::future::pending().await,
                    false => tokio::task::yield_now().await,
                }
                Some(())
            })
            .pipeline(2)
            .spawn()
            .unwrap();
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.ending(), Some(ending));
        let stats = clean(&listener);
        // What came before an error is still answered; a panic leaves nobody to answer it.
        assert_eq!((stats.aborted, stats.replies), if panics { (1, 0) } else { (0, 1) });
    }
}
