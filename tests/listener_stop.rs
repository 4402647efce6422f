//! How long a stop takes, whatever the thread is blocked in.
//!
//! The times are printed (`cargo test --test listener_stop -- --nocapture`), not asserted: only that
//! the stop happens at all.

use callbridge::listener::{
    Connection, Event, FrameSource, Listener, Origin, Request, StopReport, TcpServer, TcpSource,
    UdpSource,
};
use callbridge::{Bridge, FrameStream};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: usize = 20;

/// Stops a listener that was just made, many times over, and prints how long that took.
fn measure<T>(what: &str, mut make: impl FnMut() -> (Listener, T)) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let (listener, keep) = make();
            // Nothing tells that a thread has arrived in a system call; most have by then.
            thread::sleep(Duration::from_millis(10));
            let report: StopReport = listener.shutdown_blocking(PATIENCE);
            assert!(report.is_clean(), "{what}: {report}");
            drop(keep);
            report.elapsed
        })
        .collect();
    times.sort_unstable();
    println!("{what:<44} median {:>10.1?}   worst {:>10.1?}", times[ROUNDS / 2], times[ROUNDS - 1]);
}

fn start<S: Origin>(source: S) -> (Listener, FrameStream<S::Item>) {
    Listener::builder(source).spawn().unwrap()
}

fn lines() -> TcpServer<fn() -> LinesCodec> {
    TcpServer::bind("127.0.0.1:0", 1 << 20, LinesCodec::new as fn() -> _).unwrap()
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
    measure("TCP accept", || start(lines()));
    measure("TCP accept on an injected socket", || {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        start(TcpServer::from_socket(socket, 100, LinesCodec::new).unwrap())
    });
    measure("TCP read, one connection", || {
        let server = lines();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (listener, frames) = start(server);
        (listener, (frames, client))
    });
    measure("TCP read, 100 connections", || {
        let server = lines();
        let addr = server.local_addr().unwrap();
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let (listener, mut frames) = start(server);
        for _ in &clients {
            frames.recv_blocking(PATIENCE).unwrap();
        }
        (listener, (frames, clients))
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
    measure("full queue, 10 TCP connections", || {
        let server = lines();
        let addr = server.local_addr().unwrap();
        let (listener, frames) = Listener::builder(server).capacity(1).spawn().unwrap();
        let clients: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        while frames.stats().waiting < 9 {
            thread::yield_now();
        }
        (listener, (frames, clients))
    });
    measure("answers to a peer that doesn't read", || {
        let server = lines();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let (listener, mut frames) = start(server);
        let incoming = frames.recv_blocking(PATIENCE).unwrap();
        assert!(matches!(incoming.event, Event::Opened));
        let connection: Connection = incoming.connection;
        while connection.try_send(vec![0; 1 << 18].into()).is_ok() {}
        (listener, (frames, connection, client))
    });
    measure("a handler that hangs", || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let server = lines();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
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
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let server = lines();
        let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| async { Some("x".repeat(1 << 22)) })
            .spawn()
            .unwrap();
        client.write_all(&b"more\n".repeat(10)).unwrap();
        while listener.stats().requests < 2 {
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

/// Without nudges there are the ticks: the guarantee of last resort.
#[test]
fn a_socket_that_cant_be_nudged_stops_at_its_tick() {
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    struct Unnudged(UdpSource);
    impl FrameSource for Unnudged {
        type Frame = ();
        fn next_frame(&mut self) -> std::io::Result<Option<()>> {
            self.0.next_frame().map(|_| Some(()))
        }
        fn set_poll_interval(&mut self, interval: Duration) -> std::io::Result<()> {
            self.0.set_poll_interval(interval)
        }
    }
    let (listener, _frames) = start(Unnudged(source));
    thread::sleep(Duration::from_millis(10));
    let started = Instant::now();
    assert!(listener.shutdown_blocking(PATIENCE).is_clean());
    println!("UDP recv, not nudged, default poll interval: {:.1?}", started.elapsed());
}
