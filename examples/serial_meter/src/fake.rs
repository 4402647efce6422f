//! A meter made of a pseudo-terminal, for the smoke run and the tests.

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long something that must happen is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The device's end of the line; dropping it unplugs the meter.
#[derive(Debug)]
pub struct FakeMeter {
    line: File,
    path: PathBuf,
}

impl FakeMeter {
    /// Plugs a meter in, which is found at `path`.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn plug_in(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&line)?;
        unlockpt(&line)?;
        // What it says before anybody has opened the port must not come back to it.
        let mut settings = tcgetattr(&line)?;
        settings.make_raw();
        tcsetattr(&line, OptionalActions::Now, &settings)?;
        let port = ptsname(&line, Vec::new())?;
        let _ = fs::remove_file(&path);
        symlink(Path::new(OsStr::from_bytes(port.as_bytes())), &path)?;
        Ok(FakeMeter { line: line.into(), path })
    }

    /// # Errors
    ///
    /// What the system says.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.write_all(bytes)
    }

    /// Waits for a line from the other end.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::TimedOut`], and what the system says.
    pub fn hear(&mut self) -> io::Result<String> {
        let until = Instant::now() + PATIENCE;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while Instant::now() < until {
            match self.line.read(&mut byte) {
                Ok(0) => std::thread::sleep(Duration::from_millis(1)),
                Ok(_) if byte[0] == b'\n' => {
                    return String::from_utf8(line).map_err(io::Error::other);
                }
                Ok(_) => line.push(byte[0]),
                // EIO: nobody has opened the port yet.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

impl Drop for FakeMeter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
