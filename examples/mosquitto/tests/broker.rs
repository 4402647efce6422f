//! The client against a real broker, started for each test.
//!
//! `CALLBRIDGE_MQTT_MESSAGES` sets how many messages each load test sends; 5 000 unless told.

use callbridge::channel::Stats;
use callbridge::{FrameStream, Overflow};
use callbridge_mosquitto::broker::{Broker, Persistence};
use callbridge_mosquitto::{CallError, Client, Delivery, DeliveryError, Event, Message};
use callbridge_mosquitto::{QoS, Settings, Tally};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

fn messages() -> usize {
    let told = std::env::var("CALLBRIDGE_MQTT_MESSAGES").ok();
    told.map_or(5_000, |told| told.parse().expect("CALLBRIDGE_MQTT_MESSAGES is a number"))
}

fn broker(persistence: Persistence) -> Broker {
    Broker::start(persistence).unwrap_or_else(|error| panic!("{error}"))
}

fn settings(broker: &Broker) -> Settings {
    Settings::new("127.0.0.1", broker.port())
}

/// A client whose session the broker keeps.
fn lasting(broker: &Broker, id: &str) -> Settings {
    let client_id = Some(id.to_owned());
    Settings { client_id, clean_session: false, ..settings(broker) }
}

async fn connect(settings: Settings) -> (Client, FrameStream<Event>) {
    Client::connect(settings).await.expect("the broker accepts")
}

async fn subscribe(client: &Client, pattern: &str, qos: QoS) {
    let delivery = client.subscribe(pattern, qos).await.expect("there is a connection");
    delivery.within(PATIENCE).await.expect("the broker confirms");
}

/// Mostly small: 0 B, up to 200 B, up to 8 KiB, 64 KiB.
fn payload(n: usize) -> Vec<u8> {
    let dice = n.wrapping_mul(0x9e37_79b9) >> 8;
    let size = match dice % 256 {
        0 => 64 * 1024,
        1..8 => dice / 256 % 8192,
        8..24 => 0,
        _ => 1 + dice / 256 % 200,
    };
    vec![(n % 251) as u8; size]
}

fn number(message: &Message) -> usize {
    let number = message.topic.rsplit('/').next().and_then(|last| last.parse().ok());
    number.unwrap_or_else(|| panic!("a topic of this test's: {}", message.topic))
}

/// What a consumer saw of a stream.
#[derive(Default)]
struct Seen {
    tally: Tally,
    numbers: Vec<usize>,
}

impl Seen {
    /// Reads on until `enough` says so.
    async fn read(
        &mut self,
        events: &mut FrameStream<Event>,
        mut enough: impl FnMut(&[usize]) -> bool,
    ) {
        while !enough(&self.numbers) {
            let event = timeout(PATIENCE, events.recv()).await;
            let event = event.unwrap_or_else(|_| {
                panic!("nothing comes any more after {} messages", self.numbers.len())
            });
            self.add(event.expect("the stream goes on"));
        }
    }

    /// Reads what is left when the client was closed.
    async fn read_rest(&mut self, events: &mut FrameStream<Event>) {
        while let Some(event) = timeout(PATIENCE, events.recv()).await.expect("it ends") {
            self.add(event);
        }
    }

    fn add(&mut self, event: Event) {
        if let Event::Message(message) = event {
            self.tally.add(&message);
            let number = number(&message);
            assert_eq!(message.payload, payload(number), "message {number} is whole");
            self.numbers.push(number);
        }
    }

    /// The bridge lost, doubled and reordered nothing.
    fn equals(&self, before_the_bridge: &Tally, counters: Stats) {
        assert_eq!(self.tally.sum(), before_the_bridge.sum());
        assert!(counters.balances(), "{counters:?}");
        assert_eq!(
            (counters.lost.total(), counters.refused, counters.queued),
            (0, 0, 0),
            "{counters:?}"
        );
        assert_eq!(counters.offered, counters.delivered);
    }

    fn duplicates(&self) -> usize {
        let mut sorted = self.numbers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        self.numbers.len() - sorted.len()
    }

    fn in_order(&self) -> bool {
        self.numbers.is_sorted_by(|a, b| a < b)
    }

    /// Without what came again.
    fn first_ones_in_order(&self) -> bool {
        let mut next = 0;
        self.numbers.iter().all(|&number| {
            let fits = number <= next;
            next = next.max(number + 1);
            fits
        })
    }

    fn missing(&self, count: usize) -> Vec<usize> {
        let mut missing = vec![true; count];
        self.numbers.iter().for_each(|&n| missing[n] = false);
        (0..count).filter(|&n| missing[n]).collect()
    }
}

async fn all_delivered(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        delivery.within(PATIENCE).await.expect("it is delivered");
    }
}

/// Sends `count` messages from one client to another; what the second saw when all had arrived.
async fn load(qos: QoS, count: usize) -> Seen {
    let broker = broker(Persistence::None);
    let (publisher, _) = connect(settings(&broker)).await;
    let (subscriber, mut events) = connect(Settings { capacity: 256, ..settings(&broker) }).await;
    subscribe(&subscriber, "load/#", qos).await;
    // A message overtakes those of a higher quality, whose hand-shakes are longer.
    let surely = if qos == QoS::AtMostOnce { QoS::AtLeastOnce } else { qos };
    subscribe(&subscriber, "end/#", surely).await;

    let before = Instant::now();
    let last = tokio::spawn(async move {
        let mut deliveries = Vec::with_capacity(count);
        for n in 0..count {
            let delivery = publisher.publish(&format!("load/{n}"), payload(n), qos).await;
            deliveries.push(delivery.expect("it is taken"));
        }
        all_delivered(deliveries).await;
        assert_eq!(publisher.in_flight(), 0);
        let sent = before.elapsed();
        let end = publisher.publish("end/0", payload(0), surely).await;
        end.unwrap().within(PATIENCE).await.expect("it is delivered");
        assert!(publisher.close(PATIENCE).await.is_clean());
        sent
    });

    // The end goes the way of the rest, behind all that comes at all.
    let mut seen = Seen::default();
    let mut ended = false;
    while !ended || seen.numbers.len() as u64 + 1 < subscriber.tally().sum().0 {
        match timeout(PATIENCE, events.recv()).await.expect("the end arrives").expect("a stream") {
            Event::Message(message) if message.topic == "end/0" => {
                seen.tally.add(&message);
                ended = true;
            }
            event => seen.add(event),
        }
    }
    let received = before.elapsed();
    let tally = Arc::clone(subscriber.tally());
    let report = subscriber.close(PATIENCE).await;
    assert!(report.is_clean(), "{report:?}");
    seen.read_rest(&mut events).await;
    let sent = last.await.expect("all was delivered");
    let counters = events.stats();
    println!(
        "{qos:?}: {count} delivered in {sent:.2?}, {} received in {received:.2?} \
         ({} missing, {} twice, in order: {}); {tally:?} before the bridge, {:?} behind it; \
         offered {}, delivered {}, lost {}, refused {}; its thread waited {} times, {:.2?}",
        seen.numbers.len(),
        seen.missing(count).len(),
        seen.duplicates(),
        seen.in_order(),
        seen.tally,
        counters.offered,
        counters.delivered,
        counters.lost.total(),
        counters.refused,
        counters.blocked.count,
        counters.blocked.time,
    );
    seen.equals(&tally, counters);
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_arrives_at_most_once_and_in_order() {
    let seen = load(QoS::AtMostOnce, messages()).await;
    assert!(seen.in_order(), "so none came twice either");
    assert!(!seen.numbers.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_1_arrives_at_least_once() {
    let count = messages();
    let seen = load(QoS::AtLeastOnce, count).await;
    assert_eq!(seen.missing(count), []);
    assert_eq!(seen.duplicates(), 0, "a message comes again only after a reconnect");
    assert!(seen.in_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_arrives_exactly_once_and_in_order() {
    let count = messages();
    let seen = load(QoS::ExactlyOnce, count).await;
    assert_eq!(seen.missing(count), []);
    assert!(seen.in_order());
}

/// A current-thread loop and a stream of one: everybody waits for everybody, and nobody for ever.
#[tokio::test]
async fn a_loop_of_one_thread_and_a_stream_of_one() {
    let broker = broker(Persistence::None);
    let tight = Settings { capacity: 1, max_in_flight: 1, ..settings(&broker) };
    let (client, mut events) = connect(tight).await;
    subscribe(&client, "tight/#", QoS::ExactlyOnce).await;
    let sending = client.clone();
    let sent = tokio::spawn(async move {
        for n in 0..200 {
            let topic = format!("tight/{n}");
            let delivery = sending.publish(&topic, payload(n), QoS::ExactlyOnce).await.unwrap();
            delivery.within(PATIENCE).await.unwrap();
        }
    });
    let mut seen = Seen::default();
    seen.read(&mut events, |numbers| numbers.len() == 200).await;
    assert!(seen.in_order());
    sent.await.unwrap();
    let tally = Arc::clone(client.tally());
    assert!(client.close(PATIENCE).await.is_clean());
    seen.read_rest(&mut events).await;
    seen.equals(&tally, events.stats());
}

/// The broker is ended and started again amid a stream of messages.
async fn restart(qos: QoS) -> (Seen, usize) {
    let count = messages().min(20_000);
    let mut broker = broker(Persistence::AtExit);
    let (publisher, _) = connect(lasting(&broker, "publisher")).await;
    let (subscriber, mut events) = connect(lasting(&broker, "subscriber")).await;
    subscribe(&subscriber, "load/#", qos).await;

    let sending = publisher.clone();
    let (ended, mut until_ended) = oneshot::channel();
    let sent = tokio::spawn(async move {
        let mut deliveries = Vec::new();
        for n in 0..count {
            if n == count / 3 * 2 {
                (&mut until_ended).await.expect("the broker is ended");
            }
            let delivery = sending.publish(&format!("load/{n}"), payload(n), qos).await;
            deliveries.push(delivery.expect("it is taken, connected or not"));
        }
        all_delivered(deliveries).await;
    });
    let mut seen = Seen::default();
    seen.read(&mut events, |numbers| numbers.len() >= count / 3).await;
    broker.terminate().unwrap();
    ended.send(()).expect("there is more to send");
    // The library's thread may stand before a full stream, so the wait for its word reads on.
    tokio::join!(
        async { timeout(PATIENCE, publisher.disconnected()).await.unwrap().unwrap() },
        seen.read(&mut events, |numbers| numbers.len() >= count / 3),
    );
    assert!(!sent.is_finished(), "deliveries are awaited while there is no broker");
    broker.start_again().unwrap();
    seen.read(&mut events, |numbers| {
        numbers.len() >= count && numbers.iter().max() == Some(&(count - 1))
    })
    .await;
    sent.await.expect("what was awaited is delivered after the reconnect");

    let tally = Arc::clone(subscriber.tally());
    assert!(subscriber.close(PATIENCE).await.is_clean());
    assert!(publisher.close(PATIENCE).await.is_clean());
    seen.read_rest(&mut events).await;
    println!(
        "restart, {qos:?}: {count} sent, {} received, {} missing, {} twice, in order: {}",
        seen.numbers.len(),
        seen.missing(count).len(),
        seen.duplicates(),
        seen.in_order(),
    );
    seen.equals(&tally, events.stats());
    (seen, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_1_keeps_its_word_over_a_restart() {
    let (seen, count) = restart(QoS::AtLeastOnce).await;
    assert_eq!(seen.missing(count), []);
    // The library doesn't show MQTT's mark on what is sent again; it can only be what was on its way.
    let on_its_way = 2 * usize::from(Settings::new("", 0).max_in_flight);
    assert!(seen.duplicates() <= on_its_way, "{} came again", seen.duplicates());
    assert!(seen.first_ones_in_order());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_2_keeps_its_word_over_a_restart() {
    let (seen, count) = restart(QoS::ExactlyOnce).await;
    assert_eq!(seen.missing(count), []);
    assert!(seen.in_order(), "so none came twice either");
}

/// A killed broker forgets what it hadn't written, so MQTT promises what was delivered afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_outlast_a_killed_broker_or_time_out_as_told() {
    let mut broker = broker(Persistence::AtOnce);
    let (publisher, _) = connect(lasting(&broker, "publisher")).await;
    let (subscriber, mut events) = connect(lasting(&broker, "subscriber")).await;
    subscribe(&subscriber, "load/#", QoS::AtLeastOnce).await;
    let publish = async |n: usize| {
        let topic = format!("load/{n}");
        publisher.publish(&topic, payload(n), QoS::AtLeastOnce).await.expect("it is taken")
    };
    let mut seen = Seen::default();
    for n in 0..200 {
        publish(n).await.within(PATIENCE).await.unwrap();
    }
    seen.read(&mut events, |numbers| numbers.len() == 200).await;

    broker.kill().unwrap();
    timeout(PATIENCE, publisher.disconnected()).await.unwrap().unwrap();
    timeout(PATIENCE, subscriber.disconnected()).await.unwrap().unwrap();
    let mut awaited = Vec::new();
    for n in 200..400 {
        awaited.push(publish(n).await);
    }
    let late = publish(400).await.within(Duration::from_millis(50)).await;
    assert_eq!(late, Err(DeliveryError::TimedOut));
    assert_eq!(publisher.in_flight(), 201, "also what nobody waits for keeps its id");
    let nowhere = publisher.publish("load/0", payload(0), QoS::AtMostOnce).await;
    assert!(matches!(nowhere, Err(CallError::NotConnected)), "{nowhere:?}");

    broker.start_again().unwrap();
    all_delivered(awaited).await;
    seen.read(&mut events, |numbers| (200..=400).all(|n| numbers.contains(&n))).await;
    assert_eq!(seen.missing(401), []);
    let tally = Arc::clone(subscriber.tally());
    assert!(subscriber.close(PATIENCE).await.is_clean());
    assert!(publisher.close(PATIENCE).await.is_clean());
    seen.read_rest(&mut events).await;
    seen.equals(&tally, events.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_a_clean_session_come_back_with_the_connection() {
    let mut broker = broker(Persistence::None);
    let (client, mut events) = connect(settings(&broker)).await;
    subscribe(&client, "load/#", QoS::AtLeastOnce).await;
    assert_eq!(events.recv().await, Some(Event::Connected));
    broker.kill().unwrap();
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(Event::Disconnected));
    broker.start_again().unwrap();
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(Event::Connected));
    timeout(PATIENCE, client.connected()).await.unwrap().unwrap();
    let delivery = client.publish("load/7", payload(7), QoS::AtLeastOnce).await.unwrap();
    delivery.within(PATIENCE).await.unwrap();
    let mut seen = Seen::default();
    seen.read(&mut events, |numbers| numbers == [7]).await;
    assert!(client.close(PATIENCE).await.is_clean());
}

/// Waits until nobody but the caller has the tally, as when the callbacks' state was freed.
async fn freed(tally: &Arc<Tally>) {
    let late = Instant::now() + PATIENCE;
    while Arc::strong_count(tally) > 1 {
        assert!(Instant::now() < late, "the callbacks' state is never freed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client that floods the broker until it is told to stop.
async fn flood(broker: &Broker) -> tokio::task::JoinHandle<()> {
    let (flooding, _) = connect(settings(broker)).await;
    tokio::spawn(async move {
        for n in 0.. {
            let topic = format!("load/{n}");
            if flooding.publish(&topic, payload(n), QoS::AtMostOnce).await.is_err() {
                break;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_ends_amid_messages_whoever_reads() {
    let broker = broker(Persistence::None);
    let flooding = flood(&broker).await;
    let mut late = 0;
    for round in 0..40 {
        let overflow = if round % 4 == 3 { Overflow::DropOldest } else { Overflow::Block };
        let small = Settings { capacity: 16, overflow, ..settings(&broker) };
        let (client, mut events) = connect(small).await;
        subscribe_unread(&client).await;
        let mut seen = Seen::default();
        // Some read a little, some nothing: then the library's thread waits in its callback.
        seen.read(&mut events, |numbers| numbers.len() >= round % 5 * 20).await;
        let tally = Arc::clone(client.tally());
        match round % 3 {
            0 => drop(events),
            1 => {
                let report = client.close(PATIENCE).await;
                assert!(report.is_clean(), "round {round}: {report:?}");
                late += report.callbacks.expect("it was joined").late;
                assert_eq!(Arc::strong_count(&tally), 1, "the callbacks' state is freed");
                seen.read_rest(&mut events).await;
                let counters = events.stats();
                assert!(counters.balances(), "{counters:?}");
                assert!(seen.numbers.len() as u64 + counters.lost.total() <= tally.sum().0 + 4);
                continue;
            }
            _ => {}
        }
        drop(client);
        freed(&tally).await;
    }
    println!("40 clients ended amid messages; calls that came late: {late}");
    flooding.abort();
}

/// The confirmation can come behind messages that nobody reads yet, so it isn't waited for.
async fn subscribe_unread(client: &Client) {
    drop(client.subscribe("load/#", QoS::AtMostOnce).await.expect("there is a connection"));
}

#[tokio::test]
async fn close_ends_without_a_broker() {
    let mut broker = broker(Persistence::None);
    let (client, mut events) = connect(settings(&broker)).await;
    broker.kill().unwrap();
    assert_eq!(events.recv().await, Some(Event::Connected));
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(Event::Disconnected));
    let unsent = client.publish("load/0", payload(0), QoS::AtLeastOnce).await.unwrap();
    let tally = Arc::clone(client.tally());
    let report = client.close(PATIENCE).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(unsent.within(PATIENCE).await, Err(DeliveryError::Closed));
    assert_eq!(Arc::strong_count(&tally), 1, "the callbacks' state is freed");
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn connect_says_that_nobody_listens() {
    let port = {
        let broker = broker(Persistence::None);
        broker.port()
    };
    let refused = Client::connect(Settings::new("127.0.0.1", port)).await.map(drop);
    let said = refused.expect_err("nobody listens").to_string();
    assert!(said.contains("refused"), "{said}");
}
