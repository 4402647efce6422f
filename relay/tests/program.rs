//! The program `relay`, as its users have it, with a real server.
#![cfg(unix)]

mod common;

use async_nats::jetstream::stream;
use callbridge_relay::server::NatsServer;
use common::{LIMIT, STREAM, SUBJECT, config, context, server};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn forward_file(server: &NatsServer, subject: &str, file: &Path) -> Command {
    let url = server.url();
    let mut command = relay(&["forward", "--server", &url, "--stream", STREAM]);
    command.args(["--subject", subject, "--file"]).arg(file).stderr(Stdio::piped());
    command
}

fn output(command: &mut Command) -> (Output, String) {
    let output = command.stderr(Stdio::piped()).output().expect("the program");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

async fn messages(server: &NatsServer) -> u64 {
    let stream = context(server).await.get_stream(STREAM).await.expect("a stream");
    stream.cached_info().state.messages
}

async fn wait_for(server: &NatsServer, wanted: u64) {
    let late = Instant::now() + LIMIT;
    while messages(server).await < wanted {
        assert!(Instant::now() < late, "{} of {wanted} messages", messages(server).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// All payloads, read at once by the program.
fn consumed(server: &NatsServer, count: u64) -> Vec<u64> {
    let (output, said) = output(&mut relay(&[
        "consume",
        "--server",
        &server.url(),
        "--stream",
        STREAM,
        "--durable",
        "test",
        "--count",
        &count.to_string(),
    ]));
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_relay_goes_on_where_the_server_has_its_file() {
    let server = server(config()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    let lines = 30_000;
    let mut text = String::new();
    (1..=lines).for_each(|line| writeln!(text, "{line}").unwrap());
    fs::write(&file, text).unwrap();
    for kill_at in [2_000, 8_000, 15_000] {
        let mut child = forward_file(&server, SUBJECT, &file).spawn().unwrap();
        wait_for(&server, kill_at).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (output, said) = output(&mut forward_file(&server, SUBJECT, &file));
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("drained: "), "{said}");
    assert_eq!(messages(&server).await, lines);
    assert_eq!(consumed(&server, lines), (1..=lines).collect::<Vec<_>>());
    // Nothing is left to do for another one.
    let (again, said) = self::output(&mut forward_file(&server, SUBJECT, &file));
    assert!(again.status.success() && said.contains("0 offered"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_has_its_receipt_is_in_the_stream_though_the_relay_is_killed() {
    let server = server(config()).await;
    let url = server.url();
    let mut stored = Vec::new();
    let mut line = 0_u64;
    for _ in 0..3 {
        let mut child = relay(&[
            "forward",
            "--server",
            &url,
            "--stream",
            STREAM,
            "--subject",
            SUBJECT,
            "--tcp",
            "127.0.0.1:0",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut listening = String::new();
        said.read_line(&mut listening).unwrap();
        let at = listening.trim().rsplit(' ').next().unwrap().to_owned();
        let mut peer = TcpStream::connect(at).unwrap();
        let mut answers = BufReader::new(peer.try_clone().unwrap()).lines();
        for turn in 0..300 {
            line += 1;
            writeln!(peer, "{line}").unwrap();
            if turn == 299 {
                // Killed with one on its way: nobody knows of it.
                child.kill().unwrap();
            }
            match answers.next() {
                Some(Ok(answer)) if answer == "stored" => stored.push(line),
                _ => assert_eq!(turn, 299),
            }
        }
        child.wait().unwrap();
    }
    assert!(stored.len() >= 897);
    let there = common::stored(&server).await;
    assert!(there.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert!(stored.iter().all(|line| there.binary_search(line).is_ok()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_drains() {
    let server = server(config()).await;
    let url = server.url();
    let mut child =
        relay(&["forward", "--server", &url, "--stream", STREAM, "--subject", SUBJECT, "--stdin"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    let mut input = child.stdin.take().unwrap();
    (1..=100).for_each(|line| writeln!(input, "{line}").unwrap());
    input.flush().unwrap();
    wait_for(&server, 100).await;
    signal(&child, rustix::process::Signal::TERM);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("100 offered = 100 acknowledged + 0 in flight + 0 queued"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_through_two_programs() {
    let server = NatsServer::start().unwrap();
    let url = server.url();
    let mut service = relay(&["answer", "--server", &url, "--subject", "shout"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(service.stderr.take().unwrap()).read_line(&mut ready).unwrap();
    let ask = || {
        let mut asking = relay(&["request-serve", "--server", &url, "--subject", "shout"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        asking.stdin.take().unwrap().write_all(b"hey\nyou\n").unwrap();
        asking.wait_with_output().unwrap()
    };
    let answered = ask();
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "HEY\nYOU\n");
    service.kill().unwrap();
    service.wait().unwrap();
    let refused = ask();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("no service answers there"), "{said}");
}

/// What `relay forward` says of lines that aren't all stored, which is no success.
fn fails(server: &NatsServer, subject: &str, lines: &str) -> String {
    let url = server.url();
    let mut child =
        relay(&["forward", "--server", &url, "--stream", STREAM, "--subject", subject, "--stdin"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_the_stream_doesnt_take_is_an_error_at_once() {
    let server = server(config()).await;
    let said = fails(&server, "water.7", "1\n2\n");
    let expected = "relay: stream METERS doesn't take the subject water.7, only meters.>: \
                    give --subject what it takes, or have the stream take it\n";
    assert_eq!(said, expected);
    // The file is as it was, to be sent when that is mended.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    fs::write(&file, "1\n").unwrap();
    let (output, said) = output(&mut forward_file(&server, "water.7", &file));
    assert!(!output.status.success() && said == expected, "{said}");
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no position is kept");
    assert_eq!(messages(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_never_takes_is_an_error_at_the_end() {
    // With its headers, which have the id.
    let server = server(stream::Config { max_message_size: 1000, ..config() }).await;
    let said = fails(&server, SUBJECT, &format!("1\n{}\n2\n", "x".repeat(1000)));
    assert!(said.contains("3 offered = 2 acknowledged"), "{said}");
    assert!(
        said.ends_with(
            "relay: 1 rejected, and so not stored: see above why, mend it, and send again\n"
        ),
        "{said}"
    );
    assert_eq!(common::stored(&server).await, [1, 2]);
}

#[test]
fn without_a_server_it_says_so() {
    let (output, said) = output(&mut relay(&[
        "forward",
        "--server",
        "nats://127.0.0.1:1",
        "--stream",
        "S",
        "--subject",
        "s",
        "--stdin",
    ]));
    assert!(!output.status.success());
    assert!(said.contains("no NATS server lets us in at nats://127.0.0.1:1"), "{said}");
}
