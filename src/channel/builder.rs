//! How a channel is set up.

use super::hook::AtWork;
use super::overflow::{Fallback, Loss, LossReason, Overflow, Pressure};
use super::{DEFAULT_CAPACITY, FrameStream, Sender, connect};
use crate::sync::{SettingError, contain};
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

type Weigh<T> = Box<dyn Fn(&T) -> usize + Send + Sync>;
type LossHook<T> = Box<dyn Fn(Loss<'_, T>) + Send + Sync>;
type PressureHook = Box<dyn Fn(Pressure) + Send + Sync>;

/// The most that a frame can weigh and a budget can be: what can't be weighed is heavier.
const HEAVIEST: usize = usize::MAX - 1;

/// Sets up a channel; made by [`channel::builder`](crate::channel::builder).
///
/// # Examples
///
/// ```
/// use callbridge::{Overflow, channel};
///
/// let (sender, mut frames) = channel::builder()
///     .capacity(256)
///     .weigh(|frame: &Vec<u8>| frame.len(), 1 << 20)
///     .overflow(Overflow::DropOldest)
///     .on_loss(|loss| eprintln!("lost {} bytes: {}", loss.frame.len(), loss.reason))
///     .build()?;
/// sender.send(vec![0; 100])?;
/// assert_eq!(frames.try_recv()?.len(), 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is made before `build`"]
pub struct Builder<T> {
    rules: Rules<T>,
    /// Has the channel seen from outside; known where its frames are known to be anybody's.
    observe: Option<fn(&Sender<T>)>,
}

impl<T> Builder<T> {
    pub(super) fn new() -> Self {
        Builder {
            rules: Rules {
                capacity: DEFAULT_CAPACITY,
                overflow: Overflow::default(),
                weigher: None,
                on_loss: None,
                tell_frame: OnceLock::new(),
                watermarks: None,
                batched: true,
                spins: true,
                name: None,
                turn: None,
                patience: PATIENCE,
            },
            observe: None,
        }
    }

    /// Sets a name for `Debug` output and metrics; none by default. Metrics show only channels that have one.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    ///
    /// let (_sender, frames) = channel::builder::<u8>().name("positions").build()?;
    /// assert!(format!("{frames:?}").contains("positions"));
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self
    where
        T: Send + 'static,
    {
        self.rules.name = Some(name.into().into_boxed_str());
        self.observe = Some(Sender::observe);
        self
    }

    pub(crate) fn is_named(&self) -> bool {
        self.rules.name.is_some()
    }

    /// Sets how many frames can be queued, at least 1; 64 by default.
    ///
    /// [`Overflow::Latest`] keeps one frame and [`Overflow::Unbounded`] any number, whatever is
    /// set here.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    ///
    /// let (sender, _frames) = channel::builder::<u8>().capacity(16).build()?;
    /// assert_eq!(sender.capacity(), 16);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn capacity(mut self, frames: usize) -> Self {
        self.rules.capacity = frames;
        self
    }

    /// Bounds the queued frames by their weight as well, such as bytes: its sum stays within
    /// `budget`.
    ///
    /// Capacity and budget must both have room. A frame heavier than the whole budget can never
    /// fit: its send fails with `TooHeavy`, and it counts as lost. `weigh` should be quick and give
    /// the same answer for the same frame; a frame on which it panics counts as too heavy.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::SendError;
    ///
    /// let (sender, _frames) = channel::builder().weigh(|s: &&str| s.len(), 4).build()?;
    /// sender.try_send("abc")?;
    /// assert_eq!(sender.try_send("de"), Err(SendError::Full("de")));
    /// assert_eq!(sender.try_send("abcde"), Err(SendError::TooHeavy("abcde")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn weigh(
        mut self,
        weigh: impl Fn(&T) -> usize + Send + Sync + 'static,
        budget: usize,
    ) -> Self {
        self.rules.weigher = Some(Weigher { weigh: Box::new(weigh), budget });
        self
    }

    /// Sets what a send does when the channel is full; [`Overflow::Block`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::{Overflow, channel};
    /// use callbridge::channel::Sent;
    ///
    /// let (sender, mut frames) = channel::builder().overflow(Overflow::Latest).build()?;
    /// sender.send("old")?;
    /// sender.send("new")?;
    /// assert_eq!(frames.try_recv()?, "new");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.rules.overflow = overflow;
        self
    }

    /// Sets a hook that runs exactly once for every lost frame.
    ///
    /// It runs on the thread that finds the loss (a sender's, or the one that drops the stream),
    /// with no lock held, so it may send, look at the counters, or block that thread. What it sends
    /// into its own channel and is lost in turn is counted, but not told: the hook doesn't run
    /// inside itself on one thread. A panic in it is contained and reported, and the channel goes
    /// on.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::LossReason;
    /// use std::sync::mpsc;
    ///
    /// let (report, losses) = mpsc::channel();
    /// let (sender, frames) = channel::builder()
    ///     .on_loss(move |loss: channel::Loss<'_, u8>| {
    ///         report.send((*loss.frame, loss.reason)).unwrap();
    ///     })
    ///     .build()?;
    /// sender.send(7)?;
    /// drop(frames);
    /// assert_eq!(losses.try_recv(), Ok((7, LossReason::ConsumerDropped)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_loss(mut self, hook: impl Fn(Loss<'_, T>) + Send + Sync + 'static) -> Self {
        self.rules.on_loss = Some(Box::new(hook));
        self
    }

    /// Sets a hook that tells a source when to pause: [`Pressure::High`] when the queue has grown
    /// to `high` frames, then [`Pressure::Low`] when it has shrunk to `low`, and so on in turns.
    ///
    /// `low < high <= capacity`. The hook runs on the thread that crosses the mark, with no lock
    /// held, and is told the newest state: crossings that undo each other before anybody could tell
    /// them are left out. A source may wait in it for the other mark. If a mark is crossed while the
    /// hook is still at work on another thread, the two calls overlap, and when they are over the
    /// newest state is told once more, so that what the hook did last is right. A panic in it is
    /// contained and reported.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::Pressure;
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    ///
    /// let paused = Arc::new(AtomicBool::new(false));
    /// let flag = paused.clone();
    /// let (sender, _frames) = channel::builder()
    ///     .capacity(4)
    ///     .watermarks(1, 3, move |p| flag.store(p == Pressure::High, Ordering::Relaxed))
    ///     .build()?;
    /// for frame in 0..3 {
    ///     sender.send(frame)?;
    /// }
    /// assert!(paused.load(Ordering::Relaxed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watermarks(
        mut self,
        low: usize,
        high: usize,
        hook: impl Fn(Pressure) + Send + Sync + 'static,
    ) -> Self {
        self.rules.watermarks = Some(Watermarks { low, high, hook: Box::new(hook) });
        self
    }

    /// Sets whether a waiting sender or receiver may spin for some microseconds before it parks;
    /// `true` by default.
    ///
    /// An awaiting consumer leaves a busy source alone for up to 2 µs, holding up its event loop
    /// meanwhile, and then takes what has come together. A sender without room spins for at most
    /// 30 µs. Either does so only while that has been paying off: where frames or room come later than
    /// that it sleeps at once, and tries again ever more rarely, down to one wait in 1 024. On a single
    /// core, and in a channel that weighs, evicts or has watermarks, it never does.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    ///
    /// let (sender, mut frames) = channel::builder().spin_before_park(false).build()?;
    /// sender.send(1)?;
    /// assert_eq!(frames.try_recv(), Ok(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spin_before_park(mut self, allowed: bool) -> Self {
        self.rules.spins = allowed;
        self
    }

    /// Serves threads by other turns, and has them wait patiently for another time.
    #[cfg(all(test, not(callbridge_shuttle)))]
    pub(super) fn turns(mut self, turn: usize, patience: Duration) -> Self {
        self.rules.turn = Some(turn);
        self.rules.patience = patience;
        self
    }

    /// Makes the channel.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] names the setting that can't be.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    ///
    /// let refused = channel::builder::<u8>().capacity(0).build();
    /// assert_eq!(refused.unwrap_err().setting(), "capacity");
    /// ```
    pub fn build(self) -> Result<(Sender<T>, FrameStream<T>), SettingError> {
        let mut rules = self.rules;
        rules.name.as_deref().map_or(Ok(()), SettingError::check_name)?;
        match rules.overflow {
            Overflow::Latest => rules.capacity = 1,
            Overflow::Unbounded if rules.weigher.is_some() => {
                return Err(SettingError::new(
                    "weigh",
                    "has no use in an unbounded channel: choose another policy, or leave it out",
                ));
            }
            Overflow::Unbounded => rules.capacity = usize::MAX,
            _ if rules.capacity == 0 => {
                let why = "is 0, but every frame passes through the queue: allow at least 1";
                return Err(SettingError::new("capacity", why));
            }
            _ => {}
        }
        if matches!(rules.weigher, Some(Weigher { budget: 0, .. })) {
            return Err(SettingError::new("weigh", "has a budget of 0: it must be at least 1"));
        }
        if let Some(Watermarks { low, high, .. }) = rules.watermarks {
            let capacity = rules.capacity;
            if low >= high {
                let why = format!(
                    "are out of order: the low one ({low}) must lie below the high one ({high})"
                );
                return Err(SettingError::new("watermarks", why));
            }
            if high > capacity {
                let why = format!(
                    "can't be reached: the high one ({high}) is above the capacity ({capacity})"
                );
                return Err(SettingError::new("watermarks", why));
            }
        }
        rules.batched = rules.weigher.is_none()
            && rules.watermarks.is_none()
            && !matches!(
                rules.overflow,
                Overflow::DropOldest
                    | Overflow::Latest
                    | Overflow::BlockFor(_, Fallback::DropOldest)
            );
        rules.spins &= rules.batched;
        if !rules.batched {
            rules.turn = None;
        } else if rules.turn.is_none() && rules.capacity != usize::MAX {
            let turn = (rules.capacity / TURNS).next_power_of_two();
            rules.turn = Some(turn).filter(|turn| *turn > 1);
        }
        let (sender, frames) = connect(rules);
        if let Some(observe) = self.observe {
            observe(&sender);
        }
        Ok((sender, frames))
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.rules.name)
            .field("capacity", &self.rules.capacity)
            .field("overflow", &self.rules.overflow)
            .finish_non_exhaustive()
    }
}

/// What a channel was set up to do; never changes.
pub(super) struct Rules<T> {
    pub(super) capacity: usize,
    pub(super) overflow: Overflow,
    weigher: Option<Weigher<T>>,
    on_loss: Option<LossHook<T>>,
    /// Tells a lost frame itself, if frames of this channel want to know.
    pub(super) tell_frame: OnceLock<fn(&T, LossReason)>,
    pub(super) watermarks: Option<Watermarks>,
    /// Whether the consumer takes all there is at once (see `queue`).
    pub(super) batched: bool,
    /// Whether the ends pause (see `backoff`).
    pub(super) spins: bool,
    pub(super) name: Option<Box<str>>,
    /// After so many frames, a power of two, one of the senders that wait patiently has its turn; `None` if
    /// all are in a hurry.
    pub(super) turn: Option<usize>,
    /// How long a thread waits patiently.
    pub(super) patience: Duration,
}

/// So many turns there are while the consumer goes through a full channel.
const TURNS: usize = 8;

/// A sender that finds room may take it while others wait, but not for longer than this.
const PATIENCE: Duration = Duration::from_micros(1_250);

struct Weigher<T> {
    weigh: Weigh<T>,
    budget: usize,
}

pub(super) struct Watermarks {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) hook: PressureHook,
}

impl<T> Rules<T> {
    /// What a frame weighs; `None` in an unweighed channel.
    pub(super) fn weigh(&self, frame: &T) -> Option<usize> {
        let weigher = self.weigher.as_ref()?;
        let weight = contain("a weigh function", || (weigher.weigh)(frame));
        Some(weight.map_or(usize::MAX, |weight| weight.min(HEAVIEST)))
    }

    pub(super) fn weighs(&self) -> bool {
        self.weigher.is_some()
    }

    pub(super) fn budget(&self) -> usize {
        self.weigher.as_ref().map_or(HEAVIEST, |weigher| weigher.budget.min(HEAVIEST))
    }

    /// Tells the frame and the loss hook, unless that is at work on this thread: then the loss is its own. It has
    /// been counted.
    pub(super) fn tell_loss(&self, frame: &T, reason: LossReason) {
        if let Some(tell_frame) = self.tell_frame.get() {
            tell_frame(frame, reason);
        }
        let Some(hook) = &self.on_loss else { return };
        if let Some(_at_work) = AtWork::begin(hook) {
            contain("a loss hook", || hook(Loss { frame, reason }));
        }
    }
}
