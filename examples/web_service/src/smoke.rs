//! `--smoke`: the service driven by threads of the same process, and a verdict.

use crate::cli::Options;
use crate::old::{self, Backends};
use crate::serve;
use crate::shop::Shop;
use crate::ticker::Ticker;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Clients for each call that may run at a time; more than one, so that calls have to queue.
const CLIENTS: usize = 2;
/// Requests for each call that may run at a time: as many for each of the three routes.
const REQUESTS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the clients saw.
struct Seen {
    requests: usize,
    clients: usize,
    elapsed: Duration,
    /// The longest gap of a thread that does nothing: what is the machine's doing.
    plain_gap: Duration,
    /// What was wrong with answers, if anything.
    wrong: Vec<String>,
}

/// Runs it and prints what happened; whether all was as it should be.
pub(crate) async fn run(options: &Options, backends: &Backends) -> Result<bool, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let limit = options.limit();
    let shop = Shop::open(backends, limit);
    let (report, reported) = oneshot::channel();
    thread::Builder::new()
        .name("clients".to_owned())
        .spawn(move || report.send(drive(address, CLIENTS * limit, REQUESTS * limit)))?;
    let (seen, ended) = serve::until(listener, &shop, options.deadline(), reported).await;
    let seen = seen??;

    let (limited, unlimited) = (&backends.limited, &backends.unlimited);
    let calls = limited.total() + unlimited.total();
    let (right, serial) = (seen.requests - seen.wrong.len(), options.delay() * calls as u32);
    let faster = serial.as_secs_f64() / seen.elapsed.as_secs_f64();
    let mut text = String::new();
    writeln!(text, "{} requests from {} threads", seen.requests, seen.clients)?;
    writeln!(text, "  answers           {right} right, {} wrong", seen.wrong.len())?;
    let (pooled, free) = (limited.total(), unlimited.total());
    writeln!(text, "  calls             {pooled} through the pool, {free} through to_thread")?;
    let (most, most_free) = (limited.most(), unlimited.most());
    writeln!(text, "  at a time         {most} of {limit} in the pool, {most_free} in to_thread")?;
    let delay = options.delay();
    writeln!(
        text,
        "  time              {:.2?}; {calls} calls of {delay:?} one by one: {serial:.2?}, \
         {faster:.1} times as long",
        seen.elapsed
    )?;
    write!(text, "{ended}")?;
    let gap = seen.plain_gap;
    writeln!(
        text,
        "  a plain thread    longest gap {gap:.1?} between sleeps of {:?}",
        Ticker::PERIOD
    )?;

    let mut problems: Vec<String> = seen.wrong.into_iter().take(5).collect();
    if most != limit {
        problems.push(format!("{most} calls at a time, where the limit is {limit}"));
    }
    if !ended.is_clean() {
        problems.push("the shutdown left something behind".to_owned());
    }
    for problem in &problems {
        writeln!(text, "  FAILED: {problem}")?;
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(problems.is_empty())
}

/// Sends `requests`, each client one after the other.
fn drive(address: SocketAddr, clients: usize, requests: usize) -> io::Result<Seen> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        .build()
        .new_agent();
    let next = AtomicUsize::new(0);
    let client = || {
        let mut wrong = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return wrong;
            }
            let (path, expected) = question(number as u32);
            let answer = agent.get(format!("http://{address}{path}")).call();
            match answer.and_then(|mut answer| answer.body_mut().read_to_string()) {
                Ok(answer) if answer == expected => {}
                Ok(answer) => wrong.push(format!("{path} gave {answer:?}")),
                Err(error) => wrong.push(format!("{path}: {error}")),
            }
        }
    };
    let started = Instant::now();
    let done = AtomicBool::new(false);
    let (wrong, plain_gap) = thread::scope(|scope| {
        let sleeper = thread::Builder::new().spawn_scoped(scope, || sleep_until(&done))?;
        let clients: Vec<_> =
            (0..clients).map(|_| thread::Builder::new().spawn_scoped(scope, client)).collect();
        let wrong: io::Result<Vec<_>> =
            clients.into_iter().map(|client| Ok(client?.join().expect("it can't panic"))).collect();
        done.store(true, Ordering::Relaxed);
        Ok::<_, io::Error>((wrong?.concat(), sleeper.join().expect("it can't panic")))
    })?;
    Ok(Seen { requests, clients, elapsed: started.elapsed(), plain_gap, wrong })
}

/// As the ticker, without a loop.
fn sleep_until(done: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        thread::sleep(Ticker::PERIOD);
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// A path and what the service must say to it.
fn question(number: u32) -> (String, String) {
    let item = number % old::ITEMS;
    let (price, stock, rating) = (old::price(item), old::stock(item), old::rating(item));
    match number % 3 {
        0 => (format!("/price/{item}"), format!("item {item}: {price} EUR\n")),
        1 => (format!("/offer/{item}"), format!("item {item}: {price} EUR, {stock} in stock\n")),
        _ => (format!("/rating/{item}"), format!("item {item}: {rating} stars\n")),
    }
}
