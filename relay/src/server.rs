//! A nats-server of one's own, for the smoke run and the tests.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A nats-server with JetStream on a loopback port, with a directory of its own; killed when dropped.
#[derive(Debug)]
pub struct NatsServer {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl NatsServer {
    /// Starts a server on a free port and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it can't be started; when there is none, the error names the package to install.
    pub fn start() -> io::Result<Self> {
        Self::start_with("")
    }

    /// As [`start`](Self::start), with more settings in the server's own words.
    pub fn start_with(settings: &str) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut tries = 0..5;
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let store = directory.path().join("store");
            let text = format!(
                "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {store:?} }}\n{settings}\n"
            );
            fs::write(directory.path().join("server.conf"), text)?;
            match spawn(directory.path(), port) {
                Ok(child) => return Ok(NatsServer { directory, port, child }),
                // Somebody else may have taken the port in between.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it listens, the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as a crash would, and waits for its end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again on the same port, with what it has stored.
    pub fn restart(&mut self) -> io::Result<()> {
        self.child = spawn(self.directory.path(), self.port)?;
        Ok(())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(directory: &Path, port: u16) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(directory.join("log"))?;
    let mut child = Command::new("nats-server")
        .arg("-c")
        .arg(directory.join("server.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(
                "there is no nats-server here: install the Debian package nats-server",
            ),
            _ => error,
        })?;
    let late = Instant::now() + PATIENCE;
    loop {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() && child.try_wait()?.is_none() {
            return Ok(child);
        }
        if child.try_wait()?.is_some() {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            let kind = match log.contains("address already in use") {
                true => io::ErrorKind::AddrInUse,
                false => io::ErrorKind::Other,
            };
            return Err(io::Error::new(kind, format!("nats-server ended at once: {log}")));
        }
        if Instant::now() > late {
            let _ = child.kill();
            let _ = child.wait();
            return Err(io::Error::other("nats-server doesn't listen"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
