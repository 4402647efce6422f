//! Rounds drawn at random: each request gets exactly its reply, in its order, and the counters balance.

use crate::common::{LONG, Loop, SHORT, eventually};
use crate::support::*;
use callbridge::Bridge;
use callbridge::listener::{
    FirstPoll, FrameSource, Listener, Request, RequestSource, TcpServer, UnixServer,
};
use socket2::Socket;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// How a request is handled: in so many milliseconds, or so.
const AT_ONCE: u64 = 0;
const AFTER_A_YIELD: u64 = 3;
/// Long enough that those after it begin on the loop.
const SLOWLY: u64 = 4;
const IN_SILENCE: u64 = 5;
const BADLY: u64 = 6;

/// A request: its number, how it is handled, how long its reply is.
#[derive(Clone, Copy)]
struct Ask(u64, u64, u64);

impl Ask {
    fn draw(dice: &mut Dice, n: u64, most: u64) -> Self {
        let how = dice.of(&[AT_ONCE, AT_ONCE, 1, 2, AFTER_A_YIELD, SLOWLY, IN_SILENCE, BADLY]);
        let most = dice.of(&[most, most / 8, 200, 200, 200]);
        Ask(n, how, dice.below(most))
    }
    fn reply(self, fallback: &str) -> Option<String> {
        match self.1 {
            IN_SILENCE => None,
            BADLY => Some(fallback.to_owned()),
            _ => Some(format!("{}:{}", self.0, "y".repeat(self.2 as usize))),
        }
    }
    async fn handle(self) -> Option<String> {
        match self.1 {
            AFTER_A_YIELD => tokio::task::yield_now().await,
            SLOWLY => thread::sleep(Duration::from_micros(70)),
            BADLY => resume_unwind(Box::new("drawn")),
            AT_ONCE | IN_SILENCE => {}
            millis => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
        self.reply("")
    }
}

macro_rules! serve {
    ($builder:expr, $bridge:expr, $handler:expr, $dice:expr, $fallback:expr) => {{
        let fallback = $fallback.clone();
        $builder
            .serve($bridge, $handler)
            .pipeline($dice.of(&[1, 2, 64]))
            .first_poll($dice.of(&[FirstPoll::Here, FirstPoll::OnLoop]))
            .reply_timeout(LONG)
            .fallback(move |_| Some(fallback.clone()))
            .spawn()
            .unwrap()
    }};
}

/// Rounds from here on have found bugs that are mended.
const FIRST: u64 = 78;

/// A round leaves a listener that is done with so many requests; panics are answered by the fallback.
fn run_all(count: usize, round: fn(&mut Dice, &Bridge, &String) -> (Listener, u64)) {
    let event_loop = Loop::multi(2);
    at_random(FIRST, count, |dice| {
        let bridge = Bridge::builder(event_loop.handle());
        let bridge = bridge.max_in_flight(dice.of(&[1, 2, 4, 1000])).build().unwrap();
        let fallback = "failed".repeat(dice.of(&[1, 50_000]));
        let (listener, requests) = round(dice, &bridge, &fallback);
        let report = listener.close_blocking(LONG);
        let stats = &report.stats;
        assert!(report.is_clean() && stats.balances(), "{report}");
        let left = (stats.late, stats.in_flight, stats.open);
        assert_eq!((stats.requests, left), (requests, (0, 0, 0)), "{stats:?}");
    });
}

/// Asks and reads in ways that are drawn, and hears all replies; how many requests it had.
fn drive(mut client: Socket, mut dice: Dice, fallback: &str) -> u64 {
    client.set_read_timeout(Some(10 * SECOND)).unwrap();
    let (requests, most) = (dice.of(&[1, 3, 10, 40, 150]), dice.of(&[100, 5000, 300 * 1024]));
    let asks: Vec<_> = (0..requests).map(|n| Ask::draw(&mut dice, n, most)).collect();
    let wanted: String = asks.iter().filter_map(|ask| Some(ask.reply(fallback)? + "\n")).collect();
    let piece = dice.of(&[usize::MAX, 500, 30, 7]);
    let (late, part, ends) = (dice.below(4) == 0, dice.of(&[100_000, 1000]), dice.below(2) == 0);
    let (mut twin, mut own) = (client.try_clone().unwrap(), dice.clone());
    let writer = thread::spawn(move || {
        let line = |Ask(n, how, size): &Ask| format!("{n} {how} {size}\n");
        for piece in asks.iter().map(line).collect::<String>().as_bytes().chunks(piece) {
            twin.write_all(piece).unwrap();
            own.rest();
        }
        if ends {
            twin.shutdown(Shutdown::Write).unwrap();
        }
    });
    if late {
        thread::sleep(30 * MS);
    }
    let (mut heard, mut part) = (Vec::<u8>::new(), vec![0; part]);
    while heard.len() < wanted.len() {
        let n = client.read(&mut part).unwrap();
        assert_ne!(n, 0, "ended after {} of {}", heard.len(), wanted.len());
        heard.extend(&part[..n]);
    }
    assert!(heard == wanted.as_bytes(), "replies that aren't wanted, or in another order");
    writer.join().unwrap();
    if ends {
        assert_eq!(client.read(&mut part).unwrap(), 0);
    }
    requests
}

#[test]
fn each_request_of_a_stream_gets_its_reply_in_order() {
    run_all(20, |dice, bridge, fallback| {
        let path = scratch("serve-stress");
        let handler = |request: Request<String>| {
            let mut parts = request.frame.split(' ').map(|part| part.parse().unwrap());
            Ask(parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()).handle()
        };
        let listener = if dice.below(2) == 0 {
            let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new).unwrap();
            serve!(Listener::builder(server.with_linger(SHORT)), bridge, handler, dice, fallback)
        } else {
            let server = UnixServer::bind(&path.0, 1024, LinesCodec::new).unwrap();
            serve!(Listener::builder(server.with_linger(SHORT)), bridge, handler, dice, fallback)
        };
        let drives: Vec<_> = (0..dice.of(&[1, 1, 2, 3]))
            .map(|_| {
                let (dice, fallback) = (dice.split(), fallback.clone());
                let client: Socket = match listener.local_addr() {
                    Some(addr) => TcpStream::connect(addr).unwrap().into(),
                    None => UnixStream::connect(&path.0).unwrap().into(),
                };
                thread::spawn(move || drive(client, dice, &fallback))
            })
            .collect();
        let requests = drives.into_iter().map(|drive| drive.join().unwrap()).sum();
        (listener, requests)
    });
}

type Sent = Vec<(u64, String)>;

/// A queue without a descriptor, whose flushes get on at random.
struct Queue {
    asks: Arc<Mutex<VecDeque<Ask>>>,
    sent: Arc<Mutex<Sent>>,
    staged: Sent,
    dice: Dice,
    /// Replies in order; waits if it may; has what is ready; stages.
    habits: [bool; 4],
}

impl FrameSource for Queue {
    type Frame = Ask;
    fn next_frame(&mut self) -> io::Result<Option<Ask>> {
        for _ in 0..10 {
            if self.habits[1] && self.asks.lock().unwrap().is_empty() {
                thread::sleep(MS);
            }
        }
        self.asks.lock().unwrap().pop_front().map(Some).ok_or(ErrorKind::WouldBlock.into())
    }
    fn next_ready(&mut self) -> io::Result<Option<Ask>> {
        let ready = self.habits[2].then(|| self.asks.lock().unwrap().pop_front());
        ready.flatten().map(Some).ok_or(ErrorKind::WouldBlock.into())
    }
}

impl RequestSource<String> for Queue {
    type Address = u64;
    fn address(&mut self, ask: &mut Ask) -> u64 {
        ask.0
    }
    fn answer(&mut self, to: u64, reply: String) -> io::Result<bool> {
        self.staged.push((to, reply));
        if self.habits[3] { Ok(false) } else { self.flush() }
    }
    fn flush(&mut self) -> io::Result<bool> {
        let leave = match self.dice.below(4) {
            0 if self.habits[3] => return Err(ErrorKind::WouldBlock.into()),
            1 if self.habits[3] => self.staged.len().min(1),
            _ => self.staged.len(),
        };
        self.sent.lock().unwrap().extend(self.staged.drain(..leave));
        Ok(self.staged.is_empty())
    }
    fn replies_in_order(&self) -> bool {
        self.habits[0]
    }
}

#[test]
fn each_request_of_a_source_of_ones_own_gets_its_reply() {
    run_all(60, |dice, bridge, fallback| {
        let habits @ [in_order, waits, _, stages] = [(); 4].map(|()| dice.below(2) == 0);
        let (asks, sent) = (Arc::default(), Arc::default());
        let (queue, replies) = (Arc::clone(&asks), Arc::clone(&sent));
        let source =
            Queue { asks: queue, sent: replies, staged: Vec::new(), dice: dice.clone(), habits };
        // What waits by itself and sends at once has no need of a poll timeout.
        let builder =
            Listener::builder(source).poll_timeout(if waits && !stages { LONG } else { MS });
        let listener = serve!(builder, bridge, Ask::handle, dice, fallback);
        let requests = dice.of(&[1, 5, 40]);
        let drawn: Vec<_> = (0..requests).map(|n| Ask::draw(dice, n, 20_000)).collect();
        for ask in &drawn {
            asks.lock().unwrap().push_back(*ask);
            dice.rest();
        }
        let replies = drawn.iter().filter_map(|ask| Some((ask.0, ask.reply(fallback)?)));
        let mut wanted: Vec<_> = replies.collect();
        eventually("all replies", || sent.lock().unwrap().len() >= wanted.len());
        wait_for(&listener, |stats| stats.requests == requests && stats.in_flight == 0);
        let mut heard = sent.lock().unwrap().clone();
        if !in_order {
            heard.sort();
            wanted.sort();
        }
        assert!(heard == wanted, "replies that aren't wanted, or in another order");
        (listener, requests)
    });
}
