//! A blocking TCP client: one thread writes, one reads, and a bounded channel between them is the
//! window.

use super::tally::{Row, Tally};
use super::{Errand, PATIENCE};
use crate::plan::Batch;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

/// What may be outstanding, so that a window of the largest frames stays small.
const WINDOW_BYTES: usize = 4 << 20;

pub(crate) fn run(at: SocketAddr, errand: &Errand) -> Tally {
    let mut tally = Tally::default();
    tally.failure = talk(at, errand, &mut tally.rows).err();
    tally
}

fn talk(at: SocketAddr, errand: &Errand, rows: &mut Vec<Row>) -> Result<(), String> {
    let stream = connect(at).map_err(|error| format!("can't connect to tcp://{at}: {error}"))?;
    let mut replies = BufReader::with_capacity(64 << 10, &stream);
    let mut number = 0;
    for &batch in &errand.batches {
        let mut row = Row::new(batch.size, batch.frames);
        let outcome = exchange(&stream, &mut replies, errand, batch, number, &mut row);
        rows.push(row);
        outcome?;
        number += u64::from(batch.frames);
    }
    say_goodbye(&stream, &mut replies)
}

fn connect(at: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends the frames of one size and reads them back.
fn exchange(
    stream: &TcpStream,
    replies: &mut impl Read,
    errand: &Errand,
    batch: Batch,
    first: u64,
    row: &mut Row,
) -> Result<(), String> {
    let started = Instant::now();
    // The reader holds one more than the channel.
    let (sent, outstanding) = sync_channel(errand.window_for(batch.size, WINDOW_BYTES) - 1);
    thread::scope(|scope| {
        let writer = thread::Builder::new()
            .name(format!("{}-write", thread::current().name().unwrap_or("echo-tcp")))
            .spawn_scoped(scope, move || write_frames(stream, errand, batch, first, &sent))
            .map_err(|error| format!("can't start a thread: {error}"))?;
        let read = read_frames(replies, errand, batch, first, &outstanding, row);
        // The writer may be waiting for room, in the window or in the socket.
        drop(outstanding);
        if read.is_err() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let (written, failed) = writer.join().map_err(|_| "the writing thread panicked")?;
        row.timed(started);
        row.lost = (written - row.echoed).saturating_sub(row.altered);
        match (read, failed) {
            (Err(Some(failure)), _) => Err(failure),
            (_, Some(error)) => Err(format!("can't send {} bytes: {error}", batch.size)),
            (Err(None), None) | (Ok(()), None) => Ok(()),
        }
    })
}

/// How many frames were sent, and the error that stopped it.
fn write_frames(
    mut stream: &TcpStream,
    errand: &Errand,
    batch: Batch,
    first: u64,
    sent: &SyncSender<Instant>,
) -> (u64, Option<io::Error>) {
    let mut frame = Vec::with_capacity(4 + batch.size);
    for index in 0..u64::from(batch.frames) {
        frame.clear();
        frame.extend_from_slice(&(batch.size as u32).to_be_bytes());
        errand.payloads.append(first + index, batch.size, &mut frame);
        if sent.send(Instant::now()).is_err() {
            return (index, None);
        }
        if let Err(error) = stream.write_all(&frame) {
            return (index, Some(error));
        }
    }
    (batch.frames.into(), None)
}

/// Reads the replies in order; `Err(None)` when the writer gave up first.
fn read_frames(
    replies: &mut impl Read,
    errand: &Errand,
    batch: Batch,
    first: u64,
    outstanding: &Receiver<Instant>,
    row: &mut Row,
) -> Result<(), Option<String>> {
    let mut payload = vec![0; batch.size];
    for index in 0..u64::from(batch.frames) {
        let sent = outstanding.recv().map_err(|_| None)?;
        let number = first + index;
        let mut head = [0; 4];
        read(replies, &mut head, number, batch.size)?;
        let length = u32::from_be_bytes(head) as usize;
        if length != batch.size {
            row.altered += 1;
            return Err(Some(format!(
                "frame {number} of {} bytes came back with a length of {length}",
                batch.size
            )));
        }
        read(replies, &mut payload, number, batch.size)?;
        if errand.payloads.matches(number, batch.size, &payload) {
            row.echoed(sent);
        } else {
            row.altered += 1;
        }
        errand.done_one();
    }
    Ok(())
}

fn read(from: &mut impl Read, into: &mut [u8], number: u64, size: usize) -> Result<(), String> {
    from.read_exact(into).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no reply to frame {number} of {size} bytes within {} s", PATIENCE.as_secs())
        }
        ErrorKind::UnexpectedEof => {
            format!("the connection was closed before the reply to frame {number} of {size} bytes")
        }
        _ => format!("can't read the reply to frame {number} of {size} bytes: {error}"),
    })
}

/// Ends the sending side; the listener closes its own, and says nothing more.
fn say_goodbye(stream: &TcpStream, replies: &mut impl Read) -> Result<(), String> {
    stream.shutdown(Shutdown::Write).map_err(|error| format!("can't close: {error}"))?;
    let mut rest = [0; 64];
    match replies.read(&mut rest) {
        Ok(0) => Ok(()),
        Ok(more) => Err(format!("{more} bytes came that nobody asked for")),
        Err(error) => Err(format!("the listener doesn't close the connection: {error}")),
    }
}
