//! The request, twice: for an event loop, and for a thread that has nothing else to do.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::AsyncBufReadExt;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Per cent of a request that are done; written by the loop, read by the window.
#[derive(Debug, Default)]
pub(crate) struct Progress(AtomicU8);

impl Progress {
    pub(crate) fn percent(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes a line of the server: either progress, or else the answer.
    fn read(&self, line: String) -> Option<String> {
        match line.parse() {
            Ok(percent) => {
                self.0.store(percent, Ordering::Relaxed);
                None
            }
            Err(_) => Some(line),
        }
    }
}

/// Asks the server without holding up a thread.
pub(crate) async fn ask(server: SocketAddr, progress: &Progress) -> io::Result<String> {
    let asking = async {
        let stream = tokio::net::TcpStream::connect(server).await?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(answer) = progress.read(line) {
                return Ok(answer);
            }
        }
        Err(ErrorKind::UnexpectedEof.into())
    };
    tokio::time::timeout(TIMEOUT, asking).await?
}

/// Asks the server, and holds up the calling thread until the answer is there.
pub(crate) fn ask_blocking(server: SocketAddr, progress: &Progress) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    for line in BufReader::new(stream).lines() {
        if let Some(answer) = progress.read(line?) {
            return Ok(answer);
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}
