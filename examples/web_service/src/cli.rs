//! The command line: every flag and its limits.

use clap::Parser;
use std::net::SocketAddr;
use std::time::Duration;

/// A web service on an event loop that calls slow, blocking microservices on a thread pool
///
/// Exit code: 0 if all went well, 1 if not, 2 if the command line makes no sense or the address can't
/// be used.
#[derive(Debug, Parser)]
#[command(name = "web_service", verbatim_doc_comment)]
pub(crate) struct Options {
    /// Serve on IP:PORT until Ctrl-C (port 0: any free one)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Serve on a free loopback port, drive it with requests, print what happened, and end
    #[arg(long, conflicts_with = "listen")]
    pub(crate) smoke: bool,

    /// Calls that the pool makes at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64), allow_negative_numbers = true)]
    limit: u16,

    /// How long each microservice takes to answer
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2_000), allow_negative_numbers = true)]
    delay: u16,

    /// How long the shutdown may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3_600), allow_negative_numbers = true)]
    deadline: u16,
}

impl Options {
    pub(crate) fn limit(&self) -> usize {
        self.limit.into()
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay.into())
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline.into())
    }
}
