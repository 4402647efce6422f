//! The request, twice: for an event loop, and for a thread that has nothing else to do.

use callbridge::Sender;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::io::AsyncBufReadExt;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes a line of the server: either progress, in per cent, or else the answer.
fn take(line: String, progress: &Sender<u8>) -> Option<String> {
    match line.parse() {
        Ok(percent) => {
            // A window that is gone needs to know nothing.
            let _ = progress.send(percent);
            None
        }
        Err(_) => Some(line),
    }
}

/// Asks the server without holding up a thread.
pub(crate) async fn ask(server: SocketAddr, progress: &Sender<u8>) -> io::Result<String> {
    let asking = async {
        let stream = tokio::net::TcpStream::connect(server).await?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(answer) = take(line, progress) {
                return Ok(answer);
            }
        }
        Err(ErrorKind::UnexpectedEof.into())
    };
    tokio::time::timeout(TIMEOUT, asking).await?
}

/// Asks the server, and holds up the calling thread until the answer is there.
pub(crate) fn ask_blocking(server: SocketAddr, progress: &Sender<u8>) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    for line in BufReader::new(stream).lines() {
        if let Some(answer) = take(line?, progress) {
            return Ok(answer);
        }
    }
    Err(ErrorKind::UnexpectedEof.into())
}
