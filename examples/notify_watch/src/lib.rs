//! notify, which watches files with a thread of its own, as an async stream.
//!
//! notify calls its handler on the thread that reads the kernel's queue of events. A handler that
//! waits stops the reading; then the kernel's queue (on Linux `fs.inotify.max_queued_events`) runs
//! over, and the kernel drops what comes, without a word on what it was. A call of `watch` or
//! `unwatch` meanwhile waits for the same thread. So the handler here never waits
//! ([`Overflow::DropNewest`]): events are lost where they are counted, and the consumer is told to
//! look for itself, just as after an overflow in the kernel ([`Change::Rescan`]).

use callbridge::channel::Stats;
use callbridge::{FrameStream, Overflow, Sender, channel};
use notify::event::Flag;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A watch on a directory. Dropping it asks notify's thread to end, and the stream ends with it.
#[derive(Debug)]
pub struct Watch {
    /// What owns the thread.
    watcher: RecommendedWatcher,
    directory: PathBuf,
    handled: Arc<Tally>,
}

impl Watch {
    /// Watches `directory`; the stream holds `capacity` events.
    ///
    /// # Blocking
    ///
    /// Waits for notify's thread, as `stop` does: async code calls it through `to_thread`.
    ///
    /// # Errors
    ///
    /// notify's, if the system doesn't watch.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0.
    pub fn start(directory: PathBuf, capacity: usize) -> notify::Result<(Watch, Changes)> {
        let (sender, events) = channel::builder()
            .capacity(capacity)
            .overflow(Overflow::DropNewest)
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        let handled = Arc::new(Tally::default());
        let mut watcher = notify::recommended_watcher(handler(sender, Arc::clone(&handled)))?;
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        Ok((Watch { watcher, directory, handled }, Changes { events, lost: 0 }))
    }

    /// What notify gave its handler, taken before the bridge.
    pub fn handled(&self) -> &Arc<Tally> {
        &self.handled
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Unregisters the directory, and ends the watch.
    ///
    /// # Blocking
    ///
    /// Waits for notify's thread, so until the handler, if it is running, has returned.
    ///
    /// # Errors
    ///
    /// notify's.
    pub fn stop(mut self) -> notify::Result<()> {
        self.watcher.unwatch(&self.directory)
    }
}

/// What notify's thread runs. It never waits.
fn handler(
    sender: Sender<Event>,
    handled: Arc<Tally>,
) -> impl Fn(notify::Result<Event>) + Send + 'static {
    let hand_over = sender.callback();
    move |event| match event {
        Ok(event) => {
            handled.add(&event);
            hand_over(event);
        }
        Err(error) => {
            sender.fail(error);
        }
    }
}

/// What the consumer gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something happened to a file.
    Event(Event),
    /// Events were lost, in the kernel or for want of room: look at the directory.
    Rescan,
}

/// The changes, in the order in which notify told them.
#[derive(Debug)]
pub struct Changes {
    events: FrameStream<Event>,
    /// The losses that were told.
    lost: u64,
}

impl Changes {
    /// The next change; `None` when the watch is gone.
    ///
    /// A loss means a full stream, so it is told when what was in the stream has been read.
    pub async fn next(&mut self) -> Option<Change> {
        if self.events.is_empty() {
            let lost = self.events.stats().lost.total();
            if lost > self.lost {
                self.lost = lost;
                return Some(Change::Rescan);
            }
        }
        let event = self.events.recv().await?;
        let overflowed = event.attrs.flag() == Some(Flag::Rescan);
        Some(if overflowed { Change::Rescan } else { Change::Event(event) })
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> Stats {
        self.events.stats()
    }
}

/// Counts and hashes events in their order, on either side of the bridge.
#[derive(Debug, Default)]
pub struct Tally(Mutex<(u64, DefaultHasher)>);

impl Tally {
    /// Adds the next event.
    pub fn add(&self, event: &Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        event.hash(&mut state.1);
    }

    /// How many events there were, and the hash of them all.
    pub fn sum(&self) -> (u64, u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.0, state.1.finish())
    }
}
