//! Stream servers whose connections feed one stream, and answers from the stream side.

use bytes::{Bytes, BytesMut};
use callbridge::listener::{
    AnswerError, CloseReason, Connection, Event, FrameError, Incoming, Listener, Peer, TcpServer,
};
use callbridge::{Ending, FrameStream, RecvBlockingError};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

const PATIENCE: Duration = Duration::from_secs(30);

fn lines(max: usize) -> (TcpServer<fn() -> LinesCodec>, SocketAddr) {
    let server = TcpServer::bind("127.0.0.1:0", max, LinesCodec::new as fn() -> _).unwrap();
    let addr = server.local_addr().unwrap();
    (server, addr)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn next<F>(events: &mut FrameStream<Incoming<F>>) -> (Connection, Event<F>) {
    let Incoming { connection, event, .. } =
        events.recv_blocking(PATIENCE).expect("an event is on its way");
    (connection, event)
}

fn opened<F>(events: &mut FrameStream<Incoming<F>>) -> Connection {
    match next(events) {
        (connection, Event::Opened) => connection,
        (_, other) => panic!("{other:?}"),
    }
}

fn frame<F>(events: &mut FrameStream<Incoming<F>>) -> (Connection, F) {
    match next(events) {
        (connection, Event::Frame(frame)) => (connection, frame),
        (_, other) => panic!("{other:?}"),
    }
}

fn closed<F>(events: &mut FrameStream<Incoming<F>>) -> (Connection, CloseReason) {
    match next(events) {
        (connection, Event::Closed(reason)) => (connection, reason),
        (_, other) => panic!("{other:?}"),
    }
}

fn clean(listener: &Listener) {
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && !report.would_deadlock, "{report}");
}

/// Reads until the other side closes.
fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    all
}

#[test]
fn a_connection_opens_frames_come_and_it_closes() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).name("lines").spawn().unwrap();
    let mut client = connect(addr);
    let connection = opened(&mut events);
    assert_eq!(connection.id(), 1);
    assert_eq!(connection.peer(), &Peer::Ip(client.local_addr().unwrap()));
    client.write_all(b"one\ntwo\nthr").unwrap();
    assert_eq!(frame(&mut events).1, "one");
    assert_eq!(frame(&mut events).1, "two");
    client.write_all(b"ee\n").unwrap();
    assert_eq!(frame(&mut events).1, "three");
    drop(client);
    assert!(matches!(closed(&mut events).1, CloseReason::PeerFinished));
    clean(&listener);
    let stats = listener.stats();
    assert_eq!((stats.accepted, stats.frames, stats.decode_errors), (1, 3, 0));
    assert!(events.recv_blocking(PATIENCE).is_err());
    assert_eq!(events.ending(), Some(Ending::Aborted));
}

#[test]
fn frames_of_many_connections_are_told_apart_and_keep_their_order() {
    const CLIENTS: usize = 20;
    const FRAMES: u32 = 200;
    let server = TcpServer::bind("127.0.0.1:0", 1024, LengthDelimitedCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            thread::spawn(move || {
                let mut client = connect(addr);
                for n in 0..FRAMES {
                    let mut frame = vec![0, 0, 0, 4];
                    frame.extend_from_slice(&n.to_be_bytes());
                    client.write_all(&frame).unwrap();
                }
            })
        })
        .collect();
    let mut expected: HashMap<u64, u32> = HashMap::new();
    let mut open = CLIENTS;
    while open > 0 {
        match next(&mut events) {
            (connection, Event::Frame(frame)) => {
                let expected = expected.entry(connection.id()).or_default();
                assert_eq!(frame, BytesMut::from(&expected.to_be_bytes()[..]));
                *expected += 1;
            }
            (_, Event::Closed(reason)) => {
                assert!(matches!(reason, CloseReason::PeerFinished), "{reason}");
                open -= 1;
            }
            _ => {}
        }
    }
    assert!(expected.values().all(|&n| n == FRAMES) && expected.len() == CLIENTS);
    clients.into_iter().for_each(|client| client.join().unwrap());
    clean(&listener);
}

// --- answers -----------------------------------------------------------------------------------

#[tokio::test]
async fn the_stream_side_answers_through_the_connection_and_through_its_codec() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let client = thread::spawn(move || {
        let mut client = connect(addr);
        client.write_all(b"a\nb\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        read_all(client)
    });
    while let Some(Incoming { connection, event, .. }) = events.recv().await {
        match event {
            Event::Frame(line) => {
                connection.send(Bytes::from(format!("raw {line}\n"))).await.unwrap();
                connection.replier(LinesCodec::new()).send(format!("coded {line}")).await.unwrap();
            }
            Event::Closed(reason) => {
                // It has only ended its side: it still gets this, and then the last clone goes.
                assert!(matches!(reason, CloseReason::PeerFinished));
                connection.send("bye\n".into()).await.unwrap();
                break;
            }
            _ => {}
        }
    }
    let read = client.join().unwrap();
    assert_eq!(read, b"raw a\ncoded a\nraw b\ncoded b\nbye\n");
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    assert_eq!(listener.stats().answers_lost, 0);
}

#[tokio::test]
async fn fed_answers_leave_with_the_next_flush_in_order() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    assert_eq!(listener.local_addr(), Some(addr));
    let mut client = connect(addr);
    let connection = events.recv().await.unwrap().connection;
    let mut replier = connection.replier(LinesCodec::new());
    for n in 0..100 {
        replier.feed(n.to_string()).unwrap();
    }
    client.set_nonblocking(true).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.set_nonblocking(false).unwrap();
    replier.flush().await.unwrap();
    replier.flush().await.unwrap();
    replier.send("last").await.unwrap();
    let lines: Vec<String> = (0..100).map(|n| n.to_string()).chain(["last".into()]).collect();
    let expected = lines.join("\n") + "\n";
    let mut read = vec![0; expected.len()];
    client.read_exact(&mut read).unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), expected);
    assert!(listener.shutdown(PATIENCE).await.is_clean());
}

#[tokio::test]
async fn fed_answers_that_cant_leave_are_counted_as_lost() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let _client = connect(addr);
    let connection = events.recv().await.unwrap().connection;
    let mut dropped = connection.replier(LinesCodec::new());
    dropped.feed("never flushed").unwrap();
    drop(dropped);
    assert_eq!(listener.stats().answers_lost, 1);
    let mut replier = connection.replier(LinesCodec::new());
    for _ in 0..3 {
        replier.feed("too late").unwrap();
    }
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    assert_eq!(replier.flush().await.unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(listener.stats().answers_lost, 4);
    drop(replier);
    assert_eq!(listener.stats().answers_lost, 4, "once each");
}

#[tokio::test]
async fn a_flush_that_is_dropped_while_it_waits_keeps_what_was_fed() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server.with_answer_budget(1)).spawn().unwrap();
    let mut client = connect(addr);
    let connection = events.recv().await.unwrap().connection;
    // More than the kernel's buffers take.
    let stuffing = Bytes::from(vec![b'x'; 32 << 20]);
    connection.send(stuffing.clone()).await.unwrap();
    let mut replier = connection.replier(LinesCodec::new());
    replier.feed("a").unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(5), replier.flush()).await;
    assert!(waited.is_err(), "nobody reads");
    replier.feed("b").unwrap();
    let reader = thread::spawn(move || {
        let mut read = vec![0; stuffing.len() + 4];
        client.read_exact(&mut read).unwrap();
        read[stuffing.len()..].to_vec()
    });
    replier.flush().await.unwrap();
    assert_eq!(reader.join().unwrap(), b"a\nb\n");
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    assert_eq!(listener.stats().answers_lost, 0);
}

#[test]
fn answers_from_many_threads_are_whole_and_in_each_threads_order() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let client = thread::spawn(move || read_all(connect(addr)));
    let connection = opened(&mut events);
    thread::scope(|scope| {
        for thread in 0..4 {
            let connection = &connection;
            scope.spawn(move || {
                for n in 0..2000 {
                    let mut answer = Bytes::from(format!("{thread} {n}\n"));
                    while let Err(refused) = connection.try_send(answer) {
                        answer = refused.into_inner();
                        thread::yield_now();
                    }
                }
            });
        }
    });
    connection.close();
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

#[test]
fn a_peer_that_stops_reading_holds_back_the_answers_then_loses_its_connection() {
    let (server, addr) = lines(100);
    let server = server.with_answer_budget(100_000);
    let (listener, mut events) = Listener::builder(server)
        .poll_interval(Duration::from_millis(5))
        .write_timeout(Duration::from_millis(100))
        .spawn()
        .unwrap();
    let client = connect(addr);
    let connection = opened(&mut events);
    let answer = Bytes::from(vec![b'x'; 50_000]);
    // First the kernel's buffers fill up, then the budget, then nothing is taken until the peer has
    // not read for too long.
    let mut full = false;
    loop {
        match connection.try_send(answer.clone()) {
            Ok(()) => {}
            Err(AnswerError::Full(back)) => {
                assert_eq!(back.len(), answer.len());
                full = true;
                thread::yield_now();
            }
            Err(AnswerError::Closed(_)) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(connection.pending() <= 100_000);
    }
    assert!(full);
    assert!(matches!(closed(&mut events).1, CloseReason::Closed));
    assert!(listener.stats().answers_lost >= 2);
    drop(client);
    clean(&listener);
}

#[tokio::test]
async fn a_send_that_waits_for_a_slow_peer_goes_on_when_it_reads() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server.with_answer_budget(1)).spawn().unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let client = thread::spawn(move || {
        let client = connect(addr);
        wait.recv_timeout(PATIENCE).unwrap();
        read_all(client).len()
    });
    let connection = events.recv().await.unwrap().connection;
    let answer = Bytes::from(vec![b'x'; 1 << 20]);
    let mut sent = 0;
    while connection.try_send(answer.clone()).is_ok() {
        sent += 1;
    }
    let waiting = {
        let (connection, answer) = (connection.clone(), answer.clone());
        tokio::spawn(async move { connection.send(answer).await })
    };
    tokio::task::yield_now().await;
    go.send(()).unwrap();
    waiting.await.unwrap().unwrap();
    connection.close();
    assert!(connection.send(answer).await.is_err(), "closed for new answers");
    let client = tokio::task::spawn_blocking(|| client.join().unwrap());
    assert_eq!(client.await.unwrap(), (sent + 1) << 20);
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    assert_eq!(listener.stats().answers_lost, 0);
}

#[test]
fn a_stop_with_answers_queued_for_a_peer_that_doesnt_read_is_prompt_and_counts_them() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let connection = opened(&mut events);
    while connection.try_send(vec![b'x'; 1 << 18].into()).is_ok() {}
    clean(&listener);
    assert!(!connection.is_open());
    assert!(listener.stats().answers_lost >= 1);
    drop(client);
}

// --- bad input and bad luck --------------------------------------------------------------------

/// What a connection comes to that sends `data` to a server for blocks of at most 100 bytes.
fn verdict_on(data: &[u8], finish: impl FnOnce(TcpStream)) -> CloseReason {
    let make = || LengthDelimitedCodec::builder().max_frame_length(100).new_codec();
    let server = TcpServer::bind("127.0.0.1:0", 104, make).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let mut bystander = connect(addr);
    let id = opened(&mut events).id();
    let mut client = connect(addr);
    assert_ne!(opened(&mut events).id(), id);
    client.write_all(data).unwrap();
    finish(client);
    let (connection, reason) = closed(&mut events);
    assert_ne!(connection.id(), id);
    // Nobody else is touched.
    bystander.write_all(b"\0\0\0\x02ok").unwrap();
    assert_eq!(frame(&mut events).1, "ok");
    let books = u64::from(matches!(reason, CloseReason::Frame(_)));
    assert_eq!(listener.stats().decode_errors, books);
    clean(&listener);
    reason
}

#[test]
fn an_over_long_frame_closes_its_connection_only() {
    let reason = verdict_on(b"\0\0\0\x65", |client| assert!(read_all(client).is_empty()));
    let text = reason.to_string();
    assert!(matches!(reason, CloseReason::Frame(FrameError::TooLong { offset: 0, .. })), "{text}");
}

#[test]
fn a_garbage_length_closes_its_connection_only() {
    let reason = verdict_on(b"GET / HTTP/1.1\r\n\r\n", |client| {
        assert!(read_all(client).is_empty());
    });
    assert!(matches!(reason, CloseReason::Frame(FrameError::TooLong { .. })), "{reason}");
}

#[test]
fn half_a_frame_then_the_end_is_an_error_of_its_connection() {
    let reason = verdict_on(b"\0\0\0\x09half", drop);
    match reason {
        CloseReason::Frame(FrameError::Incomplete { offset: 0, received: 8 }) => {}
        other => panic!("{other}"),
    }
}

#[test]
fn a_reset_connection_is_told_from_one_that_ends() {
    let reason = verdict_on(b"", |client| {
        let client = socket2::Socket::from(client);
        client.set_linger(Some(Duration::ZERO)).unwrap();
    });
    match reason {
        CloseReason::Io(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        other => panic!("{other}"),
    }
}

#[test]
fn a_decoder_that_panics_costs_its_connection_only() {
    struct Fragile;
    impl Decoder for Fragile {
        type Item = u8;
        type Error = std::io::Error;
        fn decode(&mut self, bytes: &mut BytesMut) -> std::io::Result<Option<u8>> {
            if bytes.is_empty() {
                return Ok(None);
            }
            let byte = bytes.split_to(1)[0];
            assert_ne!(byte, b'!', "a bug in a codec");
            Ok(Some(byte))
        }
    }
    let server = TcpServer::bind("127.0.0.1:0", 10, || Fragile).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let mut first = connect(addr);
    opened(&mut events);
    first.write_all(b"!").unwrap();
    assert!(matches!(closed(&mut events).1, CloseReason::Panicked));
    assert!(read_all(first).is_empty());
    let mut second = connect(addr);
    opened(&mut events);
    second.write_all(b"a").unwrap();
    assert_eq!(frame(&mut events).1, b'a');
    clean(&listener);
}

#[test]
fn a_slow_consumer_holds_the_peer_back_and_loses_nothing() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).capacity(2).spawn().unwrap();
    let client = thread::spawn(move || {
        let mut client = connect(addr);
        let mut sent = 0;
        client.set_nonblocking(true).unwrap();
        // Until nothing is taken for a while, which is only so if nobody reads.
        let mut refused = 0;
        while refused < 50 {
            match client.write(b"0123456789\n") {
                Ok(n) => (sent, refused) = (sent + n, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    refused += 1;
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        sent
    });
    let sent = client.join().unwrap();
    let mut received = 0;
    loop {
        match next(&mut events).1 {
            Event::Frame(line) => received += line.len() + 1,
            Event::Closed(_) => break,
            _ => {}
        }
    }
    assert!(sent > 10_000 && received >= sent && received < sent + 11, "{sent} {received}");
    clean(&listener);
    assert!(events.stats().balances());
}

#[test]
fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server.with_max_connections(2)).spawn().unwrap();
    let first = connect(addr);
    opened(&mut events);
    let second = connect(addr);
    opened(&mut events);
    assert!(read_all(connect(addr)).is_empty());
    assert_eq!((listener.stats().refused, listener.stats().open), (1, 2));
    // There is room again as soon as one has gone, and nobody can answer it any more.
    drop(first);
    drop(closed(&mut events));
    while listener.stats().open == 2 {
        thread::yield_now();
    }
    let _third = connect(addr);
    opened(&mut events);
    drop(second);
    clean(&listener);
    assert_eq!(listener.stats().accepted, 3);
}

#[test]
fn ten_thousand_quick_connects_are_all_accounted_for() {
    const CONNECTS: u64 = 10_000;
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..CONNECTS / 4 {
                    drop(connect(addr));
                }
            })
        })
        .collect();
    // A connection is opened and closed, or refused, or has gone before its turn.
    let (mut opened, mut closed) = (0, 0);
    let done = |opened: u64, closed: u64| {
        let stats = listener.stats();
        closed == opened && opened + stats.refused + stats.accept_errors == CONNECTS
    };
    while !done(opened, closed) {
        match events.recv_blocking(Duration::from_millis(1)) {
            Ok(Incoming { event: Event::Opened, .. }) => opened += 1,
            Ok(Incoming { event: Event::Closed(_), .. }) => closed += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert_eq!(error, RecvBlockingError::TimedOut),
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    // And it still works.
    let mut client = connect(addr);
    client.write_all(b"still here\n").unwrap();
    assert!(matches!(next(&mut events).1, Event::Opened));
    assert_eq!(frame(&mut events).1, "still here");
    clean(&listener);
    assert_eq!(listener.stats().accepted, opened + 1);
    assert!(events.stats().balances());
}

#[test]
fn a_stop_ends_every_connection() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let clients: Vec<_> = (0..50).map(|_| connect(addr)).collect();
    let connections: Vec<_> = clients.iter().map(|_| opened(&mut events)).collect();
    clean(&listener);
    for (client, connection) in clients.into_iter().zip(connections) {
        assert!(read_all(client).is_empty());
        assert!(!connection.is_open());
        assert!(matches!(connection.try_send("x".into()), Err(AnswerError::Closed(_))));
    }
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn dropping_the_consumer_stops_the_server() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).capacity(1).spawn().unwrap();
    let mut client = connect(addr);
    opened(&mut events);
    client.write_all(b"a\nb\nc\n").unwrap();
    drop(events);
    while !listener.is_finished() {
        thread::yield_now();
    }
    assert_eq!(listener.ending(), Some(Ending::ConsumerDropped));
    read_all(client);
}

// --- sockets -----------------------------------------------------------------------------------

#[test]
fn an_injected_listening_socket_is_left_listening_for_its_other_owners() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let other = socket.try_clone().unwrap();
    let server = TcpServer::from_socket(socket, 100, LinesCodec::new).unwrap();
    assert_eq!(server.local_addr().unwrap(), addr);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    connect(addr).write_all(b"hi\n").unwrap();
    opened(&mut events);
    assert_eq!(frame(&mut events).1, "hi");
    clean(&listener);

    let client = connect(addr);
    other.set_nonblocking(false).unwrap();
    let ours = client.local_addr().unwrap();
    // The nudge of the stop may wait there as well, or a tick be left over.
    while other.accept().map_or(true, |(_, peer)| peer != ours) {}
}

#[test]
fn a_socket_that_doesnt_listen_is_refused() {
    let plain = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let refused = TcpServer::from_socket(plain, 100, LinesCodec::new);
    if cfg!(target_os = "linux") {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(TcpServer::bind("127.0.0.1:0", 0, LinesCodec::new).is_err());
}

#[test]
fn a_port_in_use_is_an_error() {
    let (_server, addr) = lines(10);
    let refused = TcpServer::bind(addr, 10, LinesCodec::new).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_port_can_be_bound_again_right_after_the_stop() {
    let (server, addr) = lines(100);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let _client = connect(addr);
    opened(&mut events);
    clean(&listener);
    let (listener, mut events) =
        Listener::builder(TcpServer::bind(addr, 100, LinesCodec::new).unwrap()).spawn().unwrap();
    let _client = connect(addr);
    opened(&mut events);
    clean(&listener);
}

#[cfg(unix)]
#[test]
fn a_unix_server_answers_and_removes_its_path() {
    use callbridge::listener::UnixServer;
    use std::os::unix::net::UnixStream;

    let path = std::env::temp_dir().join(format!("callbridge-{}-server", std::process::id()));
    let server = UnixServer::bind(&path, 100, LinesCodec::new).unwrap();
    assert!(UnixServer::bind(&path, 100, LinesCodec::new).is_err());
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let connection = opened(&mut events);
    assert_eq!(connection.peer(), &Peer::Unix(None));
    client.write_all(b"ping\n").unwrap();
    assert_eq!(frame(&mut events).1, "ping");
    connection.try_send("pong\n".into()).unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    clean(&listener);
    assert!(!path.exists());
}
