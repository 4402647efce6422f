//! A running echo server, and what stops it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a blocked thread of a hand-written server sleeps before it looks at its flag.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// An echo server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    stop: Option<Box<dyn FnOnce()>>,
}

impl Server {
    pub(crate) fn new(addr: SocketAddr, stop: impl FnOnce() + 'static) -> Self {
        Server { addr, stop: Some(Box::new(stop)) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

/// Tells a hand-written server's thread to stop.
#[derive(Clone, Default)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a server does before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handling {
    /// Nothing.
    Ready,
    /// Waits for a timer.
    Sleep(Duration),
}

impl Handling {
    pub(crate) async fn before_the_answer(self) {
        if let Handling::Sleep(time) = self {
            tokio::time::sleep(time).await;
        }
    }

    pub(crate) fn block_before_the_answer(self) {
        if let Handling::Sleep(time) = self {
            std::thread::sleep(time);
        }
    }
}
