//! TCP echo servers for frames behind a length of four bytes.

use super::event_loop::Loop;
use super::servers::{Server, StopFlag};
use bytes::{BufMut, Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{ConnectionReplier, Event, Listener, Request, TcpServer};
use futures::{FutureExt, SinkExt, StreamExt};
use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Framed, LengthDelimitedCodec};

/// The longest frame that a server takes, length included.
const LARGEST: usize = 64 * 1024;

const LOOPBACK: &str = "127.0.0.1:0";
const WORKS: &str = "loopback works";

/// callbridge: an async handler, replies written by the connection's thread.
pub(crate) fn ours_serve(on: &Loop, pipeline: usize) -> Server {
    let server = TcpServer::bind(LOOPBACK, LARGEST, LengthDelimitedCodec::new).expect(WORKS);
    let addr = server.local_addr().expect(WORKS);
    let bridge = Bridge::new(on.handle().clone());
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<BytesMut>| async move { Some(request.frame.freeze()) })
        .pipeline(pipeline)
        .spawn()
        .expect(WORKS);
    Server::new(addr, move || drop(listener.shutdown_blocking(Duration::from_secs(5))))
}

/// callbridge: frames as a stream; the task answers all it finds in one write.
pub(crate) fn ours_stream(on: &Loop) -> Server {
    let server = TcpServer::bind(LOOPBACK, LARGEST, LengthDelimitedCodec::new).expect(WORKS);
    let addr = server.local_addr().expect(WORKS);
    let (listener, mut events) = Listener::builder(server).spawn().expect(WORKS);
    on.handle().spawn(async move {
        let mut repliers: HashMap<u64, ConnectionReplier<LengthDelimitedCodec>> = HashMap::new();
        let (mut batch, mut fed) = (Vec::new(), Vec::new());
        while events.recv_many(&mut batch, 256).await > 0 {
            for incoming in batch.drain(..) {
                let id = incoming.connection.id();
                match incoming.event {
                    Event::Opened => {
                        let codec = LengthDelimitedCodec::new();
                        repliers.insert(id, incoming.connection.replier(codec));
                    }
                    Event::Frame(frame) => {
                        let frame: BytesMut = frame;
                        let replier = repliers.get_mut(&id).expect("it was opened");
                        replier.feed(frame.freeze()).expect("it was short enough to be decoded");
                        if fed.last() != Some(&id) {
                            fed.push(id);
                        }
                    }
                    _ => {
                        if let Some(mut replier) = repliers.remove(&id) {
                            let _ = replier.flush().await;
                        }
                    }
                }
            }
            for id in fed.drain(..) {
                if let Some(replier) = repliers.get_mut(&id) {
                    let _ = replier.flush().await;
                }
            }
        }
    });
    Server::new(addr, move || drop(listener.shutdown_blocking(Duration::from_secs(5))))
}

/// tokio's `Framed`, a flush for each frame, as most code has it.
pub(crate) fn framed_send(on: &Loop) -> Server {
    tokio_server(on, |stream| async move {
        let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
        while let Some(Ok(frame)) = frames.next().await {
            if frames.send(frame.freeze()).await.is_err() {
                break;
            }
        }
    })
}

/// tokio's `Framed`, flushed when no frame is left to answer.
pub(crate) fn framed_batched(on: &Loop) -> Server {
    tokio_server(on, |stream| async move {
        let mut frames = Framed::new(stream, LengthDelimitedCodec::new());
        while let Some(Ok(frame)) = frames.next().await {
            let mut next = Some(frame);
            while let Some(frame) = next {
                if frames.feed(frame.freeze()).await.is_err() {
                    return;
                }
                next = frames.next().now_or_never().flatten().and_then(Result::ok);
            }
            if SinkExt::<Bytes>::flush(&mut frames).await.is_err() {
                break;
            }
        }
    })
}

/// tokio by hand: one buffer in, one out.
pub(crate) fn by_hand(on: &Loop) -> Server {
    tokio_server(on, |mut stream| async move {
        let (mut input, mut output) = (BytesMut::with_capacity(LARGEST), BytesMut::new());
        let mut codec = LengthDelimitedCodec::new();
        while let Ok(1..) = stream.read_buf(&mut input).await {
            while let Ok(Some(frame)) = codec.decode(&mut input) {
                output.put_u32(frame.len() as u32);
                output.put_slice(&frame);
            }
            if stream.write_all(&output).await.is_err() {
                break;
            }
            output.clear();
            input.reserve(LARGEST);
        }
    })
}

/// Hand-written bridge: a thread that reads, tokio's channel, a task that answers all it finds in
/// one write.
pub(crate) fn thread_tokio_mpsc(on: &Loop) -> Server {
    let handle = on.handle().clone();
    thread_server(move |stream| {
        let mut writer = stream.try_clone().expect(WORKS);
        let (tx, mut rx) = tokio::sync::mpsc::channel::<Bytes>(1024);
        handle.spawn(async move {
            let (mut batch, mut output) = (Vec::new(), BytesMut::new());
            while rx.recv_many(&mut batch, 256).await > 0 {
                for frame in batch.drain(..) {
                    output.put_u32(frame.len() as u32);
                    output.put_slice(&frame);
                }
                if writer.write_all(&output).is_err() {
                    break;
                }
                output.clear();
            }
        });
        each_frame(&stream, |frame| tx.blocking_send(frame).is_ok());
    })
}

/// Hand-written bridge: the thread waits for a task's answer to each frame.
pub(crate) fn thread_spawn_oneshot(on: &Loop) -> Server {
    let handle = on.handle().clone();
    thread_server(move |stream| {
        each_frame(&stream, |frame| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            handle.spawn(async move { answer.send(frame) });
            let frame = answered.blocking_recv().expect("the task answers");
            let mut output = BytesMut::with_capacity(4 + frame.len());
            output.put_u32(frame.len() as u32);
            output.put_slice(&frame);
            (&stream).write_all(&output).is_ok()
        });
    })
}

/// No loop at all: a thread that reads and writes, flushing when nothing is left to answer.
pub(crate) fn blocking(_: &Loop) -> Server {
    thread_server(|stream| {
        let mut reader = BufReader::with_capacity(LARGEST, &stream);
        let mut writer = BufWriter::with_capacity(LARGEST, &stream);
        let mut frame = Vec::new();
        let mut length = [0; 4];
        while reader.read_exact(&mut length).is_ok() {
            frame.resize(u32::from_be_bytes(length) as usize, 0);
            let done = reader.read_exact(&mut frame).is_ok()
                && writer.write_all(&length).is_ok()
                && writer.write_all(&frame).is_ok()
                && (!reader.buffer().is_empty() || writer.flush().is_ok());
            if !done {
                break;
            }
        }
    })
}

/// Decodes what a stream brings and gives each frame to `each` until that says no.
fn each_frame(mut stream: &TcpStream, mut each: impl FnMut(Bytes) -> bool) {
    let (mut input, mut codec) = (BytesMut::new(), LengthDelimitedCodec::new());
    let mut buffer = vec![0; LARGEST];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        input.extend_from_slice(&buffer[..length]);
        while let Ok(Some(frame)) = codec.decode(&mut input) {
            if !each(frame.freeze()) {
                return;
            }
        }
    }
}

/// A task that accepts, and one for each connection.
fn tokio_server<F>(on: &Loop, echo: impl Fn(tokio::net::TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = ()> + Send + 'static,
{
    let (socket, addr) = listening();
    socket.set_nonblocking(true).expect(WORKS);
    let task = on.handle().spawn(async move {
        let socket = tokio::net::TcpListener::from_std(socket).expect(WORKS);
        loop {
            let (stream, _) = socket.accept().await.expect(WORKS);
            stream.set_nodelay(true).expect(WORKS);
            tokio::spawn(echo(stream));
        }
    });
    Server::new(addr, move || task.abort())
}

/// A thread that accepts, and one for each connection; a connection's thread ends with it.
fn thread_server(echo: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Server {
    let (socket, addr) = listening();
    let stop = StopFlag::default();
    let stopped = stop.clone();
    let acceptor = thread::spawn(move || {
        loop {
            let (stream, _) = socket.accept().expect(WORKS);
            if stopped.is_set() {
                return;
            }
            stream.set_nodelay(true).expect(WORKS);
            let echo = echo.clone();
            thread::spawn(move || echo(stream));
        }
    });
    Server::new(addr, move || {
        stop.set();
        let _ = TcpStream::connect(addr);
        let _ = acceptor.join();
    })
}

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind(LOOPBACK).expect(WORKS);
    let addr = socket.local_addr().expect(WORKS);
    (socket, addr)
}
