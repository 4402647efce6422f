//! The command line: every flag, its limits, and what may not go together.

use crate::address::Address;
use clap::builder::RangedI64ValueParser;
use clap::{Parser, ValueEnum};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The largest payload a UDP datagram over IPv4 can carry.
pub(crate) const MAX_DATAGRAM: usize = 65_507;
const DEFAULT_MAX_FRAME: u32 = 1 << 20;

/// Echoes frames through callbridge: blocking listener threads on one side, an event loop on the other
///
/// Without --listen it starts a UDP and a TCP listener on loopback, drives each with blocking
/// clients in both modes, checks every byte that comes back and prints one table per listener.
///
/// Exit code: 0 if every frame came back unaltered and the counters balance, 1 if not, 2 if the command
/// line makes no sense or the address can't be used.
#[derive(Debug, Parser)]
#[command(name = "echo", verbatim_doc_comment)]
pub(crate) struct Options {
    /// Serve until Ctrl-C on udp://IP:PORT, tcp://IP:PORT or unix://PATH (port 0: any free one)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<Address>,

    /// How --listen tells frames apart on tcp:// and unix:// [default: length]
    #[arg(long, value_enum, requires = "listen")]
    framing: Option<Framing>,

    /// The longest frame on TCP and Unix connections [default: 1048576]
    #[arg(long, value_name = "BYTES", value_parser = within(1..=1 << 30), allow_negative_numbers = true)]
    max_frame: Option<u32>,

    /// Who answers [default: both in turn; stream with --listen]
    #[arg(long, value_enum)]
    mode: Option<Mode>,

    /// Frames to echo for each listener in each mode
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "listen", value_parser = within(1..=10_000_000), allow_negative_numbers = true)]
    pub(crate) frames: u32,

    /// Payload sizes, separated by commas [default: five, from 1 to the largest allowed]
    ///
    /// Most frames go to the smallest. UDP leaves out what no datagram can carry.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', conflicts_with = "listen", value_parser = within(1..=1 << 30), allow_negative_numbers = true)]
    sizes: Vec<u32>,

    /// Frames each client keeps outstanding; fewer when they are large
    #[arg(long, value_name = "N", default_value_t = 32, conflicts_with = "listen", value_parser = within(1..=128), allow_negative_numbers = true)]
    pub(crate) window: u32,

    /// Clients that drive a listener at the same time, each on threads of its own
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "listen", value_parser = within(1..=64), allow_negative_numbers = true)]
    pub(crate) clients: u32,

    /// How long a listener may take to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = within(1..=3_600), allow_negative_numbers = true)]
    deadline: u32,
}

fn within(range: RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(range)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Framing {
    /// A 4-byte big-endian length before each frame
    Length,
    /// A newline after each frame, for nc
    Lines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Frames are awaited as an async Stream and answered from the loop
    Stream,
    /// An async handler answers each frame within a timeout, and the listener's thread writes the reply
    Call,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Stream => "stream",
            Mode::Call => "call",
        })
    }
}

impl Options {
    /// What the flags can't say one by one.
    pub(crate) fn check(&self) -> Result<(), String> {
        let datagrams = matches!(self.listen, Some(Address::Udp(_)));
        if datagrams && (self.framing.is_some() || self.max_frame.is_some()) {
            return Err("--framing and --max-frame are for tcp:// and unix://: a datagram is a \
                        frame as it is"
                .to_owned());
        }
        match self.sizes.iter().find(|&&size| size as usize > self.max_frame()) {
            Some(size) => Err(format!(
                "--sizes asks for {size} bytes, but --max-frame allows {}",
                self.max_frame()
            )),
            None if self.datagram_sizes().is_empty() => {
                Err(format!("--sizes leaves nothing for UDP: give one of at most {MAX_DATAGRAM}"))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing.unwrap_or(Framing::Length)
    }

    pub(crate) fn max_frame(&self) -> usize {
        self.max_frame.unwrap_or(DEFAULT_MAX_FRAME) as usize
    }

    pub(crate) fn modes(&self) -> Vec<Mode> {
        match (self.mode, &self.listen) {
            (Some(mode), _) => vec![mode],
            (None, Some(_)) => vec![Mode::Stream],
            (None, None) => vec![Mode::Stream, Mode::Call],
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline.into())
    }

    pub(crate) fn datagram_sizes(&self) -> Vec<usize> {
        self.sizes_up_to(MAX_DATAGRAM, &[1, 64, 1_400, 9_000, MAX_DATAGRAM])
    }

    pub(crate) fn frame_sizes(&self) -> Vec<usize> {
        let max = self.max_frame();
        self.sizes_up_to(max, &[1, 64, 1_400, 65_536, max])
    }

    fn sizes_up_to(&self, max: usize, usual: &[usize]) -> Vec<usize> {
        let asked: Vec<usize> = self.sizes.iter().map(|&size| size as usize).collect();
        let chosen = if asked.is_empty() { usual } else { &asked };
        let mut sizes: Vec<usize> = chosen.iter().copied().filter(|&size| size <= max).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }
}
