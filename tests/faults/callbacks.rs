//! Panics in what the user hands over, where no other test has them.

use crate::common::{LONG, Loop};
use crate::until;
use bytes::BytesMut;
use callbridge::FrameStream;
use callbridge::channel::Ending;
use callbridge::listener::{
    FrameSource, Gauge, Interrupter, Listener, Request, RequestSource, TcpServer,
};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder, LinesCodec};

/// Panics where it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a destructor");
    }
}

struct BadWaker;

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

#[test]
fn a_waker_that_panics_loses_no_frame_and_no_call() {
    let (sender, mut frames) = callbridge::channel(4);
    let waker = Waker::from(Arc::new(BadWaker));
    assert!(frames.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    let sent = std::thread::spawn(move || {
        let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sender.send(1)));
        // Whoever wakes sees the panic, or it is contained; the frame is in the queue either way.
        drop(first);
        sender.send(2).unwrap();
        sender
    });
    let sender = sent.join().unwrap();
    assert_eq!(frames.recv_blocking(LONG).unwrap(), 1);
    assert_eq!(frames.recv_blocking(LONG).unwrap(), 2);
    assert!(sender.stats().balances());

    for event_loop in Loop::both() {
        let bridge = event_loop.bridge();
        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let mut call = bridge.run_coroutine_threadsafe(async move { gate.await.is_ok() });
        let polled = Future::poll(std::pin::Pin::new(&mut call), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        go.send(()).unwrap();
        until("the call's end", || bridge.in_flight() == 0);
        assert!(call.result(LONG).unwrap());
        assert_eq!(bridge.run_coroutine_threadsafe(async { 3 }).result(LONG).unwrap(), 3);
        assert!(bridge.stats().balances());
    }
}

/// The first in line wakes badly; the second must hear of it all the same.
#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    let bad = Waker::from(Arc::new(BadWaker));
    let heard = Arc::new(Heard::default());
    let good = Waker::from(Arc::clone(&heard));

    let (sender, mut frames) = callbridge::channel(1);
    sender.send(1).unwrap();
    let mut waiting = [Box::pin(sender.send_async(2)), Box::pin(sender.send_async(3))];
    for (future, waker) in waiting.iter_mut().zip([&bad, &good]) {
        assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    frames.close();
    assert_eq!(heard.0.swap(0, Ordering::SeqCst), 1, "the second sender was woken");

    let limiter = callbridge::executor::CapacityLimiter::new(2);
    let held = [(); 2].map(|()| limiter.try_acquire().unwrap());
    let mut waiting = [Box::pin(limiter.acquire()), Box::pin(limiter.acquire())];
    for (future, waker) in waiting.iter_mut().zip([&bad, &good]) {
        assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    limiter.set_limit(4);
    assert_eq!(heard.0.load(Ordering::SeqCst), 1, "the second that waited for room was woken");
    drop(held);
}

/// Counts its wakes.
#[derive(Default)]
struct Heard(AtomicUsize);

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn ended(listener: &Listener, frames: &mut FrameStream<u8>) -> Option<Ending> {
    while frames.recv_blocking(LONG).is_ok() {}
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean(), "{report}");
    frames.ending()
}

struct Counted {
    left: u8,
    _bomb: Option<Bomb>,
    bad_gauge: bool,
}

impl FrameSource for Counted {
    type Frame = u8;

    fn next_frame(&mut self) -> io::Result<Option<u8>> {
        self.left = self.left.wrapping_sub(1);
        Ok((self.left < u8::MAX).then_some(self.left))
    }

    fn gauge(&self) -> Gauge {
        if self.bad_gauge { Gauge::new(|| panic!("a gauge")) } else { Gauge::default() }
    }
}

#[test]
fn a_source_whose_destructor_or_gauge_panics_ends_all_the_same() {
    for (bomb, bad_gauge) in [(Some(Bomb), false), (None, true)] {
        let source = Counted { left: 3, _bomb: bomb, bad_gauge };
        let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
        while frames.recv_blocking(LONG).is_ok() {}
        assert_eq!(frames.ending(), Some(Ending::Finished));
        until("the listener's end", || listener.is_finished());
    }
}

#[test]
fn what_a_legacy_loop_and_a_hook_own_may_panic_in_its_drop() {
    let bomb = Bomb;
    let (listener, mut frames) = Listener::from_fn(move |sink| {
        let _bomb = &bomb;
        sink.send(1).unwrap();
        Ok(())
    })
    .spawn()
    .unwrap();
    assert!(ended(&listener, &mut frames).is_some());

    let bomb = Bomb;
    let (sender, frames) = callbridge::channel::<u8>(1);
    sender.on_termination(move |_| drop(bomb));
    drop(frames);
    assert_eq!(sender.ending(), Some(Ending::ConsumerDropped));
}

struct Answers {
    requests: u8,
    panics_in: &'static str,
}

impl FrameSource for Answers {
    type Frame = u8;

    fn next_frame(&mut self) -> io::Result<Option<u8>> {
        if self.requests == 0 {
            return Ok(None);
        }
        self.requests -= 1;
        Ok(Some(self.requests))
    }

    fn interrupter(&self) -> Interrupter {
        Interrupter::new(|| panic!("an interrupter"))
    }
}

impl RequestSource<u8> for Answers {
    type Address = ();

    fn address(&mut self, _: &mut u8) {
        assert_ne!(self.panics_in, "address");
    }

    fn answer(&mut self, (): (), _: u8) -> io::Result<bool> {
        assert_ne!(self.panics_in, "answer");
        Ok(false)
    }

    fn flush(&mut self) -> io::Result<bool> {
        assert_ne!(self.panics_in, "flush");
        Ok(true)
    }
}

#[test]
fn a_request_source_that_panics_anywhere_ends_the_listener_and_keeps_the_counters() {
    let event_loop = Loop::multi(1);
    let bridge = event_loop.bridge();
    for panics_in in ["address", "answer", "flush"] {
        for pipeline in [1, 4] {
            let source = Answers { requests: 5, panics_in };
            let listener = Listener::builder(source)
                .serve(&bridge, |n: u8| async move { Some(n) })
                .pipeline(pipeline)
                .spawn()
                .unwrap();
            until("the listener's end", || listener.is_finished());
            assert_eq!(listener.ending(), Some(Ending::Panicked), "{panics_in}");
            let stats = listener.stats();
            assert!(stats.balances() && stats.in_flight == 0, "{panics_in}: {stats:?}");
        }
    }
    until("the calls' end", || bridge.in_flight() == 0);
    assert!(bridge.stats().balances());
}

/// Panics where it is told to.
struct BadCodec(LinesCodec);

impl Decoder for BadCodec {
    type Item = String;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<String>> {
        self.0.decode(bytes).map_err(io::Error::other)
    }
}

impl Encoder<String> for BadCodec {
    type Error = io::Error;

    fn encode(&mut self, line: String, bytes: &mut BytesMut) -> io::Result<()> {
        assert_ne!(line, "encoder");
        self.0.encode(line, bytes).map_err(io::Error::other)
    }
}

impl Drop for BadCodec {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "the destructor of a codec");
    }
}

fn connect(listener: &Listener) -> BufReader<TcpStream> {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    BufReader::new(client)
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
    client.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut reply = String::new();
    // A connection that is lost gives an end or a reset.
    let _ = client.read_line(&mut reply);
    reply.trim_end().to_owned()
}

#[test]
fn an_encoder_a_handler_and_a_codecs_destructor_cost_their_connection_only() {
    let event_loop = Loop::multi(1);
    let server = TcpServer::bind("127.0.0.1:0", 100, || BadCodec(LinesCodec::new())).unwrap();
    let server = server.with_linger(Duration::from_millis(1));
    let handler = |request: Request<String>| {
        assert_ne!(request.frame, "handler");
        async move { Some(request.frame) }
    };
    let listener = Listener::builder(server).serve(&event_loop.bridge(), handler).spawn().unwrap();
    let mut honest = connect(&listener);
    for bad in ["encoder", "handler"] {
        assert_eq!(ask(&mut connect(&listener), bad), "");
        assert_eq!(ask(&mut honest, "hello"), "hello");
    }
    until("the bad connections' end", || listener.stats().open == 1);
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean(), "{report}");
    let stats = report.stats;
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    assert_eq!((stats.requests, stats.replies), (4, 2));
}

#[test]
fn a_codec_that_cant_be_made_costs_its_connection_only() {
    let made = AtomicUsize::new(0);
    let make = move || {
        assert_ne!(made.fetch_add(1, Ordering::SeqCst), 0, "no codec today");
        LinesCodec::new()
    };
    let server = TcpServer::bind("127.0.0.1:0", 100, make).unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut first = connect(&listener);
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0, "it is closed");
    let mut second = connect(&listener);
    second.get_mut().write_all(b"hello\n").unwrap();
    let mut connection = connections.recv_blocking(LONG).unwrap();
    assert_eq!(connection.frames().recv_blocking(LONG).unwrap(), "hello");
    assert_eq!(connection.id(), 2);
    drop((connection, second));
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && report.stats.open == 0, "{report}");
}

struct Broken;

impl Iterator for Broken {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        panic!("an iterator");
    }
}

#[test]
fn an_iterator_that_panics_reaches_the_one_who_maps_and_leaves_the_pool_in_order() {
    let pool = callbridge::ThreadPool::builder().max_workers(1).build().unwrap();
    let map = || pool.map(Broken, |n| n, 2);
    let mapped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(map));
    assert!(mapped.is_err(), "the iterator is the caller's own");
    assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
    assert!(pool.close_blocking(LONG).is_clean());
}
