//! The system refuses descriptors and threads. Limits hold for a process, so each test runs its body in
//! a child of its own: this binary, started again for the one test.

use crate::child::{child, in_a_child, is_child};
use crate::common::{LONG, Loop, SHORT, eventually};
use crate::limited::{Resource, limit, without_threads};
use callbridge::listener::{Listener, Request, TcpServer, UdpSource};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use tokio_util::codec::LinesCodec;

fn lines() -> TcpServer<fn() -> LinesCodec> {
    let server = TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new as fn() -> _).unwrap();
    server.with_linger(SHORT)
}

fn ask(client: &TcpStream, line: &str) -> String {
    client.set_read_timeout(Some(LONG)).unwrap();
    (&*client).write_all(line.as_bytes()).unwrap();
    let mut reply = String::new();
    BufReader::new(client).read_line(&mut reply).unwrap();
    reply
}

#[test]
fn a_server_without_descriptors_goes_on_when_there_are_some() {
    in_a_child("limits::a_server_without_descriptors_goes_on_when_there_are_some", || {
        let event_loop = Loop::multi(1);
        let listener = Listener::builder(lines())
            .serve(&event_loop.bridge(), |request: Request<String>| async { Some(request.frame) })
            .spawn()
            .unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(ask(&client, "before\n"), "before\n");
        limit(Resource::Nofile, Some(64));
        let mut hoard = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            hoard.push(file);
        }
        // The one descriptor that is left goes to the client's end.
        hoard.pop();
        let late = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        eventually("an accept that fails", || listener.stats().accept_errors > 0);
        assert_eq!(ask(&client, "meanwhile\n"), "meanwhile\n");
        assert!(UdpSource::bind("127.0.0.1:0").is_err(), "EMFILE is an error, no panic");
        drop(hoard);
        assert_eq!(ask(&late, "after\n"), "after\n");
        let report = listener.close_blocking(LONG);
        assert!(report.is_clean() && report.stats.accepted == 2, "{report}");
    });
}

/// What a server does that may have `descriptors` and is flooded by another process: it says where
/// it listens, tells its numbers to who asks, and ends with its input.
fn be_flooded(descriptors: u64) {
    let event_loop = Loop::multi(1);
    let numbers: Arc<OnceLock<Listener>> = Arc::default();
    let asked = Arc::clone(&numbers);
    let listener = Listener::builder(lines())
        .serve(&event_loop.bridge(), move |request: Request<String>| {
            let stats = asked.get().map(Listener::stats);
            async move {
                match request.frame.as_str() {
                    "numbers" => stats.map(|of| format!("{} {}", of.accept_errors, of.open)),
                    _ => Some(request.frame),
                }
            }
        })
        .spawn()
        .unwrap();
    println!("\naddress {}", listener.local_addr().unwrap());
    let listener = numbers.get_or_init(|| listener);
    limit(Resource::Nofile, Some(descriptors));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && report.stats.open == 0, "{report}");
    assert_eq!(report.stats.accepted, FLOOD as u64 + 1, "{report}");
}

const FLOOD: usize = 300;

/// More peers than there are descriptors: those that are in are served, nobody is lost, and the others
/// come in as descriptors come back.
#[test]
fn a_flood_up_to_the_limit_of_descriptors_is_served_bit_by_bit() {
    const DESCRIPTORS: u64 = 64;
    if is_child() {
        return be_flooded(DESCRIPTORS);
    }
    let mut server = child("limits::a_flood_up_to_the_limit_of_descriptors_is_served_bit_by_bit")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let addr = said
        .find_map(|line| line.unwrap().strip_prefix("address ").map(str::to_owned))
        .expect("the server says where it listens");
    let first = TcpStream::connect(&addr).unwrap();
    assert_eq!(ask(&first, "before\n"), "before\n");
    let flood: Vec<_> = (0..FLOOD)
        .map(|n| {
            let mut client = TcpStream::connect(&addr).unwrap();
            client.write_all(format!("{n}\n").as_bytes()).unwrap();
            client
        })
        .collect();
    let mut open = 0;
    eventually("an accept that fails", || {
        let numbers = ask(&first, "numbers\n");
        let (errors, connections) = numbers.trim_end().split_once(' ').unwrap();
        open = connections.parse().unwrap();
        errors != "0"
    });
    assert!((1..DESCRIPTORS).contains(&open), "{open}");
    for (n, client) in flood.into_iter().enumerate() {
        // It leaves when it has its answer, so that another can come in.
        assert_eq!(ask(&client, ""), format!("{n}\n"));
    }
    assert_eq!(ask(&first, "after\n"), "after\n");
    drop((first, server.stdin.take()));
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_connection_without_a_thread_is_refused_and_the_next_one_served() {
    in_a_child("limits::a_connection_without_a_thread_is_refused_and_the_next_one_served", || {
        let event_loop = Loop::multi(1);
        let listener = Listener::builder(lines())
            .serve(&event_loop.bridge(), |request: Request<String>| async { Some(request.frame) })
            .spawn()
            .unwrap();
        let addr = listener.local_addr().unwrap();
        // A thread that is still starting when the limit comes would end the process.
        // One that has ended would leave its stack to the next.
        let early = TcpStream::connect(addr).unwrap();
        assert_eq!(ask(&early, "before\n"), "before\n");
        without_threads(|| {
            let _refused = TcpStream::connect(addr).unwrap();
            eventually("a refusal", || listener.stats().refused == 1);
        });
        assert_eq!(ask(&TcpStream::connect(addr).unwrap(), "after\n"), "after\n");
        let report = listener.close_blocking(LONG);
        assert!(report.is_clean() && report.stats.accepted == 2, "{report}");
    });
}
