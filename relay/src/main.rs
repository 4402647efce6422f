//! `relay`: carries lines, datagrams and requests to another machine over NATS. See `relay --help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
