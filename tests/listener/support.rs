//! Sockets, peers and a look at threads.

#[cfg(target_os = "linux")]
pub(crate) use crate::common::tasks::threads;
pub(crate) use crate::common::tasks::until_asleep;
use crate::common::{LONG, Loop, rounds};
use callbridge::channel::{Ending, RecvError};
use callbridge::listener::{
    Connection, FrameSource, Listener, ListenerStats, Request, TcpServer, UdpSource,
};
use callbridge::{Bridge, FrameStream};
use futures_util::{Sink, SinkExt};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tokio_util::codec::{Decoder, LinesCodec};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn next<T>(frames: &mut FrameStream<T>) -> T {
    frames.recv_blocking(LONG).expect("a frame is on its way")
}

pub(crate) fn end<T>(frames: &mut FrameStream<T>) -> Ending {
    assert_eq!(frames.recv_blocking(LONG).err(), Some(RecvError::Ended));
    frames.ending().expect("it has ended")
}

/// Stops the listener at once; its counters must balance, with nothing in flight or open.
pub(crate) fn clean(listener: &Listener) -> ListenerStats {
    listener.stop();
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && !report.would_deadlock, "{report}");
    let stats = report.stats;
    assert!(stats.balances() && stats.in_flight == 0 && stats.open == 0, "{stats:?}");
    stats
}

/// Waits for what the listener counts.
pub(crate) fn wait_for(listener: &Listener, what: impl Fn(&ListenerStats) -> bool) {
    let deadline = std::time::Instant::now() + LONG;
    while !what(&listener.stats()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", listener.stats());
        thread::yield_now();
    }
}

/// Yields what the closure returns.
pub(crate) struct FromFn<F>(pub(crate) F);

impl<T: Send + 'static, F> FrameSource for FromFn<F>
where
    F: FnMut() -> io::Result<Option<T>> + Send + 'static,
{
    type Frame = T;
    fn next_frame(&mut self) -> io::Result<Option<T>> {
        (self.0)()
    }
}

/// A source, and a client that is connected to it.
pub(crate) fn udp() -> (UdpSource, UdpSocket) {
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    (source, client)
}

pub(crate) fn ask(client: &UdpSocket, request: &str) -> String {
    client.send(request.as_bytes()).unwrap();
    let mut reply = [0; 1024];
    let n = client.recv(&mut reply).unwrap();
    String::from_utf8(reply[..n].to_vec()).unwrap()
}

pub(crate) type Lines = TcpServer<fn() -> LinesCodec>;

pub(crate) fn lines(max: usize) -> (Lines, SocketAddr) {
    let server = TcpServer::bind("127.0.0.1:0", max, LinesCodec::new as fn() -> _).unwrap();
    let addr = server.local_addr().unwrap();
    (server, addr)
}

/// The same over a path, whose sockets take less at once.
#[cfg(unix)]
pub(crate) fn unix_lines(
    name: &str,
) -> (callbridge::listener::UnixServer<fn() -> LinesCodec>, Scratch) {
    let path = scratch(name);
    let codec = LinesCodec::new as fn() -> _;
    (callbridge::listener::UnixServer::bind(&path.0, 1 << 20, codec).unwrap(), path)
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.set_write_timeout(Some(LONG)).unwrap();
    client
}

/// A pair of connected sockets.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = connect(device.local_addr().unwrap());
    (ours, device.accept().unwrap().0)
}

pub(crate) fn say(client: &TcpStream, lines: &str) {
    (&*client).write_all(lines.as_bytes()).unwrap();
}

pub(crate) fn hear(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Reads until the other side ends its own, or breaks off.
pub(crate) fn read_all(mut client: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    all
}

/// The next frame of a connection.
pub(crate) fn frame<C: Decoder>(connection: &mut Connection<C>) -> C::Item {
    next(connection.frames())
}

/// How a connection's stream ends; nothing more may come of it.
pub(crate) fn ending<C: Decoder>(connection: &mut Connection<C>) -> Ending {
    end(connection.frames())
}

/// The error that a connection's stream ends with.
pub(crate) fn failure<C: Decoder>(connection: &mut Connection<C>) -> io::Error
where
    C::Item: std::fmt::Debug,
{
    let error = futures_executor::block_on(futures_util::StreamExt::next(connection));
    error.expect("an error comes before the end").expect_err("it has failed")
}

pub(crate) fn send<S, I>(sink: &mut S, item: I) -> io::Result<()>
where
    S: Sink<I, Error = io::Error> + Unpin,
{
    futures_executor::block_on(sink.send(item))
}

/// A path of this process for one socket, not there yet; removed in the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

pub(crate) fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("callbridge-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    Scratch(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The CPU time of this process's thread of this name so far.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_time(name: &str) -> Option<Duration> {
    let (task, _) = threads(name).into_iter().next()?;
    let schedstat = std::fs::read_to_string(task.join("schedstat")).ok()?;
    Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
}

/// What share of a core a thread costs over a second, in percent.
#[cfg(target_os = "linux")]
pub(crate) fn percent_of_a_core(name: &str) -> u128 {
    crate::common::eventually("the thread", || cpu_time(name).is_some());
    let before = cpu_time(name).unwrap();
    thread::sleep(SECOND);
    (cpu_time(name).expect("it is still there") - before).as_millis() / 10
}

/// A client that reads by lines.
pub(crate) fn talk(addr: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(connect(addr))
}

pub(crate) fn event_loop() -> (Loop, Bridge) {
    let event_loop = Loop::multi(2);
    let bridge = event_loop.bridge();
    (event_loop, bridge)
}

/// A reply timeout that hanging requests run into and others, also on a busy machine, do not.
pub(crate) const LATE: Duration = Duration::from_millis(500);

/// Answers each line with itself.
pub(crate) fn echo(bridge: &Bridge) -> (Listener, SocketAddr) {
    let (server, addr) = lines(1024);
    let echo = |request: Request<String>| async move { Some(request.frame) };
    (Listener::builder(server).serve(bridge, echo).spawn().unwrap(), addr)
}

/// Where chance has a say: the numbers that a seed gives.
#[derive(Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (drawn ^ (drawn >> 31)) % end
    }
    pub(crate) fn of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
    /// One of their own, for another thread.
    pub(crate) fn split(&mut self) -> Self {
        Dice(self.below(u64::MAX))
    }
    /// Pauses now and then.
    pub(crate) fn rest(&mut self) {
        if self.below(6) == 0 {
            thread::sleep(Duration::from_micros(self.below(2000)));
        }
    }
}

/// Rounds that are drawn, from the seed `first` or `CALLBRIDGE_SEED` on.
pub(crate) fn at_random(first: u64, count: usize, mut round: impl FnMut(&mut Dice)) {
    let first = std::env::var("CALLBRIDGE_SEED").map_or(first, |seed| seed.parse().unwrap());
    for seed in first..first + rounds(count) as u64 {
        let result = catch_unwind(AssertUnwindSafe(|| round(&mut Dice(seed))));
        assert!(result.is_ok(), "it fails for CALLBRIDGE_SEED={seed}");
    }
}
