//! `--listen`: one listener, until Ctrl-C.

use crate::address::Address;
use crate::cli::Options;
use crate::report::ending;
use crate::server::Server;
use std::error::Error;
use std::io::{self, Write as _};
use tokio::runtime::Runtime;

/// Serves until Ctrl-C, prints the books, stops; whether all went well.
pub(crate) fn run(
    options: &Options,
    address: &Address,
    runtime: &Runtime,
) -> Result<bool, Box<dyn Error>> {
    // Installed before anybody is told that the listener is up.
    let mut interrupts = {
        let _context = runtime.enter();
        ctrl_c()?
    };
    let mode = options.modes()[0];
    let server =
        Server::start(address, mode, options.framing(), options.max_frame(), runtime.handle())
            .map_err(|error| crate::Refused(format!("cannot listen on {address}: {error}")))?;
    let mut out = io::stdout();
    writeln!(out, "listening on {} in {mode} mode; Ctrl-C stops", server.address())?;

    runtime.block_on(interrupts.recv());
    runtime.spawn(async move {
        interrupts.recv().await;
        std::process::exit(130);
    });
    let stopped = server.stop(options.deadline());
    write!(out, "\n{}", ending(&stopped))?;
    let problems = stopped.problems();
    for problem in &problems {
        writeln!(out, "  FAILED: {problem}")?;
    }
    Ok(problems.is_empty())
}

#[cfg(unix)]
fn ctrl_c() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn ctrl_c() -> io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}
