//! How long a stop takes, wherever a listener's thread is blocked, and that nobody is sent a byte for it.
//!
//! `cargo run --release -p callbridge-soak --bin stops` prints the median and the worst of each kind, and
//! fails where one takes over a second or a bystander hears something.

use callbridge::listener::{
    Backoff, FrameSource, Listener, LoopHandle, ReadSource, Request, TcpServer, TcpSource,
    UdpSource, UnixDatagramSource, UnixServer, UnixSource,
};
use callbridge::{Bridge, Overflow};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

const ROUNDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// What must have passed for a thread to be blocked.
const SETTLED: Duration = Duration::from_millis(30);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("--stdin") {
        let source =
            ReadSource::new(io::stdin(), 1024, LinesCodec::new()).and_then(ReadSource::polled);
        let took = stopped(stream(source.expect("a standard input"))).expect("a stop");
        println!("{}", took.as_nanos());
        return ExitCode::SUCCESS;
    }
    let mut all_well = true;
    for (kind, round) in KINDS {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..ROUNDS {
            match round() {
                Ok(took) => times.push(took),
                Err(error) => {
                    println!("{kind:32} FAILED: {error}");
                    all_well = false;
                    break;
                }
            }
        }
        times.sort();
        if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
            println!("{kind:32} median {median:>10.1?}  worst {worst:>10.1?}");
            all_well &= *worst < Duration::from_secs(1);
        }
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Round = fn() -> io::Result<Duration>;

const KINDS: &[(&str, Round)] = &[
    ("UDP receive", || stopped(stream(UdpSource::bind("127.0.0.1:0")?))),
    ("UDP receive under load", under_load),
    ("UDP in a reuse-port group", reuse_port),
    ("UDP in a multicast group", multicast),
    ("TCP accept", || stopped(stream(TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?))),
    ("TCP read", tcp_read),
    ("TCP server, 50 silent peers", silent_peers),
    ("TCP peer that doesn't read", deaf_peer),
    ("TCP connect that hangs", hanging_connect),
    ("device being reopened", reopened),
    ("Unix datagram", || {
        let (ours, _theirs) = UnixDatagram::pair()?;
        stopped(stream(UnixDatagramSource::from_socket(ours)?))
    }),
    ("Unix stream", || {
        let (ours, _theirs) = UnixStream::pair()?;
        stopped(stream(UnixSource::from_socket(ours, 1024, LinesCodec::new())?))
    }),
    ("Unix accept", || {
        let path = std::env::temp_dir().join(format!("callbridge-stops-{}", std::process::id()));
        stopped(stream(UnixServer::bind(path, 1024, LinesCodec::new)?))
    }),
    ("pipe", || {
        let (pipe, _other_end) = rustix::pipe::pipe()?;
        let pipe = File::from(pipe);
        stopped(stream(ReadSource::new(pipe, 1024, LinesCodec::new())?.polled()?))
    }),
    ("pseudo-terminal", terminal),
    ("standard input", standard_input),
    ("full channel", full_channel),
    ("reader with an own timeout, 20 ms", || {
        let (ours, _theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_millis(20)))?;
        stopped(stream(ReadSource::new(ours, 1024, LinesCodec::new())?))
    }),
    ("closure that waits for the stop", || {
        let looping = Listener::from_fn(|sink: LoopHandle<()>| {
            let _stopped = sink.wait_stop(None);
            Ok(())
        });
        stopped(looping.spawn()?)
    }),
];

fn stream<S: callbridge::listener::Origin>(
    source: S,
) -> (Listener, callbridge::FrameStream<S::Item>) {
    Listener::builder(source).spawn().expect("a thread")
}

/// Stops what has come to rest, and tells how long that took.
fn stopped<T>((listener, frames): (Listener, T)) -> io::Result<Duration> {
    thread::sleep(SETTLED);
    let took = stopped_now(&listener);
    drop(frames);
    took
}

fn stopped_now(listener: &Listener) -> io::Result<Duration> {
    let began = Instant::now();
    listener.stop();
    let report = listener.close_blocking(PATIENCE);
    let took = began.elapsed();
    match report.is_clean() {
        true => Ok(took),
        false => Err(io::Error::new(ErrorKind::TimedOut, report.to_string())),
    }
}

fn under_load() -> io::Result<Duration> {
    let source = UdpSource::bind("127.0.0.1:0")?;
    let addr = source.local_addr()?;
    let (listener, frames) = Listener::builder(source).overflow(Overflow::DropNewest).spawn()?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    for _ in 0..1000 {
        client.send_to(b"busy", addr)?;
    }
    let took = stopped_now(&listener);
    drop(frames);
    took
}

/// Nothing may reach the other member, whatever its place in the group.
fn hears_nothing(bystander: &UdpSocket) -> io::Result<()> {
    bystander.set_read_timeout(Some(Duration::from_millis(50)))?;
    match bystander.recv(&mut [0; 16]) {
        Ok(bytes) => Err(io::Error::other(format!("a bystander was sent {bytes} bytes"))),
        Err(_) => Ok(()),
    }
}

fn reuse_port() -> io::Result<Duration> {
    let member = |addr: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        io::Result::Ok(UdpSocket::from(socket))
    };
    let first = member((Ipv4Addr::LOCALHOST, 0).into())?;
    let bystander = member(first.local_addr()?)?;
    let took = stopped(stream(UdpSource::from_socket(first)?))?;
    hears_nothing(&bystander)?;
    Ok(took)
}

fn multicast() -> io::Result<Duration> {
    const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 77, 77);
    let member = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((GROUP, port)).into())?;
        socket.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST)?;
        io::Result::Ok(UdpSocket::from(socket))
    };
    let first = member(0)?;
    let bystander = member(first.local_addr()?.port())?;
    let took = stopped(stream(UdpSource::from_socket(first)?))?;
    hears_nothing(&bystander)?;
    Ok(took)
}

fn tcp_read() -> io::Result<Duration> {
    let device = TcpListener::bind("127.0.0.1:0")?;
    let source = TcpSource::connect(device.local_addr()?, 1024, LinesCodec::new())?;
    let _line = device.accept()?;
    stopped(stream(source))
}

fn silent_peers() -> io::Result<Duration> {
    let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    let addr = server.local_addr()?;
    let running = stream(server);
    let _peers: Vec<_> = (0..50).map(|_| TcpStream::connect(addr)).collect::<Result<_, _>>()?;
    stopped(running)
}

fn deaf_peer() -> io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    let addr = server.local_addr()?;
    let listener = Listener::builder(server)
        .serve(&Bridge::new(runtime.handle().clone()), |_: Request<String>| async {
            Some("x".repeat(1 << 20))
        })
        .spawn()?;
    let mut deaf = TcpStream::connect(addr)?;
    deaf.write_all("more\n".repeat(64).as_bytes())?;
    thread::sleep(SETTLED);
    stopped_now(&listener)
}

/// Loopback answers no more connections to a listener whose queue is full.
fn hanging_connect() -> io::Result<Duration> {
    let full = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    full.listen(0)?;
    let addr = full.local_addr()?.as_socket().expect("an IP address");
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let _begun = socket.connect(&addr.into());
            io::Result::Ok(socket)
        })
        .collect::<Result<_, _>>()?;
    let device = Listener::reopening(
        move |opening| {
            let line = opening.connect(addr, Duration::from_secs(60))?;
            TcpSource::from_socket(line, 1024, LinesCodec::new())
        },
        Backoff::default(),
    );
    let took = stopped(device.spawn()?);
    drop(waiting);
    took
}

fn reopened() -> io::Result<Duration> {
    let device = Listener::reopening(
        |_| -> io::Result<ReadSource<File, LinesCodec>> { Err(ErrorKind::NotFound.into()) },
        Backoff { first: Duration::from_secs(60), ..Backoff::default() },
    );
    stopped(device.spawn()?)
}

fn terminal() -> io::Result<Duration> {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&controller)?;
    unlockpt(&controller)?;
    let name = ptsname(&controller, Vec::new())?;
    let device = File::options().read(true).write(true).open(name.to_str().expect("a path"))?;
    let took = stopped(stream(ReadSource::new(device, 1024, LinesCodec::new())?.polled()?));
    drop(controller);
    took
}

fn standard_input() -> io::Result<Duration> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut told = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut told)?;
    drop(child.stdin.take());
    child.wait()?;
    let nanos = told.trim().parse().map_err(|_| io::Error::other("the child didn't stop"))?;
    Ok(Duration::from_nanos(nanos))
}

fn full_channel() -> io::Result<Duration> {
    struct Endless;
    impl FrameSource for Endless {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            Ok(Some(()))
        }
    }
    stopped(Listener::builder(Endless).capacity(1).spawn()?)
}
