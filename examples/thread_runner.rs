//! A sync program that needs one async-only client: an HTTP client with a connection pool.
//!
//! `cargo run --release --example thread_runner` tells the story against a loopback server; with
//! `-- --items` it prints what an item of `wrap_iter` costs, beside two other ways.

use bytes::Bytes;
use callbridge::ThreadRunner;
use callbridge::runner::{AsyncContext, Outcome};
use futures_core::Stream;
use http_body_util::{BodyDataStream, BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

type BoxError = Box<dyn Error + Send + Sync>;

/// The async-only library: it works on a loop, and keeps its connections there.
#[derive(Clone)]
struct Session {
    pool: Client<HttpConnector, Empty<Bytes>>,
    server: String,
}

impl Session {
    async fn open(server: String) -> Result<Self, BoxError> {
        let pool = Client::builder(TokioExecutor::new()).build_http();
        Ok(Session { pool, server })
    }

    async fn get(self, path: String) -> Result<Response<Incoming>, BoxError> {
        let uri: Uri = format!("http://{}{path}", self.server).parse()?;
        Ok(self.pool.get(uri).await?)
    }

    async fn text(self, path: String) -> Result<String, BoxError> {
        let body = self.get(path).await?.into_body().collect().await?;
        Ok(String::from_utf8(body.to_bytes().into())?)
    }
}

/// An async context: logged in on the way in, logged out on the way out.
struct Login {
    session: Session,
    user: &'static str,
}

impl AsyncContext for Login {
    type Value = String;
    type Error = BoxError;

    async fn enter(&mut self) -> Result<String, BoxError> {
        self.session.clone().text(format!("/login/{}", self.user)).await
    }

    async fn exit(self, outcome: Outcome) -> Result<(), BoxError> {
        let reply = self.session.text(format!("/logout/{}", self.user)).await?;
        println!("  exit: {reply} (the body ended: {outcome})");
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    if std::env::args().any(|argument| argument == "--items") {
        return cost_of_an_item();
    }
    let server = server::Server::start()?;
    let runner = ThreadRunner::builder().name("http-loop").build()?;

    println!("enter_context: a session, for as long as the runner lives");
    let address = server.address.clone();
    let session = runner
        .enter_context(
            || Session::open(address),
            |_session, outcome| async move {
                println!("  exit: session closed (the program ended: {outcome})");
                Ok::<_, BoxError>(())
            },
        )?
        .leave_open();
    let session: Session = (*session).clone();

    println!("run: ten calls, one after the other");
    for n in 0..10 {
        let text = runner.run(session.clone().text(format!("/hello/{n}")))??;
        assert_eq!(text, format!("/hello/{n} says hello"));
    }
    println!("  {server}");
    // A caller that is faster than the client's own task, which puts a connection back, opens another.
    assert!(server.connections() < 10, "the pool is kept between calls");

    println!("run: four threads share the runner and its session");
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (runner, session) = (&runner, session.clone());
                scope.spawn(move || -> Result<(), BoxError> {
                    for n in 0..25 {
                        runner.run(session.clone().text(format!("/thread/{thread}/{n}")))??;
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it doesn't panic"))
    })?;
    println!("  {server}");
    assert!(server.connections() < 50, "the pool is kept between threads");

    println!("wrap_context: a login around some work, exited with the work's error");
    let login = runner.wrap_context(Login { session: session.clone(), user: "ada" })?;
    let work = login.scope(|reply| {
        println!("  body: {reply}");
        Err::<(), _>("no such station")
    });
    println!("  after: {}", work.expect_err("the body failed"));

    println!("wrap_iter_weighed: a response body, piece by piece, in a for loop");
    let response = runner.run(session.clone().get("/pieces".to_owned()))??;
    let (mut pieces, mut bytes) = (0, 0);
    let body = BodyDataStream::new(response.into_body());
    let weigh = |piece: &Result<Bytes, _>| piece.as_ref().map_or(1, Bytes::len);
    for piece in runner.wrap_iter_weighed(body, 1 << 16, weigh) {
        bytes += piece??.len();
        pieces += 1;
    }
    println!("  {bytes} bytes in {pieces} pieces");
    assert_eq!(bytes, server::PIECES * server::PIECE.len());

    println!("close: what is still entered is exited, last in, first out");
    let login = runner.wrap_context(Login { session, user: "grace" })?.leave_open();
    println!("  entered last: {login}");
    let report = runner.close(Duration::from_secs(5));
    println!("  {report}");
    println!("  {server}");
    assert!(report.is_clean());
    Ok(())
}

/// The numbers from 0 to `end`, always ready.
struct Numbers {
    next: u64,
    end: u64,
}

impl Stream for Numbers {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<u64>> {
        let item = (self.next < self.end).then_some(self.next);
        self.next += 1;
        Poll::Ready(item)
    }
}

fn cost_of_an_item() -> Result<(), BoxError> {
    const ITEMS: u64 = 1_000_000;
    const TRIPS: u64 = 50_000;
    let numbers = |end| Numbers { next: 0, end };
    let per_item = |what: &str, items: u64, started: Instant| {
        let nanos = started.elapsed().as_nanos() as f64 / items as f64;
        println!("{what:52} {nanos:9.1} ns per item, {items} items");
    };
    let runner = ThreadRunner::new();
    runner.bridge()?; // starts the loop
    for _round in 0..3 {
        let started = Instant::now();
        let sum = runner.wrap_iter(numbers(ITEMS)).sum::<Result<u64, _>>()?;
        per_item("wrap_iter, stream on the loop's thread", ITEMS, started);
        assert_eq!(sum, ITEMS * (ITEMS - 1) / 2);

        let started = Instant::now();
        let sum: u64 = futures_executor::block_on_stream(numbers(ITEMS)).sum();
        per_item("block_on_stream, stream on the caller's own thread", ITEMS, started);
        assert_eq!(sum, ITEMS * (ITEMS - 1) / 2);

        let shared = Arc::new(tokio::sync::Mutex::new(numbers(TRIPS)));
        let started = Instant::now();
        let mut sum = 0;
        loop {
            let stream = Arc::clone(&shared);
            let next = runner.run(async move {
                let mut stream = stream.lock().await;
                std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
            })?;
            match next {
                Some(item) => sum += item,
                None => break,
            }
        }
        per_item("one round trip to the loop per item", TRIPS, started);
        assert_eq!(sum, TRIPS * (TRIPS - 1) / 2);
    }
    Ok(())
}

/// A small keep-alive HTTP/1.1 server on loopback that counts what it gets.
mod server {
    use super::{Arc, AtomicUsize, Ordering};
    use std::fmt;
    use std::io::{self, BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    pub(super) const PIECES: usize = 1_000;
    pub(super) const PIECE: &[u8] = &[b'x'; 1_024];

    #[derive(Default)]
    struct Counts {
        connections: AtomicUsize,
        requests: AtomicUsize,
    }

    pub(super) struct Server {
        pub(super) address: String,
        counts: Arc<Counts>,
    }

    impl Server {
        pub(super) fn start() -> io::Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?.to_string();
            let counts = Arc::new(Counts::default());
            let accepting = Arc::clone(&counts);
            thread::spawn(move || {
                for peer in listener.incoming().flatten() {
                    accepting.connections.fetch_add(1, Ordering::Relaxed);
                    let counts = Arc::clone(&accepting);
                    thread::spawn(move || serve(peer, &counts));
                }
            });
            Ok(Server { address, counts })
        }

        pub(super) fn connections(&self) -> usize {
            self.counts.connections.load(Ordering::Relaxed)
        }
    }

    impl fmt::Display for Server {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let requests = self.counts.requests.load(Ordering::Relaxed);
            write!(f, "server: {requests} requests over {} connections", self.connections())
        }
    }

    fn serve(peer: TcpStream, counts: &Counts) -> io::Result<()> {
        peer.set_nodelay(true)?;
        let mut reply = peer.try_clone()?;
        let mut lines = BufReader::new(peer).lines();
        while let Some(request) = lines.next().transpose()? {
            while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
            counts.requests.fetch_add(1, Ordering::Relaxed);
            let path = request.split(' ').nth(1).unwrap_or("/");
            if path == "/pieces" {
                reply.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for _ in 0..PIECES {
                    reply.write_all(format!("{:x}\r\n", PIECE.len()).as_bytes())?;
                    reply.write_all(PIECE)?;
                    reply.write_all(b"\r\n")?;
                }
                reply.write_all(b"0\r\n\r\n")?;
            } else {
                let body = format!("{path} says hello");
                let length = body.len();
                write!(reply, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")?;
            }
        }
        Ok(())
    }
}
