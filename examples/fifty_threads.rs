//! A project of fifty threads that fetch slow sources, before and after it moved to an event loop.
//!
//! `cargo run --release --example fifty_threads` does one round over 50 sources of 12 pages each, a
//! few times both ways, and prints the time and the CPU time of this process. The sources are a
//! loopback server in a process of its own, which answers each page after 20 to 50 ms.
//!
//! - Before: a thread per source, which fetches its pages one after the other.
//! - After: one loop through `ThreadRunner`, on which all pages are in flight at once. Five sources
//!   are fetched by a blocking library that can't be converted, so they keep threads, lent by the
//!   loop. A library with a listener thread of its own submits from its callback.

use callbridge::future::ReturnWhen;
use callbridge::{BlockingFuture, Bridge, ThreadRunner, to_thread, wait};
use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type BoxError = Box<dyn Error + Send + Sync>;

const SOURCES: usize = 50;
const PAGES: usize = 12;
/// Sources from here on can't be converted.
const BLOCKING_FROM: usize = 45;
const EVENTS: usize = 3;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<(), BoxError> {
    if std::env::args().any(|argument| argument == "--serve") {
        return serve();
    }
    let mut server = Server::start()?;
    let expected = (SOURCES * PAGES + EVENTS) * page(0, 0).len();
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        before.push(measure(|| fifty_threads(server.address), expected)?);
        after.push(measure(|| one_loop(server.address), expected)?);
    }
    server.stop()?;
    let (before, after) = (best(before), best(after));
    println!("{} pages from {SOURCES} sources, best of {ROUNDS} rounds:", SOURCES * PAGES);
    println!("  {SOURCES} threads  {before}");
    println!("  one loop    {after}");
    let faster = before.wall.as_secs_f64() / after.wall.as_secs_f64();
    let dearer = after.cpu.as_secs_f64() / before.cpu.as_secs_f64();
    println!("  {faster:.1} times as fast at {dearer:.2} times the CPU time");
    Ok(())
}

/// Before: a thread per source.
fn fifty_threads(server: SocketAddr) -> Result<usize, BoxError> {
    let bytes = Arc::new(Mutex::new(0));
    let heard = Arc::clone(&bytes);
    let listener = legacy_listener(move |event| {
        let page = fetch_blocking(server, SOURCES, event).expect("the source answers");
        *heard.lock().unwrap() += page;
    });
    let sources = (0..SOURCES)
        .map(|source| {
            thread::Builder::new().spawn(move || {
                (0..PAGES)
                    .map(|page| fetch_blocking(server, source, page))
                    .sum::<io::Result<usize>>()
            })
        })
        .collect::<io::Result<Vec<_>>>()?;
    let mut total: usize = 0;
    for source in sources {
        total += source.join().expect("it doesn't panic")?;
    }
    listener.join().expect("it doesn't panic");
    let heard = *bytes.lock().unwrap();
    Ok(total + heard)
}

/// After: everything that can be is on one loop.
fn one_loop(server: SocketAddr) -> Result<usize, BoxError> {
    let runner = ThreadRunner::new();
    let bridge = runner.bridge()?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let (bridge, heard) = (bridge.clone(), Arc::clone(&heard));
        legacy_listener(move |event| {
            let call = bridge.run_coroutine_threadsafe(fetch(server, SOURCES, event));
            heard.lock().unwrap().push(call);
        })
    };
    let mut calls: Vec<_> = (0..SOURCES * PAGES)
        .map(|n| match (n % SOURCES, n / SOURCES) {
            (source, page) if source >= BLOCKING_FROM => lend_thread(&bridge, server, source, page),
            (source, page) => bridge.run_coroutine_threadsafe(fetch(server, source, page)),
        })
        .collect();
    listener.join().expect("it doesn't panic");
    calls.append(&mut heard.lock().unwrap());
    let (_done, late) = wait(&mut calls, PATIENCE, ReturnWhen::AllCompleted)?;
    assert!(late.is_empty(), "{} pages are late", late.len());
    let mut total = 0;
    for call in &mut calls {
        total += call.result(Duration::ZERO)??;
    }
    let report = runner.close(PATIENCE);
    assert!(report.is_clean(), "{report}");
    Ok(total)
}

/// A fetch by the library that only blocks, on a thread that the loop lends.
fn lend_thread(
    bridge: &Bridge,
    server: SocketAddr,
    source: usize,
    page: usize,
) -> BlockingFuture<io::Result<usize>> {
    bridge.run_coroutine_threadsafe(async move {
        let page = to_thread(move || fetch_blocking(server, source, page));
        page.await.map_err(io::Error::other)?
    })
}

/// A library that calls back from a thread of its own.
fn legacy_listener(callback: impl Fn(usize) + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || (0..EVENTS).for_each(callback))
}

fn request(source: usize, page: usize) -> String {
    format!("GET /{source}/{page} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

fn fetch_blocking(server: SocketAddr, source: usize, page: usize) -> io::Result<usize> {
    let mut peer = TcpStream::connect(server)?;
    peer.write_all(request(source, page).as_bytes())?;
    let mut response = Vec::with_capacity(4096);
    peer.read_to_end(&mut response)
}

async fn fetch(server: SocketAddr, source: usize, page: usize) -> io::Result<usize> {
    let mut peer = tokio::net::TcpStream::connect(server).await?;
    peer.write_all(request(source, page).as_bytes()).await?;
    let mut response = Vec::with_capacity(4096);
    peer.read_to_end(&mut response).await
}

// Measuring.

struct Measure {
    wall: Duration,
    cpu: Duration,
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [wall, cpu] = [self.wall, self.cpu].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "{wall:7.1} ms, CPU {cpu:6.1} ms")
    }
}

fn measure(
    round: impl FnOnce() -> Result<usize, BoxError>,
    expected: usize,
) -> Result<Measure, BoxError> {
    let (started, cpu_before) = (Instant::now(), cpu_time());
    let bytes = round()?;
    let measure = Measure { wall: started.elapsed(), cpu: cpu_time() - cpu_before };
    assert_eq!(bytes, expected, "every page came whole");
    Ok(measure)
}

fn best(rounds: Vec<Measure>) -> Measure {
    rounds.into_iter().min_by_key(|round| round.wall).expect("there are rounds")
}

#[cfg(unix)]
fn cpu_time() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

// The sources.

fn page(_source: usize, _page: usize) -> String {
    let body = "x".repeat(2_000);
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2000\r\n\r\n{body}")
}

/// The server process; it ends when its standard input does.
struct Server {
    address: SocketAddr,
    process: Child,
}

impl Server {
    fn start() -> Result<Self, BoxError> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        Ok(Server { address: line.trim().parse()?, process })
    }

    fn stop(&mut self) -> io::Result<()> {
        drop(self.process.stdin.take());
        self.process.wait().map(drop)
    }
}

fn serve() -> Result<(), BoxError> {
    let runner = ThreadRunner::new();
    let (address, server) = runner.start_task(|started| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        started.set(listener.local_addr()?);
        loop {
            let (peer, _) = listener.accept().await?;
            tokio::spawn(answer(peer));
        }
        #[expect(unreachable_code, reason = "says the type of the errors above")]
        Ok::<(), io::Error>(())
    })?;
    println!("{address}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    server.cancel();
    Ok(())
}

async fn answer(mut peer: tokio::net::TcpStream) -> io::Result<()> {
    let mut request = vec![0; 1_024];
    let read = peer.read(&mut request).await?;
    let text = String::from_utf8_lossy(&request[..read]);
    let mut numbers = text.split(['/', ' ']).filter_map(|part| part.parse::<usize>().ok());
    let (source, number) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let delay = 20 + (source * 7 + number * 11) % 31;
    tokio::time::sleep(Duration::from_millis(delay as u64)).await;
    peer.write_all(page(source, number).as_bytes()).await?;
    peer.shutdown().await
}
