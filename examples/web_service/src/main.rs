//! A web service on an event loop that must call old blocking microservices.
//!
//! The service is axum on one thread. What it answers comes from three microservices that are slow,
//! and whose client (`ureq`) blocks. A blocking call on the loop would stop every other request, so
//! the handlers hand theirs to threads and await the result:
//!
//! - `/price` and `/offer` go through `run_in_executor(&pool, ..)`. The pool is made at start-up,
//!   lives in the app state, and is shut down with a deadline at the end. Its limit is how many calls
//!   the old services are asked to bear at a time; more wait in its queue, and a request whose peer
//!   hangs up before its call has begun takes it out again.
//! - `/rating` goes through `to_thread`, the pool of the process: for a service that needs no limit.
//! - `/health` makes no call, so it is answered also while every thread of the pool is blocked.
//!
//! The microservices are part of the program, so that it runs anywhere: plain threads on loopback
//! ports that take their time to answer.
//!
//! # The run that ends by itself
//!
//! ```text
//! cargo run --release -p callbridge-web-service -- --smoke
//! ```
//!
//! drives the service with blocking clients from threads, twice as many as the pool's limit, prints
//! what it saw, and exits with 0 only if every answer was right, the pool's limit was reached and
//! never exceeded, and the shutdown left nothing behind.
//!
//! # Talk to it from another terminal
//!
//! ```text
//! cargo run --release -p callbridge-web-service
//!
//! curl http://127.0.0.1:8080/price/7
//! curl http://127.0.0.1:8080/offer/7
//! curl http://127.0.0.1:8080/rating/7
//! curl http://127.0.0.1:8080/health
//! curl -i http://127.0.0.1:8080/price/12345      # 404: no such item
//! seq 40 | xargs -P 40 -I N curl -s http://127.0.0.1:8080/price/N
//! ```
//!
//! Ctrl-C stops it: no new connections, requests under way are answered, then the pool is shut down,
//! all within the deadline. A second Ctrl-C ends it at once.

mod cli;
mod old;
mod serve;
mod shop;
mod smoke;
mod ticker;

use clap::Parser as _;
use std::error::Error;
use std::fmt;
use std::process::ExitCode;

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
            eprintln!("web_service: {}", first_paragraph(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("web_service: {error}");
            ExitCode::from(if error.is::<Refused>() { 2 } else { 1 })
        }
    }
}

fn run(options: &cli::Options) -> Result<bool, Box<dyn Error>> {
    let backends = old::Backends::start(options.delay())?;
    // One thread for the whole loop: a handler that blocked would stop everything, visibly.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        if options.smoke {
            smoke::run(options, &backends).await
        } else {
            serve::until_ctrl_c(options, &backends).await
        }
    })
}

/// clap's message without the usage and the hints below it, on one line.
fn first_paragraph(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.trim().is_empty());
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    text.trim_start_matches("error: ").to_owned()
}
