//! A source on its thread: reading, waiting, and what its errors mean.

use super::alarms::{Alarms, OnError};
use super::core::{Core, Verdict};
use super::patience::Patience;
#[cfg(feature = "net")]
use super::server::Link;
use super::source::{FrameSource, is_framing, is_timeout, poll};
use super::stats::{count, uncount};
use super::stop::{Phase, Registered};
use super::wake::{Interest, Wake};
use crate::sync::{Deadline, contain, event};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call that answers "nothing" sooner than this hasn't waited.
const AT_ONCE: Duration = Duration::from_millis(1);

/// So many such answers in a row are taken for chance.
const CHANCE: u32 = 4;

/// The shortest and the longest pause of a source that answers at once, again and again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// How long a peer that was sent something is waited for, where nobody says otherwise.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// How long a peer that was sent nothing is waited for when this side ends.
const BRIEF_END: Duration = Duration::from_millis(200);

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// Between two frames.
    pub(crate) idle: Option<Duration>,
    /// Inside a frame.
    pub(crate) frame: Option<Duration>,
}

/// What came of asking a source.
pub(crate) enum Taken<F> {
    Frame(F),
    Nothing,
    End(Verdict),
}

/// A source and all that its thread needs to wait for it.
pub(crate) struct Driver<S: FrameSource> {
    pub(crate) core: Arc<Core>,
    pub(crate) wake: Arc<Wake>,
    _interrupters: [Registered; 2],
    pub(crate) source: S,
    #[cfg(feature = "net")]
    connection: Option<Arc<Link>>,
    limits: Limits,
    alarms: Alarms,
    /// Errors in a row that were passed over.
    failures: u32,
    /// Since when nothing has come, and since when a frame has been incomplete.
    silent_since: Option<Instant>,
    inside_since: Option<Instant>,
    told_quiet: bool,
    /// Answers of "nothing" in a row that came at once.
    hasty: u32,
    pause: Option<Deadline>,
    /// The last call waited for as long as the source does.
    has_waited: bool,
    /// Frames come fast: the source may wait by itself.
    hot: bool,
    /// How many bytes were written, of which the peer may not have the last.
    pub(crate) written: u64,
    /// The descriptor was ready as soon as it was waited for.
    was_ready: bool,
    /// The source was interrupted: it is to be asked again, whatever its descriptor tells.
    again: bool,
    /// When it last answered "nothing" for another cause than a lack of frames.
    disturbed_at: Option<Instant>,
}

impl<S: FrameSource> Driver<S> {
    pub(crate) fn new(core: &Arc<Core>, wake: Arc<Wake>, source: S) -> Self {
        let interrupters =
            [core.stop.wakes(&wake), core.stop.register(Phase::Draining, source.interrupter())];
        Driver {
            core: Arc::clone(core),
            wake,
            _interrupters: interrupters,
            source,
            #[cfg(feature = "net")]
            connection: None,
            limits: Limits::default(),
            alarms: core.take_alarms(),
            failures: 0,
            silent_since: None,
            inside_since: None,
            told_quiet: false,
            hasty: 0,
            pause: None,
            has_waited: false,
            hot: false,
            written: 0,
            was_ready: false,
            again: false,
            disturbed_at: None,
        }
    }

    /// The driver of a server's connection.
    #[cfg(feature = "net")]
    pub(crate) fn of_connection(
        core: &Arc<Core>,
        link: &Arc<Link>,
        limits: Limits,
        source: S,
    ) -> Self {
        let mut driver = Driver::new(core, Arc::clone(&link.wake), source);
        driver.connection = Some(Arc::clone(link));
        driver.limits = limits;
        driver
    }

    pub(crate) fn phase(&self) -> Phase {
        self.core.stop.phase()
    }

    /// Whether the source was, or is to be, ended on this side at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.phase() == Phase::Stopping
    }

    /// Tells whoever holds a server's connection.
    pub(crate) fn peer_is_gone(&self) {
        #[cfg(feature = "net")]
        if let Some(link) = &self.connection {
            link.peer_is_gone();
        }
    }

    /// Whether a server's connection is to be closed.
    pub(crate) fn is_closing(&self) -> bool {
        #[cfg(feature = "net")]
        return self.connection.as_ref().is_some_and(|link| link.is_closing());
        #[cfg(not(feature = "net"))]
        false
    }

    pub(crate) fn has_descriptor(&self) -> bool {
        self.source.as_fd().is_some()
    }

    /// The next frame; a source without a descriptor waits for it if it `may_wait`.
    pub(crate) fn take(&mut self, may_wait: bool) -> Taken<S::Frame> {
        self.has_waited = false;
        let was_ready = std::mem::take(&mut self.was_ready);
        match self.phase() {
            Phase::Running => {}
            Phase::Draining => {
                return match self.source.next_buffered() {
                    Ok(Some(frame)) => Taken::Frame(frame),
                    _ => Taken::End(Verdict::Stopped),
                };
            }
            Phase::Stopping => return Taken::End(Verdict::Stopped),
        }
        if self.is_closing() {
            return Taken::End(Verdict::Closed);
        }
        if self.pause.is_some_and(|pause| !pause.passed()) {
            return self.look_at_limits();
        }
        self.pause = None;
        let descriptor = self.has_descriptor();
        let waits = may_wait && (!descriptor || self.hot && self.source.waits_briefly());
        let began = (waits && !descriptor).then(Instant::now);
        let taken = if waits { self.source.next_frame() } else { self.source.next_ready() };
        match taken {
            Ok(Some(frame)) => {
                (self.failures, self.hasty) = (0, 0);
                self.hot = true;
                if self.source.is_control(&frame) {
                    // It may be quiet, but not end by it: only connections have such limits, and no such frames.
                    let _goes_on = self.look_at_limits();
                } else {
                    self.restart_limits();
                    self.is_heard_again();
                }
                Taken::Frame(frame)
            }
            // An interruption can look like the end, or like an error.
            Ok(None) | Err(_) if self.phase() != Phase::Running => Taken::End(Verdict::Stopped),
            Ok(None) => Taken::End(Verdict::Finished),
            Err(error) if is_timeout(&error) => {
                self.has_waited = waits && !descriptor;
                self.hot &= !waits;
                let at_once = match began {
                    Some(began) => began.elapsed() < AT_ONCE,
                    None if error.kind() == ErrorKind::WouldBlock => {
                        was_ready && !self.source.is_inside_frame()
                    }
                    None => {
                        let now = Instant::now();
                        let before = self.disturbed_at.replace(now);
                        before.is_some_and(|before| now - before < AT_ONCE)
                    }
                };
                self.brake(at_once);
                self.again = error.kind() == ErrorKind::Interrupted;
                self.look_at_limits()
            }
            Err(error) => self.judge(error),
        }
    }

    /// Counts an answer of "nothing"; has the next one wait if there were many at once.
    fn brake(&mut self, at_once: bool) {
        self.hasty = if at_once { self.hasty.saturating_add(1) } else { 0 };
        if self.hasty > CHANCE {
            let longest = self.core.poll_timeout.min(PAUSE.1);
            let pause = PAUSE.0.saturating_mul(1 << (self.hasty - CHANCE - 1).min(10));
            self.pause = Some(Deadline::after(pause.min(longest)));
        }
    }

    fn judge(&mut self, error: io::Error) -> Taken<S::Frame> {
        if is_framing(&error) {
            count(&self.core.counters.decode_errors);
            return Taken::End(Verdict::Failed(error));
        }
        let failures = self.failures + 1;
        let decided = self
            .alarms
            .on_error
            .as_mut()
            .and_then(|decide| contain("an error hook", || decide(&error, failures)));
        let Some(OnError::Retry(pause)) = decided else {
            return Taken::End(Verdict::Failed(error));
        };
        event(format_args!("the source of {} is tried again", self.core.name), &error);
        count(&self.core.counters.retries);
        self.failures = failures;
        self.pause = Some(Deadline::after(pause.max(AT_ONCE)));
        Taken::Nothing
    }

    /// Ends a peer that has been silent for too long, and tells of a source that has.
    fn look_at_limits(&mut self) -> Taken<S::Frame> {
        if self.limits.idle.is_none()
            && self.limits.frame.is_none()
            && self.alarms.quiet_after.is_none()
        {
            return Taken::Nothing;
        }
        let now = Instant::now();
        let silent_for = now - *self.silent_since.get_or_insert(now);
        if self.source.is_inside_frame() {
            let inside_for = now - *self.inside_since.get_or_insert(now);
            if self.limits.frame.is_some_and(|limit| inside_for >= limit) {
                return timed_out("a frame that has begun wasn't complete in time");
            }
        } else {
            self.inside_since = None;
        }
        if self.limits.idle.is_some_and(|limit| silent_for >= limit) {
            return timed_out("the peer was silent for too long");
        }
        if let Some((after, hook)) = &mut self.alarms.quiet_after {
            if silent_for >= *after && !std::mem::replace(&mut self.told_quiet, true) {
                count(&self.core.counters.went_quiet);
                count(&self.core.counters.quiet);
                event(format_args!("the source of {} has gone quiet", self.core.name), &"");
                contain("a quiet hook", hook);
            }
        }
        Taken::Nothing
    }

    fn is_heard_again(&mut self) {
        if std::mem::take(&mut self.told_quiet) {
            uncount(&self.core.counters.quiet);
        }
    }

    /// Whether the next [`take`](Self::take) that may wait does so by itself.
    pub(crate) fn is_hot(&self) -> bool {
        let by_itself = !self.has_descriptor() || self.hot && self.source.waits_briefly();
        by_itself && self.pause.is_none()
    }

    /// Says that the peer is waiting for us, so that its silence doesn't count.
    pub(crate) fn is_owed(&mut self) {
        self.silent_since = None;
    }

    /// Counts the times that a peer may take from now on.
    fn restart_limits(&mut self) {
        (self.silent_since, self.inside_since) = (None, None);
    }

    /// When the limits have to be looked at again.
    fn limit(&self) -> Option<Instant> {
        let quiet = self.alarms.quiet_after.as_ref().filter(|_| !self.told_quiet);
        let ends = [
            self.silent_since.zip(self.limits.idle),
            self.inside_since.zip(self.limits.frame),
            self.silent_since.zip(quiet.map(|(after, _)| *after)),
        ];
        ends.into_iter().flatten().filter_map(|(since, limit)| since.checked_add(limit)).min()
    }

    /// Waits until the source has something to `read` or takes what is being written, somebody wakes the
    /// thread, or the deadline passes. A source without a descriptor that hasn't waited is looked at again
    /// after a poll timeout.
    pub(crate) fn wait(&mut self, mut read: bool, writing: &Patience, deadline: Deadline) {
        let (mut write, mut deadline) = (writing.is_waiting(), deadline.or(writing.deadline()));
        self.hot = false;
        if !read {
            self.restart_limits();
        } else if let Some(limit) = self.limit() {
            deadline = deadline.or_after(limit.saturating_duration_since(Instant::now()));
        }
        if let Some(pause) = self.pause.filter(|_| read) {
            (read, deadline) = (false, deadline.or(pause));
        }
        if read && std::mem::take(&mut self.again) {
            return;
        }
        if writing.is_stuck() && self.source.as_fd().is_some_and(poll::is_writable) {
            // The source could write and doesn't: it waits for something else, as TLS may.
            (write, deadline) = (false, deadline.or_after(PAUSE.0));
        }
        if let Some(fd) = self.source.as_fd().filter(|_| read || write) {
            let interest = Interest { read, write: write || read && self.source.wants_to_write() };
            let began = Instant::now();
            let ready = self.wake.wait_on(fd, interest, deadline);
            self.was_ready = ready && read && !write && began.elapsed() < AT_ONCE;
            return;
        }
        if !(read && self.has_waited) {
            let again = read || write;
            self.wake.wait(if again {
                deadline.or_after(self.core.poll_timeout)
            } else {
                deadline
            });
        }
    }

    /// Ends the write side and reads what the peer still sends, until its end or for `linger`: a socket that
    /// is closed with bytes unread takes back what it was given to send. Where nothing was, the peer is only
    /// let come to its end in peace.
    pub(crate) fn part(&mut self, linger: Duration) {
        let linger = if self.written > 0 { linger } else { linger.min(BRIEF_END) };
        let deadline = Deadline::after(linger);
        self.restart_limits();
        while let Some(parted) = contain("the end of a source", || self.source.part()) {
            let nothing_came = match parted {
                Ok(false) => false,
                Err(error) if is_timeout(&error) => true,
                Ok(true) | Err(_) => return,
            };
            if self.is_cut() || deadline.passed() {
                return;
            }
            if nothing_came {
                self.has_waited = false;
                self.pause = None;
                self.wait(true, &Patience::default(), deadline);
            }
        }
    }

    /// Drops the source, whose destructor may panic, once its peer has what was written; keeps its last counters.
    pub(crate) fn release(mut self) {
        if self.written > 0 {
            self.part(LINGER);
        }
        contain("the gauge of a source", || self.core.freeze_gauge());
        contain("the destructor of a source", || drop(self));
    }
}

/// What is over isn't quiet.
impl<S: FrameSource> Drop for Driver<S> {
    fn drop(&mut self) {
        self.is_heard_again();
    }
}

fn timed_out<F>(text: &'static str) -> Taken<F> {
    Taken::End(Verdict::Failed(io::Error::new(ErrorKind::TimedOut, text)))
}
