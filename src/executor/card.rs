use super::job::{Job, Site};
use super::token::CancelToken;
use crate::sync::prim::{Mutex, lock, thread_local};
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// What a thread is doing, for its job to find its token and for a shutdown to name the job.
pub(super) struct Card {
    name: Box<str>,
    running: Mutex<Option<(CancelToken, Site)>>,
}

thread_local! {
    static CARD: RefCell<Option<Arc<Card>>> = const { RefCell::new(None) };
}

impl Card {
    /// A card for this thread.
    pub(super) fn issue(name: &str) -> Arc<Self> {
        let card = Arc::new(Card { name: name.into(), running: Mutex::new(None) });
        CARD.with(|slot| *slot.borrow_mut() = Some(Arc::clone(&card)));
        card
    }

    pub(super) fn of_this_thread() -> Option<Arc<Self>> {
        CARD.try_with(|slot| slot.borrow().clone()).ok().flatten()
    }

    pub(super) fn note<C: ?Sized>(&self, job: &Job<C>) {
        let running = job.token_and_site();
        let before = std::mem::replace(&mut *lock(&self.running), running);
        drop(before);
    }

    pub(super) fn clear(&self) {
        let before = lock(&self.running).take();
        drop(before);
    }

    pub(super) fn token(&self) -> Option<CancelToken> {
        lock(&self.running).as_ref().map(|(token, _)| token.clone())
    }

    pub(super) fn stuck(&self) -> Option<StuckJob> {
        let location = lock(&self.running).as_ref().map(|(_, site)| *site)?;
        Some(StuckJob { location, thread: self.name.clone() })
    }
}

/// A job that didn't end in time; part of a [`ShutdownReport`](super::ShutdownReport).
///
/// # Examples
///
/// See [`ThreadPool::shutdown_blocking`](super::ThreadPool::shutdown_blocking).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StuckJob {
    /// Where the job was submitted.
    pub location: Site,
    /// The name of the thread that it blocks.
    pub thread: Box<str>,
}

impl fmt::Display for StuckJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job submitted at {} on thread {:?}", self.location, self.thread)
    }
}
