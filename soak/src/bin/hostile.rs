//! Honest peers of a server with limits, without and with hostile ones beside them.
//!
//! `cargo run --release -p callbridge-soak --bin hostile -- 10000` opens so many hostile connections (3000
//! unless told): silent ones, ones that send a byte now and then, half frames, ones that never read, that
//! reset, that flood; about one each ms. It prints the honest peers' round trips before and meanwhile, the memory, and what is
//! left afterwards; it fails if an honest peer is refused or anything is left open.

use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use socket2::{Domain, Socket, Type};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

/// How many connections the hostile host may have, and so how many it keeps at once.
const PLACES: usize = 100;
const HONEST: usize = 4;
const PATIENCE: Duration = Duration::from_secs(10);
/// A round trip of an honest peer may take so much longer, at the 99th percentile, or as long as a busy
/// machine's scheduler lets a thread wait for a core.
const WORSE: (f64, Duration) = (5.0, Duration::from_millis(3));

fn main() -> ExitCode {
    let hostile = std::env::args().nth(1).map_or(3000, |count| count.parse().expect("a number"));
    match run(hostile) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(hostile: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let server = TcpServer::bind("127.0.0.1:0", 1024, || LinesCodec::new_with_max_length(1024))?
        .with_max_connections(PLACES + 2 * HONEST)
        .with_max_connections_per_peer(PLACES)
        .with_idle_timeout(Duration::from_millis(500))
        .with_frame_timeout(Duration::from_millis(500))
        .with_linger(Duration::from_millis(200));
    let addr = server.local_addr()?;
    let listener = Listener::builder(server)
        .write_timeout(Duration::from_millis(500))
        .serve(&Bridge::new(runtime.handle().clone()), |request: Request<String>| async move {
            // What a peer that never reads asks for.
            Some(if request.frame == "much" { "x".repeat(64 * 1024) } else { request.frame })
        })
        .spawn()?;

    let (threads, memory) = (status("Threads:"), status("VmRSS:"));
    let (alone, _) = honest(addr, || thread::sleep(Duration::from_secs(2)))?;
    let mut peak = 0;
    let (beside, attacked) =
        honest(addr, || attack(addr, hostile, || peak = peak.max(status("VmRSS:"))))?;
    println!("honest peers alone:        {alone}");
    println!("beside {hostile:6} hostile:    {beside}, in {attacked:?}");
    println!("p99: {:.1} times", beside.p99.as_secs_f64() / alone.p99.as_secs_f64());

    let began = Instant::now();
    while listener.stats().open > 0 {
        if began.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("still open: {:?}", listener.stats())));
        }
        thread::sleep(Duration::from_millis(20));
    }
    let stats = listener.stats();
    println!(
        "accepted {}, refused {}, ended by an error {}; {}",
        stats.accepted,
        stats.refused,
        stats.failed_connections,
        if stats.balances() { "every request is accounted for" } else { "REQUESTS ARE MISSING" }
    );
    println!("memory: {memory} kB before, {peak} kB at most, {} kB after", status("VmRSS:"));
    let report = listener.close_blocking(PATIENCE);
    let (closed, at_once) = (Instant::now(), status("Threads:"));
    // Those that have just ended take the system a moment to clear away.
    while status("Threads:") >= threads && closed.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    let left = status("Threads:");
    println!(
        "threads: {threads} with the listener, {at_once} at its end, {left} after {:?}",
        closed.elapsed()
    );
    println!("{report}");
    if left >= threads {
        return Err(io::Error::other("threads are left"));
    }
    if !report.is_clean()
        || !report.stats.balances()
        || beside.p99 > alone.p99.mul_f64(WORSE.0).max(WORSE.1)
    {
        return Err(io::Error::other("see above"));
    }
    Ok(())
}

/// Round trips of honest peers.
struct Trips {
    count: usize,
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} round trips, p50 {:?}, p99 {:?}", self.count, self.p50, self.p99)
    }
}

/// Has honest peers ask, one request each ms, while `body` runs.
fn honest(addr: SocketAddr, body: impl FnOnce()) -> io::Result<(Trips, Duration)> {
    let over = Arc::new(AtomicBool::new(false));
    let peers: Vec<_> = (0..HONEST)
        .map(|_| {
            let over = Arc::clone(&over);
            thread::spawn(move || ask_until(addr, &over))
        })
        .collect();
    let began = Instant::now();
    body();
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for peer in peers {
        times.extend(peer.join().expect("it doesn't panic")?);
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    Ok((Trips { count: times.len(), p50: at(0.5), p99: at(0.99) }, took))
}

fn ask_until(addr: SocketAddr, over: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut peer = BufReader::new(TcpStream::connect(addr)?);
    peer.get_ref().set_nodelay(true)?;
    peer.get_ref().set_read_timeout(Some(PATIENCE))?;
    let mut reply = String::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        peer.get_mut().write_all(b"how are you\n")?;
        reply.clear();
        peer.read_line(&mut reply)?;
        if reply != "how are you\n" {
            return Err(io::Error::other(format!("an honest peer was told {reply:?}")));
        }
        times.push(began.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(times)
}

/// Opens hostile connections, all from another host; the oldest makes room for the newest.
fn attack(addr: SocketAddr, count: usize, mut look: impl FnMut()) {
    // They stand for machines of their own: what they compute isn't to be measured.
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19) {
        println!("the hostile peers compete for the processors: {error}");
    }
    let mut open: std::collections::VecDeque<Socket> = std::collections::VecDeque::new();
    for number in 0..count {
        if let Ok(peer) = connect_from_elsewhere(addr) {
            misbehave(&peer, number);
            open.push_back(peer);
        }
        if number % 100 == 0 {
            for slow in &open {
                let _one_byte = slow.send(b"x");
            }
            look();
        }
        thread::sleep(Duration::from_millis(1));
        if open.len() > PLACES {
            drop(open.pop_front());
        }
    }
}

fn connect_from_elsewhere(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into())?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect_timeout(&addr.into(), Duration::from_secs(1))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn misbehave(peer: &Socket, number: usize) {
    let _as_it_goes = match number % 6 {
        // Silent.
        0 => Ok(0),
        // A byte now and then.
        1 => peer.send(b"s"),
        // Half a frame.
        2 => peer.send(b"half a fra"),
        // Asks for much and never reads.
        3 => peer.send("much\n".repeat(64).as_bytes()),
        // Resets.
        4 => peer.send(b"and away\n").inspect(|_| {
            let _reset = peer.set_linger(Some(Duration::ZERO));
            let _gone = peer.shutdown(std::net::Shutdown::Both);
        }),
        // Floods: with requests, then with one line that has no end.
        _ => peer.send("hi\n".repeat(1000).as_bytes()).and_then(|_| peer.send(&[b'z'; 16 * 1024])),
    };
}

/// A figure of this process, as the system tells it.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
