//! The run without `--listen`: each listener in each mode, driven, stopped, reported.

use crate::address::Address;
use crate::cli::{Framing, Mode, Options};
use crate::client::drive;
use crate::plan::plan;
use crate::progress::Progress;
use crate::report::table;
use crate::server::Server;
use std::error::Error;
use std::io::{self, Write as _};
use tokio::runtime::Handle;

/// Runs every round; whether all went well.
pub(crate) fn run(options: &Options, event_loop: &Handle) -> Result<bool, Box<dyn Error>> {
    let mut well = true;
    let mut frames = 0;
    for mode in options.modes() {
        for datagrams in [true, false] {
            let (echoed, fine) = round(options, mode, datagrams, event_loop)?;
            frames += echoed;
            well &= fine;
        }
    }
    let verdict = if well {
        format!("ok: {frames} frames came back unaltered, and the counters balance")
    } else {
        "FAILED: see above".to_owned()
    };
    writeln!(io::stdout(), "{verdict}")?;
    Ok(well)
}

fn round(
    options: &Options,
    mode: Mode,
    datagrams: bool,
    event_loop: &Handle,
) -> Result<(u64, bool), Box<dyn Error>> {
    let loopback = ([127, 0, 0, 1], 0).into();
    let (name, address, sizes) = if datagrams {
        ("udp", Address::Udp(loopback), options.datagram_sizes())
    } else {
        ("tcp", Address::Tcp(loopback), options.frame_sizes())
    };
    let server = Server::start(&address, mode, Framing::Length, options.max_frame(), event_loop)
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let title = format!("{name} listener, {mode} mode, on {}", server.address());

    let batches = plan(options.frames, &sizes);
    let progress = Progress::new(&format!("{name} {mode}"), options.frames.into());
    let driven = drive(server.address(), &batches, options.clients, options.window, progress);
    let stopped = server.stop(options.deadline());
    let (text, well) = table(&title, options.frames.into(), &mut driven?, &stopped);
    writeln!(io::stdout(), "{text}")?;
    Ok((options.frames.into(), well))
}
