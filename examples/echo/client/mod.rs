//! The driving side: plain blocking clients on threads of their own.

mod payload;
mod tally;
mod tcp;
mod udp;

pub(crate) use tally::{Row, Tally};

use crate::address::Address;
use crate::plan::{Batch, share};
use crate::progress::Progress;
use payload::Payloads;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long a client waits for a socket that makes no progress.
const PATIENCE: Duration = Duration::from_secs(10);
const REDRAW: Duration = Duration::from_millis(100);

/// What one client has to do.
struct Errand {
    batches: Vec<Batch>,
    window: usize,
    payloads: Payloads,
    /// Frames that are back, over all clients.
    done: Arc<AtomicU64>,
}

impl Errand {
    /// The window, or less where so many payloads would be more than `bytes`.
    fn window_for(&self, size: usize, bytes: usize) -> usize {
        self.window.min(bytes / size).max(1)
    }

    fn done_one(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// What all clients of a listener saw, size by size, and how long they took.
pub(crate) struct Drive {
    pub(crate) rows: Vec<Row>,
    pub(crate) failures: Vec<String>,
    pub(crate) took: Duration,
}

/// Drives the listener at `address` until every client is done.
pub(crate) fn drive(
    address: &Address,
    batches: &[Batch],
    clients: u32,
    window: u32,
    mut progress: Progress,
) -> io::Result<Drive> {
    let done = Arc::new(AtomicU64::new(0));
    let longest = batches.iter().map(|batch| batch.size).max().unwrap_or(1);
    let (finished, tallies) = mpsc::channel();
    let started = Instant::now();
    let mut threads = Vec::new();
    for index in 0..clients {
        let errand = Errand {
            batches: share(batches, index, clients),
            window: window as usize,
            payloads: Payloads::new(longest, u64::from(index) + 1),
            done: Arc::clone(&done),
        };
        let address = address.clone();
        let finished = finished.clone();
        let name = format!("client-{}", index + 1);
        threads.push(thread::Builder::new().name(name.clone()).spawn(move || {
            let mut tally = match address {
                Address::Udp(at) => udp::run(at, &errand),
                Address::Tcp(at) => tcp::run(at, &errand),
                Address::Unix(_) => unreachable!("only --listen serves Unix sockets"),
            };
            tally.failure = tally.failure.map(|failure| format!("{name}: {failure}"));
            let _ = finished.send(tally);
        })?);
    }
    drop(finished);

    let mut drive = Drive { rows: Vec::new(), failures: Vec::new(), took: Duration::ZERO };
    loop {
        match tallies.recv_timeout(REDRAW) {
            Ok(tally) => drive.add(tally),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        progress.show(done.load(Ordering::Relaxed));
    }
    drive.took = started.elapsed();
    progress.finish(done.load(Ordering::Relaxed));
    let panicked = threads.into_iter().filter_map(|thread| thread.join().err()).count();
    if panicked > 0 {
        drive.failures.push(format!("{panicked} client threads panicked"));
    }
    Ok(drive)
}

impl Drive {
    fn add(&mut self, tally: Tally) {
        for row in tally.rows {
            match self.rows.iter_mut().find(|mine| mine.size == row.size) {
                Some(mine) => mine.add(&row),
                None => self.rows.push(row),
            }
        }
        self.rows.sort_by_key(|row| row.size);
        self.failures.extend(tally.failure);
    }
}
