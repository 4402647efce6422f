//! Requests across two processes, beside plain request and reply.

use crate::Outcome;
use crate::process::{Process, median};
use bytes::Bytes;
use callbridge::Bridge;
use callbridge_relay::nats::{RequestError, Requester, Service, ServiceRequest, connect};
use callbridge_relay::server::NatsServer;
use clap::Args;
use futures_util::StreamExt;
use std::convert::Infallible;
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Requests {
    /// Requests of a round, one after the other
    #[arg(long, default_value_t = 20_000)]
    count: usize,
    /// Rounds; the medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

const TIMEOUT: Duration = Duration::from_secs(10);

impl Requests {
    pub(crate) async fn run(self) -> Outcome {
        let server = NatsServer::start()?;
        let mut answerer = Process::this(&["answerer", "--server", &server.url()])?;
        answerer.line()?;
        let client = connect(server.url(), Default::default()).await?;
        let requester = Requester::new(client.clone(), "trial.service");
        // p50 and p99 of each way, a round each.
        let mut rounds: [Vec<(f64, f64)>; 3] = Default::default();
        for _ in 0..self.rounds {
            let (bridge, asking) = (Bridge::current(), requester.clone());
            let count = self.count;
            let thread = std::thread::spawn(move || -> Outcome<_> {
                let mut times = Vec::with_capacity(count);
                for _ in 0..count {
                    let began = Instant::now();
                    bridge.call(asking.request("a question", TIMEOUT), TIMEOUT)??;
                    times.push(began.elapsed().as_secs_f64() * 1e6);
                }
                Ok(times)
            });
            let times = tokio::task::spawn_blocking(|| thread.join()).await?;
            rounds[0].push(percentiles(times.map_err(|_| "panicked")??));
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                requester.request("a question", TIMEOUT).await?;
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            rounds[1].push(percentiles(times));
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                client.request("trial.plain", "a question".into()).await?;
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
            rounds[2].push(percentiles(times));
        }
        let names = [
            "a foreign thread, by Bridge::call",
            "a task, by the requester",
            "plain request and reply",
        ];
        for (name, rounds) in names.iter().zip(&rounds) {
            let p50 = median(&mut rounds.iter().map(|round| round.0).collect::<Vec<_>>());
            let p99 = median(&mut rounds.iter().map(|round| round.1).collect::<Vec<_>>());
            println!("{name}: p50 {p50:.0} µs, p99 {p99:.0} µs");
        }
        // A service that dies with a request in its hands.
        let asked = tokio::spawn({
            let requester = requester.clone();
            async move {
                let began = Instant::now();
                (requester.request("hang", Duration::from_millis(500)).await, began.elapsed())
            }
        });
        answerer.line()?;
        drop(answerer);
        let (answer, after) = asked.await?;
        if !matches!(answer, Err(RequestError::TimedOut)) {
            return Err(format!("{answer:?}").into());
        }
        println!(
            "the service killed with a request of 500 ms: timed out after {} ms",
            after.as_millis()
        );
        let began = Instant::now();
        let answer = requester.request("anybody?", TIMEOUT).await;
        if !matches!(answer, Err(RequestError::NoService)) {
            return Err(format!("{answer:?}").into());
        }
        println!("afterwards: no service, after {} µs", began.elapsed().as_micros());
        Ok(())
    }
}

fn percentiles(mut times: Vec<f64>) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[derive(Args)]
pub(crate) struct Answerer {
    #[arg(long)]
    server: String,
}

impl Answerer {
    pub(crate) async fn run(self) -> Outcome {
        let client = connect(&*self.server, Default::default()).await?;
        let _service = Service::start(client.clone(), "trial.service", 64, answer).await?;
        let mut plain = client.subscribe("trial.plain").await?;
        client.flush().await?;
        println!("ready");
        while let Some(message) = plain.next().await {
            if let Some(reply) = message.reply {
                client.publish(reply, message.payload).await?;
            }
        }
        Ok(())
    }
}

async fn answer(request: ServiceRequest) -> Result<Bytes, Infallible> {
    if &request.payload[..] == b"hang" {
        println!("hanging");
        std::future::pending::<()>().await;
    }
    Ok(request.payload)
}
