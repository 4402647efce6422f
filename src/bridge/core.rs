use super::builder::BridgeBuilder;
use super::counters::Counters;
use super::stall::Alarm;
use super::stats::BridgeStats;
use super::suspended::Suspended;
use super::task::Task;
use crate::future::{BlockingFuture, Origin, ResultError, SubmitError, promise_of};
use crate::sync::context::drives_a_loop;
use crate::sync::event_loop::spawn;
use crate::sync::prim::atomic::AtomicBool;
use crate::sync::prim::atomic::Ordering::Relaxed;
use crate::sync::{
    AcquirePermit, Began, Deadline, Limiter, Monitor, NoPermit, Site, Timing, WaitError, Watched,
    contain, polls_of, running_for, wait, wake,
};
use std::borrow::Cow;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What all clones of a bridge and its calls share.
pub(super) struct Core {
    pub(super) handle: Handle,
    pub(super) name: String,
    /// Who is in flight.
    pub(super) limiter: Arc<Limiter>,
    counters: Counters,
    pub(super) timings: Timings,
    /// Calls that wait to be woken.
    suspended: Suspended,
    /// Where closers wait, once `closing`.
    idle: Monitor<()>,
    closing: AtomicBool,
    /// Cancelled when the bridge begins to close or the loop goes away.
    token: CancellationToken,
    watch: Monitor<Watching>,
    /// A close is over: whoever still waits for a call waits in vain.
    given_up: Monitor<bool>,
    spins: bool,
    pub(super) alarm: Option<Alarm>,
    /// The process that the bridge was made in.
    process: u32,
}

/// How long calls took, of those that are measured.
pub(super) struct Timings {
    /// From the submission to the first poll.
    pub(super) first_poll: Timing,
    /// From the submission to the end.
    pub(super) call: Timing,
}

impl Timings {
    /// For a bridge that nobody asks.
    pub(super) fn none() -> Self {
        Timings { first_poll: Timing::none(), call: Timing::none() }
    }

    pub(super) fn new() -> Self {
        Timings { first_poll: Timing::new(), call: Timing::new() }
    }
}

/// What the task that watches the loop is for.
#[derive(Clone, Copy, Default)]
struct Watching {
    /// The last bridge has gone.
    released: bool,
    /// Somebody holds a child token, and wants to know of the loop's end after that, too.
    token_taken: bool,
}

/// Admitted and thereby submitted, or why not.
pub(super) type Admitted = Result<Began, SubmitError<()>>;

impl Origin for Core {
    fn turns(&self) -> Option<u32> {
        Some(self.counters.begun() as u32)
    }

    fn begin(&self, submitted: Began) {
        self.counters.begin();
        self.timings.first_poll.end(submitted);
    }

    fn is_ending(&self) -> bool {
        self.suspended.is_aborted()
    }

    fn suspend(&self, waker: Waker) -> Option<u32> {
        self.suspended.enter(waker)
    }

    fn cancel(&self, place: u32) {
        self.suspended.wake(place);
    }

    /// Forgets the suspended call at `place`, counts the end, and frees the room, in this order.
    #[inline]
    fn end(&self, place: Option<u32>, failure: Option<&ResultError>, submitted: Began) {
        self.timings.call.end(submitted);
        if let Some(place) = place {
            self.suspended.leave(place);
        }
        self.counters.end(failure);
        self.limiter.release();
    }

    fn settled(&self) {
        self.settle(1);
    }

    fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    fn spins(&self) -> bool {
        self.spins
    }

    fn given_up(&self) -> Option<&Monitor<bool>> {
        Some(&self.given_up)
    }
}

impl Core {
    pub(super) fn new(settings: BridgeBuilder, timings: Timings) -> Arc<Self> {
        let BridgeBuilder { handle, max_in_flight, name, spins, alarm } = settings;
        Arc::new(Core {
            handle,
            name,
            limiter: Arc::new(Limiter::new(max_in_flight)),
            counters: Counters::new(),
            timings,
            suspended: Suspended::new(),
            idle: Monitor::new(()),
            closing: AtomicBool::new(false),
            token: CancellationToken::new(),
            watch: Monitor::new(Watching::default()),
            given_up: Monitor::new(false),
            spins,
            alarm,
            process: std::process::id(),
        })
    }

    /// By what a report of running work knows the bridge.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Starts a task whose drop tells that the loop has gone; it ends when nobody wants to know.
    pub(super) fn watch_loop(self: &Arc<Self>) {
        let watch = Watch { core: Arc::clone(self), ticket: None, over: false };
        drop(spawn(&self.handle, &self.name, watch));
    }

    /// The last bridge has gone.
    pub(super) fn release(&self) {
        self.watch.change(|watching| watching.released = true);
    }

    pub(super) fn child_token(&self) -> CancellationToken {
        self.watch.with(|watching| watching.token_taken = true);
        self.token.child_token()
    }

    pub(super) fn stats(&self) -> BridgeStats {
        let limits = || {
            let left = self.limiter.left();
            (self.limiter.entered(), left)
        };
        let high_water = self.limiter.high_water();
        let stalls = self.alarm.as_ref().map_or(0, |alarm| alarm.stalls().0);
        BridgeStats { high_water, stalls, ..self.counters.stats(limits) }
    }

    fn settle(&self, calls: u64) {
        // Pairs with `begin_close`: either this sees that a closer waits, or that has seen this end.
        self.counters.settle(calls);
        if self.closing.load(Relaxed) && self.is_idle() {
            self.idle.change(|()| ());
        }
    }

    /// Counts calls that were ready at once, of which all but one had the room of the one before, and frees it.
    pub(super) fn end_ready(&self, calls: u64, again: u64) {
        if again > 0 {
            self.limiter.enter_again(again);
        }
        self.counters.finish(calls);
        self.limiter.release_many(calls);
        self.settle(calls);
    }

    /// Whether nothing is in flight and every result is there.
    pub(super) fn is_idle(&self) -> bool {
        let settled = self.counters.settled();
        self.limiter.entered() == settled
    }

    /// Ready when the bridge is idle, for one that is closing.
    pub(super) fn until_idle(&self) -> impl Future<Output = ()> + Send {
        self.idle.until(|()| self.is_idle().then_some(()))
    }

    pub(super) fn wait_idle(&self, deadline: Deadline) -> Result<(), WaitError> {
        self.idle.wait(deadline, |()| self.is_idle().then_some(()))
    }

    /// Where the calls were submitted that are inside a poll or a destructor.
    pub(super) fn running(&self) -> Vec<(Site, Option<Box<str>>)> {
        running_for(self.id()).into_iter().map(|(work, thread)| (work.site, thread)).collect()
    }

    /// Admits a call, waiting for room until the deadline.
    pub(super) fn admit(&self, deadline: Deadline) -> Admitted {
        let refused = match self.limiter.try_acquire() {
            Ok(number) => return Ok(self.timings.call.begin(|| number)),
            Err(NoPermit::Closed) => SubmitError::Closed(()),
            Err(NoPermit::Full) if deadline == Deadline::Now => SubmitError::Full(()),
            Err(NoPermit::Full) if self.is_forked() => SubmitError::Forked(()),
            Err(NoPermit::Full) => {
                let mut acquire = AcquirePermit::new(&self.limiter);
                match wait(deadline, |cx| Pin::new(&mut acquire).poll(cx)) {
                    Ok(Ok(())) => return Ok(self.timings.call.begin(|| self.limiter.entered())),
                    Ok(Err(_)) => SubmitError::Closed(()),
                    // Room that came this late: given back, it would count as a call that never ends.
                    Err(_) if acquire.leave() => return Ok(Began::UNMEASURED),
                    Err(WaitError::TimedOut) => SubmitError::TimedOut(()),
                    Err(WaitError::WouldDeadlock) => SubmitError::WouldDeadlock(()),
                }
            }
        };
        self.counters.refuse();
        Err(refused)
    }

    /// Admits a call that the calling thread polls itself, where it may.
    pub(super) fn admit_inline(&self, deadline: Deadline) -> Admitted {
        if drives_a_loop() {
            self.counters.refuse();
            return Err(SubmitError::WouldDeadlock(()));
        }
        self.admit(deadline)
    }

    /// Starts an admitted call, which was submitted at `site`, as a task of the loop.
    ///
    /// The caller is what tokio takes the task's place from.
    #[track_caller]
    pub(super) fn start<F>(
        self: &Arc<Self>,
        future: F,
        site: Site,
        submitted: Began,
    ) -> BlockingFuture<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let (promise, blocking_future) = promise_of(Arc::clone(self) as Arc<dyn Origin>);
        // A listener's handler comes from the crate's own code: tokio-console shows where by its name.
        let mut name = Cow::Borrowed(&*self.name);
        if cfg!(all(tokio_unstable, feature = "tracing")) && site != Location::caller() {
            name = Cow::Owned(format!("{name} {}:{}", site.file(), site.line()));
        }
        // On a loop that is gone, tokio drops the work here and now, which ends the call.
        let task = spawn(&self.handle, &name, Task::new(future, promise, submitted, site));
        blocking_future.keep(task)
    }

    /// Refuses new work from now on, and tells running work.
    pub(super) fn begin_close(&self) {
        self.closing.store(true, Relaxed);
        // Pairs with `settled`.
        self.counters.see_settled();
        self.limiter.close();
        contain("a waker of a child token", || self.token.cancel());
    }

    /// Releases whoever waits for a call that can't be ended: its loop isn't driven, or is blocked.
    pub(super) fn give_up(&self) {
        self.given_up.change(|given_up| *given_up = true);
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.with(|given_up| *given_up)
    }

    /// Ends whatever is left: each call on the thread that polls it, when it comes out of its poll.
    pub(super) fn abort(&self) {
        self.begin_close();
        self.suspended.abort().into_iter().for_each(wake);
    }
}

/// The task that watches the loop: tells the core that the loop has gone, when the loop drops it.
struct Watch {
    core: Arc<Core>,
    ticket: Option<u64>,
    over: bool,
}

impl Future for Watch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let over = this.core.watch.poll(&mut this.ticket, cx, |watching| {
            (watching.released && !watching.token_taken).then_some(())
        });
        this.over = over.is_ready();
        over
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over {
            self.core.abort();
        }
    }
}

impl Watched for Core {
    fn look(&self) -> Duration {
        let Some(alarm) = &self.alarm else { return Duration::from_secs(3600) };
        let is_busy = self.limiter.in_use() > 0;
        alarm.look(&self.name, polls_of(self.id()), is_busy, |back| {
            drop(spawn(&self.handle, "callbridge probe", async move { drop(back) }));
        })
    }
}
