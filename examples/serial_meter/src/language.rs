//! What the meter says, and what it is told: a line each.

use bytes::BytesMut;
use std::fmt;
use std::io;
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

/// A line of the meter, such as `T 21.5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What was measured: one letter.
    pub quantity: char,
    pub value: f64,
}

/// What the meter understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// It sends a reading at once.
    Read,
    /// It sends one every so many seconds.
    Every(u16),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Read => f.write_str("READ"),
            Command::Every(seconds) => write!(f, "EVERY {seconds}"),
        }
    }
}

/// Why a line is no reading.
#[derive(Debug)]
pub enum MeterError {
    /// It isn't text, or couldn't be read.
    Line(LinesCodecError),
    /// It is text, of another kind.
    NoReading,
}

impl fmt::Display for MeterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the line is no reading: check the speed and the parity of the port")
    }
}

impl std::error::Error for MeterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MeterError::Line(error) => Some(error),
            MeterError::NoReading => None,
        }
    }
}

impl From<LinesCodecError> for MeterError {
    fn from(error: LinesCodecError) -> Self {
        MeterError::Line(error)
    }
}

impl From<io::Error> for MeterError {
    fn from(error: io::Error) -> Self {
        MeterError::Line(error.into())
    }
}

/// Any tokio-util codec will do; this one is made of another.
#[derive(Debug)]
pub(crate) struct Language(LinesCodec);

impl Language {
    pub(crate) fn new() -> Self {
        Language(LinesCodec::new())
    }
}

impl Decoder for Language {
    type Item = Reading;
    type Error = MeterError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Reading>, MeterError> {
        let Some(line) = self.0.decode(bytes)? else { return Ok(None) };
        let Some((quantity, value)) = line.split_once(' ') else {
            return Err(MeterError::NoReading);
        };
        match (quantity.parse(), value.parse()) {
            (Ok(quantity), Ok(value)) => Ok(Some(Reading { quantity, value })),
            _ => Err(MeterError::NoReading),
        }
    }
}

impl Encoder<Command> for Language {
    type Error = MeterError;

    fn encode(&mut self, command: Command, bytes: &mut BytesMut) -> Result<(), MeterError> {
        Ok(self.0.encode(command.to_string(), bytes)?)
    }
}
