//! The task that moves frames: from the channel into the window, from the window into the engine.

use crate::forwarder::Stop;
use crate::id::MessageId;
use crate::panics::contained;
use crate::publish::{Attempt, Fault, Message, Publish, Said};
use crate::report::{ForwarderEnding, ForwarderReport};
use crate::stats::ForwarderStats;
use crate::window::{Settled, Window};
use callbridge::channel::FrameStream;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::sleep_until;

/// What the user has said about frames.
pub(crate) struct Hooks<T> {
    pub(crate) encode: Box<dyn Fn(&T) -> Message + Send>,
    pub(crate) sequence: Option<Box<Number<T>>>,
    pub(crate) acknowledged: Box<dyn FnMut(T) + Send>,
    pub(crate) rejected: Box<Rejected<T>>,
}

pub(crate) type Number<T> = dyn Fn(&T) -> u64 + Send;
pub(crate) type Rejected<T> = dyn FnMut(T, MessageId, &Fault) + Send;

/// How long the counters may be behind while nothing happens.
const STALE: Duration = Duration::from_millis(200);
/// An engine that needs longer to say where its end is doesn't say it.
const LONG: Duration = Duration::from_secs(30);
/// Attempts that are made before the engine is heard again.
const BURST: usize = 64;

pub(crate) struct Driver<T, P> {
    frames: FrameStream<T>,
    ended: bool,
    window: Window<T>,
    engine: P,
    hooks: Hooks<T>,
    run: Arc<str>,
    counted: u64,
    /// What the channel had handed out, or lost, before.
    before: u64,
    lost_before: u64,
    left: u64,
    /// Why what is rejected in the window is.
    reasons: HashMap<u64, Fault>,
    give_up_after: Option<Duration>,
    stop: watch::Receiver<Stop>,
    stats: Arc<Mutex<ForwarderStats>>,
}

impl<T: Send + 'static, P: Publish> Driver<T, P> {
    #[allow(clippy::too_many_arguments, reason = "the parts of a forwarder")]
    pub(crate) fn new(
        frames: FrameStream<T>,
        window: Window<T>,
        engine: P,
        hooks: Hooks<T>,
        run: Arc<str>,
        give_up_after: Option<Duration>,
        stop: watch::Receiver<Stop>,
        stats: Arc<Mutex<ForwarderStats>>,
    ) -> Self {
        let channel = frames.stats();
        Driver {
            frames,
            ended: false,
            window,
            engine,
            hooks,
            run,
            counted: 0,
            before: channel.delivered,
            lost_before: channel.lost.total(),
            left: 0,
            reasons: HashMap::new(),
            give_up_after,
            stop,
            stats,
        }
    }

    pub(crate) async fn run(mut self) -> ForwarderReport {
        let ending = self.forward().await;
        self.frames.close();
        let mut left = Vec::new();
        let mut dropped = Vec::new();
        for (sequence, frame) in self.window.take_left() {
            left.push(MessageId::new(Arc::clone(&self.run), sequence));
            dropped.push(frame);
        }
        while let Ok(frame) = self.frames.try_recv() {
            let sequence = self.number(&frame);
            left.push(MessageId::new(Arc::clone(&self.run), sequence));
            dropped.push(frame);
        }
        self.left = left.len() as u64;
        for frame in dropped {
            contained(|| drop(frame));
        }
        self.tell_stats();
        ForwarderReport { ending, left, stats: self.snapshot() }
    }

    async fn forward(&mut self) -> ForwarderEnding {
        let mut said = Vec::new();
        let mut incoming = Vec::new();
        loop {
            let now = Instant::now();
            self.window.tick(now);
            if let Some(ending) = self.must_end(now) {
                return ending;
            }
            if self.window.must_bind(now) {
                self.bind().await;
            }
            let more = self.send(now).await;
            self.settle();
            if self.ended && self.window.is_empty() {
                return ForwarderEnding::Drained;
            }
            self.tell_stats();
            let room = if self.ended { 0 } else { self.window.room() };
            let wake = if more { None } else { Some(self.wake_at(now)) };
            if !self.wait(wake, room, &mut said, &mut incoming).await {
                return ForwarderEnding::Dropped;
            }
            let now = Instant::now();
            for said in said.drain(..) {
                self.hear(said, now);
            }
            for frame in incoming.drain(..) {
                let sequence = self.number(&frame);
                self.window.push(frame, sequence);
            }
        }
    }

    /// Waits for answers, for frames if there is room, for a call to stop, and for the time if there is one;
    /// takes all there is of everything. Whether the handle is still there.
    async fn wait(
        &mut self,
        wake: Option<Instant>,
        room: usize,
        said: &mut Vec<Said>,
        incoming: &mut Vec<T>,
    ) -> bool {
        let mut stop = pin!(self.stop.changed());
        let mut outcomes = pin!(self.engine.outcomes(said));
        let mut sleep = pin!(wake.map(|wake| sleep_until(wake.into())));
        let frames = &mut self.frames;
        let mut stopped = None;
        let mut ended = false;
        poll_fn(|cx| {
            let mut ready = outcomes.as_mut().poll(cx).is_ready();
            if room > 0
                && let Poll::Ready(taken) = frames.poll_recv_many(cx, incoming, room)
            {
                ended = taken == 0;
                ready = true;
            }
            if let Poll::Ready(changed) = stop.as_mut().poll(cx) {
                stopped = Some(changed.is_ok());
                ready = true;
            }
            let late = match sleep.as_mut().as_pin_mut() {
                Some(sleep) => !ready && sleep.poll(cx).is_ready(),
                None => true,
            };
            if ready || late { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.ended |= ended;
        if stopped == Some(true) {
            self.frames.close();
        }
        stopped != Some(false)
    }

    fn must_end(&self, now: Instant) -> Option<ForwarderEnding> {
        if self.stop_at().is_some_and(|deadline| deadline <= now) {
            return Some(ForwarderEnding::TimedOut);
        }
        let failing = self.window.failing_since()?;
        let limit = self.give_up_after?;
        (now.saturating_duration_since(failing) >= limit).then_some(ForwarderEnding::GaveUp)
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut wake = now + STALE;
        for at in self.window.wake_at().into_iter().chain(self.stop_at()) {
            wake = wake.min(at);
        }
        wake
    }

    fn stop_at(&self) -> Option<Instant> {
        match *self.stop.borrow() {
            Stop::Drain(deadline) => deadline,
            Stop::No => None,
        }
    }

    async fn bind(&mut self) {
        // The engine's answer is worth waiting for, but not beyond what stops us.
        let late = self.stop_at().unwrap_or(Instant::now() + LONG);
        let bound = tokio::select! {
            bound = self.engine.bind() => bound,
            () = sleep_until(late.into()) => return,
            _ = self.stop.changed() => {
                self.stop.mark_changed();
                return;
            }
        };
        match bound {
            Ok(bound) => self.window.bound(&bound),
            Err(_) => self.window.bind_failed(Instant::now()),
        }
    }

    /// Makes attempts; whether there may be more to make.
    async fn send(&mut self, now: Instant) -> bool {
        for _ in 0..BURST {
            let Some(next) = self.window.next(now) else { return false };
            let (ticket, sequence) = (next.ticket, next.sequence);
            let attempt = Attempt { ticket, run: &self.run, sequence, after: next.after };
            let message = contained(|| (self.hooks.encode)(next.frame));
            let sent = match message {
                Some(message) => self.engine.send(attempt, message).await,
                None => Err(Fault::rejected("its encoding panicked")),
            };
            if let Err(fault) = sent {
                self.hear(Said::Outcome(ticket, Err(fault)), now);
            }
        }
        true
    }

    fn hear(&mut self, said: Said, now: Instant) {
        match said {
            Said::Outcome(ticket, Err(Fault::Rejected(why))) => {
                self.reasons.insert(ticket.place, Fault::Rejected(why));
                self.window.outcome(ticket, Err(Fault::rejected("")), now);
            }
            Said::Outcome(ticket, result) => self.window.outcome(ticket, result, now),
            Said::Interrupted => self.window.interrupted(now),
            Said::Connected => self.window.connected(),
        }
    }

    /// Gives the frames at the front to the hooks.
    fn settle(&mut self) {
        while let Some(settled) = self.window.pop() {
            match settled {
                Settled::Stored(frame) => drop(contained(|| (self.hooks.acknowledged)(frame))),
                Settled::Rejected(frame, place, sequence) => {
                    let why = self.reasons.remove(&place);
                    let why = why.unwrap_or_else(|| Fault::rejected("no reason was given"));
                    let id = MessageId::new(Arc::clone(&self.run), sequence);
                    contained(|| (self.hooks.rejected)(frame, id, &why));
                }
            }
        }
    }

    fn number(&mut self, frame: &T) -> u64 {
        self.counted += 1;
        let Some(number) = &self.hooks.sequence else { return self.counted };
        contained(|| number(frame)).unwrap_or(self.counted)
    }

    fn snapshot(&self) -> ForwarderStats {
        let channel = self.frames.stats();
        let lost = channel.lost.total() - self.lost_before + self.left;
        ForwarderStats {
            offered: channel.offered - channel.refused - self.before - self.lost_before,
            acknowledged: self.window.acknowledged,
            in_flight: self.window.len() as u64,
            queued: channel.queued,
            lost,
            rejected: self.window.rejected,
            effort: self.window.effort,
        }
    }

    fn tell_stats(&self) {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.snapshot();
    }
}
