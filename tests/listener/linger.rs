//! What has left arrives: a close waits for the peer to read, whatever it still sends, up to a limit.

use crate::common::{LONG, eventually, in_parallel};
use crate::support::*;
use callbridge::Overflow;
use callbridge::listener::{Listener, Request, TcpServer, TcpSource};
use futures_util::SinkExt;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

/// How long the big reply is.
const BIG: usize = 200_000;

/// A server whose connections' send buffers hold the big reply whole.
fn roomy() -> TcpServer<fn() -> LinesCodec> {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listening).set_send_buffer_size(1 << 20).unwrap();
    TcpServer::from_socket(listening, 1024, LinesCodec::new as fn() -> _).unwrap().with_linger(LONG)
}

/// A client with little room, so that most of what it is sent waits in the server's kernel buffer.
fn small_client(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(LONG)).unwrap();
    client.set_write_timeout(Some(LONG)).unwrap();
    client
}

/// Reads to the end; how much came, and how it ended.
fn drain(client: &mut TcpStream) -> (usize, Option<io::Error>) {
    let mut all = Vec::new();
    let error = client.read_to_end(&mut all).err();
    (all.len(), error)
}

#[test]
fn what_has_left_arrives_though_the_peer_talks_on_after_the_close() {
    for talks_on in [true, false] {
        let (listener, mut connections) = Listener::builder(roomy()).spawn().unwrap();
        let mut client = small_client(listener.local_addr().unwrap());
        client.write_all(b"get\n").unwrap();
        let mut connection = next(&mut connections);
        assert_eq!(frame(&mut connection), "get");
        futures_executor::block_on(connection.send("r".repeat(BIG - 1))).unwrap();
        drop(connection);
        if talks_on {
            client.write_all(b"get\n").unwrap();
        }
        let (got, error) = drain(&mut client);
        assert!(got == BIG && error.is_none(), "{got} of {BIG} bytes, {error:?}");
        drop(client);
        wait_for(&listener, |stats| stats.open == 0);
        assert_eq!(clean(&listener).replies_lost, 0);
    }
}

/// Serves "big" with 200 kB, "slow" with nothing in time, all else with itself. What a client gets that
/// sends `bytes` and reads once the server has closed.
fn reply_before_an_end(bytes: &[u8]) {
    let (_loop, bridge) = event_loop();
    let listener = Listener::builder(roomy())
        .serve(&bridge, |request: Request<String>| async move {
            match &request.frame[..] {
                "big" => Some("r".repeat(BIG - 1)),
                "slow" => std::future::pending().await,
                _ => Some(request.frame),
            }
        })
        .pipeline(2)
        .reply_timeout(300 * MS)
        .spawn()
        .unwrap();
    let mut client = small_client(listener.local_addr().unwrap());
    client.write_all(bytes).unwrap();
    wait_for(&listener, |stats| stats.replies > 0 && stats.decode_errors + stats.late > 0);
    let (got, error) = drain(&mut client);
    assert!(got == BIG && error.is_none(), "{got} of {BIG} bytes, {error:?}");
    assert_eq!(clean(&listener).replies, 1);
}

#[test]
fn a_big_reply_before_a_bad_frame_arrives() {
    reply_before_an_end(&[&b"big\n"[..], &[b'x'; 150_000]].concat());
}

#[test]
fn a_big_reply_before_a_missing_one_arrives() {
    reply_before_an_end(&[&b"big\nslow\n"[..], &b"more\n".repeat(30_000)].concat());
}

/// A peer that neither reads to the end nor hangs up is waited for as long as was said.
#[test]
fn a_peer_that_never_hangs_up_keeps_its_place_as_long_as_was_said() {
    let (server, addr) = lines(100);
    let server = server.with_linger(50 * MS);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let connection = next(&mut connections);
    let began = Instant::now();
    drop(connection);
    wait_for(&listener, |stats| stats.open == 0);
    assert!(began.elapsed() >= 50 * MS, "{:?}", began.elapsed());
    drop(client);
    clean(&listener);
}

#[test]
fn a_stop_cuts_a_connection_that_lingers() {
    let (server, addr) = lines(100);
    let server = server.with_linger(Duration::MAX);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    drop(next(&mut connections));
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "its side is ended");
    assert_eq!(listener.stats().open, 1, "and the peer's is waited for");
    clean(&listener);
    eventually("its end", || client.write_all(b"x").is_err());
}

#[test]
fn a_peer_that_reads_slowly_is_waited_for_as_long_as_it_reads() {
    const REPLY: usize = 4 << 20;
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(100);
    let listener = Listener::builder(server)
        .write_timeout(300 * MS)
        .serve(&bridge, |_: Request<String>| async { Some("x".repeat(REPLY)) })
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&client, "much\n");
    let mut part = vec![0; 64 * 1024];
    let mut read = 0;
    // Many times the write timeout in all, and never one without some reading.
    while read <= REPLY {
        read += client.read(&mut part).unwrap();
        thread::sleep(20 * MS);
    }
    assert_eq!(clean(&listener).failed_connections, 0);
}

#[test]
fn a_peer_that_reads_a_byte_now_and_then_is_given_up() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(100);
    let listener = Listener::builder(server.with_linger(MS))
        .write_timeout(50 * MS)
        .serve(&bridge, |_: Request<String>| async { Some("x".repeat(32 << 20)) })
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&client, "much\n");
    while listener.stats().failed_connections == 0 {
        let _one_byte = client.read(&mut [0]);
        thread::sleep(5 * MS);
    }
    assert_eq!(clean(&listener).open, 0);
}

#[tokio::test]
async fn a_sink_whose_peer_reads_slowly_is_waited_for_as_long_as_it_reads() {
    const MUCH: usize = 32 << 20;
    let (server, addr) = lines(100);
    let builder = Listener::builder(server).write_timeout(300 * MS);
    let (listener, mut connections) = builder.spawn().unwrap();
    let mut client = connect(addr);
    let reading = thread::spawn(move || {
        let mut part = vec![0; 256 * 1024];
        let mut read = 0;
        while read <= MUCH {
            let bytes = client.read(&mut part)?;
            if bytes == 0 {
                break;
            }
            read += bytes;
            thread::sleep(10 * MS);
        }
        io::Result::Ok(read)
    });
    let mut connection = connections.recv().await.unwrap();
    connection.send("x".repeat(MUCH)).await.unwrap();
    assert_eq!(reading.join().unwrap().unwrap(), MUCH + 1);
    drop(connection);
    assert_eq!(listener.close(LONG).await.stats.replies_lost, 0);
}

/// As long as the peer doesn't hang up, and its silence was too long already.
#[cfg(target_os = "linux")]
#[test]
fn a_connection_that_was_idle_for_too_long_lingers_asleep() {
    in_parallel([(true, "idle-served"), (false, "idle-held")], |(serves, name)| {
        let (_loop, bridge) = event_loop();
        let (server, addr) = lines(100);
        let server = server.with_idle_timeout(50 * MS).with_linger(LONG);
        let builder = Listener::builder(server).name(name);
        let mut client = connect(addr);
        let (listener, _held) = if serves {
            let echo = |request: Request<String>| async move { Some(request.frame) };
            client.write_all(b"hello\n").unwrap();
            (builder.serve(&bridge, echo).spawn().unwrap(), None)
        } else {
            let (listener, mut connections) = builder.spawn().unwrap();
            let mut connection = next(&mut connections);
            send(&mut connection, "hello").unwrap();
            (listener, Some((connections, connection)))
        };
        assert_eq!(read_all(client.try_clone().unwrap()), b"hello\n", "its side is ended");
        let percent = percent_of_a_core(&format!("1-{name}"));
        assert!(percent < 20, "{name}: {percent} % of a core");
        drop(client);
        clean(&listener);
    });
}

#[test]
fn what_was_written_to_a_device_that_goes_on_talking_arrives() {
    const FRAMES: usize = 40;
    const SIZE: usize = 5000;
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&device).set_recv_buffer_size(8 << 10).unwrap();
    let source = TcpSource::connect(device.local_addr().unwrap(), 1024, LinesCodec::new());
    let mut builder = Listener::builder(source.unwrap()).overflow(Overflow::DropOldest);
    let commands = builder.writer::<String>(FRAMES);
    let (listener, _lines) = builder.spawn().unwrap();
    let mut device = device.accept().unwrap().0;
    device.set_read_timeout(Some(LONG)).unwrap();
    let mut talker = device.try_clone().unwrap();
    let talking = thread::spawn(move || while talker.write_all(b"21.5\n21.5\n").is_ok() {});
    for _ in 0..FRAMES {
        commands.send_blocking("x".repeat(SIZE - 1), LONG).unwrap();
    }
    let closing = thread::spawn(move || listener.close_blocking(LONG));
    // It has other things to do before it reads.
    thread::sleep(50 * MS);
    let (read, error) = drain(&mut device);
    let _broken_off = device.shutdown(Shutdown::Both);
    talking.join().unwrap();
    let report = closing.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(read, FRAMES * SIZE, "{error:?}");
}
