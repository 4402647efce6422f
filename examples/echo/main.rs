//! Echo: blocking listeners on threads of their own, answered by an event loop.
//!
//! # The run that ends by itself
//!
//! ```text
//! cargo run --release --example echo
//! ```
//!
//! starts a UDP listener and a length-delimited TCP listener on free loopback ports, in both
//! modes, and drives each with plain blocking clients: 100 000 frames from 1 byte to the largest
//! allowed, a window of them outstanding, lost datagrams sent again, every byte checked. It prints
//! one table per listener and exits with 0 only if every frame came back as it was sent, none took over
//! three seconds, and the listener's counters balance.
//!
//! - `stream` mode: datagrams arrive in the event loop as an async `Stream` and are answered through the
//!   listener's replier; each connection is a `Stream` and a `Sink` of its own.
//! - `call` mode: an async handler answers each frame, within a timeout, and the listener's thread
//!   writes the reply.
//!
//! # Talk to it from another terminal
//!
//! ```text
//! cargo run --release --example echo -- --listen udp://127.0.0.1:7000
//! python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
//! s.sendto(b"hello", ("127.0.0.1", 7000)); print(s.recv(65507))'
//!
//! cargo run --release --example echo -- --listen tcp://127.0.0.1:7000 --mode call
//! python3 -c 'import socket; s = socket.create_connection(("127.0.0.1", 7000), 2)
//! s.sendall((5).to_bytes(4, "big") + b"hello"); print(s.recv(9))'
//!
//! cargo run --release --example echo -- --listen tcp://127.0.0.1:7000 --framing lines
//! nc 127.0.0.1 7000
//!
//! cargo run --release --example echo -- --listen unix:///tmp/echo.sock --framing lines
//! nc -U /tmp/echo.sock
//! ```
//!
//! Ctrl-C (or SIGTERM) stops the listener within the deadline and prints its counters; a second one ends at
//! once. A listener that fails is noticed: exit code 1.

mod address;
mod cli;
mod client;
mod listen;
mod plan;
mod progress;
mod report;
mod rounds;
mod server;

use clap::Parser;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

/// A command line that can't be obeyed: exit code 2.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Refused {}

fn main() -> ExitCode {
    let options = match cli::Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            eprintln!("echo: {}", first_paragraph(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::from(if error.is::<Refused>() { 2 } else { 1 })
        }
    }
}

fn run(options: &cli::Options) -> Result<bool, Box<dyn Error>> {
    options.check().map_err(Refused)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let well = match &options.listen {
        Some(address) => listen::run(options, address, &runtime),
        None => rounds::run(options, runtime.handle()),
    };
    runtime.shutdown_timeout(Duration::from_secs(1));
    well
}

/// clap's message without the usage and the hints below it, on one line.
fn first_paragraph(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.trim().is_empty());
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    text.trim_start_matches("error: ").to_owned()
}
