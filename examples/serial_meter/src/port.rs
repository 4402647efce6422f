//! A serial port, as Unix has it.

use rustix::fs::{Mode, OFlags};
use rustix::termios::{self, OptionalActions};
use std::fs::File;
use std::io;
use std::path::Path;

/// The speed of the meter, in bits per second.
const SPEED: u32 = 9600;

/// Opens a terminal and has it pass bytes as they are.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without NOCTTY it might become the program's own terminal; without NONBLOCK a port without a
    // carrier would be waited for.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let port = rustix::fs::open(path, flags, Mode::empty())?;
    let mut settings = termios::tcgetattr(&port)?;
    settings.make_raw();
    settings.set_speed(SPEED)?;
    termios::tcsetattr(&port, OptionalActions::Now, &settings)?;
    Ok(port.into())
}
