//! The program's commands.

mod consume;
mod file;
mod forward;
mod request;
mod smoke;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use callbridge_relay::nats::connect;
use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Carries lines, datagrams and requests to another machine over NATS.
#[derive(Parser)]
#[command(name = "relay", arg_required_else_help = true)]
struct Cli {
    /// Starts a server of its own and tries everything once
    #[arg(long)]
    smoke: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Stores lines or datagrams in a JetStream stream, each acknowledged
    Forward(forward::Forward),
    /// Prints what a JetStream stream holds, and acknowledges what is printed
    Consume(consume::Consume),
    /// Asks a service on another machine: each line of standard input, or each line that a TCP peer sends
    RequestServe(request::RequestServe),
    /// Answers requests: with what was asked, in upper case
    Answer(request::Answer),
}

/// Where the server is.
#[derive(Args, Clone)]
pub(crate) struct Server {
    /// The server's address
    #[arg(long, default_value = "nats://127.0.0.1:4222")]
    server: String,
}

impl Server {
    pub(crate) async fn connect(&self) -> Result<Client, Box<dyn Error + Send + Sync>> {
        Ok(connect(&*self.server, ConnectOptions::new()).await.map_err(|error| {
            format!("no NATS server lets us in at {}: {}", self.server, chain(&error))
        })?)
    }
}

/// A stream that refuses what it has no room for, so that nothing is removed to make room.
pub(crate) async fn make_stream(client: &Client, name: &str, subject: &str) -> Outcome {
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    jetstream::new(client.clone()).get_or_create_stream(config).await?;
    Ok(())
}

pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let outcome = runtime.block_on(async {
        match (cli.smoke, cli.command) {
            (true, _) => smoke::run().await,
            (false, Some(Command::Forward(forward))) => forward.run().await,
            (false, Some(Command::Consume(consume))) => consume.run().await,
            (false, Some(Command::RequestServe(serve))) => serve.run().await,
            (false, Some(Command::Answer(answer))) => answer.run().await,
            (false, None) => Err("say what to do: see relay --help".into()),
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &dyn Error) -> ExitCode {
    eprintln!("relay: {}", chain(error));
    ExitCode::FAILURE
}

/// An error and what led to it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

/// Ctrl-C or SIGTERM.
pub(crate) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
