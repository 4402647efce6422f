//! What the handle, the threads and the connections of one listener share.

use super::source::{FrameSource, Gauge, is_tick};
use super::stats::{Counters, ListenerStats, count};
use super::stop::Stop;
use crate::channel::{Ending, LossReason, SendError, Sender, SourceError};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{contain, discard, report};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Wake;
use std::time::Duration;

/// One listener.
pub(crate) struct Core {
    pub(crate) name: Box<str>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) counters: Counters,
    /// How long a peer that doesn't read is waited for.
    pub(crate) write_timeout: Duration,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    gauge: Gauge,
    ending: Option<Ending>,
    error: Option<SourceError>,
    /// Where the source is bound.
    address: Option<SocketAddr>,
}

impl Core {
    pub(crate) fn new(name: String, write_timeout: Duration) -> Arc<Self> {
        Arc::new(Core {
            name: name.into_boxed_str(),
            stop: Arc::default(),
            counters: Counters::default(),
            write_timeout,
            outcome: Mutex::default(),
        })
    }

    pub(crate) fn set_gauge(&self, gauge: Gauge) {
        let old = std::mem::replace(&mut lock(&self.outcome).gauge, gauge);
        drop(old);
    }

    pub(crate) fn set_address(&self, address: Option<SocketAddr>) {
        lock(&self.outcome).address = address;
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        lock(&self.outcome).address
    }

    /// Keeps the gauge's last reading, since the source is about to go.
    pub(crate) fn freeze_gauge(&self) {
        let gauge = lock(&self.outcome).gauge.clone();
        let last = gauge.read();
        self.set_gauge(Gauge::new(move || last));
    }

    pub(crate) fn stats(&self) -> ListenerStats {
        let gauge = lock(&self.outcome).gauge.clone();
        self.counters.read(&gauge)
    }

    pub(crate) fn ending(&self) -> Option<Ending> {
        lock(&self.outcome).ending
    }

    pub(crate) fn error(&self) -> Option<SourceError> {
        lock(&self.outcome).error.clone()
    }

    /// Notes why the listener ends; the first reason stays.
    pub(crate) fn finish(&self, ending: Ending) {
        let mut outcome = lock(&self.outcome);
        outcome.ending.get_or_insert(ending);
    }

    /// As [`finish`](Self::finish), with the source's error.
    pub(crate) fn fail(&self, error: SourceError) {
        let mut outcome = lock(&self.outcome);
        if outcome.ending.is_none() {
            outcome.ending = Some(Ending::Failed);
            outcome.error = Some(error);
        }
    }

    /// Notes a reason that comes from outside, and stops.
    pub(crate) fn stop_for(&self, ending: Ending) {
        self.finish(ending);
        self.stop.signal();
    }
}

/// Stops the listener when the loop that it serves goes away.
pub(crate) struct LoopWatch(pub(crate) Arc<Core>);

impl Wake for LoopWatch {
    fn wake(self: Arc<Self>) {
        self.0.stop_for(Ending::LoopGone);
    }
}

/// How a thread's work came to its end.
pub(crate) enum Verdict {
    Finished,
    Failed(io::Error),
    /// It was told to stop.
    Stopped,
    LoopGone,
}

/// Runs a thread's work, and says how it ended even if it panicked.
pub(crate) fn judged(work: impl FnOnce() -> Verdict) -> Result<Verdict, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        report("a source", payload.as_ref());
        discard(payload);
        Panicked
    })
}

/// The work of a thread panicked; the panic was reported.
pub(crate) struct Panicked;

/// The way of frames into the channel.
pub(crate) struct Feed<T> {
    pub(crate) sender: Sender<T>,
    pub(crate) core: Arc<Core>,
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Feed { sender: self.sender.clone(), core: Arc::clone(&self.core) }
    }
}

impl<T> Feed<T> {
    /// Sends a frame as the overflow policy says; false once nothing more is taken.
    pub(crate) fn put(&self, frame: T) -> bool {
        let refused = match self.sender.send(frame) {
            Ok(_) => return true,
            Err(refused) => refused,
        };
        // Nobody else will hear of a refused frame, so it becomes a loss.
        match refused {
            SendError::Closed(frame) => {
                let mut reason = LossReason::Shutdown;
                if self.sender.ending() == Some(Ending::ConsumerDropped) {
                    reason = LossReason::ConsumerDropped;
                    self.core.stop_for(Ending::ConsumerDropped);
                }
                self.sender.lose_refused(&frame, reason);
                false
            }
            SendError::Full(frame) | SendError::TimedOut(frame) => {
                self.sender.lose_refused(&frame, LossReason::Overflow);
                true
            }
            SendError::WouldDeadlock(frame) => {
                self.sender.lose_refused(&frame, LossReason::WouldDeadlock);
                true
            }
            // Booked as lost already.
            SendError::TooHeavy(_) => true,
        }
    }

    /// Ends the stream and the listener.
    pub(crate) fn end(&self, verdict: Result<Verdict, Panicked>) {
        match verdict {
            Ok(Verdict::Finished) => {
                self.core.finish(Ending::Finished);
                self.sender.close();
            }
            Ok(Verdict::Failed(error)) => {
                let error = SourceError::new(error);
                self.core.fail(error.clone());
                self.sender.fail_with(error);
            }
            Ok(Verdict::Stopped) => self.abort(Ending::Aborted),
            Ok(Verdict::LoopGone) => self.abort(Ending::LoopGone),
            Err(Panicked) => self.abort(Ending::Panicked),
        }
        self.core.stop.signal();
    }

    pub(crate) fn abort(&self, ending: Ending) {
        self.core.finish(ending);
        self.sender.end(ending);
    }
}

/// The loop of a listener's thread over one source.
pub(crate) fn pump<S: FrameSource>(source: &mut S, feed: &Feed<S::Frame>) -> Verdict {
    let core = &feed.core;
    let _nudge = core.stop.register(source.interrupter());
    loop {
        if core.stop.is_set() {
            return Verdict::Stopped;
        }
        match source.next_frame() {
            Ok(Some(frame)) => {
                count(&core.counters.frames);
                if !feed.put(frame) {
                    return Verdict::Stopped;
                }
            }
            // A nudge can look like the end.
            Ok(None) if core.stop.is_set() => return Verdict::Stopped,
            Ok(None) => return Verdict::Finished,
            Err(error) if is_tick(&error) => {}
            // A source that was woken by force may say so in its own way.
            Err(_) if core.stop.is_set() => return Verdict::Stopped,
            Err(error) => {
                if super::reader::is_framing(&error) {
                    count(&core.counters.decode_errors);
                }
                return Verdict::Failed(error);
            }
        }
    }
}

/// Drops a source, whose destructor may panic, and keeps its last counters.
pub(crate) fn release<S>(core: &Core, source: S) {
    contain("the gauge of a source", || core.freeze_gauge());
    contain("the destructor of a source", || drop(source));
}
