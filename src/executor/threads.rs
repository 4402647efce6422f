//! The threads of an executor: what each is doing, and how the end of all is awaited.
//!
//! Invariants:
//! 1. A thread's handle is joined once: by a thread that leaves after it, or by a close.
//! 2. A thread that leaves joins, of those that left before, only threads whose work has ended, and
//!    after its own handle can be joined: whoever has joined all handles has seen all threads end, and
//!    a thread that doesn't come out of its thread-locals' destructors holds up one other at most.
//! 3. Nothing is joined under the lock.

use super::token::CancelToken;
use crate::sync::prim::thread::JoinHandle;
use crate::sync::prim::{Mutex, lock, thread_local};
use crate::sync::{Monitor, Site};
use slab::Slab;
use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;

/// What a thread is doing, for its job to find its token and for a close to name the job.
pub(super) struct Current {
    /// The executor, by its address.
    owner: usize,
    name: Box<str>,
    running: Mutex<Option<Running>>,
}

/// A job that runs: its token, and where it was submitted.
pub(super) type Running = (CancelToken, Site);

thread_local! {
    static CURRENT: RefCell<Option<Arc<Current>>> = const { RefCell::new(None) };
}

impl Current {
    pub(super) fn new(owner: usize, name: &str) -> Arc<Self> {
        Arc::new(Current { owner, name: name.into(), running: Mutex::new(None) })
    }

    /// Whether the calling thread is one of that executor's.
    pub(super) fn is_of(owner: usize) -> bool {
        let is_of = |slot: &RefCell<Option<Arc<Self>>>| {
            slot.borrow().as_ref().is_some_and(|current| current.owner == owner)
        };
        CURRENT.try_with(is_of).unwrap_or(false)
    }

    /// The calling thread runs another job inside the one that it runs, as long as the guard lives.
    pub(super) fn nested(job: Option<Running>) -> Option<Nested> {
        let current = Self::of_this_thread()?;
        let outer = std::mem::replace(&mut *lock(&current.running), job);
        Some(Nested { current, outer })
    }

    /// Says that the calling thread does it.
    pub(super) fn enter(self: &Arc<Self>) {
        CURRENT.with(|slot| *slot.borrow_mut() = Some(Arc::clone(self)));
    }

    fn of_this_thread() -> Option<Arc<Self>> {
        CURRENT.try_with(|slot| slot.borrow().clone()).ok().flatten()
    }

    pub(super) fn begin(&self, job: Option<Running>) {
        let before = std::mem::replace(&mut *lock(&self.running), job);
        drop(before);
    }

    pub(super) fn end(&self) {
        let before = lock(&self.running).take();
        drop(before);
    }

    fn token(&self) -> Option<CancelToken> {
        lock(&self.running).as_ref().map(|(token, _)| token.clone())
    }

    fn stuck(&self) -> Option<(Site, Box<str>)> {
        let site = lock(&self.running).as_ref().map(|(_, site)| *site)?;
        Some((site, self.name.clone()))
    }
}

/// See [`Current::nested`].
pub(super) struct Nested {
    current: Arc<Current>,
    outer: Option<Running>,
}

impl Drop for Nested {
    fn drop(&mut self) {
        std::mem::swap(&mut *lock(&self.current.running), &mut self.outer);
    }
}

impl CancelToken {
    /// The token of the job that runs on this thread; `None` outside of a job.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::executor::CancelToken::current().is_none(), "no job runs here");
    /// ```
    pub fn current() -> Option<Self> {
        Current::of_this_thread()?.token()
    }
}

pub(super) struct Threads {
    state: Monitor<State>,
}

struct State {
    running: Slab<Entry>,
    /// They have left, or are about to.
    ended: Vec<JoinHandle<()>>,
    /// The names of those that are being joined.
    joining: Vec<String>,
}

struct Entry {
    current: Arc<Current>,
    /// Known a moment after the thread's start.
    handle: Option<JoinHandle<()>>,
    /// The thread left before its handle was known.
    over: bool,
}

impl Threads {
    pub(super) fn new() -> Self {
        let state = State { running: Slab::new(), ended: Vec::new(), joining: Vec::new() };
        Threads { state: Monitor::new(state) }
    }

    /// Enters a thread that is about to be started.
    pub(super) fn enter(&self, current: Arc<Current>) -> usize {
        self.state.with(|state| state.running.insert(Entry { current, handle: None, over: false }))
    }

    /// The thread was started.
    pub(super) fn started(&self, key: usize, handle: JoinHandle<()>) {
        self.state.change(|state| {
            let entry = &mut state.running[key];
            if entry.over {
                state.ended.push(handle);
                return Some(state.running.remove(key));
            }
            entry.handle = Some(handle);
            None
        });
    }

    /// The thread couldn't be started.
    pub(super) fn not_started(&self, key: usize) {
        self.state.change(|state| state.running.remove(key));
    }

    /// The calling thread is about to end.
    pub(super) fn leave(&self, key: usize) {
        let ended = self.state.change(|state| {
            let entry = &mut state.running[key];
            entry.over = true;
            if let Some(own) = entry.handle.take() {
                state.running.remove(key);
                state.ended.push(own);
            }
            let (over, rest) = state.ended.drain(..).partition(is_over);
            state.ended = rest;
            let over: Vec<_> = over;
            over
        });
        ended.into_iter().for_each(join);
    }

    /// Joins all that have left, and then tells by `done`; may block as long as their thread-locals'
    /// destructors do.
    pub(super) fn join_ended(&self, done: impl FnOnce()) {
        let ended = self.state.with(|state| {
            state.joining.extend(state.ended.iter().map(name_of));
            std::mem::take(&mut state.ended)
        });
        let names: Vec<_> = ended.iter().map(name_of).collect();
        ended.into_iter().for_each(join);
        done();
        self.state.change(|state| {
            for name in names {
                let at = state.joining.iter().position(|joining| *joining == name);
                state.joining.swap_remove(at.expect("it was entered above"));
            }
        });
    }

    /// Whether there is a thread to join.
    pub(super) fn has_ended(&self) -> bool {
        self.state.with(|state| !state.ended.is_empty())
    }

    /// The names of those that haven't ended, as far as is known.
    pub(super) fn still_running(&self) -> Vec<String> {
        self.state.with(|state| {
            let running = state.running.iter().map(|(_, entry)| String::from(&*entry.current.name));
            running.chain(state.ended.iter().map(name_of)).chain(state.joining.clone()).collect()
        })
    }

    /// Ready when all have done their work.
    pub(super) fn all_ended(&self) -> impl Future<Output = ()> + Send {
        self.state.until(|state| state.running.is_empty().then_some(()))
    }

    /// Ready when all that have left have been joined.
    pub(super) fn ended_are_joined(&self) -> impl Future<Output = ()> + Send {
        self.state.until(|state| (state.ended.is_empty() && state.joining.is_empty()).then_some(()))
    }

    fn running(&self) -> Vec<Arc<Current>> {
        let all = |state: &mut State| {
            state.running.iter().map(|(_, entry)| Arc::clone(&entry.current)).collect()
        };
        self.state.with(all)
    }

    /// Tells the jobs that run that they aren't wanted any more.
    pub(super) fn cancel_running(&self) {
        self.running().iter().filter_map(|current| current.token()).for_each(|it| it.cancel());
    }

    /// Where the jobs that run were submitted, and on which threads they run.
    pub(super) fn stuck(&self) -> Vec<(Site, Box<str>)> {
        self.running().iter().filter_map(|current| current.stuck()).collect()
    }
}

fn name_of(handle: &JoinHandle<()>) -> String {
    handle.thread().name().unwrap_or_default().to_owned()
}

fn join(handle: JoinHandle<()>) {
    // What a thread runs is contained: no panic gets so far.
    let _ = handle.join();
}

/// Whether the thread's work has ended, so that only the destructors of its thread-locals are left.
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
fn is_over(handle: &JoinHandle<()>) -> bool {
    handle.is_finished()
}

/// In a model a close joins them all.
#[cfg(any(callbridge_loom, callbridge_shuttle))]
fn is_over(_: &JoinHandle<()>) -> bool {
    false
}
