//! The service, run as a program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_callbridge-web-service"));
    program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program
}

/// Waits for the exit, and kills what takes too long; it prints less than a pipe holds.
fn end(mut child: Child) -> Output {
    let late = Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > late {
            child.kill().expect("a child");
            let output = child.wait_with_output().expect("it was killed");
            panic!("it doesn't end: {output:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("it has ended")
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = end(program(arguments).spawn().expect("it starts"));
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
    (output.status.code(), stdout, stderr)
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut peer = TcpStream::connect(address).expect("it listens");
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(peer, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A running service; killed if the test ends first.
struct Service {
    child: Option<Child>,
    address: SocketAddr,
}

impl Service {
    fn start(arguments: &[&str]) -> Self {
        let arguments = [&["--listen", "127.0.0.1:0"], arguments].concat();
        let mut child = program(&arguments).spawn().expect("it starts");
        let mut stdout = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        child.stdout = Some(stdout.into_inner());
        let address = line.split(['/', ';']).nth(2).and_then(|address| address.parse().ok());
        Service { child: Some(child), address: address.unwrap_or_else(|| panic!("{line:?}")) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_smoke_reaches_the_limit_and_ends_cleanly() {
    let (code, stdout, stderr) = run(&["--smoke", "--limit", "4", "--delay", "50"]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.starts_with("48 requests from 8 threads\n"), "{stdout}");
    assert!(stdout.contains("48 right, 0 wrong"), "{stdout}");
    assert!(stdout.contains("48 through the pool, 16 through to_thread"), "{stdout}");
    assert!(stdout.contains("4 of 4 in the pool"), "{stdout}");
    // Nothing follows: no call in flight, no thread left.
    assert_eq!(stdout.matches(": 0 drained, 0 cut off\n").count(), 2, "{stdout}");
    assert_eq!(stderr, "");
}

#[test]
fn a_bad_address_is_one_line_and_code_2() {
    let (code, stdout, stderr) = run(&["--listen", "here"]);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{stderr}");
    assert!(stderr.contains("invalid value 'here' for '--listen <ADDRESS>'"), "{stderr}");
}

#[test]
fn a_port_in_use_is_one_line_and_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stdout, stderr) = run(&["--listen", &address]);
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{stderr}");
    assert!(stderr.starts_with(&format!("web_service: cannot listen on {address}: ")), "{stderr}");
}

#[test]
fn an_unknown_item_is_not_found_and_a_word_is_a_bad_request() {
    let service = Service::start(&["--delay", "1"]);
    let unknown = get(service.address, "/price/10000");
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    assert!(unknown.ends_with("no such item\n"), "{unknown}");
    let word = get(service.address, "/rating/best");
    assert!(word.starts_with("HTTP/1.1 400 "), "{word}");
    let known = get(service.address, "/offer/101");
    assert!(known.ends_with("\r\n\r\nitem 101: 4.01 EUR, 7 in stock\n"), "{known}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_answers_what_is_under_way() {
    let mut service = Service::start(&["--limit", "1", "--delay", "1000"]);
    let address = service.address;
    let request = thread::spawn(move || get(address, "/price/3"));
    let late = Instant::now() + PATIENCE;
    // The pool's only thread is blocked, the loop isn't.
    while !get(address, "/health").contains("1 of 1 threads busy") {
        assert!(Instant::now() < late, "the request doesn't get to the pool");
    }
    let child = service.child.take().expect("it is there until here");
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());

    let answer = request.join().unwrap();
    assert!(answer.ends_with("\r\n\r\nitem 3: 3.03 EUR\n"), "{answer}");
    let output = end(child);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    assert!(stdout.contains("requests          all answered"), "{stdout}");
    // Nothing follows: no call in flight, no thread left.
    assert_eq!(stdout.matches(": 0 drained, 0 cut off\n").count(), 2, "{stdout}");
}
