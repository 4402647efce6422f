//! A close: nothing new is taken in, what is in flight is finished, what isn't done in time is cut.

use crate::common::{LONG, eventually};
use crate::support::*;
use callbridge::Bridge;
use callbridge::channel::Ending;
use callbridge::listener::{Listener, Request};
use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[test]
fn a_close_lets_a_request_at_work_finish() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let (entered, begun) = mpsc::channel();
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            entered.send(()).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                gate.notified().await;
                Some(request.frame)
            }
        })
        .spawn()
        .unwrap();
    let listener = Arc::new(listener);
    let mut client = talk(addr);
    say(client.get_ref(), "transfer 100\n");
    begun.recv_timeout(LONG).unwrap();
    let own = Arc::clone(&listener);
    let close = thread::spawn(move || own.close_blocking(LONG));
    // Nothing new is taken in from now on.
    eventually("nobody listens", || TcpStream::connect(addr).is_err());
    opened.notify_one();
    assert_eq!(hear(&mut client), "transfer 100");
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "then the end");
    drop(client);
    let report = close.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.stats.replies, report.stats.aborted), (1, 0));
    assert_eq!(report.ending, Some(Ending::Aborted));
}

/// Requests that were read before the close are answered, also those that hadn't begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_answers_all_that_was_read() {
    let bridge = Bridge::current();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            tokio::time::sleep(5 * MS).await;
            Some(request.frame)
        })
        .pipeline(2)
        .spawn()
        .unwrap();
    let client = tokio::task::spawn_blocking(move || {
        let client = connect(addr);
        say(&client, &(0..50).map(|n| format!("{n}\n")).collect::<String>());
        client
    })
    .await
    .unwrap();
    while listener.stats().requests == 0 {
        tokio::task::yield_now().await;
    }
    let heard = tokio::task::spawn_blocking(move || read_all(client));
    let report = listener.close(LONG).await;
    assert!(report.is_clean(), "{report}");
    let expected: String = (0..50).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(heard.await.unwrap()).unwrap(), expected);
    assert_eq!((report.stats.replies, report.stats.aborted), (50, 0));
}

/// A service that answers nothing, and a client that has asked.
fn never_answered(bridge: &Bridge) -> (Listener, TcpStream) {
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .reply_timeout(Duration::MAX)
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, "never\n");
    (listener, client)
}

#[test]
fn what_isnt_done_shortly_before_the_deadline_is_cut() {
    let (_loop, bridge) = event_loop();
    let (listener, client) = never_answered(&bridge);
    wait_for(&listener, |stats| stats.in_flight == 1);
    let report = listener.close_blocking(300 * MS);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.stats.replies, report.stats.aborted), (0, 1));
    assert!(read_all(client).is_empty());
}

/// However short the time: nothing goes on draining after the close was given up.
#[tokio::test]
async fn an_async_close_cuts_too_whatever_its_timeout() {
    let bridge = Bridge::current();
    for timeout in [0, 1, 10, 30, 300] {
        let (listener, _client) = never_answered(&bridge);
        while listener.stats().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        let _report = listener.close(timeout * MS).await;
        let report = listener.finished().await;
        assert_eq!(report.stats.aborted, 1, "{timeout} ms: {report}");
    }
}

/// A stop cuts what a close would wait for, also while it does.
#[test]
fn a_stop_hurries_a_close() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, "never\n");
    wait_for(&listener, |stats| stats.in_flight == 1);
    let began = Instant::now();
    thread::scope(|scope| {
        let close = scope.spawn(|| listener.close_blocking(None));
        eventually("nobody listens", || TcpStream::connect(addr).is_err());
        listener.stop();
        assert!(close.join().unwrap().is_clean());
    });
    assert!(began.elapsed() < LONG / 2);
}

#[test]
fn a_close_delivers_what_a_connections_peer_has_sent_and_writes_what_is_queued() {
    let (server, addr) = lines(1024);
    let server = server.with_connection_capacity(2);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    say(&client, &(0..100).map(|n| format!("{n}\n")).collect::<String>());
    let mut connection = next(&mut connections);
    assert_eq!(frame(&mut connection), "0");
    eventually("a full channel", || connection.frames().stats().waiting == 1);
    let close = thread::spawn(move || listener.close_blocking(LONG));
    for n in 1..100 {
        assert_eq!(frame(&mut connection), n.to_string());
    }
    assert_eq!(ending(&mut connection), Ending::Aborted);
    send(&mut connection, "goodbye").unwrap();
    drop(connection);
    assert_eq!(read_all(client), b"goodbye\n");
    let report = close.join().unwrap();
    assert!(report.is_clean() && report.stats.replies_lost == 0, "{report}");
}

/// Whoever keeps a service can wait for its end without ending it.
#[tokio::test]
async fn the_end_of_a_listener_can_be_awaited_beside_other_things() {
    let (source, client) = udp();
    let (listener, frames) = Listener::builder(source).spawn().unwrap();
    client.send(b"x").unwrap();
    let waited = tokio::time::timeout(5 * MS, listener.finished()).await;
    assert!(waited.is_err(), "it goes on");
    drop(frames);
    let report = listener.finished().await;
    assert_eq!(report.ending, Some(Ending::ConsumerDropped));
}

/// A source with something slow left on its thread.
#[cfg(target_os = "linux")]
#[test]
fn no_thread_is_left_after_a_clean_close() {
    use std::cell::Cell;
    struct Slow(Cell<u32>);
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(100 * MS);
        }
    }
    thread_local! { static SLOW: Slow = const { Slow(Cell::new(0)) } }
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(Some(tell));
    let source = FromFn(move || {
        SLOW.with(|slow| slow.0.set(slow.0.get() + 1));
        if let Some(tell) = tell.lock().unwrap().take() {
            tell.send(()).unwrap();
        }
        thread::sleep(MS);
        Err::<Option<()>, _>(std::io::ErrorKind::TimedOut.into())
    });
    let (listener, _frames) = Listener::builder(source).name("slow-to-go").spawn().unwrap();
    told.recv_timeout(LONG).unwrap();
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && report.elapsed >= 100 * MS, "{report}");
    // The system may list it for a moment more.
    eventually("it is gone", || threads("slow-to-go").is_empty());
}

#[test]
fn a_close_doesnt_wait_for_connections_that_nobody_has_taken() {
    let (server, addr) = lines(100);
    let (listener, connections) = Listener::builder(server).capacity(1).spawn().unwrap();
    let clients: Vec<_> = (0..3).map(|_| connect(addr)).collect();
    clients.iter().for_each(|client| say(client, "is anybody there?\n"));
    wait_for(&listener, |stats| stats.accepted >= 2);
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && report.elapsed < LONG / 2, "{report}");
    assert_eq!(report.stats.open, 0);
    drop(connections);
}
