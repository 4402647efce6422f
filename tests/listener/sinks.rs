//! A server's connections as sinks: what is fed, flushed, forwarded; peers that don't read.

use crate::common::{LONG, SHORT, eventually, waker_that_runs_on_clone};
use crate::support::*;
use bytes::BytesMut;
use callbridge::channel::Ending;
use callbridge::listener::{Connection, Listener, TcpServer};
use futures_util::{Sink, SinkExt, StreamExt};
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

/// More than the kernel's buffers take.
const MUCH: usize = 32 << 20;

#[tokio::test]
async fn a_connection_can_be_split_and_forwarded_into_itself() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = thread::spawn(move || {
        let client = connect(addr);
        say(&client, "a\nb\n");
        client.shutdown(Shutdown::Write).unwrap();
        read_all(client)
    });
    let (mut sink, stream) = connections.recv().await.unwrap().split::<String>();
    let mut stream = stream.map(|line| line.map(|line| format!("re: {line}")));
    sink.send_all(&mut stream).await.unwrap();
    sink.send("bye".to_owned()).await.unwrap();
    sink.close().await.unwrap();
    assert_eq!(client.join().unwrap(), b"re: a\nre: b\nbye\n");
    drop((sink, stream));
    let report = listener.close(LONG).await;
    assert!(report.is_clean() && report.stats.replies_lost == 0, "{report}");
}

#[tokio::test]
async fn an_echo_is_one_forward() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = thread::spawn(move || {
        let client = connect(addr);
        say(&client, &(0..1000).map(|n| format!("{n}\n")).collect::<String>());
        client.shutdown(Shutdown::Write).unwrap();
        read_all(client)
    });
    let (sink, stream) = connections.recv().await.unwrap().split::<String>();
    stream.forward(sink).await.unwrap();
    let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(client.join().unwrap()).unwrap(), expected);
    assert!(listener.close(LONG).await.is_clean());
}

#[tokio::test]
async fn fed_frames_leave_with_the_next_flush_in_order() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    let mut connection = connections.recv().await.unwrap();
    for n in 0..100 {
        connection.feed(n.to_string()).await.unwrap();
    }
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    SinkExt::<String>::flush(&mut connection).await.unwrap();
    SinkExt::<String>::flush(&mut connection).await.unwrap();
    connection.send("last").await.unwrap();
    let lines: Vec<String> = (0..100).map(|n| n.to_string()).chain(["last".into()]).collect();
    let expected = lines.join("\n") + "\n";
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), expected);
    drop((client, connection));
    assert!(listener.close(LONG).await.is_clean());
}

#[tokio::test]
async fn fed_frames_that_cant_leave_are_counted_as_lost() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let _client = connect(addr);
    let mut dropped = connections.recv().await.unwrap();
    dropped.feed("never flushed").await.unwrap();
    drop(dropped);
    assert_eq!(listener.stats().replies_lost, 1);
    let _client = connect(addr);
    let mut connection = connections.recv().await.unwrap();
    for _ in 0..3 {
        connection.feed("too late").await.unwrap();
    }
    listener.stop();
    assert!(listener.close(LONG).await.is_clean());
    let refused = SinkExt::<String>::flush(&mut connection).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotConnected);
    assert_eq!(listener.stats().replies_lost, 4);
    drop(connection);
    assert_eq!(listener.stats().replies_lost, 4, "once each");
}

#[tokio::test]
async fn a_flush_that_is_dropped_while_it_waits_keeps_what_was_fed() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    let mut connection = connections.recv().await.unwrap();
    connection.feed("x".repeat(MUCH)).await.unwrap();
    let waited = tokio::time::timeout(SHORT, SinkExt::<String>::flush(&mut connection)).await;
    assert!(waited.is_err(), "nobody reads");
    let fed = tokio::time::timeout(SHORT, connection.feed("a")).await;
    assert!(fed.is_err(), "more is waiting than the buffer may hold");
    let reader = thread::spawn(move || {
        let mut read = vec![0; MUCH + 1 + 4];
        client.read_exact(&mut read).unwrap();
        read[MUCH..].to_vec()
    });
    connection.feed("a").await.unwrap();
    connection.send("b").await.unwrap();
    assert_eq!(reader.join().unwrap(), b"\na\nb\n");
    drop(connection);
    assert!(listener.close(LONG).await.is_clean());
    assert_eq!(listener.stats().replies_lost, 0);
}

#[test]
fn closing_a_sink_ends_the_write_side_only() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    let mut connection = next(&mut connections);
    futures_executor::block_on(async {
        connection.feed("bye").await.unwrap();
        SinkExt::<String>::close(&mut connection).await.unwrap();
    });
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "bye\n");
    say(&client, "you still hear me\n");
    assert_eq!(frame(&mut connection), "you still hear me");
    assert_eq!(send(&mut connection, "x").unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(connection.handle().is_open());
    drop(client);
    clean(&listener);
}

#[test]
fn what_was_flushed_leaves_though_the_connection_is_dropped() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    futures_executor::block_on(async {
        connection.feed("x".repeat(MUCH)).await.unwrap();
        // Handed on, and not written yet: nobody reads.
        let waited = poll_flush(Pin::new(&mut connection));
        assert!(waited.is_pending());
    });
    let reader = thread::spawn(move || read_all(client).len());
    drop(connection);
    assert_eq!(reader.join().unwrap(), MUCH + 1);
    wait_for(&listener, |stats| stats.open == 0);
    assert_eq!(clean(&listener).replies_lost, 0);
}

fn poll_flush(connection: Pin<&mut Connection<LinesCodec>>) -> Poll<std::io::Result<()>> {
    Sink::<String>::poll_flush(connection, &mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_peer_that_stops_reading_holds_back_its_frames_then_loses_its_connection() {
    let (server, addr) = lines(100);
    let server = server.with_write_buffer(100_000).with_linger(SHORT);
    let (listener, mut connections) =
        Listener::builder(server).write_timeout(Duration::from_millis(100)).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    // First the kernel's buffers fill up, then the connection's, then nothing is taken until the peer
    // hasn't read for too long.
    let error = loop {
        match send(&mut connection, "x".repeat(50_000)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    let error = failure(&mut connection);
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    wait_for(&listener, |stats| stats.open == 0);
    drop(client);
    assert!(clean(&listener).replies_lost >= 1);
}

#[test]
fn a_stop_with_frames_queued_for_a_peer_that_doesnt_read_is_prompt_and_counts_them() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    let mut waker = Context::from_waker(Waker::noop());
    while Pin::new(&mut connection).poll_ready_line(&mut waker).is_ready() {
        Pin::new(&mut connection).start_send("x".repeat(1 << 18)).unwrap();
    }
    let stats = clean(&listener);
    assert!(!connection.handle().is_open());
    assert!(stats.replies_lost >= 1, "{stats:?}");
    drop(client);
}

/// So that the item's type needn't be named at each call.
trait Ready {
    fn poll_ready_line(self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>>;
}

impl Ready for Pin<&mut Connection<LinesCodec>> {
    fn poll_ready_line(self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Sink::<String>::poll_ready(self, cx)
    }
}

/// One waker is kept for a flush that waits, however often it is polled or given up.
#[test]
fn a_flush_that_is_polled_for_ever_keeps_one_waker() {
    struct Counted;
    impl std::task::Wake for Counted {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    futures_executor::block_on(connection.feed("x".repeat(MUCH))).unwrap();
    let counted = std::sync::Arc::new(Counted);
    let waker = Waker::from(std::sync::Arc::clone(&counted));
    for _ in 0..1000 {
        let mut flush = pin!(SinkExt::<String>::flush(&mut connection));
        for _ in 0..10 {
            assert!(flush.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
    }
    drop(waker);
    let kept = std::sync::Arc::strong_count(&counted);
    assert!(kept <= 2, "{kept} references");
    drop(client);
    clean(&listener);
    drop(connection);
}

/// A waker of an executor written by hand may do anything when it is cloned.
#[test]
fn a_waker_whose_clone_looks_at_the_connection_doesnt_hang() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    futures_executor::block_on(connection.feed("x".repeat(MUCH))).unwrap();
    let looked_at = connection.handle();
    let waker = waker_that_runs_on_clone(move || {
        looked_at.close();
    });
    let polled =
        Sink::<String>::poll_flush(Pin::new(&mut connection), &mut Context::from_waker(&waker));
    assert!(polled.is_pending() || polled.is_ready(), "it came back");
    drop(client);
    clean(&listener);
}

/// Whoever reads more slowly than he is sent to costs no thread beyond that of his connection.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_reader_costs_no_thread_for_each_stall() {
    let (server, addr) = lines(1024);
    let (listener, mut connections) = Listener::builder(server).name("stalls").spawn().unwrap();
    let mut client = connect(addr);
    let mut connection = next(&mut connections);
    let tasks = || threads("").len();
    eventually("the connection's thread", || !threads("1-stalls").is_empty());
    for _ in 0..10 {
        futures_executor::block_on(connection.feed("x".repeat(MUCH))).unwrap();
        assert!(poll_flush(Pin::new(&mut connection)).is_pending());
        let own = threads("").into_iter().filter(|(_, name)| name.contains("stalls")).count();
        assert_eq!(own, 2, "of {}: one that accepts, and one for the connection", tasks());
        let mut left = MUCH + 1;
        let mut bytes = vec![0; 64 << 10];
        while left > 0 {
            left -= client.read(&mut bytes).unwrap();
        }
        futures_executor::block_on(SinkExt::<String>::flush(&mut connection)).unwrap();
    }
    clean(&listener);
}

/// Two tasks that write to one connection share its sink by a lock or a channel; the frames stay whole.
#[test]
fn frames_from_many_threads_are_whole_and_in_each_threads_order() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = thread::spawn(move || read_all(connect(addr)));
    let connection = std::sync::Mutex::new(next(&mut connections));
    thread::scope(|scope| {
        for thread in 0..4 {
            let connection = &connection;
            scope.spawn(move || {
                for n in 0..2000 {
                    let mut connection = connection.lock().unwrap();
                    send(&mut *connection, format!("{thread} {n}")).unwrap();
                }
            });
        }
    });
    drop(connection);
    let text = String::from_utf8(client.join().unwrap()).unwrap();
    let mut expected = [0; 4];
    for line in text.lines() {
        let (thread, n) = line.split_once(' ').unwrap();
        let expected = &mut expected[thread.parse::<usize>().unwrap()];
        assert_eq!(n.parse::<usize>().unwrap(), *expected);
        *expected += 1;
    }
    assert_eq!(expected, [2000; 4]);
    clean(&listener);
}

/// Lines, of which those over five bytes can't be encoded.
#[derive(Default)]
struct Short(LinesCodec);

impl Decoder for Short {
    type Item = String;
    type Error = LinesCodecError;
    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, LinesCodecError> {
        self.0.decode(bytes)
    }
}

impl Encoder<&str> for Short {
    type Error = LinesCodecError;
    fn encode(&mut self, line: &str, bytes: &mut BytesMut) -> Result<(), LinesCodecError> {
        bytes.extend_from_slice(line.as_bytes());
        if line.len() > 5 {
            return Err(LinesCodecError::MaxLineLengthExceeded);
        }
        bytes.extend_from_slice(b"\n");
        Ok(())
    }
}

#[test]
fn a_frame_that_cant_be_encoded_costs_that_frame() {
    let server = TcpServer::bind("127.0.0.1:0", 100, Short::default).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    send(&mut connection, "a").unwrap();
    assert_eq!(send(&mut connection, "long line").unwrap_err().kind(), ErrorKind::InvalidData);
    send(&mut connection, "b").unwrap();
    drop(connection);
    assert_eq!(read_all(client), b"a\nb\n");
    clean(&listener);
}

#[test]
fn a_connection_that_both_sides_have_ended_is_over_though_it_is_held() {
    for (ours_first, name) in [(true, "ours-first"), (false, "theirs-first")] {
        let (server, addr) = lines(100);
        let (listener, mut connections) = Listener::builder(server).name(name).spawn().unwrap();
        let client = connect(addr);
        let mut connection = next(&mut connections);
        send(&mut connection, "hello").unwrap();
        if !ours_first {
            client.shutdown(Shutdown::Write).unwrap();
            ending(&mut connection);
        }
        until_asleep(&format!("1-{name}"));
        futures_executor::block_on(SinkExt::<&str>::close(&mut connection)).unwrap();
        if ours_first {
            client.shutdown(Shutdown::Write).unwrap();
        }
        wait_for(&listener, |stats| stats.open == 0);
        drop(connection);
        assert_eq!(read_all(client), b"hello\n");
        clean(&listener);
    }
}

#[test]
fn a_half_closed_connection_ends_with_its_first_failed_write() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ending(&mut connection), Ending::Finished);
    drop(client);
    // The first is answered by a reset, by which one after it fails.
    while send(&mut connection, "lost").is_ok() {
        thread::sleep(MS);
    }
    wait_for(&listener, |stats| stats.open == 0);
    drop(connection);
    clean(&listener);
}
