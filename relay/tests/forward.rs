//! Frames into JetStream, with a real server.

mod common;

use async_nats::jetstream::stream;
use callbridge::channel::{FrameStream, NotDone, Overflow, Receipt, Sender, channel};
use callbridge_relay::nats::JetStream;
use callbridge_relay::server::NatsServer;
use callbridge_relay::{
    Forwarder, ForwarderBuilder, ForwarderEnding, ForwarderReport, Message, Publish, StartError,
};
use common::{LIMIT, STREAM, SUBJECT, config, context, server, stored};
use std::ops::RangeInclusive;
use std::sync::mpsc;
use std::time::Duration;

async fn engine(server: &NatsServer) -> JetStream {
    JetStream::connect(server.url(), Default::default(), STREAM).await.expect("a connection")
}

fn numbers(frames: FrameStream<u64>) -> ForwarderBuilder<u64> {
    Forwarder::builder(frames, |frame: &u64| Message::new(SUBJECT, frame.to_string()))
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .attempt_timeout(Duration::from_secs(2))
}

/// A thread that sends the numbers up to `last`.
fn source(sender: Sender<u64>, last: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || (1..=last).for_each(|frame| _ = sender.send(frame).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_and_the_counters_balance() {
    let server = server(config()).await;
    let (sender, frames) = channel(64);
    let mut forwarder = numbers(frames).window(32).start(engine(&server).await).await.unwrap();
    let source = source(sender, 2_000);
    let report = forwarder.finished().await;
    source.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.stats.acknowledged, report.stats.effort.sent_again), (2_000, 0), "{report}");
    assert_eq!(stored(&server).await, (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_doubles_nothing_that_it_has_acknowledged() {
    let mut server = server(config()).await;
    let (sender, frames) = channel(64);
    let (told, done) = mpsc::channel();
    let mut forwarder = numbers(frames)
        .window(32)
        .on_acknowledged(move |frame| told.send(frame).unwrap())
        .start(engine(&server).await)
        .await
        .unwrap();
    let source = source(sender, 6_000);
    for kill_at in [1_000, 3_000] {
        tokio::task::block_in_place(|| {
            while done.recv_timeout(LIMIT).expect("it goes on") != kill_at {}
        });
        server.kill().unwrap();
        server.restart().unwrap();
    }
    let report = forwarder.finished().await;
    source.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.stats.effort.rounds >= 2, "{report}");
    assert_eq!(stored(&server).await, (1..=6_000).collect::<Vec<_>>(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_holds_the_source_back_until_there_is_room() {
    let server = server(stream::Config { max_messages: 50, ..config() }).await;
    let (sender, frames) = channel(8);
    let mut forwarder = numbers(frames).window(16).start(engine(&server).await).await.unwrap();
    let source = source(sender, 200);
    let stats = loop {
        let stats = forwarder.stats();
        assert!(stats.balances(), "{stats}");
        assert!(stats.acknowledged <= 50 && stats.in_flight <= 16 && stats.queued <= 8, "{stats}");
        if stats.effort.full > 0 && stats.in_flight == 16 && stats.queued == 8 {
            break stats;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(stats.acknowledged, 50, "{stats}");
    assert_eq!(stored(&server).await, (1..=50).collect::<Vec<_>>());
    let stream::Config { max_messages, .. } = config();
    let wider = stream::Config { max_messages, ..config() };
    context(&server).await.update_stream(wider).await.unwrap();
    let report = forwarder.finished().await;
    source.join().unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(stored(&server).await, (1..=200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_and_a_channel_that_drops_lose_in_the_channel_only() {
    let server = server(stream::Config { max_messages: 10, ..config() }).await;
    let (sender, frames) =
        callbridge::channel::builder().capacity(4).overflow(Overflow::DropOldest).build().unwrap();
    let forwarder = numbers(frames).window(4).start(engine(&server).await).await.unwrap();
    for frame in 1..=10 {
        sender.send(frame).unwrap();
        while forwarder.stats().acknowledged < frame {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for frame in 11..=14 {
        sender.send(frame).unwrap();
    }
    while forwarder.stats().in_flight < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (15..=34).for_each(|frame| _ = sender.send(frame).unwrap());
    drop(sender);
    let report = forwarder.close(Duration::from_millis(300)).await;
    assert_eq!(report.ending, ForwarderEnding::TimedOut);
    assert!(report.stats.balances(), "{report}");
    let stats = report.stats;
    assert_eq!((stats.offered, stats.acknowledged, stats.lost), (34, 10, 24), "{report}");
    // The window and the channel; the 16 others were lost to the policy.
    assert_eq!(report.left.len(), 8, "{report}");
    assert!(report.left.iter().map(|id| id.sequence).eq(11..=18), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_never_takes_goes_to_the_hook_and_is_not_tried_again() {
    let server = server(stream::Config { max_message_size: 200, ..config() }).await;
    let (sender, frames) = channel::<String>(16);
    let (told, rejected) = mpsc::channel();
    let encode = |frame: &String| match frame.as_str() {
        "elsewhere" => Message::new("other.7", frame.clone()),
        "spaces" => Message::new("meters.a b", frame.clone()),
        "panic" => panic!("as told"),
        "large" => Message::new(SUBJECT, vec![b'1'; 300]),
        "larger" => Message::new(SUBJECT, vec![b'1'; 2_000_000]),
        _ => Message::new(SUBJECT, frame.clone()),
    };
    let mut forwarder = Forwarder::builder(frames, encode)
        .on_rejected(move |frame, id, why| {
            let source = std::error::Error::source(why).map(ToString::to_string);
            told.send((frame, id.sequence, source.unwrap())).unwrap();
        })
        .start(engine(&server).await)
        .await
        .unwrap();
    for frame in ["1", "elsewhere", "2", "spaces", "large", "3", "larger", "4", "panic", "5"] {
        sender.send(frame.to_owned()).unwrap();
    }
    drop(sender);
    let report = forwarder.finished().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.stats.acknowledged, report.stats.rejected), (5, 5), "{report}");
    let rejected: Vec<_> = rejected.iter().collect();
    let names: Vec<_> = rejected.iter().map(|(name, sequence, _)| (&**name, *sequence)).collect();
    let expected = [("elsewhere", 2), ("spaces", 4), ("large", 5), ("larger", 7), ("panic", 9)];
    assert_eq!(names, expected, "{rejected:?}");
    assert!(rejected[0].2.contains("doesn't take the subject"), "{rejected:?}");
    assert_eq!(stored(&server).await, [1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_is_rejected() {
    let users = r#"
        authorization {
            users = [
                { user: all, password: x, permissions: { publish: ">" } }
                { user: some, password: x, permissions: { publish: { deny: "meters.secret" } } }
            ]
        }"#;
    let server = NatsServer::start_with(users).unwrap();
    let options = |name: &str| {
        async_nats::ConnectOptions::new().user_and_password(name.to_owned(), "x".to_owned())
    };
    let client = options("all").connect(server.url()).await.unwrap();
    async_nats::jetstream::new(client).create_stream(config()).await.unwrap();

    let engine = JetStream::connect(server.url(), options("nobody"), STREAM).await;
    assert!(engine.is_err());

    let engine = JetStream::connect(server.url(), options("some"), STREAM).await.unwrap();
    let (sender, frames) = channel::<&str>(16);
    let (told, rejected) = mpsc::channel();
    let mut forwarder = Forwarder::builder(frames, |subject: &&str| Message::new(*subject, "1"))
        .on_rejected(move |frame, _, _| told.send(frame).unwrap())
        .start(engine)
        .await
        .unwrap();
    for subject in ["meters.7", "meters.secret", "meters.8", "meters.secret", "meters.9"] {
        sender.send(subject).unwrap();
    }
    drop(sender);
    let report = tokio::time::timeout(LIMIT, forwarder.finished()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.stats.acknowledged, 3, "{report}");
    assert_eq!(rejected.iter().collect::<Vec<_>>(), ["meters.secret"; 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_given_once_the_server_has_the_frame() {
    let mut server = server(config()).await;
    let (sender, frames) = channel(16);
    let forwarder = Forwarder::tracked(frames, |n: &u64| Message::new(SUBJECT, n.to_string()))
        .window(4)
        .start(engine(&server).await)
        .await
        .unwrap();
    let receipt: Receipt = sender.send_tracked_async(1).await.unwrap();
    assert_eq!(tokio::time::timeout(LIMIT, receipt).await.unwrap().unwrap(), Ok(()));
    assert_eq!(stored(&server).await, [1]);
    server.kill().unwrap();
    let receipt: Receipt = sender.send_tracked_async(2).await.unwrap();
    let report = forwarder.close(Duration::from_millis(50)).await;
    assert_eq!(receipt.await.unwrap(), Err(NotDone::Unfinished));
    assert_eq!(report.left.iter().map(|id| id.sequence).collect::<Vec<_>>(), [2], "{report}");
    assert!(report.stats.balances() && !report.is_clean(), "{report}");
}

/// Carries the run's frames of that range, all of them.
async fn meter_7(engine: impl Publish, range: RangeInclusive<u64>) -> ForwarderReport {
    let (sender, frames) = channel(64);
    let mut forwarder =
        numbers(frames).run("meter 7").sequence(|frame| *frame).start(engine).await.unwrap();
    range.for_each(|frame| _ = sender.try_send(frame).unwrap());
    drop(sender);
    let report = forwarder.finished().await;
    assert!(report.is_clean(), "{report}");
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_goes_on_stores_nothing_twice_after_the_duplicate_window() {
    let window = Duration::from_millis(100);
    let server = server(stream::Config { duplicate_window: window, ..config() }).await;
    for range in [1..=20, 11..=30] {
        meter_7(engine(&server).await, range).await;
        // The server has forgotten the ids by then.
        tokio::time::sleep(window * 3).await;
    }
    assert_eq!(stored(&server).await, (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_shared_stream_the_server_recognises_repeats_by_their_ids() {
    let server = server(config()).await;
    let mut repeats = Vec::new();
    for range in [1..=20, 11..=30] {
        let report = meter_7(engine(&server).await.shared(), range).await;
        repeats.push(report.stats.effort.repeats);
    }
    assert_eq!(repeats, [0, 10]);
    assert_eq!(stored(&server).await, (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_else_who_writes_there_costs_time_and_nothing_else() {
    let server = server(config()).await;
    let (sender, frames) = channel(64);
    let mut forwarder = numbers(frames).window(8).start(engine(&server).await).await.unwrap();
    let context = context(&server).await;
    for frame in 1..=20 {
        sender.send(frame).unwrap();
        if frame % 5 == 0 {
            context.publish("meters.other", "1000".into()).await.unwrap().await.unwrap();
        }
    }
    drop(sender);
    let report = tokio::time::timeout(LIMIT, forwarder.finished()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    let mut stored = stored(&server).await;
    stored.retain(|frame| *frame != 1000);
    assert_eq!(stored, (1..=20).collect::<Vec<_>>(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarder_gives_up_when_it_may() {
    let mut server = server(config()).await;
    let (sender, frames) = channel(64);
    let mut forwarder = numbers(frames)
        .give_up_after(Duration::from_millis(100))
        .start(engine(&server).await)
        .await
        .unwrap();
    server.kill().unwrap();
    sender.send(1).unwrap();
    let report = tokio::time::timeout(LIMIT, forwarder.finished()).await.unwrap();
    assert_eq!(report.ending, ForwarderEnding::GaveUp, "{report}");
    assert_eq!(report.left.len(), 1, "{report}");
    assert!(sender.send(2).is_err());
}

#[tokio::test]
async fn without_a_server_or_a_stream_it_does_not_begin() {
    let nowhere = JetStream::connect("127.0.0.1:1", Default::default(), STREAM).await;
    assert_eq!(nowhere.unwrap_err().to_string(), "no connection to a NATS server");
    let server = NatsServer::start().unwrap();
    let (_sender, frames) = channel(1);
    let refused = numbers(frames).start(engine(&server).await).await;
    assert!(matches!(refused, Err(StartError::Engine(_))));
    let (_sender, frames) = channel(1);
    let refused = numbers(frames).window(0).start(engine(&server).await).await;
    assert_eq!(refused.unwrap_err().to_string(), "window: at least one frame must be in flight");
}
