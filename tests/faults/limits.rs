//! The system refuses descriptors and threads. Limits hold for a process, so each test runs its
//! body in a child of its own: this binary, started again for the one test.

use crate::common::{LONG, Loop};
use crate::{in_a_child, until};
use callbridge::listener::{Listener, Request, TcpServer, UdpSource};
use callbridge::{DedicatedThread, ResultError, ThreadPool, ThreadRunner};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use tokio_util::codec::LinesCodec;

fn limit(resource: Resource, current: Option<u64>) -> Option<u64> {
    let Rlimit { current: before, maximum } = getrlimit(resource);
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
    before
}

fn lines() -> TcpServer<fn() -> LinesCodec> {
    TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new as fn() -> _).unwrap()
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
        until("an accept that fails", || listener.stats().accept_errors > 0);
        assert_eq!(ask(&client, "meanwhile\n"), "meanwhile\n");
        assert!(UdpSource::bind("127.0.0.1:0").is_err(), "EMFILE is an error, no panic");
        drop(hoard);
        assert_eq!(ask(&late, "after\n"), "after\n");
        let report = listener.shutdown_blocking(LONG);
        assert!(report.is_clean() && report.stats.accepted == 2, "{report}");
    });
}

/// The address space may hardly grow: there is no room for a thread's stack.
fn without_threads<R>(body: impl FnOnce() -> R) -> R {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().next().unwrap().parse().unwrap();
    let before = limit(Resource::As, Some(pages * 4096 + (1 << 20)));
    let refused = std::thread::Builder::new().spawn(|| {});
    assert!(refused.is_err(), "the limit keeps threads from starting");
    let result = body();
    limit(Resource::As, before);
    result
}

#[test]
fn a_thread_that_cant_be_started_is_an_error_and_the_next_one_starts() {
    in_a_child("limits::a_thread_that_cant_be_started_is_an_error_and_the_next_one_starts", || {
        let pool = ThreadPool::builder().max_workers(1).build();
        let runner = ThreadRunner::new();
        without_threads(|| {
            let source = UdpSource::bind("127.0.0.1:0").unwrap();
            let error = Listener::builder(source).spawn().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");

            let error = pool.submit(|| ()).result(LONG).unwrap_err();
            assert!(matches!(error, ResultError::Refused(_)), "{error}");

            let error = runner.run(async {}).unwrap_err();
            assert!(matches!(error, ResultError::StartFailed(_)), "{error}");
            ThreadRunner::builder().eager().build().unwrap_err();

            let error = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap_err();
            assert!(matches!(error, ResultError::Refused(_)), "{error}");
        });
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        assert_eq!(ThreadRunner::new().run(async { 2 }).unwrap(), 2);
        let _ = DedicatedThread::spawn(|| Ok::<_, String>(3)).result(LONG).unwrap();
    });
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
            until("a refusal", || listener.stats().refused == 1);
        });
        assert_eq!(ask(&TcpStream::connect(addr).unwrap(), "after\n"), "after\n");
        let report = listener.shutdown_blocking(LONG);
        assert!(report.is_clean() && report.stats.accepted == 2, "{report}");
    });
}
