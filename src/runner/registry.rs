//! The contexts that are entered and not exited.
//!
//! Invariants:
//! 1. An entry stays in the list, in its place, until its exit is over. Whoever takes its `end` tells
//!    the context to exit; whoever takes its `call` waits for that, and puts it back if it waits in
//!    vain: a guard, or the closer.
//! 2. Once `closed`, nothing is registered.
//! 3. Contexts are told, waited for and dropped without the lock.

use super::outcome::{ExitError, Outcome};
use crate::future::{BlockingFuture, FutureState, Promise, ResultError};
use crate::sync::{Deadline, Monitor};
use std::collections::BTreeMap;
use std::error::Error;
use std::panic::Location;
use std::time::Duration;

/// The most errors of dropped guards that are kept; more are only counted.
const MAX_KEPT: usize = 64;

type Site = &'static Location<'static>;

pub(super) type ExitCall = BlockingFuture<Result<(), Box<dyn Error + Send + Sync>>>;

pub(super) struct Registry {
    contexts: Monitor<Contexts>,
}

#[derive(Default)]
struct Contexts {
    /// In order of entering.
    entered: BTreeMap<u64, Entry>,
    /// Those whose guards could not wait for the exit.
    left: Vec<u64>,
    tally: Tally,
    last: u64,
    closed: bool,
}

/// How the exits went that no caller was told of.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) errors: Vec<ExitError>,
    pub(super) more_errors: usize,
}

impl Tally {
    /// Keeps an error, or counts it and gives it back.
    fn add(&mut self, error: ExitError) -> Option<ExitError> {
        if self.errors.len() < MAX_KEPT {
            self.errors.push(error);
            return None;
        }
        self.more_errors += 1;
        Some(error)
    }
}

/// One context.
pub(super) struct Entry {
    location: Site,
    end: Option<Promise<Outcome>>,
    call: Option<ExitCall>,
}

impl Entry {
    pub(super) fn new(location: Site, end: Promise<Outcome>, call: ExitCall) -> Self {
        Entry { location, end: Some(end), call: Some(call) }
    }

    /// Tells the context to exit, once.
    pub(super) fn signal(&mut self, outcome: Outcome) {
        if let Some(end) = self.end.take() {
            end.resolve(Ok(outcome));
        }
    }

    /// Why the context's task gave no value; for a task that ended before it was entered.
    pub(super) fn into_failure(self) -> ResultError {
        match self.call.map(|mut call| call.result(None)) {
            Some(Err(error)) => error,
            _ => ResultError::LoopClosed,
        }
    }
}

/// How an exit went, as far as it was waited for.
enum Exited {
    Over(Result<(), ExitError>),
    NotYet(ExitError),
}

fn exited(location: Site, call: &mut ExitCall, timeout: Option<Duration>) -> Exited {
    match call.result(timeout) {
        Ok(Ok(())) => Exited::Over(Ok(())),
        Ok(Err(error)) => Exited::Over(Err(ExitError::new(location, error))),
        Err(error @ (ResultError::TimedOut { .. } | ResultError::WouldDeadlock)) => {
            Exited::NotYet(ExitError::new(location, error.into()))
        }
        Err(error) => Exited::Over(Err(ExitError::new(location, error.into()))),
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        Registry { contexts: Monitor::new(Contexts::default()) }
    }

    /// Enters a context; hands it back once the runner closes.
    pub(super) fn register(&self, entry: Entry) -> Result<u64, Entry> {
        let (entered, over) = self.contexts.with(|contexts| {
            if contexts.closed {
                return (Err(entry), Vec::new());
            }
            contexts.last += 1;
            contexts.entered.insert(contexts.last, entry);
            (Ok(contexts.last), contexts.take_over())
        });
        over.into_iter().for_each(|entry| self.keep_last_word(entry));
        entered
    }

    /// Takes a context out that wasn't entered after all.
    pub(super) fn remove(&self, id: u64) -> Option<Entry> {
        self.contexts.change(|contexts| contexts.entered.remove(&id))
    }

    /// Tells a context to exit, and waits for that at most `timeout`; one that takes longer is left
    /// to the close, and one that the close has told is its affair. With `keep`, an error is kept for
    /// the close report instead of returned.
    pub(super) fn exit(
        &self,
        id: u64,
        outcome: Outcome,
        timeout: Option<Duration>,
        keep: bool,
    ) -> Result<(), ExitError> {
        let Some((location, end, mut call)) = self.contexts.with(|contexts| {
            let entry = contexts.entered.get_mut(&id)?;
            let end = entry.end.take()?;
            entry.call.take().map(|call| (entry.location, end, call))
        }) else {
            return Ok(());
        };
        end.resolve(Ok(outcome));
        let exited = exited(location, &mut call, timeout);
        let (entry, _call) = self.contexts.change(|contexts| match &exited {
            Exited::Over(_) => (contexts.entered.remove(&id), Some(call)),
            Exited::NotYet(_) => {
                contexts.left.push(id);
                (None, contexts.put_back(id, call))
            }
        });
        match exited {
            Exited::Over(Err(error)) if keep => {
                // The closer that has taken the entry out has told that it is late.
                if entry.is_some() {
                    self.keep(error);
                }
                Ok(())
            }
            Exited::Over(result) => result,
            Exited::NotYet(error) => Err(error),
        }
    }

    fn keep(&self, error: ExitError) {
        let _surplus = self.contexts.with(|contexts| contexts.tally.add(error));
    }

    /// Keeps the error of an exit that nobody waits for any more; one that isn't over is one.
    fn keep_last_word(&self, mut entry: Entry) {
        let location = entry.location;
        match entry.call.as_mut().map(|call| exited(location, call, Some(Duration::ZERO))) {
            Some(Exited::Over(Ok(()))) => {}
            Some(Exited::Over(Err(error))) => self.keep(error),
            Some(Exited::NotYet(_)) | None => {
                let late = ResultError::TimedOut { state: FutureState::Abandoned };
                self.keep(ExitError::new(location, late.into()));
            }
        }
    }

    /// Exits every context, the last one entered first, each before the next is told; after
    /// `deadline` all that are left are told at once. Returns how many were told, and takes out
    /// those that are still at it.
    pub(super) fn exit_all(&self, outcome: &Outcome, deadline: Deadline) -> (usize, Vec<Entry>) {
        self.contexts.with(|contexts| contexts.closed = true);
        let (mut told, mut below) = (0, u64::MAX);
        loop {
            let next = self.contexts.with(|contexts| {
                let (id, entry) = contexts.entered.range_mut(..below).next_back()?;
                Some((*id, entry.location, entry.end.take(), entry.call.take()))
            });
            let Some((id, location, end, call)) = next else { break };
            below = id;
            if let Some(end) = end {
                end.resolve(Ok(outcome.clone()));
                told += 1;
            }
            match call {
                Some(call) => self.wait_for_exit(id, location, call, deadline),
                // A guard is at it; an exit that it can't wait for comes back.
                None => {
                    let back = |contexts: &mut Contexts| match contexts.entered.get(&id) {
                        Some(entry) => entry.call.is_some().then_some(id + 1),
                        None => Some(id),
                    };
                    below = self.contexts.wait(deadline, back).unwrap_or(id);
                }
            }
        }
        let late = self.contexts.with(|contexts| std::mem::take(&mut contexts.entered));
        (told, late.into_values().rev().collect())
    }

    fn wait_for_exit(&self, id: u64, location: Site, mut call: ExitCall, deadline: Deadline) {
        match exited(location, &mut call, deadline.remaining()) {
            Exited::Over(result) => {
                drop(self.remove(id));
                result.err().into_iter().for_each(|error| self.keep(error));
            }
            Exited::NotYet(_) => drop(self.contexts.with(|contexts| contexts.put_back(id, call))),
        }
    }

    /// The errors so far, those of late exits included.
    pub(super) fn settle(&self, late: Vec<Entry>) -> Tally {
        late.into_iter().for_each(|entry| self.keep_last_word(entry));
        self.contexts.with(|contexts| std::mem::take(&mut contexts.tally))
    }
}

impl Contexts {
    /// Gives an exit back to whoever waits for it next; gives it to the caller if nobody will.
    fn put_back(&mut self, id: u64, call: ExitCall) -> Option<ExitCall> {
        match self.entered.get_mut(&id) {
            Some(entry) => entry.call.replace(call),
            None => Some(call),
        }
    }

    /// Takes out what has exited since its guard left it.
    fn take_over(&mut self) -> Vec<Entry> {
        let mut over = Vec::new();
        self.left.retain(|id| {
            let done = |entry: &Entry| entry.call.as_ref().is_some_and(BlockingFuture::is_done);
            match self.entered.get(id).map(done) {
                Some(false) => true,
                Some(true) => {
                    over.extend(self.entered.remove(id));
                    false
                }
                None => false,
            }
        });
        over
    }
}
