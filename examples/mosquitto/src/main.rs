//! An MQTT client on an event loop, over libmosquitto, whose own thread calls back.
//!
//! ```text
//! apt-get install libmosquitto-dev mosquitto
//! cargo run --release -p callbridge-mosquitto -- --smoke
//! ```
//!
//! starts a broker on a free loopback port, publishes and receives, kills the broker and starts it
//! again meanwhile, closes, prints the counters, and exits with 0 only if they balance and every message
//! arrived.
//!
//! With a broker of your own (`mosquitto -v` in another terminal), it prints what is published:
//!
//! ```text
//! cargo run --release -p callbridge-mosquitto -- --topic 'home/#'
//! mosquitto_pub -t home/door -m open
//! ```
//!
//! Ctrl-C closes it.

use callbridge::FrameStream;
use callbridge_mosquitto::broker::{Broker, Persistence};
use callbridge_mosquitto::{Client, CloseReport, Event, QoS, Settings, Tally};
use clap::Parser;
use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);
const MESSAGES: usize = 1000;

/// An async MQTT client over libmosquitto.
#[derive(Parser)]
struct Cli {
    /// The broker's host
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The broker's port
    #[arg(long, default_value_t = 1883)]
    port: u16,
    /// The topics to print
    #[arg(long, default_value = "#")]
    topic: String,
    /// Run against a broker of its own, restart it, and end
    #[arg(long, conflicts_with_all = ["host", "port", "topic"])]
    smoke: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran = if cli.smoke { smoke().await } else { print(cli).await };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what is published until Ctrl-C.
async fn print(cli: Cli) -> Result<(), Box<dyn Error>> {
    let (client, mut events) = Client::connect(Settings::new(cli.host, cli.port)).await?;
    client.subscribe(&cli.topic, QoS::ExactlyOnce).await?.within(DEADLINE).await?;
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::Message(message)) => {
                    println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
                }
                Some(event) => println!("{event:?}"),
                None => break,
            },
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                break;
            }
        }
    }
    drop(events);
    clean(&client.close(DEADLINE).await)
}

fn clean(report: &CloseReport) -> Result<(), Box<dyn Error>> {
    if report.is_clean() { Ok(()) } else { Err(format!("not all was closed: {report:?}").into()) }
}

async fn smoke() -> Result<(), Box<dyn Error>> {
    let mut broker = Broker::start(Persistence::AtExit)?;
    println!("a broker on port {}", broker.port());
    let lasting = |id: &str| Settings {
        client_id: Some(id.to_owned()),
        clean_session: false,
        ..Settings::new("127.0.0.1", broker.port())
    };
    let (publisher, _) = Client::connect(lasting("publisher")).await?;
    let (subscriber, events) = Client::connect(lasting("subscriber")).await?;
    subscriber.subscribe("smoke/#", QoS::AtLeastOnce).await?.within(DEADLINE).await?;

    let consumer = tokio::spawn(consume(events));
    for n in 0..MESSAGES {
        if n == MESSAGES / 2 {
            println!("ending the broker");
            broker.terminate()?;
            timeout(PATIENCE, publisher.disconnected()).await??;
            let late = publisher.publish("smoke/late", "", QoS::AtLeastOnce).await?;
            println!(
                "without a broker: {}",
                late.within(Duration::from_millis(100)).await.unwrap_err()
            );
            broker.start_again()?;
            timeout(PATIENCE, publisher.connected()).await??;
            println!("connected again");
        }
        let (topic, text) = (format!("smoke/{n}"), format!("message {n}"));
        let sent = publisher.publish(&topic, text, QoS::AtLeastOnce).await?;
        sent.within(PATIENCE).await?;
    }
    let end = publisher.publish("smoke/end", "", QoS::AtLeastOnce).await?;
    end.within(PATIENCE).await?;
    let (mut events, seen, topics) = timeout(PATIENCE, consumer).await??;

    let before_the_bridge = Arc::clone(subscriber.tally());
    clean(&publisher.close(DEADLINE).await)?;
    let report = subscriber.close(DEADLINE).await;
    clean(&report)?;
    while let Some(event) = events.recv().await {
        note(&event, &seen);
    }
    let counters = events.stats();
    println!("different topics: {}", topics.len());
    println!("before the bridge: {before_the_bridge:?}\nbehind it: {seen:?}");
    println!(
        "events offered {}, delivered {}, lost {}, refused {}",
        counters.offered,
        counters.delivered,
        counters.lost.total(),
        counters.refused,
    );
    let right = counters.balances()
        && before_the_bridge.sum() == seen.sum()
        && topics.len() == MESSAGES + 2
        && counters.lost.total() == 0;
    if right { Ok(()) } else { Err("the counters don't balance".into()) }
}

/// Reads until the last message; gives the stream back for what comes behind it.
async fn consume(mut events: FrameStream<Event>) -> (FrameStream<Event>, Tally, BTreeSet<String>) {
    let seen = Tally::default();
    let mut topics = BTreeSet::new();
    while let Some(event) = events.recv().await {
        note(&event, &seen);
        match event {
            Event::Message(message) => {
                let last = message.topic == "smoke/end";
                topics.insert(message.topic);
                if last {
                    break;
                }
            }
            event => println!("{event:?}"),
        }
    }
    (events, seen, topics)
}

fn note(event: &Event, seen: &Tally) {
    if let Event::Message(message) = event {
        seen.add(message);
    }
}
