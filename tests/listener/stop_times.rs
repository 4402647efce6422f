//! How long a stop takes, whatever the thread is blocked in.
//!
//! The times are printed (`cargo test --test listener stop_times -- --nocapture`), not asserted: only that the
//! stop happens at all, with a poll timeout that would be noticed.

use crate::common::LONG;
use crate::support::*;
use callbridge::FrameStream;
use callbridge::listener::{
    FrameSource, Listener, Origin, Request, StopReport, TcpServer, TcpSource, UdpSource,
};
use futures_util::Sink;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

const ROUNDS: usize = 20;

/// Stops a listener that was just made, many times over, and prints how long that took.
fn measure<T>(what: &str, mut make: impl FnMut() -> (Listener, T)) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let (listener, keep) = make();
            until_asleep(listener.name());
            let began = Instant::now();
            listener.stop();
            let report: StopReport = listener.close_blocking(LONG);
            assert!(report.is_clean(), "{what}: {report}");
            drop(keep);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("{what:<44} median {:>10.1?}   worst {:>10.1?}", times[ROUNDS / 2], times[ROUNDS - 1]);
}

fn start<S: Origin>(source: S) -> (Listener, FrameStream<S::Item>) {
    // Nothing that has a descriptor may need it.
    Listener::builder(source).poll_timeout(LONG).spawn().unwrap()
}

#[test]
fn stops_are_prompt_wherever_the_thread_is_blocked() {
    println!();
    measure("UDP recv", || start(UdpSource::bind("127.0.0.1:0").unwrap()));
    measure("UDP recv on 0.0.0.0", || start(UdpSource::bind("0.0.0.0:0").unwrap()));
    measure("UDP recv, connected", || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        start(UdpSource::from_socket(socket).unwrap())
    });
    measure("TCP accept", || start(lines(1 << 20).0));
    measure("TCP accept on an injected socket", || {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        start(TcpServer::from_socket(socket, 100, LinesCodec::new).unwrap())
    });
    measure("TCP read, one connection", || {
        let (server, addr) = lines(1 << 20);
        let client = TcpStream::connect(addr).unwrap();
        let (listener, frames) = start(server);
        (listener, (frames, client))
    });
    measure("TCP read, 100 connections", || {
        let (server, addr) = lines(1 << 20);
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let (listener, mut connections) = start(server);
        let held: Vec<_> = clients.iter().map(|_| next(&mut connections)).collect();
        (listener, (connections, held, clients))
    });
    measure("TCP read of a client's connection", || {
        let device = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = device.local_addr().unwrap();
        let (listener, frames) = start(TcpSource::connect(addr, 100, LinesCodec::new()).unwrap());
        (listener, (frames, device))
    });
    measure("full queue, UDP", || {
        let source = UdpSource::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = source.local_addr().unwrap();
        let (listener, frames) = Listener::builder(source).capacity(1).spawn().unwrap();
        while frames.stats().waiting == 0 {
            client.send_to(b"x", addr).unwrap();
        }
        (listener, frames)
    });
    measure("full channels of 10 TCP connections", || {
        let (server, addr) = lines(1 << 20);
        let (listener, mut connections) = start(server.with_connection_capacity(1));
        let clients: Vec<_> = (0..10).map(|_| connect(addr)).collect();
        clients.iter().for_each(|client| say(client, "a\nb\nc\n"));
        let mut held: Vec<_> = clients.iter().map(|_| next(&mut connections)).collect();
        for connection in &mut held {
            while connection.frames().stats().waiting == 0 {
                thread::yield_now();
            }
        }
        (listener, (connections, held, clients))
    });
    measure("frames for a peer that doesn't read", || {
        let (server, addr) = lines(1 << 20);
        let client = connect(addr);
        let (listener, mut connections) = start(server);
        let mut connection = next(&mut connections);
        let mut waits = Context::from_waker(Waker::noop());
        while Sink::<String>::poll_ready(Pin::new(&mut connection), &mut waits).is_ready() {
            Pin::new(&mut connection).start_send("x".repeat(1 << 18)).unwrap();
        }
        (listener, (connections, connection, client))
    });
    measure("half-closed connections", || {
        let (server, addr) = lines(1 << 20);
        let client = connect(addr);
        let (listener, mut connections) = start(server);
        let mut connection = next(&mut connections);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        ending(&mut connection);
        (listener, (connections, connection, client))
    });
    measure("a connection that lingers", || {
        let (server, addr) = lines(1 << 20);
        let client = connect(addr);
        let (listener, mut connections) = start(server.with_linger(LONG));
        drop(next(&mut connections));
        (listener, (connections, client))
    });
    measure("a handler that hangs", || {
        let (runtime, bridge) = event_loop();
        let (server, addr) = lines(1 << 20);
        let mut client = TcpStream::connect(addr).unwrap();
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
            .spawn()
            .unwrap();
        client.write_all(b"hello\n").unwrap();
        while listener.stats().in_flight == 0 {
            thread::yield_now();
        }
        (listener, (runtime, client))
    });
    measure("replies to a peer that doesn't read", || {
        let (runtime, bridge) = event_loop();
        let (server, addr) = lines(1 << 20);
        let mut client = TcpStream::connect(addr).unwrap();
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| async { Some("x".repeat(1 << 22)) })
            .spawn()
            .unwrap();
        client.write_all(&b"more\n".repeat(10)).unwrap();
        while listener.stats().requests == 0 {
            thread::yield_now();
        }
        (listener, (runtime, client))
    });
    #[cfg(unix)]
    unix();
    measure("a source that nothing can wake (10 ms ticks)", || {
        struct Deaf;
        impl FrameSource for Deaf {
            type Frame = ();
            fn next_frame(&mut self) -> std::io::Result<Option<()>> {
                thread::sleep(Duration::from_millis(10));
                Err(std::io::ErrorKind::TimedOut.into())
            }
        }
        start(Deaf)
    });
}

#[cfg(unix)]
fn unix() {
    use callbridge::listener::{UnixDatagramSource, UnixServer, UnixSource};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    let path = std::env::temp_dir().join(format!("callbridge-{}-stop", std::process::id()));
    measure("Unix datagram recv", || start(UnixDatagramSource::bind(&path).unwrap()));
    measure("Unix datagram recv on half a pair", || {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let (listener, frames) = start(UnixDatagramSource::from_socket(ours).unwrap());
        (listener, (frames, theirs))
    });
    measure("Unix accept", || start(UnixServer::bind(&path, 100, LinesCodec::new).unwrap()));
    measure("Unix accept on an injected socket", || {
        let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let (listener, frames) =
            start(UnixServer::from_socket(socket, 100, LinesCodec::new).unwrap());
        (listener, (frames, Remove(path.clone())))
    });
    measure("Unix read", || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let source = UnixSource::from_socket(ours, 100, LinesCodec::new()).unwrap();
        let (listener, frames) = start(source);
        (listener, (frames, theirs))
    });
}

#[cfg(unix)]
struct Remove(std::path::PathBuf);

#[cfg(unix)]
impl Drop for Remove {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}
