//! # Testing what you wrote
//!
//! A handler is a function: give it a `Request` or a `Datagram` made by hand. A consumer is a task: give it a channel. Threads are
//! waited for by events, never by sleeps: `flush` returns when all that was sent has been taken, `closed` when the consumer has
//! gone. At the end of each test, the counters balance. Threads and sources that do what a test tells them, step by step, are in
//! `callbridge::testing` (feature `testing`).

use callbridge::channel;
use callbridge::channel::{Ending, FrameStream};
use callbridge::listener::Request;
use std::time::Duration;

/// What is to be tested: a handler ...
async fn answer(request: Request<String>) -> Option<String> {
    request.frame.strip_prefix("ask ").map(|question| format!("no {question}"))
}

/// ... and a consumer, which has enough of a frame that is negative.
async fn sum(mut frames: FrameStream<i64>) -> i64 {
    let mut sum = 0;
    while let Some(frame) = frames.recv().await {
        if frame < 0 {
            break;
        }
        sum += frame;
    }
    sum
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let asked = answer(Request::new("ask idea".to_owned())).await;
    assert_eq!(asked.as_deref(), Some("no idea"));
    assert_eq!(answer(Request::new("hello".to_owned())).await, None);

    let (sender, frames) = channel(4);
    let consumer = tokio::spawn(sum(frames));
    let source = std::thread::spawn(move || {
        let limit = Duration::from_secs(10); // for what would otherwise hang
        sender.send(20)?;
        sender.send(22)?;
        sender.flush(limit)??; // all of it has been taken
        sender.send(-1)?;
        assert_eq!(sender.closed(limit)?, Ending::ConsumerDropped);
        assert!(sender.send(1).is_err(), "nobody takes it");
        assert!(sender.stats().balances());
        Ok::<(), crate::Failure>(())
    });
    assert_eq!(consumer.await?, 42);
    source.join().expect("no assertion fails")?;
    println!("tested");
    Ok(())
}
