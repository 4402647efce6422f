//! UDP echo servers.

use super::event_loop::Loop;
use super::servers::{Handling, Server, StopFlag, TICK};
use bytes::Bytes;
use callbridge::Bridge;
use callbridge::listener::{Datagram, Listener, UdpSource};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The longest datagram that a server takes.
const LARGEST: usize = 2048;

const LOOPBACK: &str = "127.0.0.1:0";
const WORKS: &str = "loopback works";

/// callbridge: datagrams as a stream, answered by the task.
pub(crate) fn ours_stream(on: &Loop) -> Server {
    let source = UdpSource::bind(LOOPBACK).expect(WORKS);
    let (addr, replier) = (source.local_addr().expect(WORKS), source.replier());
    let (listener, mut datagrams) = Listener::builder(source).spawn().expect(WORKS);
    on.handle().spawn(async move {
        while let Some(datagram) = datagrams.recv().await {
            replier.send_to(&datagram.payload, &datagram.peer).expect(WORKS);
        }
    });
    Server::new(addr, move || drop(listener.close_blocking(Duration::from_secs(5))))
}

/// callbridge: an async handler, answered by the listener's thread.
pub(crate) fn ours_serve(
    on: &Loop,
    handling: Handling,
    pipeline: impl Into<Option<usize>>,
) -> Server {
    let source = UdpSource::bind(LOOPBACK).expect(WORKS);
    let addr = source.local_addr().expect(WORKS);
    let bridge = Bridge::new(on.handle().clone());
    let mut serve =
        Listener::builder(source).serve(&bridge, move |datagram: Datagram| async move {
            handling.before_the_answer().await;
            Some(datagram.payload)
        });
    if let Some(requests) = pipeline.into() {
        serve = serve.pipeline(requests);
    }
    let listener = serve.spawn().expect(WORKS);
    Server::new(addr, move || drop(listener.close_blocking(Duration::from_secs(5))))
}

/// The adapter by hand: the thread that receives polls the handler itself.
pub(crate) fn thread_block_on(on: &Loop, handling: Handling) -> Server {
    let handle = on.handle().clone();
    receiver(move |socket, datagram, peer| {
        let datagram = Bytes::copy_from_slice(datagram);
        let datagram = handle.block_on(async move {
            handling.before_the_answer().await;
            datagram
        });
        socket.send_to(&datagram, peer).expect(WORKS);
    })
}

/// The native way: an async socket; a task for each datagram whose handler waits.
pub(crate) fn tokio_socket(on: &Loop, handling: Handling) -> Server {
    let socket = UdpSocket::bind(LOOPBACK).expect(WORKS);
    socket.set_nonblocking(true).expect(WORKS);
    let addr = socket.local_addr().expect(WORKS);
    let task = on.handle().spawn(async move {
        let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).expect(WORKS));
        let mut buffer = [0; LARGEST];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer).await.expect(WORKS);
            if handling == Handling::Ready {
                socket.send_to(&buffer[..length], peer).await.expect(WORKS);
                continue;
            }
            let (socket, datagram) =
                (Arc::clone(&socket), Bytes::copy_from_slice(&buffer[..length]));
            tokio::spawn(async move {
                handling.before_the_answer().await;
                socket.send_to(&datagram, peer).await.expect(WORKS);
            });
        }
    });
    Server::new(addr, move || task.abort())
}

/// No loop at all: a thread that receives and sends.
pub(crate) fn blocking(_: &Loop, handling: Handling) -> Server {
    receiver(move |socket, datagram, peer| {
        handling.block_before_the_answer();
        socket.send_to(datagram, peer).expect(WORKS);
    })
}

/// Hand-written: a thread, tokio's channel, a task that answers.
pub(crate) fn thread_tokio_mpsc(on: &Loop) -> Server {
    let (tx, mut rx) = tokio::sync::mpsc::channel::<Received>(1024);
    on.handle().spawn(async move {
        while let Some((datagram, peer, socket)) = rx.recv().await {
            socket.send_to(&datagram, peer).expect(WORKS);
        }
    });
    receiver(move |socket, datagram, peer| {
        let datagram = Bytes::copy_from_slice(datagram);
        tx.blocking_send((datagram, peer, Arc::clone(socket))).expect(WORKS);
    })
}

/// Hand-written with async-channel.
pub(crate) fn thread_async_channel(on: &Loop) -> Server {
    let (tx, rx) = async_channel::bounded::<Received>(1024);
    on.handle().spawn(async move {
        while let Ok((datagram, peer, socket)) = rx.recv().await {
            socket.send_to(&datagram, peer).expect(WORKS);
        }
    });
    receiver(move |socket, datagram, peer| {
        let datagram = Bytes::copy_from_slice(datagram);
        tx.send_blocking((datagram, peer, Arc::clone(socket))).expect(WORKS);
    })
}

/// Hand-written with the fastest channel.
pub(crate) fn thread_crossfire(on: &Loop) -> Server {
    let (tx, rx) = crossfire::spsc::bounded_blocking_async::<Received>(1024);
    on.handle().spawn(async move {
        while let Ok((datagram, peer, socket)) = rx.recv().await {
            socket.send_to(&datagram, peer).expect(WORKS);
        }
    });
    receiver(move |socket, datagram, peer| {
        let datagram = Bytes::copy_from_slice(datagram);
        tx.send((datagram, peer, Arc::clone(socket))).expect(WORKS);
    })
}

/// Hand-written: the thread waits for a task's answer to each datagram.
pub(crate) fn thread_spawn_oneshot(on: &Loop) -> Server {
    let handle = on.handle().clone();
    receiver(move |socket, datagram, peer| {
        let datagram = Bytes::copy_from_slice(datagram);
        let (answer, answered) = tokio::sync::oneshot::channel();
        handle.spawn(async move { answer.send(datagram) });
        let datagram = answered.blocking_recv().expect(WORKS);
        socket.send_to(&datagram, peer).expect(WORKS);
    })
}

/// What a hand-written server hands over.
type Received = (Bytes, SocketAddr, Arc<UdpSocket>);

/// A thread that receives and gives each datagram to `each`.
fn receiver(mut each: impl FnMut(&Arc<UdpSocket>, &[u8], SocketAddr) + Send + 'static) -> Server {
    let socket = Arc::new(UdpSocket::bind(LOOPBACK).expect(WORKS));
    socket.set_read_timeout(Some(TICK)).expect(WORKS);
    let addr = socket.local_addr().expect(WORKS);
    let stop = StopFlag::default();
    let stopped = stop.clone();
    let thread = thread::spawn(move || {
        let mut buffer = [0; LARGEST];
        while !stopped.is_set() {
            match socket.recv_from(&mut buffer) {
                Ok((length, peer)) => each(&socket, &buffer[..length], peer),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    Server::new(addr, move || {
        stop.set();
        let _ = thread.join();
    })
}
