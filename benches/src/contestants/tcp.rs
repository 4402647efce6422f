//! TCP echo servers for frames behind a length of four bytes.

use super::event_loop::Loop;
use super::servers::{Handling, Server, StopFlag};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use futures::{FutureExt, Sink, SinkExt, Stream, StreamExt, TryStreamExt};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};

/// The longest frame that a server takes, length included.
const LARGEST: usize = 64 * 1024;

const LOOPBACK: &str = "127.0.0.1:0";
const WORKS: &str = "loopback works";

/// callbridge: an async handler, replies written by the connection's thread; tokio-util's codec.
pub(crate) fn ours_serve(
    on: &Loop,
    handling: Handling,
    pipeline: impl Into<Option<usize>>,
) -> Server {
    ours_serve_with(on, handling, pipeline, LengthDelimitedCodec::new)
}

/// The same with a codec of one's own, which is as plain as the framing of [`thread_block_on`].
pub(crate) fn ours_serve_plain(on: &Loop, handling: Handling) -> Server {
    ours_serve_with(on, handling, None, || Prefixed)
}

fn ours_serve_with<C, T>(
    on: &Loop,
    handling: Handling,
    pipeline: impl Into<Option<usize>>,
    codec: impl Fn() -> C + Send + Sync + 'static,
) -> Server
where
    C: Decoder<Item = T, Error = io::Error> + Encoder<Bytes, Error = io::Error> + Send + 'static,
    T: Into<Bytes> + Send + 'static,
{
    let server = TcpServer::bind(LOOPBACK, LARGEST, codec).expect(WORKS);
    let addr = server.local_addr().expect(WORKS);
    let bridge = Bridge::new(on.handle().clone());
    let mut serve =
        Listener::builder(server).serve(&bridge, move |request: Request<T>| async move {
            handling.before_the_answer().await;
            Some(request.frame.into())
        });
    if let Some(requests) = pipeline.into() {
        serve = serve.pipeline(requests);
    }
    let listener = serve.spawn().expect(WORKS);
    Server::new(addr, move || drop(listener.close_blocking(Duration::from_secs(5))))
}

/// callbridge: connections as streams and sinks, a task for each.
pub(crate) fn ours_stream(on: &Loop, handling: Handling) -> Server {
    let server = TcpServer::bind(LOOPBACK, LARGEST, LengthDelimitedCodec::new).expect(WORKS);
    let addr = server.local_addr().expect(WORKS);
    let (listener, mut connections) = Listener::builder(server).spawn().expect(WORKS);
    on.handle().spawn(async move {
        while let Some(connection) = connections.recv().await {
            tokio::spawn(forward(connection, handling));
        }
    });
    Server::new(addr, move || drop(listener.close_blocking(Duration::from_secs(5))))
}

/// tokio's `Framed`, answered by `StreamExt::forward`, which flushes when no frame is left.
pub(crate) fn framed_forward(on: &Loop, handling: Handling) -> Server {
    tokio_server(on, move |stream| {
        forward(Framed::new(stream, LengthDelimitedCodec::new()), handling)
    })
}

/// Answers frames in their order; as many as a window has wait at once.
async fn forward<T, E>(frames: T, handling: Handling)
where
    T: Stream<Item = Result<BytesMut, E>> + Sink<Bytes, Error = E>,
{
    let (sink, frames) = frames.split();
    // The client has gone, or not: what it misses, it tells.
    let _gone = match handling {
        Handling::Ready => frames.map_ok(BytesMut::freeze).forward(sink).await,
        Handling::Sleep(_) => {
            let answers = frames.map_ok(|frame| async move {
                handling.before_the_answer().await;
                Ok(frame.freeze())
            });
            answers.try_buffered(64).forward(sink).await
        }
    };
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

/// The adapter by hand: the thread that reads polls the handler itself, and writes when nothing is left to
/// answer.
pub(crate) fn thread_block_on(on: &Loop, handling: Handling) -> Server {
    let handle = on.handle().clone();
    thread_server(move |stream| {
        blocking_echo(&stream, |frame, answer| {
            let frame = Bytes::copy_from_slice(frame);
            let frame = handle.block_on(async move {
                handling.before_the_answer().await;
                frame
            });
            answer(&frame)
        });
    })
}

/// The adapter by hand, over tokio-util's codec.
pub(crate) fn thread_block_on_codec(on: &Loop, handling: Handling) -> Server {
    let handle = on.handle().clone();
    thread_server(move |mut stream| {
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        let mut codec = LengthDelimitedCodec::new();
        let mut buffer = vec![0; LARGEST];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            input.extend_from_slice(&buffer[..length]);
            while let Ok(Some(frame)) = codec.decode(&mut input) {
                let frame = handle.block_on(async move {
                    handling.before_the_answer().await;
                    frame.freeze()
                });
                codec.encode(frame, &mut output).expect("no longer than it came");
            }
            if stream.write_all(&output).is_err() {
                break;
            }
            output.clear();
        }
    })
}

/// No loop at all: a thread that reads and writes, flushing when nothing is left to answer.
pub(crate) fn blocking(_: &Loop, handling: Handling) -> Server {
    thread_server(move |stream| {
        blocking_echo(&stream, |frame, answer| {
            handling.block_before_the_answer();
            answer(frame)
        });
    })
}

/// Gives `each` the frames, and what writes an answer.
fn blocking_echo(
    stream: &TcpStream,
    mut each: impl FnMut(&[u8], &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>,
) {
    let mut reader = BufReader::with_capacity(LARGEST, stream);
    let mut writer = BufWriter::with_capacity(LARGEST, stream);
    let mut frame = Vec::new();
    let mut length = [0; 4];
    while reader.read_exact(&mut length).is_ok() {
        frame.resize(u32::from_be_bytes(length) as usize, 0);
        let mut answer = |frame: &[u8]| {
            writer.write_all(&(frame.len() as u32).to_be_bytes())?;
            writer.write_all(frame)
        };
        let done = reader.read_exact(&mut frame).is_ok()
            && each(&frame, &mut answer).is_ok()
            && (!reader.buffer().is_empty() || writer.flush().is_ok());
        if !done {
            break;
        }
    }
}

/// Frames behind a length of four bytes, as [`blocking_echo`] has them.
struct Prefixed;

impl Decoder for Prefixed {
    type Item = Bytes;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some((length, rest)) = input.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            return Ok(None);
        }
        input.advance(4);
        Ok(Some(input.split_to(length).freeze()))
    }
}

impl Encoder<Bytes> for Prefixed {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, output: &mut BytesMut) -> io::Result<()> {
        output.put_u32(frame.len() as u32);
        output.put_slice(&frame);
        Ok(())
    }
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
