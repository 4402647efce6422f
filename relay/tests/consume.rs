//! A stream of JetStream's as a stream of frames, with a real server.

mod common;

use callbridge_relay::nats::{ConsumeError, Consumer, ConsumerBuilder, connect};
use callbridge_relay::server::NatsServer;
use callbridge_relay::{Forwarder, Message};
use common::{LIMIT, STREAM, SUBJECT, config, context, server};
use std::time::Duration;

/// What was on its way to a consumer that stopped comes again after this.
const WAIT: Duration = Duration::from_secs(2);

async fn consumer(server: &NatsServer) -> ConsumerBuilder {
    let client = connect(server.url(), Default::default()).await.unwrap();
    Consumer::builder(client, STREAM, "reader")
}

async fn publish(server: &NatsServer, numbers: impl Iterator<Item = u64>) {
    let context = context(server).await;
    for number in numbers {
        context.publish(SUBJECT, number.to_string().into()).await.unwrap().await.unwrap();
    }
}

async fn recv<T>(frames: &mut callbridge::channel::FrameStream<T>) -> T {
    tokio::time::timeout(LIMIT, frames.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_come_in_order_and_those_that_are_done_come_once() {
    let server = server(config()).await;
    publish(&server, 1..=100).await;
    let (reader, mut frames) =
        consumer(&server).await.window(16).ack_wait(WAIT).start().await.unwrap();
    for number in 1..=60 {
        let frame = recv(&mut frames).await.done();
        assert_eq!((frame.sequence, frame.deliveries), (number, 1));
        assert_eq!(frame.payload, number.to_string());
        assert_eq!(frame.subject, SUBJECT);
    }
    drop(frames);
    let report = reader.close(LIMIT).await;
    assert!(report.is_clean() && report.acknowledged == 60, "{report}");

    let (reader, mut frames) =
        consumer(&server).await.window(16).ack_wait(WAIT).start().await.unwrap();
    // What was given back may come twice, what was done doesn't.
    let mut left = std::collections::BTreeSet::new();
    while left.len() < 40 {
        left.insert(recv(&mut frames).await.done().sequence);
    }
    assert!(left.into_iter().eq(61..=100));
    assert!(reader.close(LIMIT).await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_dropped_comes_again() {
    let server = server(config()).await;
    publish(&server, 1..=1).await;
    let (reader, mut frames) = consumer(&server).await.start().await.unwrap();
    drop(recv(&mut frames).await);
    let again = recv(&mut frames).await.done();
    assert_eq!((again.sequence, again.deliveries), (1, 2));
    let report = reader.close(LIMIT).await;
    assert_eq!((report.acknowledged, report.returned), (1, 1), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_are_delivered_than_may_be_undone() {
    let server = server(config()).await;
    publish(&server, 1..=20).await;
    let (reader, mut frames) = consumer(&server).await.window(4).start().await.unwrap();
    let mut undone = Vec::new();
    for _ in 0..4 {
        undone.push(recv(&mut frames).await);
    }
    let more = tokio::time::timeout(Duration::from_millis(100), frames.recv()).await;
    assert!(more.is_err());
    drop(undone.remove(0).done());
    assert_eq!(recv(&mut frames).await.sequence, 5);
    drop(undone);
    drop(frames);
    let report = reader.close(LIMIT).await;
    assert!(report.is_clean(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_goes_on_where_it_was() {
    let mut server = server(config()).await;
    publish(&server, 1..=10).await;
    let (reader, mut frames) =
        consumer(&server).await.ack_wait(Duration::from_secs(2)).start().await.unwrap();
    for _ in 1..=10 {
        recv(&mut frames).await.done();
    }
    server.kill().unwrap();
    server.restart().unwrap();
    publish(&server, 11..=20).await;
    let mut seen = std::collections::BTreeSet::new();
    while !(11..=20).all(|number| seen.contains(&number)) {
        seen.insert(recv(&mut frames).await.done().sequence);
    }
    assert!(reader.close(LIMIT).await.is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_carried_into_another_each_frame_done_once_it_is_stored() {
    let server = server(config()).await;
    let copies = async_nats::jetstream::stream::Config {
        name: "COPIES".to_owned(),
        subjects: vec!["copies.>".to_owned()],
        ..Default::default()
    };
    context(&server).await.create_stream(copies).await.unwrap();
    publish(&server, 1..=200).await;
    let (reader, frames) = consumer(&server).await.start().await.unwrap();
    let engine =
        callbridge_relay::nats::JetStream::connect(server.url(), Default::default(), "COPIES");
    let mut forwarder =
        Forwarder::tracked(frames, |frame| Message::new("copies.7", frame.payload.clone()))
            .start(engine.await.unwrap())
            .await
            .unwrap();
    while forwarder.stats().acknowledged < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let report = reader.close(LIMIT).await;
    assert_eq!((report.delivered, report.acknowledged, report.left), (200, 200, 0), "{report}");
    assert!(forwarder.finished().await.is_clean());
}

#[tokio::test]
async fn without_a_stream_it_does_not_begin() {
    let server = NatsServer::start().unwrap();
    let refused = consumer(&server).await.start().await;
    assert!(matches!(refused, Err(ConsumeError::Stream(_))));
}
