//! What the handle, the threads and the connections of one listener share.

use super::alarms::Alarms;
use super::builder::Options;
use super::source::{Gauge, Interrupter};
use super::stats::{Counters, ListenerStats};
use super::stop::{Phase, Registered, Stop};
use crate::channel::{Ending, LossReason, SendError, Sender, Sent, SourceError};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Timing, discard, event, report};
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
    /// How long handlers held the thread in their first polls.
    pub(crate) first_polls: Timing,
    /// How often a thread that can't be woken looks at its stop.
    pub(crate) poll_timeout: Duration,
    /// How long a peer that doesn't read is waited for.
    pub(crate) write_timeout: Duration,
    alarms: Mutex<Alarms>,
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
    pub(crate) fn new(options: &mut Options) -> Arc<Self> {
        let named = options.named;
        let core = Arc::new(Core {
            name: std::mem::take(&mut options.name).into_boxed_str(),
            stop: Arc::default(),
            counters: Counters::default(),
            first_polls: if named { Timing::new() } else { Timing::none() },
            poll_timeout: options.poll_timeout,
            write_timeout: options.write_timeout,
            alarms: Mutex::new(std::mem::take(&mut options.alarms)),
            outcome: Mutex::default(),
        });
        #[cfg(feature = "metrics")]
        crate::sync::observe(&core);
        core
    }

    /// The user's hooks, for the thread that owns the source.
    pub(crate) fn take_alarms(&self) -> Alarms {
        std::mem::take(&mut lock(&self.alarms))
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
        let last = gauge.read_fresh();
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
        self.end_for(ending, Phase::Stopping);
    }

    /// Notes a reason that comes from outside, and enters a phase.
    pub(crate) fn end_for(&self, ending: Ending, phase: Phase) {
        self.finish(ending);
        self.stop.raise(phase);
    }
}

/// Ends the listener when the loop that it serves goes away, or its bridge begins to close: what is in
/// flight then may still be answered.
pub(crate) struct LoopWatch(pub(crate) Arc<Core>);

impl Wake for LoopWatch {
    fn wake(self: Arc<Self>) {
        self.0.end_for(Ending::LoopClosed, Phase::Draining);
    }
}

/// How a thread's work came to its end.
pub(crate) enum Verdict {
    Finished,
    Failed(io::Error),
    /// The listener was told to stop.
    Stopped,
    /// Its connection was closed on this side.
    Closed,
    LoopClosed,
}

/// How a source ended, for its stream and its listener.
pub(crate) enum End {
    Failed(SourceError),
    Of(Ending),
}

impl End {
    /// Makes the end of a verdict; a failure is also an event.
    pub(crate) fn of(verdict: Result<Verdict, Panicked>, name: &str) -> Self {
        End::Of(match verdict {
            Ok(Verdict::Finished) => Ending::Finished,
            Ok(Verdict::Failed(error)) => {
                event(format_args!("the source of {name} failed"), &error);
                return End::Failed(SourceError::new(error));
            }
            Ok(Verdict::Stopped | Verdict::Closed) => Ending::Aborted,
            Ok(Verdict::LoopClosed) => Ending::LoopClosed,
            Err(Panicked) => Ending::Panicked,
        })
    }
}

impl Core {
    fn note(&self, end: &End) {
        match end {
            End::Failed(error) => self.fail(error.clone()),
            End::Of(ending) => self.finish(*ending),
        }
    }

    /// Ends the listener, unless it is about to, in its own time.
    pub(crate) fn conclude(&self, end: &End) {
        self.note(end);
        if self.stop.phase() == Phase::Running {
            self.stop.signal();
        }
    }
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
        let sent = self.sender.send(frame);
        self.settle(sent)
    }

    /// Sends a control frame; false once nothing more is taken.
    pub(crate) fn tell(&self, frame: T) -> bool {
        match self.sender.send_control(frame) {
            Ok(()) => true,
            Err(refused) => self.settle(Err(refused)),
        }
    }

    /// Enters what became of a frame; false once nothing more is taken.
    pub(crate) fn settle(&self, sent: Result<Sent<T>, SendError<T>>) -> bool {
        let Err(refused) = sent else { return true };
        // Nobody else will hear of a refused frame, so it becomes a loss.
        match refused {
            SendError::Closed(frame) => {
                let mut reason = LossReason::Shutdown;
                if self.sender.ending() == Some(Ending::ConsumerDropped) {
                    reason = LossReason::ConsumerDropped;
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

    /// Ends the stream when the listener enters the phase: that frees a thread that waits for room, and hands
    /// its frame back.
    pub(crate) fn ends_from(&self, phase: Phase, ending: fn(&Core) -> Option<Ending>) -> Registered
    where
        T: Send + 'static,
    {
        let (sender, core) = (self.sender.downgrade(), Arc::clone(&self.core));
        let end = move || {
            if let Some(sender) = sender.upgrade() {
                sender.end(ending(&core).unwrap_or(Ending::Aborted));
            }
        };
        self.core.stop.register(phase, Interrupter::new(end))
    }

    /// Ends the listener's own stream, and keeps why; before the consumer hears of it, who may ask then.
    pub(crate) fn end_with_listener(&self, end: &End) {
        // Found out here before the hook of the stream's end was called.
        if self.sender.ending() == Some(Ending::ConsumerDropped) {
            self.core.finish(Ending::ConsumerDropped);
        }
        self.core.note(end);
        self.end(end);
    }

    /// Ends the stream.
    pub(crate) fn end(&self, end: &End) {
        match end {
            End::Failed(error) => self.sender.fail_with(error.clone()),
            End::Of(ending) => self.sender.end(*ending),
        };
    }
}
