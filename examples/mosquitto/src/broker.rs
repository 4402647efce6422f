//! A broker of one's own, for the smoke run and the tests.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const PACKAGES: &str = "install the Debian packages mosquitto and libmosquitto-dev";

/// What outlives the broker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    None,
    /// What it writes when it is asked to end.
    AtExit,
    /// What it writes after each change.
    AtOnce,
}

/// A mosquitto on a loopback port, with a directory of its own; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Broker {
    /// Starts a broker on a free port and waits until it listens.
    ///
    /// # Errors
    ///
    /// If it can't be started; when there is none, the error names the packages to install.
    pub fn start(persistence: Persistence) -> io::Result<Broker> {
        let directory = tempfile::tempdir()?;
        let mut tries = 0..5;
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            write_settings(&directory, port, persistence)?;
            match spawn(&directory, port) {
                Ok(child) => return Ok(Broker { directory, port, child }),
                // Somebody else may have taken the port in between.
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && tries.next().is_some() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The port it listens on, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it, as a crash would, and waits for its end.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(&mut self) -> io::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let late = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > late {
                return Err(io::Error::other("the broker doesn't end"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts it again on the same port, after it was ended.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.child = spawn(&self.directory, self.port)?;
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn write_settings(directory: &TempDir, port: u16, persistence: Persistence) -> io::Result<()> {
    let place = directory.path().display();
    let persistence = match persistence {
        Persistence::None => "persistence false".to_owned(),
        Persistence::AtExit => format!("persistence true\npersistence_location {place}/"),
        Persistence::AtOnce => format!(
            "persistence true\npersistence_location {place}/\n\
             autosave_on_changes true\nautosave_interval 1"
        ),
    };
    // Started by root it would become another user, who can't write here; else `user` says nothing.
    let settings = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\n\
         max_queued_messages 0\nmax_inflight_messages 1000\n\
         log_dest stderr\nlog_type error\n{persistence}\n"
    );
    std::fs::write(directory.path().join("mosquitto.conf"), settings)
}

fn spawn(directory: &TempDir, port: u16) -> io::Result<Child> {
    let errors = directory.path().join("errors.txt");
    let start = |program: &str| {
        Command::new(program)
            .arg("-c")
            .arg(directory.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?)
            .spawn()
    };
    // Debian has it where only root looks.
    let mut child =
        start("mosquitto").or_else(|_| start("/usr/sbin/mosquitto")).map_err(|error| {
            io::Error::new(error.kind(), format!("can't start mosquitto ({error}): {PACKAGES}"))
        })?;
    let late = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(&errors)?;
            let in_use = said.contains("in use");
            let kind = if in_use { io::ErrorKind::AddrInUse } else { io::ErrorKind::Other };
            return Err(io::Error::new(kind, format!("the broker ended ({status}): {said}")));
        }
        if Instant::now() > late {
            child.kill()?;
            return Err(io::Error::other("the broker doesn't listen"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(child)
}
