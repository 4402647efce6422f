//! Frames through two relays and a consumer, beside the client alone.

use crate::Outcome;
use crate::check::read;
use crate::process::{Process, cpu, cpu_of, median};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, stream};
use callbridge::channel::channel;
use callbridge_relay::nats::JetStream;
use callbridge_relay::server::NatsServer;
use callbridge_relay::{Forwarder, Message};
use clap::{Args, ValueEnum};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

#[derive(Args)]
pub(crate) struct Through {
    /// Frames in all
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Relay processes
    #[arg(long, default_value_t = 2)]
    relays: u64,
    /// Messages in flight, of each
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Bytes of each frame
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Rounds; the medians are told
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// The relay
    Relay,
    /// async-nats alone, each message with an id as the relay's have
    ClientWithIds,
    /// async-nats alone
    Client,
}

const ALL: [How; 3] = [How::Relay, How::ClientWithIds, How::Client];

/// One round.
struct Round {
    frames_per_second: f64,
    /// Microseconds of CPU a frame: the relays, and the server.
    relay_cpu: f64,
    server_cpu: f64,
}

impl Through {
    pub(crate) async fn run(self) -> Outcome {
        println!(
            "{} frames of {} bytes, {} processes, window {}, a consumer",
            self.frames, self.bytes, self.relays, self.window
        );
        let mut rounds: Vec<Vec<Round>> = ALL.iter().map(|_| Vec::new()).collect();
        for number in 0..self.rounds {
            for turn in 0..ALL.len() {
                let which = (turn + number) % ALL.len();
                let round = self.round(ALL[which]).await?;
                println!(
                    "{:?}: {:.0} frames/s, CPU a frame {:.2} µs, server's {:.2} µs",
                    ALL[which], round.frames_per_second, round.relay_cpu, round.server_cpu
                );
                rounds[which].push(round);
            }
        }
        let mut told = Vec::new();
        for (how, rounds) in ALL.iter().zip(&rounds) {
            let of =
                |part: fn(&Round) -> f64| median(&mut rounds.iter().map(part).collect::<Vec<_>>());
            let rate = of(|round| round.frames_per_second);
            println!(
                "median of {how:?}: {rate:.0} frames/s, CPU a frame {:.2} µs, server's {:.2} µs",
                of(|round| round.relay_cpu),
                of(|round| round.server_cpu)
            );
            told.push(rate);
        }
        println!(
            "relay / client with ids = {:.2}, relay / client = {:.2}",
            told[0] / told[1],
            told[0] / told[2]
        );
        Ok(())
    }

    async fn round(&self, how: How) -> Outcome<Round> {
        let server = NatsServer::start()?;
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        let each = self.frames / self.relays;
        let (window, bytes, frames) =
            (self.window.to_string(), self.bytes.to_string(), each.to_string());
        let how_name = how.to_possible_value().ok_or("no name")?;
        let mut carriers = Vec::new();
        let mut readers = Vec::new();
        for relay in 0..self.relays {
            let name = format!("R{relay}");
            let config = stream::Config {
                name: name.clone(),
                subjects: vec![format!("r{relay}.>")],
                discard: stream::DiscardPolicy::New,
                ..stream::Config::default()
            };
            context.create_stream(config).await?;
            let mut carrier = Process::this(&[
                "carrier",
                "--server",
                &server.url(),
                "--number",
                &relay.to_string(),
                "--frames",
                &frames,
                "--window",
                &window,
                "--bytes",
                &bytes,
                "--how",
                how_name.get_name(),
            ])?;
            carrier.line()?;
            carriers.push(carrier);
            readers.push(tokio::spawn(read(server.url(), name, each)));
        }
        let server_before = cpu_of(server.pid());
        let began = Instant::now();
        for carrier in &carriers {
            rustix::process::kill_process(
                rustix::process::Pid::from_child(&carrier.child),
                rustix::process::Signal::USR1,
            )?;
        }
        let mut cpu = 0.0;
        let told = tokio::task::spawn_blocking(move || {
            carriers.iter_mut().map(Process::line).collect::<Outcome<Vec<_>>>()
        });
        for line in told.await?? {
            let (cpu_seconds, rest) = line.split_once(' ').unwrap_or((&line, ""));
            cpu += cpu_seconds.parse::<f64>()?;
            if !rest.is_empty() {
                println!("    {rest}");
            }
        }
        let took = began.elapsed();
        for reader in readers {
            let arrived = reader.await??;
            if !arrived.is_right() {
                return Err(format!("{arrived:?}").into());
            }
        }
        let server_cpu = (cpu_of(server.pid()) - server_before).as_secs_f64();
        let frames = (each * self.relays) as f64;
        Ok(Round {
            frames_per_second: frames / took.as_secs_f64(),
            relay_cpu: cpu / frames * 1e6,
            server_cpu: server_cpu / frames * 1e6,
        })
    }
}

#[derive(Args)]
pub(crate) struct Carrier {
    #[arg(long)]
    server: String,
    #[arg(long)]
    number: u64,
    #[arg(long)]
    frames: u64,
    #[arg(long)]
    window: usize,
    #[arg(long)]
    bytes: usize,
    #[arg(long)]
    how: How,
}

impl Carrier {
    pub(crate) async fn run(self) -> Outcome {
        let mut start =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
        println!("ready");
        start.recv().await;
        let before = cpu();
        let told = match self.how {
            How::Relay => self.relay().await?,
            How::Client => self.client(false).await?,
            How::ClientWithIds => self.client(true).await?,
        };
        println!("{} {told}", (cpu() - before).as_secs_f64());
        Ok(())
    }

    fn subject(&self) -> String {
        format!("r{}.x", self.number)
    }

    async fn relay(&self) -> Outcome<String> {
        let (sender, frames) = channel::<u64>(1024);
        let engine =
            JetStream::connect(&*self.server, Default::default(), format!("R{}", self.number));
        let subject: Arc<str> = self.subject().into();
        let bytes = self.bytes;
        let encode = move |frame: &u64| Message::new(Arc::clone(&subject), payload(*frame, bytes));
        let builder = Forwarder::builder(frames, encode).window(self.window);
        let mut forwarder = builder.start(engine.await?).await?;
        let last = self.frames;
        // A foreign thread, as a listener's is.
        let source = std::thread::spawn(move || (1..=last).all(|frame| sender.send(frame).is_ok()));
        let report = forwarder.finished().await;
        if !report.is_clean() || !source.join().unwrap_or(false) {
            return Err(report.to_string().into());
        }
        Ok(report.to_string())
    }

    /// Publish, keep the futures, await the oldest when the window is full.
    async fn client(&self, ids: bool) -> Outcome<String> {
        let client = async_nats::connect(&*self.server).await?;
        let context = ContextBuilder::new().max_ack_inflight(self.window).build(client);
        let subject = async_nats::Subject::from(self.subject());
        let mut window = VecDeque::new();
        for frame in 1..=self.frames {
            if window.len() == self.window
                && let Some(oldest) = window.pop_front()
            {
                IntoFuture::into_future(oldest).await?;
            }
            let payload = payload(frame, self.bytes).into();
            let sent: jetstream::context::PublishAckFuture = if ids {
                let message = jetstream::message::PublishMessage::build()
                    .message_id(format!("18a3b5c7d9-4e2f.{frame}"))
                    .payload(payload);
                context.send_publish(subject.clone(), message).await?
            } else {
                context.publish(subject.clone(), payload).await?
            };
            window.push_back(sent);
        }
        for sent in window {
            sent.await?;
        }
        Ok(String::new())
    }
}

/// The number, and what fills it up.
fn payload(frame: u64, bytes: usize) -> Vec<u8> {
    let mut text = format!("{frame} ").into_bytes();
    text.resize(bytes.max(text.len()), b'.');
    text
}
