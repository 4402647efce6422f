//! The session against a blocking server.

#![cfg(unix)]

use callbridge::channel::Ending;
use callbridge::listener::WriteError;
use callbridge_websocket::{Client, Message, connect, echo};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use tokio::time::timeout;
use tungstenite::WebSocket;

const PATIENCE: Duration = Duration::from_secs(30);

async fn next(client: &mut Client) -> Message {
    let message = timeout(PATIENCE, client.incoming.recv()).await.expect("in time");
    message.expect("a message")
}

/// Says goodbye and waits for the end.
async fn end(mut client: Client) {
    client.outgoing.send(Message::Close(None)).await.unwrap();
    assert_eq!(timeout(PATIENCE, client.incoming.recv()).await.unwrap(), None);
    assert_eq!(client.incoming.ending(), Some(Ending::Finished));
    let report = client.listener.close(PATIENCE).await;
    assert!(report.is_clean() && report.error.is_none(), "{report}");
}

#[tokio::test]
async fn messages_come_back_in_order_and_pings_are_answered() {
    let (addr, server) = echo::start(echo::echo).unwrap();
    let mut client = connect(&addr.to_string()).unwrap();
    for n in 0..100 {
        client.outgoing.send(Message::text(n.to_string())).await.unwrap();
    }
    for n in 0..100 {
        assert_eq!(next(&mut client).await, Message::text(n.to_string()));
    }
    end(client).await;
    assert!(server.join().unwrap() > 0);
}

/// More than the system takes at once, to a server that writes while nobody but this thread could read.
#[tokio::test]
async fn big_messages_go_both_ways_at_once() {
    let (addr, server) = echo::start(echo::echo).unwrap();
    let mut client = connect(&addr.to_string()).unwrap();
    let big = Message::binary(vec![7; 8 << 20]);
    let outgoing = client.outgoing.clone();
    let sent = big.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..3 {
            outgoing.send(sent.clone()).await.unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(next(&mut client).await, big);
    }
    sending.await.unwrap();
    end(client).await;
    server.join().unwrap();
}

#[tokio::test]
async fn a_server_that_closes_ends_the_stream() {
    let (addr, server) = echo::start(|mut client| {
        client.send(Message::text("bye")).unwrap();
        client.close(None).unwrap();
        while client.read().is_ok() {}
    })
    .unwrap();
    let mut client = connect(&addr.to_string()).unwrap();
    assert_eq!(next(&mut client).await, Message::text("bye"));
    assert_eq!(timeout(PATIENCE, client.incoming.recv()).await.unwrap(), None);
    let report = timeout(PATIENCE, client.listener.finished()).await.unwrap();
    assert!(report.error.is_none(), "{report}");
    let refused = client.outgoing.send(Message::text("anybody?")).await;
    assert!(matches!(refused, Err(WriteError::Closed(_))), "{refused:?}");
    server.join().unwrap();
}

#[tokio::test]
async fn a_stop_says_goodbye_to_a_server_that_is_silent() {
    let last_word = |mut client: WebSocket<TcpStream>| {
        loop {
            if let Err(error) = client.read() {
                return error;
            }
        }
    };
    let (addr, server) = echo::start(last_word).unwrap();
    let client = connect(&addr.to_string()).unwrap();
    assert!(client.listener.close(PATIENCE).await.is_clean());
    let ended = server.join().unwrap();
    assert!(matches!(ended, tungstenite::Error::ConnectionClosed), "{ended}");
}

/// The socket is full of answers to pings, and nothing comes any more when it has room again.
#[tokio::test]
async fn an_answer_that_found_no_room_leaves_as_soon_as_there_is_some() {
    const PINGS: u32 = 100_000;
    let payload = |n: u32| [n.to_be_bytes().as_slice(), &[0; 121]].concat();
    let (read, may_read) = std::sync::mpsc::channel();
    let (addr, server) = echo::start(move |mut client| {
        for n in 0..PINGS {
            client.write(Message::Ping(payload(n).into())).unwrap();
        }
        client.send(Message::text("now you")).unwrap();
        may_read.recv_timeout(PATIENCE).unwrap();
        client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        let last = Message::Pong(payload(PINGS - 1).into());
        while client.read().expect("the last answer") != last {}
    })
    .unwrap();
    let mut client = connect(&addr.to_string()).unwrap();
    assert_eq!(next(&mut client).await, Message::text("now you"));
    read.send(()).unwrap();
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap();
    assert!(client.listener.close(PATIENCE).await.is_clean());
}

#[test]
fn the_smoke_run_ends_by_itself() {
    let program = env!("CARGO_BIN_EXE_callbridge-websocket");
    let run = Command::new(program).arg("--smoke").output().unwrap();
    assert!(run.status.success(), "{run:?}");
}
