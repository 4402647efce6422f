//! The contexts that are entered and not exited.
//!
//! Invariants:
//! 1. An entry has one owner: the registry, or the guard or closer that took it out. Only the owner
//!    tells the context to exit and reads how that went.
//! 2. An exit that its guard can't wait for is put back, so that its error is found at the latest by
//!    the close.
//! 3. Once `closed`, nothing is registered, and an entry put back is for the closer's second look.
//! 4. Entries are signalled, waited for and dropped without the lock.

use super::context::{ExitError, Outcome};
use crate::future::{BlockingFuture, Promise, ResultError};
use crate::sync::Deadline;
use crate::sync::prim::{Mutex, lock};
use std::error::Error;
use std::panic::Location;
use std::time::Duration;

/// The most errors of dropped guards that are kept; more are only counted.
const MAX_KEPT: usize = 64;

pub(super) type ExitCall = BlockingFuture<Result<(), Box<dyn Error + Send + Sync>>>;

pub(super) struct Registry {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// In order of entering.
    open: Vec<Entry>,
    tally: Tally,
    next: u64,
    closed: bool,
}

/// How the exits went that no caller was told of.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) errors: Vec<ExitError>,
    pub(super) more_errors: usize,
}

impl Tally {
    fn add(&mut self, error: ExitError) {
        if self.errors.len() < MAX_KEPT {
            self.errors.push(error);
        } else {
            self.more_errors += 1;
        }
    }
}

enum Exited {
    Well,
    Badly(ExitError),
    /// It wasn't waited for, or not long enough.
    NotYet(ExitError),
}

/// One context.
pub(super) struct Entry {
    id: u64,
    location: &'static Location<'static>,
    /// Taken when the context is told to exit.
    end: Option<Promise<Outcome>>,
    call: ExitCall,
}

impl Entry {
    pub(super) fn new(
        location: &'static Location<'static>,
        end: Promise<Outcome>,
        call: ExitCall,
    ) -> Self {
        Entry { id: 0, location, end: Some(end), call }
    }

    /// Tells the context to exit, once.
    pub(super) fn signal(&mut self, outcome: Outcome) {
        if let Some(end) = self.end.take() {
            end.resolve(Ok(outcome));
        }
    }

    /// Why the context's task gave no value; for a task that ended before it was entered.
    pub(super) fn into_failure(mut self) -> ResultError {
        match self.call.result(None) {
            Ok(_) => ResultError::LoopClosed,
            Err(error) => error,
        }
    }

    fn exited(&mut self, timeout: Option<Duration>) -> Exited {
        match self.call.result(timeout) {
            Ok(Ok(())) => Exited::Well,
            Ok(Err(error)) => Exited::Badly(ExitError::new(self.location, error)),
            Err(error @ (ResultError::TimedOut { .. } | ResultError::WouldDeadlock)) => {
                Exited::NotYet(ExitError::new(self.location, error.into()))
            }
            Err(error) => Exited::Badly(ExitError::new(self.location, error.into())),
        }
    }

    fn has_exited(&self) -> bool {
        self.end.is_none() && self.call.is_done()
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        Registry { books: Mutex::new(Books::default()) }
    }

    /// Enters a context in the books; hands it back once the runner closes.
    pub(super) fn register(&self, mut entry: Entry) -> Result<u64, Entry> {
        let mut books = lock(&self.books);
        if books.closed {
            return Err(entry);
        }
        let (exited, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut books.open).into_iter().partition(Entry::has_exited);
        books.open = open;
        books.next += 1;
        entry.id = books.next;
        books.open.push(entry);
        let id = books.next;
        drop(books);
        exited.into_iter().for_each(|entry| self.keep_last_word(entry));
        Ok(id)
    }

    pub(super) fn take(&self, id: u64) -> Option<Entry> {
        let mut books = lock(&self.books);
        let position = books.open.iter().position(|entry| entry.id == id)?;
        Some(books.open.remove(position))
    }

    /// Waits for an exit at most `timeout`; one that takes longer is put back. With `keep`, an
    /// error is kept for the close report instead of returned.
    pub(super) fn finish(
        &self,
        mut entry: Entry,
        timeout: Option<Duration>,
        keep: bool,
    ) -> Result<(), ExitError> {
        match entry.exited(timeout) {
            Exited::Well => Ok(()),
            Exited::NotYet(error) => {
                lock(&self.books).open.push(entry);
                Err(error)
            }
            Exited::Badly(error) if keep => {
                self.keep(error);
                Ok(())
            }
            Exited::Badly(error) => Err(error),
        }
    }

    fn keep(&self, error: ExitError) {
        lock(&self.books).tally.add(error);
    }

    fn keep_last_word(&self, mut entry: Entry) {
        if let Exited::Badly(error) | Exited::NotYet(error) = entry.exited(Some(Duration::ZERO)) {
            self.keep(error);
        }
    }

    /// Exits every context, the last one entered first, each before the next is told; after
    /// `deadline` all that are left are told at once. Returns how many were told, and those that
    /// are still at it.
    pub(super) fn exit_all(&self, outcome: &Outcome, deadline: Deadline) -> (usize, Vec<Entry>) {
        lock(&self.books).closed = true;
        let mut told = 0;
        let mut late = Vec::new();
        loop {
            let last = lock(&self.books).open.pop();
            let Some(mut entry) = last else { return (told, late) };
            entry.signal(outcome.clone());
            told += 1;
            match entry.exited(deadline.remaining()) {
                Exited::Well => {}
                Exited::Badly(error) => self.keep(error),
                Exited::NotYet(_) => late.push(entry),
            }
        }
    }

    /// The errors so far, those of late exits included.
    pub(super) fn settle(&self, late: Vec<Entry>) -> Tally {
        let put_back = std::mem::take(&mut lock(&self.books).open);
        late.into_iter().chain(put_back).for_each(|entry| self.keep_last_word(entry));
        std::mem::take(&mut lock(&self.books).tally)
    }
}
