//! A server's connections as streams: frames in order, each connection for itself, and how one ends.

use crate::common::LONG;
use crate::support::*;
use bytes::BytesMut;
use callbridge::channel::SourceError;
use callbridge::channel::{Ending, RecvError};
use callbridge::listener::{FrameError, Listener, Peer, TcpServer};
use futures_util::StreamExt;
use socket2::SockRef;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

#[test]
fn a_connection_comes_with_its_peer_gives_its_frames_and_ends() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).name("lines").spawn().unwrap();
    assert_eq!(listener.local_addr(), Some(addr));
    let mut client = connect(addr);
    let mut connection = next(&mut connections);
    assert_eq!(connection.id(), 1);
    assert_eq!(connection.peer(), &Peer::Ip(client.local_addr().unwrap()));
    assert!(connection.handle().is_open());
    client.write_all(b"one\ntwo\nthr").unwrap();
    assert_eq!(frame(&mut connection), "one");
    assert_eq!(frame(&mut connection), "two");
    client.write_all(b"ee\n").unwrap();
    assert_eq!(frame(&mut connection), "three");
    drop(client);
    assert_eq!(ending(&mut connection), Ending::Finished);
    let over = futures_executor::block_on(connection.next());
    assert!(over.is_none(), "an end without an error: {over:?}");
    let stats = clean(&listener);
    assert_eq!((stats.accepted, stats.frames, stats.decode_errors), (1, 3, 0));
    assert_eq!(end(&mut connections), Ending::Aborted);
}

#[test]
fn frames_of_many_connections_are_told_apart_and_keep_their_order() {
    const CLIENTS: usize = 20;
    const FRAMES: u32 = 200;
    let server = TcpServer::bind("127.0.0.1:0", 1024, LengthDelimitedCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
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
    let mut ids = Vec::new();
    let readers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut connection = next(&mut connections);
            ids.push(connection.id());
            thread::spawn(move || {
                for n in 0..FRAMES {
                    assert_eq!(frame(&mut connection), BytesMut::from(&n.to_be_bytes()[..]));
                }
                assert_eq!(ending(&mut connection), Ending::Finished);
            })
        })
        .collect();
    assert_eq!(ids, (1..=CLIENTS as u64).collect::<Vec<_>>());
    clients.into_iter().chain(readers).for_each(|thread| thread.join().unwrap());
    clean(&listener);
}

// --- bad input and bad luck --------------------------------------------------------------------

/// The error of a connection, and how often bytes made no frame.
fn verdict_on(data: &[u8], finish: impl FnOnce(TcpStream)) -> (io::Error, u64) {
    let make = || LengthDelimitedCodec::builder().max_frame_length(100).new_codec();
    let server = TcpServer::bind("127.0.0.1:0", 104, make).unwrap();
    let addr = server.local_addr().unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut bystander = connect(addr);
    let mut others = next(&mut connections);
    let mut client = connect(addr);
    let mut connection = next(&mut connections);
    client.write_all(data).unwrap();
    finish(client);
    let error = failure(&mut connection);
    let over = futures_executor::block_on(connection.next());
    assert!(over.is_none(), "then the end");
    // Nobody else is touched.
    bystander.write_all(b"\0\0\0\x02ok").unwrap();
    assert_eq!(frame(&mut others), "ok");
    (error, clean(&listener).decode_errors)
}

fn frame_error(error: &io::Error) -> &FrameError {
    let shared = error.get_ref().and_then(|error| error.downcast_ref::<SourceError>());
    let original = shared.and_then(|shared| shared.downcast_ref::<io::Error>()?.get_ref());
    original.and_then(|error| error.downcast_ref()).expect("it is about a frame")
}

#[test]
fn an_over_long_frame_ends_its_connection_only() {
    let (error, counted) = verdict_on(b"\0\0\0\x65", |client| assert!(read_all(client).is_empty()));
    assert!(matches!(frame_error(&error), FrameError::TooLong { offset: 0, .. }), "{error}");
    assert_eq!((error.kind(), counted), (ErrorKind::InvalidData, 1));
}

#[test]
fn a_garbage_length_ends_its_connection_only() {
    let (error, counted) =
        verdict_on(b"GET / HTTP/1.1\r\n\r\n", |client| assert!(read_all(client).is_empty()));
    assert!(matches!(frame_error(&error), FrameError::TooLong { .. }), "{error}");
    assert_eq!(counted, 1);
}

#[test]
fn half_a_frame_then_the_end_is_an_error_of_its_connection() {
    let (error, counted) = verdict_on(b"\0\0\0\x09half", drop);
    match frame_error(&error) {
        FrameError::Incomplete { offset: 0, received: 8 } => {}
        other => panic!("{other}"),
    }
    assert_eq!(counted, 1);
}

#[test]
fn a_reset_connection_is_told_from_one_that_ends() {
    let (error, counted) = verdict_on(b"", |client| {
        let client = socket2::Socket::from(client);
        client.set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert_eq!((error.kind(), counted), (ErrorKind::ConnectionReset, 0));
}

#[test]
fn a_decoder_that_panics_costs_its_connection_only() {
    struct Fragile;
    impl Decoder for Fragile {
        type Item = u8;
        type Error = io::Error;
        fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<u8>> {
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
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut first = connect(addr);
    let mut connection = next(&mut connections);
    first.write_all(b"!").unwrap();
    assert_eq!(failure(&mut connection).to_string(), "the decoder panicked");
    assert_eq!(connection.frames().ending(), Some(Ending::Panicked));
    assert!(read_all(first).is_empty());
    let mut second = connect(addr);
    let mut connection = next(&mut connections);
    second.write_all(b"a").unwrap();
    assert_eq!(frame(&mut connection), b'a');
    clean(&listener);
}

#[test]
fn resets_in_the_middle_of_a_frame_end_only_their_connections() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut honest = connect(addr);
    let mut others = next(&mut connections);
    for _ in 0..50 {
        let mut client = connect(addr);
        client.write_all(b"whole\nhal").unwrap();
        let mut connection = next(&mut connections);
        // Not before the frame was read: a reset discards what the peer hasn't read.
        assert_eq!(frame(&mut connection), "whole");
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(failure(&mut connection).kind(), ErrorKind::ConnectionReset);
    }
    honest.write_all(b"still here\n").unwrap();
    assert_eq!(frame(&mut others), "still here");
    assert_eq!(clean(&listener).accepted, 51);
}

// --- each connection for itself ----------------------------------------------------------------

#[test]
fn a_connection_whose_frames_nobody_takes_holds_its_peer_back_and_nobody_else() {
    // Little room in the system: there are many frames in what it holds.
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listening.local_addr().unwrap();
    SockRef::from(&listening).set_recv_buffer_size(32 << 10).unwrap();
    let server = TcpServer::from_socket(listening, 100, LinesCodec::new).unwrap();
    let server = server.with_connection_capacity(2);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut pushy = connect(addr);
    SockRef::from(&pushy).set_send_buffer_size(32 << 10).unwrap();
    let mut unread = next(&mut connections);
    let mut other = connect(addr);
    let mut read = next(&mut connections);
    pushy.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until nothing is taken any more, which is only so if nobody reads.
    let mut refused = 0;
    while refused < 50 {
        match pushy.write(b"0123456789\n") {
            Ok(n) => (sent, refused) = (sent + n, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                other.write_all(b"meanwhile\n").unwrap();
                assert_eq!(frame(&mut read), "meanwhile");
            }
        }
    }
    assert!(unread.frames().stats().queued <= 2);
    let reader = thread::spawn(move || {
        let mut received = 0;
        while let Ok(line) = unread.frames().recv_blocking(LONG) {
            received += line.len() + 1;
        }
        assert!(unread.frames().stats().balances());
        received
    });
    drop(pushy);
    let received = reader.join().unwrap();
    assert!(sent > 10_000 && received >= sent && received < sent + 11, "{sent} {received}");
    clean(&listener);
}

#[test]
fn a_peer_that_ends_its_side_can_still_be_written_to() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = talk(addr);
    let mut connection = next(&mut connections);
    say(client.get_ref(), "one\n");
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(frame(&mut connection), "one");
    assert_eq!(ending(&mut connection), Ending::Finished);
    assert_eq!(listener.stats().open, 1, "it holds its place");
    send(&mut connection, "bye").unwrap();
    assert_eq!(hear(&mut client), "bye");
    drop(connection);
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    wait_for(&listener, |stats| stats.open == 0);
    assert_eq!(clean(&listener).replies_lost, 0);
}

#[test]
fn a_handle_tells_when_the_peer_is_gone_and_closes_from_elsewhere() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    let handle = connection.handle();
    let gone = handle.gone();
    assert!(handle.is_open() && !gone.is_cancelled());
    drop(client);
    futures_executor::block_on(gone.cancelled());
    assert!(!handle.is_open());
    assert_eq!(ending(&mut connection), Ending::Finished);

    let client = connect(addr);
    let mut connection = next(&mut connections);
    let handle = connection.handle();
    let closer = thread::spawn(move || handle.close());
    assert!(read_all(client).is_empty());
    closer.join().unwrap();
    assert!(!connection.handle().is_open());
    let ending = ending(&mut connection);
    assert_eq!(ending, Ending::Aborted, "closed on this side");
    clean(&listener);
}

#[test]
fn dropping_a_connection_closes_it() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    client.write_all(b"unread\n").unwrap();
    let connection = next(&mut connections);
    let handle = connection.handle();
    drop(connection);
    assert!(!handle.is_open());
    assert!(read_all(client).is_empty());
    wait_for(&listener, |stats| stats.open == 0);
    clean(&listener);
}

/// What a peer still sends after the close isn't read any more.
#[test]
fn no_frames_come_after_a_close_but_those_in_hand() {
    let (server, addr) = lines(1024);
    let server = server.with_connection_capacity(1);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    say(&client, &("bad\n".to_owned() + &"cmd\n".repeat(10_000)));
    let mut connection = next(&mut connections);
    assert_eq!(frame(&mut connection), "bad");
    connection.handle().close();
    let mut later = 0;
    while connection.frames().recv_blocking(LONG).is_ok() {
        later += 1;
    }
    // One queued, and one in the thread's hands.
    assert!(later <= 2, "{later} frames after the close");
    clean(&listener);
}

#[test]
fn a_connection_that_was_closed_here_says_so_though_the_peer_talks_on() {
    let (server, addr) = lines(1024);
    let server = server.with_connection_capacity(1);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    say(&client, "1\n2\n3\n4\n");
    let mut connection = next(&mut connections);
    // Until its thread waits with what it has read.
    crate::common::eventually("a full channel", || connection.frames().stats().waiting == 1);
    connection.handle().close();
    let _ = (&client).write_all(b"5\n");
    while connection.frames().recv_blocking(LONG).is_ok() {}
    assert_eq!(connection.frames().ending(), Some(Ending::Aborted));
    let over = futures_executor::block_on(connection.next());
    assert!(over.is_none(), "no fault of the peer's: {over:?}");
    clean(&listener);
}

#[test]
fn a_stop_ends_every_connection_half_closed_ones_too() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let clients: Vec<_> = (0..50).map(|_| connect(addr)).collect();
    let mut all: Vec<_> = clients.iter().map(|_| next(&mut connections)).collect();
    for (client, connection) in clients.iter().zip(&mut all).take(10) {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(ending(connection), Ending::Finished);
    }
    clean(&listener);
    for (client, mut connection) in clients.into_iter().zip(all) {
        assert!(read_all(client).is_empty());
        assert!(!connection.handle().is_open());
        assert_eq!(send(&mut connection, "x").unwrap_err().kind(), ErrorKind::NotConnected);
    }
    assert!(listener.is_finished());
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn dropping_the_stream_of_connections_stops_the_server() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).capacity(1).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    say(&client, "a\n");
    assert_eq!(frame(&mut connection), "a");
    drop(connections);
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::ConsumerDropped));
    assert_eq!(connection.frames().recv_blocking(LONG), Err(RecvError::Ended));
    read_all(client);
}
