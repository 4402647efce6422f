//! Nothing is left behind: the threads and descriptors of this process, before and after.
//!
//! One test, in a binary of its own, since tests that run beside it would be counted as well.
#![cfg(target_os = "linux")]

use bytes::Bytes;
use callbridge::Bridge;
use callbridge::listener::{
    Datagram, Listener, Request, TcpServer, UdpSource, UnixDatagramSource, UnixServer,
};
use futures_util::SinkExt;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

const PATIENCE: Duration = Duration::from_secs(30);

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count()
}

fn sockets() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = all.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Runs `body` and waits until there are as many threads and descriptors as before.
fn leaves_nothing(what: &str, body: impl FnOnce()) {
    let before = (count("task"), count("fd"));
    body();
    // A thread that has ended is listed for a moment more.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = (count("task"), count("fd"));
        if now == before {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: {before:?} threads and descriptors, now {now:?}"
        );
        thread::yield_now();
    }
}

fn lines() -> TcpServer<fn() -> LinesCodec> {
    TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new as fn() -> _).unwrap()
}

fn clean(listener: &Listener) {
    listener.stop();
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn threads_and_descriptors_are_given_back() {
    leaves_nothing("UDP, stopped", || {
        let source = UdpSource::bind("127.0.0.1:0").unwrap();
        let _replier = source.replier();
        let (listener, _frames) = Listener::builder(source).spawn().unwrap();
        clean(&listener);
    });

    leaves_nothing("UDP, everything dropped without waiting", || {
        let source = UdpSource::bind("127.0.0.1:0").unwrap();
        drop(Listener::builder(source).spawn().unwrap());
    });

    leaves_nothing("a source that was never started", || {
        let builder = Listener::builder(lines()).capacity(0);
        builder.spawn().unwrap_err();
        drop(UdpSource::bind("127.0.0.1:0").unwrap());
    });

    leaves_nothing("a server with connections, stopped with their frames unread", || {
        let (listener, mut connections) = Listener::builder(lines()).spawn().unwrap();
        let addr = listener.local_addr().unwrap();
        let mut clients: Vec<_> = (0..50).map(|_| TcpStream::connect(addr).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"a\nb\nhalf").unwrap());
        let mut held: Vec<_> =
            clients.iter().map(|_| connections.recv_blocking(PATIENCE).unwrap()).collect();
        for connection in &mut held {
            while connection.frames().stats().queued < 2 {
                thread::yield_now();
            }
        }
        assert_eq!(sockets(), 101, "theirs and ours, and the one that listens");
        clean(&listener);
        assert_eq!(sockets(), 50, "a stop closes every connection at once");
        drop((connections, held));
    });

    leaves_nothing("a server whose consumer and handle were dropped", || {
        let server = lines().with_connection_capacity(1);
        let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"a\nb\nc\n").unwrap();
        let mut connection = connections.recv_blocking(PATIENCE).unwrap();
        while connection.frames().stats().waiting == 0 {
            thread::yield_now();
        }
        drop((connections, connection, listener));
    });

    leaves_nothing("connections that are dropped while their peers stay", || {
        let server = lines().with_linger(Duration::from_millis(10));
        let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
        let addr = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for _ in &clients {
            drop(connections.recv_blocking(PATIENCE).unwrap());
        }
        while listener.stats().open > 0 {
            thread::yield_now();
        }
        clean(&listener);
    });

    leaves_nothing("10 000 quick connects", || {
        let server = lines().with_max_connections(64);
        let addr = server.local_addr().unwrap();
        let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
        let connecting = thread::spawn(move || {
            for _ in 0..10_000 {
                drop(TcpStream::connect(addr).unwrap());
            }
        });
        while !connecting.is_finished() {
            drop(connections.recv_blocking(Duration::from_millis(1)));
        }
        connecting.join().unwrap();
        clean(&listener);
    });

    leaves_nothing("peers that don't read, break off, send garbage", || {
        let make = || LengthDelimitedCodec::builder().max_frame_length(100).new_codec();
        let server = TcpServer::bind("127.0.0.1:0", 104, make).unwrap();
        let addr = server.local_addr().unwrap();
        let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
        let deaf = TcpStream::connect(addr).unwrap();
        let mut connection = connections.recv_blocking(PATIENCE).unwrap();
        let fed = futures_util::FutureExt::now_or_never(connection.feed(Bytes::from(vec![0; 90])));
        fed.unwrap().unwrap();
        for bad in [&b"\0\0\0\x09half"[..], b"garbage", b"\0"] {
            let mut client = TcpStream::connect(addr).unwrap();
            client.write_all(bad).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut broken = connections.recv_blocking(PATIENCE).unwrap();
            assert!(broken.frames().recv_blocking(PATIENCE).is_err());
        }
        clean(&listener);
        drop((deaf, connection));
    });

    leaves_nothing("a served listener with hanging handlers, its runtime dropped", || {
        let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let server = lines();
        let addr = server.local_addr().unwrap();
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
            .spawn()
            .unwrap();
        let mut clients: Vec<_> = (0..10).map(|_| TcpStream::connect(addr).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"hello\n").unwrap());
        while listener.stats().in_flight < 10 {
            thread::yield_now();
        }
        drop(runtime);
        for client in &mut clients {
            // Closed one way or the other.
            let _ = client.read(&mut [0; 1]);
        }
        clean(&listener);
    });

    leaves_nothing("a served listener whose handlers panic and come late", || {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let source = UdpSource::bind("127.0.0.1:0").unwrap();
        let addr = source.local_addr().unwrap();
        let listener = Listener::builder(source)
            .serve(&bridge, |d: Datagram| async move {
                assert_ne!(d.payload, "panic");
                std::future::pending::<Option<Bytes>>().await
            })
            .reply_timeout(Duration::from_millis(1))
            .spawn()
            .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for request in ["panic", "hang", "panic"] {
            client.send_to(request.as_bytes(), addr).unwrap();
        }
        while listener.stats().late + listener.stats().panicked < 3 {
            thread::yield_now();
        }
        clean(&listener);
    });

    leaves_nothing("Unix sockets and their paths", || {
        let path =
            |name| std::env::temp_dir().join(format!("callbridge-{}-{name}", std::process::id()));
        let (datagrams, streams) = (path("leak-d"), path("leak-s"));
        let one = Listener::builder(UnixDatagramSource::bind(&datagrams).unwrap()).spawn().unwrap();
        let other = Listener::builder(UnixServer::bind(&streams, 100, LinesCodec::new).unwrap());
        let other = other.spawn().unwrap();
        clean(&one.0);
        clean(&other.0);
        assert!(!datagrams.exists() && !streams.exists());
    });

    leaves_nothing("async closes, one of them given up", || {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (release, held) = mpsc::channel::<()>();
            let (listener, _frames) = Listener::from_fn::<(), _>(move |sink| {
                sink.wait_stop(None).unwrap();
                let _ = held.recv_timeout(PATIENCE);
                Ok(())
            })
            .spawn()
            .unwrap();
            let given_up = listener.close(Duration::MAX);
            tokio::time::timeout(Duration::from_millis(5), given_up).await.unwrap_err();
            drop(release);
            assert!(listener.close(PATIENCE).await.is_clean());
        });
    });
}
