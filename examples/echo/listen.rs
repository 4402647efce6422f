//! `--listen`: one listener, until it is told to stop, or fails.

use crate::address::Address;
use crate::cli::Options;
use crate::report::ending;
use crate::server::Server;
use std::error::Error;
use std::io::{self, Write as _};
use tokio::runtime::Runtime;

/// Serves until Ctrl-C, SIGTERM or a failure, prints the counters, stops; whether all went well.
pub(crate) fn run(
    options: &Options,
    address: &Address,
    runtime: &Runtime,
) -> Result<bool, Box<dyn Error>> {
    // Installed before anybody is told that the listener is up.
    let mut signals = {
        let _context = runtime.enter();
        Signals::new()?
    };
    let mode = options.modes()[0];
    let server =
        Server::start(address, mode, options.framing(), options.max_frame(), runtime.handle())
            .map_err(|error| crate::Refused(format!("cannot listen on {address}: {error}")))?;
    let mut out = io::stdout();
    writeln!(out, "listening on {} in {mode} mode; Ctrl-C stops", server.address())?;

    runtime.block_on(async {
        tokio::select! {
            () = signals.recv() => {}
            () = server.failed() => {}
        }
    });
    runtime.spawn(async move {
        signals.recv().await;
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

/// What asks the program to end.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    ctrl_c: tokio::signal::windows::CtrlC,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (interrupt, terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate })
    }

    #[cfg(windows)]
    fn new() -> io::Result<Self> {
        Ok(Signals { ctrl_c: tokio::signal::windows::ctrl_c()? })
    }

    async fn recv(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(windows)]
        self.ctrl_c.recv().await;
    }
}
