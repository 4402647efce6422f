//! The old microservices, and their client, which blocks.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Items from here on are unknown to the services.
pub(crate) const ITEMS: u32 = 10_000;
/// How long a client waits for an answer, and a service for a request.
const PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_REQUEST: u64 = 8_192;

pub(crate) fn price(item: u32) -> String {
    format!("{}.{:02}", item % 97, item % 100)
}

pub(crate) fn stock(item: u32) -> String {
    (item * 7 % 50).to_string()
}

pub(crate) fn rating(item: u32) -> String {
    format!("{}.{}", 1 + item % 4, item % 10)
}

/// How many requests a service works on, as it sees it itself.
#[derive(Debug, Default)]
pub(crate) struct Load {
    now: AtomicUsize,
    most: AtomicUsize,
    total: AtomicUsize,
}

impl Load {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        self.total.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    /// The most at a time.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }
}

/// All that the web service depends on.
pub(crate) struct Backends {
    pub(crate) prices: Service,
    pub(crate) stock: Service,
    pub(crate) ratings: Service,
    /// What the pool brings upon prices and stock together.
    pub(crate) limited: Arc<Load>,
    /// What `to_thread` brings upon ratings.
    pub(crate) unlimited: Arc<Load>,
}

impl Backends {
    pub(crate) fn start(delay: Duration) -> io::Result<Self> {
        let (limited, unlimited) = (Arc::new(Load::default()), Arc::new(Load::default()));
        Ok(Backends {
            prices: Service::start(price, delay, &limited)?,
            stock: Service::start(stock, delay, &limited)?,
            ratings: Service::start(rating, delay, &unlimited)?,
            limited,
            unlimited,
        })
    }
}

/// One microservice: `GET /ITEM` gives one value, after a while. Dropping it stops it.
pub(crate) struct Service {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    fn start(answer: fn(u32) -> String, delay: Duration, load: &Arc<Load>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stopped, load) = (Arc::clone(&stopping), Arc::clone(load));
        let accept = move || {
            // A thread per connection, as one did; the scope joins them.
            thread::scope(|scope| {
                while let Ok((peer, _)) = listener.accept() {
                    if stopped.load(Ordering::SeqCst) {
                        break;
                    }
                    let load = &load;
                    // Without a thread the connection is closed, and the client told.
                    let _ = thread::Builder::new()
                        .spawn_scoped(scope, move || drop(reply(&peer, answer, delay, load)));
                }
            });
        };
        let acceptor = thread::Builder::new().name("old-service".to_owned()).spawn(accept)?;
        Ok(Service { address, stopping, acceptor: Some(acceptor) })
    }

    pub(crate) fn client(&self) -> Client {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .new_agent();
        Client { agent, address: self.address }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; it is gone already if nobody listens.
        let awake = TcpStream::connect(self.address).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| awake) {
            let _ = acceptor.join();
        }
    }
}

fn reply(
    peer: &TcpStream,
    answer: fn(u32) -> String,
    delay: Duration,
    load: &Load,
) -> io::Result<()> {
    peer.set_read_timeout(Some(PATIENCE))?;
    peer.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(peer.take(LONGEST_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|header| !header.is_empty()) {}
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let item = path.trim_start_matches('/').parse().ok().filter(|item| *item < ITEMS);

    load.enter();
    thread::sleep(delay);
    let (status, body) = match item {
        Some(item) => ("200 OK", answer(item)),
        None => ("404 Not Found", String::new()),
    };
    // Before the answer: whoever has it may send the next request.
    load.leave();
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    (&mut &*peer).write_all((head + &body).as_bytes())
}

/// The client of one microservice. Every call blocks, for as long as the service takes.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Client {
    pub(crate) fn get(&self, item: u32) -> Result<String, ureq::Error> {
        let url = format!("http://{}/{item}", self.address);
        self.agent.get(url).call()?.body_mut().read_to_string()
    }
}
