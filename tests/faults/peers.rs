//! Peers that mean no good.

use crate::common::{LONG, Loop};
use crate::until;
use callbridge::Listener;
use callbridge::listener::{CloseReason, Datagram, Event, Incoming, Request, TcpServer, UdpSource};
use socket2::SockRef;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;
use tokio_util::codec::LinesCodec;

fn lines() -> TcpServer<fn() -> LinesCodec> {
    TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new as fn() -> _).unwrap()
}

fn connect(listener: &Listener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

#[test]
fn peers_that_dawdle_delay_nobody_and_a_stop_ends_them() {
    let event_loop = Loop::multi(1);
    let listener = Listener::builder(lines())
        .serve(&event_loop.bridge(), |request: Request<String>| async move { Some(request.frame) })
        .spawn()
        .unwrap();
    // Half a request each, and never more: slow loris. Some say nothing at all: half-open.
    let mut dawdlers: Vec<_> = (0..40).map(|_| connect(&listener)).collect();
    dawdlers.iter_mut().skip(20).for_each(|client| client.write_all(b"h").unwrap());
    until("the dawdlers' connections", || listener.stats().open == 40);
    let mut client = BufReader::new(connect(&listener));
    for n in 0..100 {
        client.get_mut().write_all(format!("{n}\n").as_bytes()).unwrap();
        dawdlers[20 + n % 20].write_all(b"i").unwrap();
        let mut reply = String::new();
        client.read_line(&mut reply).unwrap();
        assert_eq!(reply.trim_end(), n.to_string());
    }
    let report = listener.shutdown_blocking(LONG);
    assert!(report.is_clean() && report.stats.open == 0, "{report}");
    for mut client in dawdlers {
        // An end or a reset, whichever the kernel makes of it.
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}

/// Who dawdles keeps a place for as long as the program lets him; the program can tell and end it.
#[test]
fn dawdlers_in_every_place_can_be_put_out() {
    const PLACES: u64 = 8;
    let server = lines().with_max_connections(PLACES as usize);
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let dawdlers: Vec<_> = (0..PLACES).map(|_| connect(&listener)).collect();
    for (n, mut client) in dawdlers.iter().enumerate() {
        // Half of them say nothing, half of them half a line.
        client.write_all(if n % 2 == 0 { b"" } else { b"ha" }).unwrap();
    }
    let mut connections = Vec::new();
    while connections.len() < PLACES as usize {
        let Incoming { connection, event, .. } = events.recv_blocking(LONG).unwrap();
        assert!(matches!(event, Event::Opened));
        connections.push(connection);
    }
    for refused in 1..=3 {
        // An end or a reset, whichever the kernel makes of it.
        assert_eq!(connect(&listener).read(&mut [0; 8]).unwrap_or(0), 0);
        assert_eq!((listener.stats().refused, listener.stats().open), (refused, PLACES));
    }
    let put_out = connections.remove(3);
    put_out.close();
    let closed = events.recv_blocking(LONG).unwrap();
    assert!(matches!(closed.event, Event::Closed(CloseReason::Closed)), "{:?}", closed.event);
    assert_eq!(closed.connection.id(), put_out.id());
    drop((closed, put_out));
    until("a place is free", || listener.stats().open < PLACES);
    connect(&listener)
        .write_all(
            b"served
",
        )
        .unwrap();
    let frame = loop {
        if let Event::Frame(frame) = events.recv_blocking(LONG).unwrap().event {
            break frame;
        }
    };
    assert_eq!(frame, "served");
    drop(connections);
    let report = listener.shutdown_blocking(LONG);
    assert!(report.is_clean() && report.stats.refused == 3, "{report}");
}

#[test]
fn resets_in_the_middle_of_a_frame_close_only_their_connections() {
    let (listener, mut events) = Listener::builder(lines()).spawn().unwrap();
    let mut honest = connect(&listener);
    for _ in 0..50 {
        let mut client = connect(&listener);
        client.write_all(b"whole\nhal").unwrap();
        loop {
            // Not before the frame was read: a reset discards what the peer hasn't read.
            if let Event::Frame(frame) = events.recv_blocking(LONG).unwrap().event {
                assert_eq!(frame, "whole");
                break;
            }
        }
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let reason = loop {
            if let Event::Closed(reason) = events.recv_blocking(LONG).unwrap().event {
                break reason;
            }
        };
        assert!(matches!(reason, CloseReason::Io(_)), "{reason}");
    }
    honest.write_all(b"still here\n").unwrap();
    let still = events.recv_blocking(LONG).unwrap();
    assert!(matches!(still.event, Event::Frame(frame) if frame == "still here"));
    let report = listener.shutdown_blocking(LONG);
    assert!(report.is_clean() && report.stats.accepted == 51, "{report}");
    assert!(events.stats().balances());
}

#[test]
fn datagrams_of_no_bytes_of_too_many_and_of_the_most_come_as_they_are() {
    let source = UdpSource::bind("127.0.0.1:0").unwrap().with_max_datagram(1000).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    for length in [0, 1, 1000, 1001, 65_507, 0] {
        client.send(&vec![7; length]).unwrap();
        let Datagram { payload, truncated, .. } = frames.recv_blocking(LONG).unwrap();
        assert_eq!((payload.len(), truncated), (length.min(1000), length > 1000));
        assert!(payload.iter().all(|byte| *byte == 7));
    }
    let report = listener.shutdown_blocking(LONG);
    assert!(report.is_clean() && report.stats.source.truncated == 2, "{report}");
}
