//! An end that finds a channel full: who may still read is waited for, anybody else isn't.

use crate::common::{LONG, SHORT, eventually};
use crate::support::*;
use callbridge::FrameStream;
use callbridge::channel::{Ending, Stats};
use callbridge::listener::{Connection, Listener, StreamServer};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// So many lines arrive at once.
const LINES: u64 = 100;

fn flood(mut client: impl Write) {
    let lines: String = (0..LINES).map(|n| format!("{n}\n")).collect();
    client.write_all(lines.as_bytes()).unwrap();
}

/// A connection that was taken, with one line in its channel and the next in its thread's hands.
struct Full {
    listener: Listener,
    connections: FrameStream<Connection<LinesCodec>>,
    client: TcpStream,
    connection: Connection<LinesCodec>,
}

impl Full {
    fn new(write_timeout: Duration) -> Self {
        let (server, addr) = lines(100);
        let server = server.with_connection_capacity(1).with_linger(SHORT);
        let (listener, mut connections) =
            Listener::builder(server).write_timeout(write_timeout).spawn().unwrap();
        let client = connect(addr);
        flood(&client);
        let mut connection = next(&mut connections);
        eventually("a full channel", || connection.frames().stats().waiting == 1);
        Full { listener, connections, client, connection }
    }
}

fn balanced(connection: &mut Connection<LinesCodec>) -> Stats {
    let stats = connection.frames().stats();
    assert!(stats.balances() && stats.waiting == 0, "{stats:?}");
    stats
}

macro_rules! a_close_doesnt_wait_for_an_untaken_connection {
    ($name:ident, $server:expr, $client:expr) => {
        #[test]
        fn $name() {
            let (server, to) = $server;
            let server: StreamServer<_, _> = server.with_connection_capacity(1);
            let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
            let client = $client(&to);
            flood(&client);
            // One is in the channel, and its thread waits with the other.
            wait_for(&listener, |stats| stats.frames == 2);
            eventually("it is handed over", || connections.len() == 1);
            let report = listener.close_blocking(LONG);
            assert!(report.is_clean() && report.elapsed < LONG / 2, "{report}");
            assert_eq!((report.stats.frames, report.stats.open), (LINES, 0));
            let mut connection = next(&mut connections);
            assert_eq!(frame(&mut connection), "0");
            assert_eq!(ending(&mut connection), Ending::Aborted);
            let stats = balanced(&mut connection);
            assert_eq!((stats.offered, stats.lost.shutdown), (LINES, LINES - 1));
        }
    };
}

a_close_doesnt_wait_for_an_untaken_connection!(
    a_close_doesnt_wait_for_room_in_a_connection_that_nobody_has_taken,
    lines(100),
    |addr: &std::net::SocketAddr| connect(*addr)
);

#[cfg(unix)]
a_close_doesnt_wait_for_an_untaken_connection!(
    a_close_doesnt_wait_for_room_in_a_unix_connection_that_nobody_has_taken,
    {
        let path = scratch("untaken");
        let make = LinesCodec::new as fn() -> _;
        (callbridge::listener::UnixServer::bind(&path.0, 100, make).unwrap(), path)
    },
    |path: &Scratch| std::os::unix::net::UnixStream::connect(&path.0).unwrap()
);

#[test]
fn a_close_that_waits_for_a_reader_ends_when_the_connection_is_dropped() {
    let Full { listener, connections: _connections, client, connection } = Full::new(LONG);
    let close = thread::spawn(move || listener.close_blocking(LONG));
    eventually("nobody listens", || TcpStream::connect(client.peer_addr().unwrap()).is_err());
    drop(connection);
    let report = close.join().unwrap();
    assert!(report.is_clean() && report.elapsed < LONG / 2, "{report}");
    assert_eq!(report.stats.open, 0);
}

#[test]
fn a_connection_that_is_closed_here_ends_though_nobody_reads_on() {
    let Full { listener, client, mut connection, connections: _connections } = Full::new(LONG);
    connection.handle().close();
    assert!(read_all(client).is_empty(), "the peer sees the end");
    wait_for(&listener, |stats| stats.open == 0);
    assert_eq!(frame(&mut connection), "0");
    assert_eq!(ending(&mut connection), Ending::Aborted);
    let stats = balanced(&mut connection);
    assert_eq!((stats.offered, stats.lost.shutdown), (2, 1), "no more was decoded");
    clean(&listener);
}

#[test]
fn a_peer_that_stops_reading_fails_its_connection_though_nobody_reads_on() {
    let Full { listener, client, mut connection, connections: _connections } = Full::new(100 * MS);
    let error = loop {
        match send(&mut connection, "x".repeat(1 << 18)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    assert_eq!(frame(&mut connection), "0");
    let error = failure(&mut connection);
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    assert_eq!(balanced(&mut connection).lost.shutdown, 1);
    drop(client);
    clean(&listener);
}

/// Nobody can tell who reads slowly from who has forgotten to.
#[test]
fn a_close_is_cut_off_in_time_where_its_caller_holds_what_he_doesnt_read() {
    let Full { listener, client: _client, mut connection, connections: _connections } =
        Full::new(LONG);
    let report = listener.close_blocking(300 * MS);
    assert!(report.is_clean() && report.stats.open == 0, "{report}");
    assert_eq!(frame(&mut connection), "0");
    assert_eq!(ending(&mut connection), Ending::Aborted);
    assert_eq!(balanced(&mut connection).lost.shutdown, LINES - 1);

    let (source, client) = udp();
    let (listener, mut datagrams) = Listener::builder(source).capacity(1).spawn().unwrap();
    (0..3).for_each(|_| assert_eq!(client.send(b"x").unwrap(), 1));
    wait_for(&listener, |stats| stats.frames == 2);
    let report = listener.close_blocking(300 * MS);
    assert!(report.is_clean(), "{report}");
    next(&mut datagrams);
    assert_eq!(end(&mut datagrams), Ending::Aborted);
    let stats = datagrams.stats();
    assert!(stats.balances() && stats.lost.shutdown == 1, "{stats:?}");
}

#[test]
fn a_close_that_waits_for_a_reader_of_datagrams_ends_when_the_stream_is_dropped() {
    let (source, client) = udp();
    let (listener, datagrams) = Listener::builder(source).capacity(1).spawn().unwrap();
    (0..3).for_each(|_| assert_eq!(client.send(b"x").unwrap(), 1));
    wait_for(&listener, |stats| stats.frames == 2);
    let close = thread::spawn(move || listener.close_blocking(LONG));
    drop(datagrams);
    let report = close.join().unwrap();
    assert!(report.is_clean() && report.elapsed < LONG / 2, "{report}");
    assert_eq!(report.ending, Some(Ending::ConsumerDropped));
}
