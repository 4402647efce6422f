//! The handle of a forwarder, and its settings.

use crate::driver::{Driver, Hooks};
use crate::id::MessageId;
use crate::publish::{Fault, Message, Publish};
use crate::report::{ForwarderEnding, ForwarderReport};
use crate::stats::ForwarderStats;
use crate::window::{Rules, Window};
use callbridge::channel::{FrameStream, Tracked};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Carries the frames of a [`FrameStream`] into an engine, each until the engine has acknowledged it.
///
/// Frames are read while the window has room. So an engine that is away or full fills the window, then the
/// channel, and then the channel's policy decides: `Block` holds the source back, `DropOldest` loses there,
/// counted. Frames are stored in the order of the stream, whatever fails and is tried again.
///
/// It runs as a task of the runtime that [`start`](ForwarderBuilder::start) is called in. Dropping the
/// handle ends it at once; what is in flight is left.
///
/// # Examples
///
/// ```no_run
/// use callbridge_relay::{Forwarder, Message, nats::JetStream};
/// use std::time::Duration;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, frames) = callbridge::channel::channel::<String>(1024);
/// let engine = JetStream::connect("127.0.0.1:4222", Default::default(), "METERS").await?;
/// let forwarder = Forwarder::builder(frames, |line: &String| Message::new("meters.7", line.clone()))
///     .window(256)
///     .start(engine)
///     .await?;
/// std::thread::spawn(move || sender.send("230.1 V".to_owned()));
/// // ... and at the end:
/// println!("{}", forwarder.close(Duration::from_secs(5)).await);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it ends it"]
pub struct Forwarder {
    stats: Arc<Mutex<ForwarderStats>>,
    stop: watch::Sender<Stop>,
    task: JoinHandle<ForwarderReport>,
    report: Option<ForwarderReport>,
}

/// What the handle asks of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    /// Take no more frames, settle those that there are, end at this time at the latest.
    Drain(Option<Instant>),
}

impl Forwarder {
    /// A forwarder of `frames`; `encode` makes the message of a frame, at each try.
    ///
    /// A frame whose `encode` panics is rejected.
    pub fn builder<T, E>(frames: FrameStream<T>, encode: E) -> ForwarderBuilder<T>
    where
        T: Send + 'static,
        E: Fn(&T) -> Message + Send + 'static,
    {
        ForwarderBuilder::new(frames, Box::new(encode))
    }

    /// As [`builder`](Self::builder), of frames whose senders wait for their receipts: each is done once
    /// the engine has acknowledged it, in order.
    pub fn tracked<T, E>(frames: FrameStream<Tracked<T>>, encode: E) -> ForwarderBuilder<Tracked<T>>
    where
        T: Send + 'static,
        E: Fn(&T) -> Message + Send + 'static,
    {
        ForwarderBuilder::new(frames, Box::new(move |frame: &Tracked<T>| encode(frame)))
            .on_acknowledged(|frame| drop(frame.done()))
    }

    /// The counters, as they were when the task last went to wait.
    pub fn stats(&self) -> ForwarderStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the source has ended and everything is settled.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn finished(&mut self) -> ForwarderReport {
        if self.report.is_none() {
            let ended = (&mut self.task).await;
            self.report = Some(ended.unwrap_or_else(|_| ForwarderReport {
                ending: ForwarderEnding::LoopGone,
                left: Vec::new(),
                stats: self.stats(),
            }));
        }
        self.report.clone().expect("it was just put there")
    }

    /// Takes no more frames, has those that there are settled, and ends, at `timeout` with what is left.
    ///
    /// Senders get their frames back. None and `Duration::MAX` wait for ever, zero ends at once.
    pub async fn close(mut self, timeout: impl Into<Option<Duration>>) -> ForwarderReport {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        self.stop.send_replace(Stop::Drain(deadline));
        self.finished().await
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// The settings of a [`Forwarder`].
#[must_use]
pub struct ForwarderBuilder<T> {
    frames: FrameStream<T>,
    hooks: Hooks<T>,
    rules: Rules,
    run: Option<Arc<str>>,
    give_up_after: Option<Duration>,
}

impl<T: Send + 'static> ForwarderBuilder<T> {
    fn new(frames: FrameStream<T>, encode: Box<dyn Fn(&T) -> Message + Send>) -> Self {
        let rules = Rules {
            limit: 256,
            attempt_timeout: Duration::from_secs(5),
            first_backoff: Duration::from_millis(20),
            longest_backoff: Duration::from_secs(2),
        };
        let hooks = Hooks {
            encode,
            sequence: None,
            acknowledged: Box::new(drop),
            rejected: Box::new(|_, _, _| {}),
        };
        ForwarderBuilder { frames, hooks, rules, run: None, give_up_after: None }
    }

    /// The most frames in flight; 256 unless set.
    pub fn window(mut self, frames: usize) -> Self {
        self.rules.limit = frames;
        self
    }

    /// How long an attempt may go unanswered before it is made again; 5 s unless set.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.rules.attempt_timeout = timeout;
        self
    }

    /// The pause after a failure, which doubles with each that follows, and its limit; 20 ms and 2 s
    /// unless set.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.rules.first_backoff = first;
        self.rules.longest_backoff = longest;
        self
    }

    /// Ends the forwarder when nothing could be stored for this long; it goes on for ever unless set.
    ///
    /// What it has then is left, as the report says, and the channel ends.
    pub fn give_up_after(mut self, time: Duration) -> Self {
        self.give_up_after = Some(time);
        self
    }

    /// Names the run that the ids begin with; one of its own unless set.
    ///
    /// A source that sends again after a restart what was not acknowledged needs a name that stays, and
    /// [numbers of its own](Self::sequence): what is stored already is then not stored again.
    pub fn run(mut self, name: impl Into<Arc<str>>) -> Self {
        self.run = Some(name.into());
        self
    }

    /// The source's own number of a frame, which must rise; frames are counted from 1 unless set.
    pub fn sequence(mut self, number: impl Fn(&T) -> u64 + Send + 'static) -> Self {
        self.hooks.sequence = Some(Box::new(number));
        self
    }

    /// Gets each frame that the engine has acknowledged, in order; they are dropped unless set.
    pub fn on_acknowledged(mut self, hook: impl FnMut(T) + Send + 'static) -> Self {
        self.hooks.acknowledged = Box::new(hook);
        self
    }

    /// Gets each frame that the engine will never take, with its id and the reason. It is not sent again.
    pub fn on_rejected(mut self, hook: impl FnMut(T, MessageId, &Fault) + Send + 'static) -> Self {
        self.hooks.rejected = Box::new(hook);
        self
    }

    /// Looks whether the engine is there, and begins.
    ///
    /// # Errors
    ///
    /// If a setting is none, or the engine can't be bound to. The frames are gone then.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start<P: Publish>(self, mut engine: P) -> Result<Forwarder, StartError> {
        self.check()?;
        let bound = engine.bind().await.map_err(StartError::Engine)?;
        let run = self.run.clone().unwrap_or_else(own_run);
        let window = Window::new(self.rules, Arc::clone(&run), &bound);
        let (stop, stopped) = watch::channel(Stop::No);
        let stats = Arc::default();
        let driver = Driver::new(
            self.frames,
            window,
            engine,
            self.hooks,
            run,
            self.give_up_after,
            stopped,
            Arc::clone(&stats),
        );
        let task = tokio::spawn(driver.run());
        Ok(Forwarder { stats, stop, task, report: None })
    }

    fn check(&self) -> Result<(), StartError> {
        if self.rules.limit == 0 {
            return Err(StartError::Setting("window", "at least one frame must be in flight"));
        }
        if self.rules.attempt_timeout.is_zero() {
            return Err(StartError::Setting("attempt_timeout", "an attempt takes time"));
        }
        if self.rules.first_backoff.is_zero()
            || self.rules.longest_backoff < self.rules.first_backoff
        {
            return Err(StartError::Setting("backoff", "0 < first <= longest"));
        }
        if self.run.as_deref() == Some("") {
            return Err(StartError::Setting("run", "it needs a name"));
        }
        Ok(())
    }
}

impl<T> fmt::Debug for ForwarderBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwarderBuilder")
            .field("rules", &self.rules)
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// A name that no other run has: the time and the process.
fn own_run() -> Arc<str> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id()).into()
}

/// A forwarder could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting can't be.
    #[error("{0}: {1}")]
    Setting(&'static str, &'static str),
    /// The engine isn't there, or not as it must be.
    #[error("can't bind to the engine")]
    Engine(#[source] Fault),
}
