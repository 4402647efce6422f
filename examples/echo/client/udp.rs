//! A blocking UDP client: a window of outstanding datagrams, the lost ones sent again.

use super::Errand;
use super::payload::number_near;
use super::tally::{Row, Tally};
use crate::plan::Batch;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// How long a read waits before the client looks for datagrams to send again.
const TICK: Duration = Duration::from_millis(50);
const RESEND_AFTER: Duration = Duration::from_millis(250);
/// Sends after which a datagram is given up: more than five seconds of silence.
const MAX_SENDS: u32 = 25;
/// Outstanding bytes of one client: a few of them fit a socket's default receive buffer, which is
/// charged up to three times the payload.
const WINDOW_BYTES: usize = 32 << 10;

struct Outstanding {
    first_sent: Instant,
    last_sent: Instant,
    sends: u32,
    answered: bool,
}

struct UdpClient<'a> {
    socket: UdpSocket,
    at: SocketAddr,
    errand: &'a Errand,
    /// The number of the oldest outstanding datagram.
    base: u64,
    /// From `base` on, one for each datagram sent.
    window: VecDeque<Outstanding>,
    row: Row,
    /// Replies to datagrams that had been sent again and were already answered.
    duplicates: u64,
    buffer: Vec<u8>,
}

pub(crate) fn run(at: SocketAddr, errand: &Errand) -> Tally {
    let mut tally = Tally::default();
    let mut client = match UdpClient::connect(at, errand) {
        Ok(client) => client,
        Err(error) => {
            tally.failure = Some(format!("can't connect to udp://{at}: {error}"));
            return tally;
        }
    };
    for &batch in &errand.batches {
        let outcome = client.batch(batch);
        tally.rows.push(std::mem::take(&mut client.row));
        if let Err(failure) = outcome {
            tally.failure = Some(failure);
            break;
        }
    }
    tally
}

impl<'a> UdpClient<'a> {
    fn connect(at: SocketAddr, errand: &'a Errand) -> io::Result<Self> {
        Ok(UdpClient {
            socket: socket(at)?,
            at,
            errand,
            base: 0,
            window: VecDeque::new(),
            row: Row::default(),
            duplicates: 0,
            buffer: Vec::new(),
        })
    }

    fn batch(&mut self, batch: Batch) -> Result<(), String> {
        self.row = Row::new(batch.size, batch.frames);
        self.duplicates = 0;
        let room = self.errand.window_for(batch.size, WINDOW_BYTES);
        let end = self.base + u64::from(batch.frames);
        let mut replies = vec![0; crate::cli::MAX_DATAGRAM + 1];
        let started = Instant::now();
        while self.base < end {
            while self.window.len() < room && self.next() < end {
                let now = Instant::now();
                let sent =
                    Outstanding { first_sent: now, last_sent: now, sends: 1, answered: false };
                self.send(self.next())?;
                self.window.push_back(sent);
            }
            match self.receive(&mut replies)? {
                Some(length) => self.reply(&replies[..length]),
                None => self.send_again()?,
            }
            while self.window.front().is_some_and(|oldest| oldest.answered) {
                self.window.pop_front();
                self.base += 1;
            }
        }
        self.row.timed(started);
        if self.duplicates < self.row.resent {
            // A late reply to what was sent again must not meet the next size: it finds nobody.
            self.socket =
                socket(self.at).map_err(|error| format!("can't connect again: {error}"))?;
        }
        Ok(())
    }

    fn next(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    fn send(&mut self, number: u64) -> Result<(), String> {
        self.buffer.clear();
        self.errand.payloads.append(number, self.row.size, &mut self.buffer);
        match self.socket.send(&self.buffer) {
            Err(error) if !is_passing(&error) => {
                self.row.lost += self.unanswered();
                Err(format!("can't send {} bytes: {error}", self.row.size))
            }
            // What the system didn't take is sent again, like what the network lost.
            _ => Ok(()),
        }
    }

    fn receive(&mut self, replies: &mut [u8]) -> Result<Option<usize>, String> {
        match self.socket.recv(replies) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => {
                self.row.lost += self.unanswered();
                Err(format!("can't receive: {error}"))
            }
        }
    }

    fn reply(&mut self, payload: &[u8]) {
        let number = number_near(payload, self.base);
        if !self.errand.payloads.matches(number, self.row.size, payload) {
            self.row.altered += 1;
            return;
        }
        let place = number.checked_sub(self.base).and_then(|place| usize::try_from(place).ok());
        match place.and_then(|place| self.window.get_mut(place)) {
            Some(sent) if !sent.answered => {
                sent.answered = true;
                self.row.echoed(sent.first_sent);
                self.errand.done_one();
            }
            // A second reply is fine if there was a second datagram, and made up if not.
            _ if self.duplicates < self.row.resent => self.duplicates += 1,
            _ => self.row.altered += 1,
        }
    }

    fn send_again(&mut self) -> Result<(), String> {
        for place in 0..self.window.len() {
            let sent = &mut self.window[place];
            if sent.answered || sent.last_sent.elapsed() < RESEND_AFTER {
                continue;
            }
            let number = self.base + place as u64;
            if sent.sends == MAX_SENDS {
                let waited = sent.first_sent.elapsed().as_secs_f64();
                self.row.lost += self.unanswered();
                return Err(format!(
                    "no reply to datagram {number} of {} bytes, sent {MAX_SENDS} times in {waited:.1} s",
                    self.row.size
                ));
            }
            sent.sends += 1;
            sent.last_sent = Instant::now();
            self.row.resent += 1;
            self.send(number)?;
        }
        Ok(())
    }

    fn unanswered(&self) -> u64 {
        self.window.iter().filter(|sent| !sent.answered).count() as u64
    }
}

fn socket(at: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if at.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(TICK))?;
    socket.set_write_timeout(Some(super::PATIENCE))?;
    Ok(socket)
}

/// A tick, or the system's buffers being full for now.
fn is_passing(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, OutOfMemory, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | OutOfMemory)
}
