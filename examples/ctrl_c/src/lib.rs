//! ctrlc, whose handler can never be taken back, as async streams that end.
//!
//! ctrlc takes one handler per process, calls it on a thread of its own, and has no way to unregister.
//! A handler that owned the stream's sender would keep the stream open for the life of the process, and
//! nobody could listen a second time. So what is registered is a relay: it looks up who listens now
//! through a [`WeakSender`], and counts what comes while nobody does.
//!
//! The kernel merges equal signals that wait, so their number means nothing and only the newest
//! matters: [`Overflow::Latest`].

use callbridge::channel::WeakSender;
use callbridge::{FrameStream, Overflow, Sender, channel};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who listens now.
static LISTENER: Mutex<Relay> = Mutex::new(Relay { registered: false, to: None });
static HANDLED: AtomicU64 = AtomicU64::new(0);
static UNHEARD: AtomicU64 = AtomicU64::new(0);

struct Relay {
    /// Whether ctrlc has the handler.
    registered: bool,
    to: Option<WeakSender<Interrupt>>,
}

fn relay() -> MutexGuard<'static, Relay> {
    LISTENER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody pressed Ctrl-C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// How many the handler has got in this process, this one included.
    pub number: u64,
}

/// Dropping it ends the stream.
#[derive(Debug)]
pub struct Listening {
    sender: Sender<Interrupt>,
}

/// Listens from now on, in place of whoever did before, whose stream ends.
///
/// # Errors
///
/// ctrlc's, if another handler was registered in this process.
pub fn listen() -> Result<(Listening, FrameStream<Interrupt>), ctrlc::Error> {
    let (sender, interrupts) = channel::builder()
        .overflow(Overflow::Latest)
        .build()
        .unwrap_or_else(|error| unreachable!("{error}"));
    let before = {
        let mut relay = relay();
        if !relay.registered {
            ctrlc::set_handler(pass_on)?;
            relay.registered = true;
        }
        relay.to.replace(sender.downgrade())
    };
    if let Some(before) = before.and_then(|before| before.upgrade()) {
        before.close();
    }
    Ok((Listening { sender }, interrupts))
}

/// What ctrlc's thread runs. It never waits; the lock is held for a look.
fn pass_on() {
    let number = HANDLED.fetch_add(1, Ordering::Relaxed) + 1;
    let to = relay().to.clone();
    let sent = to.and_then(|to| to.upgrade()).map(|to| to.send(Interrupt { number }));
    if !matches!(sent, Some(Ok(_))) {
        UNHEARD.fetch_add(1, Ordering::Relaxed);
    }
}

impl Listening {
    /// Ends the stream.
    pub fn stop(self) {
        self.sender.close();
    }
}

/// How many interrupts the handler got in this process.
pub fn handled() -> u64 {
    HANDLED.load(Ordering::Relaxed)
}

/// How many came while nobody listened.
pub fn unheard() -> u64 {
    UNHEARD.load(Ordering::Relaxed)
}
