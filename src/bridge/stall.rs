//! The alarm of a bridge: a loop that doesn't begin with new work, and a poll that holds its thread.
//!
//! The watchdog looks four times in the time after which the alarm is due. While calls are in flight it has a
//! probe on the loop, a task that does nothing: how long that takes to begin, any call would take. The polls
//! that go on are those that the threads have noted.

use super::report::StuckCall;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Poll, PollsWatched, contain, event};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// What keeps a bridge's calls from going on; told by the hook of
/// [`stall_after`](super::BridgeBuilder::stall_after).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stall {
    /// Calls are in flight, and the loop has begun with nothing new for so long: nobody drives it, or
    /// other work holds all its threads.
    Loop(Duration),
    /// A poll of a call, or of a listener's handler, has held its thread for so long.
    Poll(StuckCall, Duration),
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stall::Loop(waited) => write!(f, "the loop has begun with nothing for {waited:?}"),
            Stall::Poll(call, held) => write!(f, "a poll has been going on for {held:?}: {call}"),
        }
    }
}

type Hook = Box<dyn Fn(&Stall) + Send + Sync>;

pub(super) struct Alarm {
    after: Duration,
    /// Its panics are contained, and it is called outside of all locks.
    hook: AssertUnwindSafe<Hook>,
    seen: Mutex<Seen>,
    /// Has the threads say when a poll begins and ends.
    _polls: PollsWatched,
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("after", &self.after).finish_non_exhaustive()
    }
}

/// What the last look saw.
#[derive(Default)]
struct Seen {
    probe: Option<Probe>,
    polls: Vec<Ongoing>,
    /// Stalls that were told, and those of them that go on.
    told: u64,
    ongoing: usize,
}

struct Probe {
    sent: Instant,
    /// The loop has run it, or dropped it.
    back: Arc<AtomicBool>,
    told: bool,
}

/// A poll that goes on.
struct Ongoing {
    poll: Poll,
    /// When it was seen first.
    since: Instant,
    told: bool,
}

/// On its way through the loop.
pub(super) struct Back(Arc<AtomicBool>);

impl Drop for Back {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

impl Alarm {
    pub(super) fn limit(&self) -> Duration {
        self.after
    }

    pub(super) fn new(after: Duration, hook: Hook) -> Self {
        Alarm {
            after,
            hook: AssertUnwindSafe(hook),
            seen: Mutex::new(Seen::default()),
            _polls: PollsWatched::new(),
        }
    }

    /// Looks what there is to tell, and tells it; `spawn` sends a probe through the loop.
    pub(super) fn look(
        &self,
        bridge: &str,
        polls: Vec<Poll>,
        is_busy: bool,
        spawn: impl FnOnce(Back),
    ) -> Duration {
        let (stalls, probe) = lock(&self.seen).look(self.after, polls, is_busy);
        probe.map(spawn);
        for stall in stalls {
            event(format_args!("the bridge {bridge} has stalled"), &stall);
            contain("a stall hook", || (self.hook)(&stall));
        }
        self.after / 4
    }

    /// How many stalls there have been, and how many there are.
    pub(super) fn stalls(&self) -> (u64, usize) {
        let seen = lock(&self.seen);
        (seen.told, seen.ongoing)
    }
}

impl Seen {
    /// What is to be told now, and a probe to be sent.
    fn look(
        &mut self,
        after: Duration,
        polls: Vec<Poll>,
        is_busy: bool,
    ) -> (Vec<Stall>, Option<Back>) {
        let now = Instant::now();
        let mut stalls = Vec::new();
        self.probe.take_if(|probe| probe.back.load(Acquire));
        let mut send = None;
        match &mut self.probe {
            None if is_busy => {
                let back = Arc::new(AtomicBool::new(false));
                send = Some(Back(Arc::clone(&back)));
                self.probe = Some(Probe { sent: now, back, told: false });
            }
            // Nobody waits for the loop: one that comes later waits from then on.
            Some(probe) if !is_busy => (probe.sent, probe.told) = (now, false),
            Some(probe) if !probe.told && now - probe.sent >= after => {
                probe.told = true;
                stalls.push(Stall::Loop(now - probe.sent));
            }
            _ => {}
        }
        // The same turn of the same thread is the same poll.
        self.polls.retain(|seen| polls.iter().any(|poll| poll.is(&seen.poll)));
        for poll in polls {
            match self.polls.iter_mut().find(|seen| seen.poll.is(&poll)) {
                None => self.polls.push(Ongoing { poll, since: now, told: false }),
                Some(seen) if !seen.told && now - seen.since >= after => {
                    seen.told = true;
                    let call = StuckCall { location: poll.work.site, thread: poll.thread };
                    stalls.push(Stall::Poll(call, now - seen.since));
                }
                Some(_) => {}
            }
        }
        self.told += stalls.len() as u64;
        let polls = self.polls.iter().filter(|seen| seen.told).count();
        self.ongoing = polls + usize::from(self.probe.as_ref().is_some_and(|probe| probe.told));
        (stalls, send)
    }
}
