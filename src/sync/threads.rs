//! How the crate's threads are made, and what runs on each.

use super::contain;
use super::prim::thread::{self, JoinHandle};
use std::io;
use std::sync::Arc;

/// What runs on a thread of the crate's besides its work.
type ThreadHook = Arc<dyn Fn() + Send + Sync>;

/// The settings of a thread, but for its name.
#[derive(Clone, Default)]
pub(crate) struct ThreadSettings {
    /// In bytes; `None` for what std takes.
    pub(crate) stack_size: Option<usize>,
    pub(crate) on_start: Option<ThreadHook>,
    pub(crate) on_stop: Option<ThreadHook>,
}

impl ThreadSettings {
    /// Starts a thread, whose `body` calls [`started`](Self::started) and [`stopping`](Self::stopping).
    pub(crate) fn spawn(
        &self,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder.spawn(body)
    }

    /// The first thing that runs on a thread.
    pub(crate) fn started(&self) {
        if let Some(hook) = &self.on_start {
            contain("a thread's start hook", || hook());
        }
    }

    /// The last thing that runs on a thread, but for the destructors of its thread-locals.
    pub(crate) fn stopping(&self) {
        if let Some(hook) = &self.on_stop {
            contain("a thread's stop hook", || hook());
        }
    }
}
