//! `relay --smoke`: a server of its own, and everything once.

use super::{Outcome, make_stream};
use bytes::Bytes;
use callbridge::Bridge;
use callbridge::channel::channel;
use callbridge_relay::nats::{Consumer, JetStream, Requester, Service, ServiceRequest, connect};
use callbridge_relay::server::NatsServer;
use callbridge_relay::{Forwarder, Message};
use std::convert::Infallible;
use std::time::Duration;

const FRAMES: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn run() -> Outcome {
    tokio::time::timeout(LIMIT * 3, all()).await.map_err(|_| "not done in time")?
}

async fn all() -> Outcome {
    let mut server = NatsServer::start()?;
    let client = connect(server.url(), Default::default()).await?;
    make_stream(&client, "SMOKE", "smoke.>").await?;

    let (sender, frames) = channel::<u64>(1024);
    let engine = JetStream::connect(server.url(), Default::default(), "SMOKE").await?;
    let encode = |frame: &u64| Message::new("smoke.7", frame.to_string());
    let mut forwarder = Forwarder::builder(frames, encode).start(engine).await?;
    let source = std::thread::spawn(move || (1..=FRAMES).all(|frame| sender.send(frame).is_ok()));
    while forwarder.stats().acknowledged < FRAMES / 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.kill()?;
    server.restart()?;
    let report = forwarder.finished().await;
    println!("forwarded, with the server killed once: {report}");
    if !report.is_clean() || !source.join().unwrap_or(false) {
        return Err("the forwarder left something".into());
    }

    let (consumer, mut frames) =
        Consumer::builder(client.clone(), "SMOKE", "smoke").start().await?;
    for expected in 1..=FRAMES {
        let frame =
            tokio::time::timeout(LIMIT, frames.recv()).await?.ok_or("no more frames")?.done();
        if frame.payload != expected.to_string() {
            return Err(format!("{frame:?} instead of {expected}").into());
        }
    }
    drop(frames);
    println!("consumed, in order: {}", consumer.close(LIMIT).await);

    let service = Service::start(client.clone(), "echo.smoke", 64, echo).await?;
    let requester = Requester::new(client, "echo.smoke");
    let bridge = Bridge::current();
    let asking = tokio::task::spawn_blocking(move || -> Outcome {
        for number in 0..1_000_u32 {
            let question = number.to_string();
            let answer = bridge.call(requester.request(question.clone(), LIMIT), LIMIT)??;
            if answer != question {
                return Err("another answer".into());
            }
        }
        Ok(())
    });
    asking.await??;
    println!("asked, by a foreign thread: {}", service.close(LIMIT).await);
    Ok(())
}

async fn echo(request: ServiceRequest) -> Result<Bytes, Infallible> {
    Ok(request.payload)
}
