//! How an executor ends: what is accepted runs until the deadline, then it is given up; its threads are
//! joined.
//!
//! The closer itself runs no job's code and joins no thread: helpers do, so that nothing of the users'
//! can hold it up beyond its deadline.

use super::core::Core;
use super::threads::Current;
use crate::bridge::{CloseReport, StuckCall};
use crate::future::lone_promise;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::thread::JoinHandle;
use crate::sync::{Deadline, Monitor, park_until};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long jobs that were told to stop are waited for after the deadline, and then threads.
const GRACE: Duration = Duration::from_millis(100);

impl<S: 'static> Core<S> {
    /// Ready when all jobs are delivered or dropped, and all threads have done their work.
    async fn ended(&self) {
        // First: a thread that is to be started is known to the workers only.
        self.workers.at_rest(|submitted| self.is_done(submitted)).await;
        self.threads.all_ended().await;
    }

    /// Tells what is running, and refuses what is queued, on a thread of its own.
    fn abort(self: &Arc<Self>) {
        let name = format!("{}-close", self.settings.name);
        let started = self.spawn(name, |core, _, current| {
            core.settings.threads.started();
            core.end_jobs(Some(current));
        });
        if started.is_err() {
            self.end_jobs(None);
        }
    }

    fn end_jobs(&self, current: Option<&Arc<Current>>) {
        // Taken out first: nobody is to begin one after the deadline, nor to be told only after the
        // destructors of others.
        let queued: Vec<_> = std::iter::from_fn(|| self.next_job()).collect();
        self.threads.cancel_running();
        for job in queued {
            current.inspect(|current| current.begin(job.running()));
            job.refuse(self.why());
            current.inspect(|current| current.end());
        }
    }

    /// Joins the threads that have left, on a thread of its own, which is to be joined at the end.
    fn start_to_join(self: &Arc<Self>) -> Option<JoinHandle<()>> {
        if !self.threads.has_ended() {
            return None;
        }
        let core = Arc::clone(self);
        let join = move || {
            core.settings.threads.started();
            core.threads.join_ended(|| core.settings.threads.stopping());
        };
        self.settings.threads.spawn(format!("{}-close", self.settings.name), join).ok()
    }
}

/// A closing under way.
struct Closing<S: 'static> {
    core: Arc<Core<S>>,
    started: Instant,
    deadline: Deadline,
    /// When it began.
    before: Progress,
}

/// What has become of the jobs at one moment.
#[derive(Clone, Copy)]
struct Progress {
    completed: u64,
    dropped: u64,
    in_flight: usize,
}

impl Progress {
    fn of<S>(core: &Core<S>) -> Self {
        let jobs = core.jobs();
        let in_flight = (jobs.queued + jobs.active) as usize;
        Progress { completed: jobs.completed, dropped: jobs.dropped, in_flight }
    }
}

impl<S: 'static> Closing<S> {
    /// Refuses new work.
    fn begin(core: &Arc<Core<S>>, timeout: Option<Duration>) -> Self {
        let (started, before) = (Instant::now(), Progress::of(core));
        core.close();
        Closing { core: Arc::clone(core), started, deadline: Deadline::after(timeout), before }
    }

    /// Whether there is nothing to wait for, or nobody who could end it.
    fn is_over(&self) -> bool {
        let core = &self.core;
        core.is_forked()
            || (core.threads.still_running().is_empty()
                && core.is_done(core.workers.count().submitted))
    }

    /// Waits, and ends what is left at the deadline, or when nobody waits for the close any more.
    fn run(&self, given_up: &Monitor<bool>) -> CloseReport {
        let core = &self.core;
        let mut given_up = pin!(given_up.until(|given_up| given_up.then_some(())));
        let mut ended = pin!(core.ended());
        let in_time = park_until(self.deadline, |cx| match ended.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => given_up.as_mut().poll(cx).map(|()| false),
        });
        let progress = Progress::of(core);
        let mut last = match self.deadline.remaining() {
            Some(left) if left < GRACE => Deadline::after(GRACE),
            _ => self.deadline,
        };
        if in_time != Some(true) {
            core.abort();
            park_until(Deadline::after(GRACE), |cx| ended.as_mut().poll(cx));
            last = Deadline::after(GRACE);
        }
        let joining = core.start_to_join();
        let mut joined = pin!(core.threads.ended_are_joined());
        let joined = park_until(last, |cx| joined.as_mut().poll(cx)).is_some();
        // It has nothing left to do.
        joining.filter(|_| joined).map(JoinHandle::join);
        self.report(progress, false)
    }

    fn report(&self, in_time: Progress, would_deadlock: bool) -> CloseReport {
        let core = &self.core;
        let (now, still_running) = (Progress::of(core), core.threads.still_running());
        let stuck = if still_running.is_empty() { Vec::new() } else { core.threads.stuck() };
        let call = |(location, thread)| StuckCall { location, thread: Some(thread) };
        CloseReport {
            drained: (in_time.completed - self.before.completed) as usize,
            cut_off: (now.dropped - in_time.dropped) as usize,
            stuck: stuck.into_iter().map(call).collect(),
            in_flight: now.in_flight,
            still_running,
            elapsed: self.started.elapsed(),
            would_deadlock,
        }
    }
}

pub(super) fn close_blocking<S>(core: &Arc<Core<S>>, timeout: Option<Duration>) -> CloseReport {
    let closing = Closing::begin(core, timeout);
    let over = closing.is_over();
    let refused = !over && (core.is_own_thread() || drives_a_loop());
    match over || refused {
        true => closing.report(closing.before, refused),
        false => closing.run(&Monitor::new(false)),
    }
}

/// Tells the helper when nobody waits any more.
struct GiveUp(Arc<Monitor<bool>>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.change(|given_up| *given_up = true);
    }
}

pub(super) async fn close<S>(core: &Arc<Core<S>>, timeout: Option<Duration>) -> CloseReport {
    let closing = Arc::new(Closing::begin(core, timeout));
    if closing.is_over() {
        return closing.report(closing.before, false);
    }
    let wait = GiveUp(Arc::new(Monitor::new(false)));
    let (promise, report) = lone_promise();
    let (waiting, given_up) = (Arc::clone(&closing), Arc::clone(&wait.0));
    let helper = core.settings.threads.spawn(format!("{}-close", core.settings.name), move || {
        let threads = &waiting.core.settings.threads;
        threads.started();
        let report = waiting.run(&given_up);
        threads.stopping();
        promise.resolve(Ok(report));
    });
    match (helper, report.await) {
        (Ok(helper), Ok(report)) => {
            // It has nothing left to do.
            let _ = helper.join();
            report
        }
        // Where the system has no thread left, the time is up at once.
        _ => {
            core.abort();
            closing.report(closing.before, false)
        }
    }
}
