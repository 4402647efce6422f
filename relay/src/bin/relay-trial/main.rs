//! `relay-trial`: what the relay shows. See `relay-trial --help`.

mod carry;
mod check;
mod kills;
mod process;
mod requests;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Carries frames through a server of its own, and checks what arrives.
#[derive(Parser)]
#[command(name = "relay-trial")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two relay processes and a consumer, beside async-nats alone, in turn
    Through(carry::Through),
    /// The same with the server and the relays killed and the stream full
    Kills(kills::Kills),
    /// Requests across two processes, beside plain request and reply, in turn
    Requests(requests::Requests),
    /// One of the processes of `through`
    #[command(hide = true)]
    Carrier(carry::Carrier),
    /// One of the processes of `requests`
    #[command(hide = true)]
    Answerer(requests::Answerer),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Through(through) => through.run().await,
                Command::Kills(kills) => kills.run().await,
                Command::Requests(requests) => requests.run().await,
                Command::Carrier(carrier) => carrier.run().await,
                Command::Answerer(answerer) => answerer.run().await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay-trial: {error}");
            ExitCode::FAILURE
        }
    }
}
