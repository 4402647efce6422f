//! loom has no loop: each task gets a thread of its own, and nobody is a worker.

use super::{Deadline, park_until};
use std::future::Future;
use std::pin::pin;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub(crate) fn spawn(
    _: &Handle,
    _name: &str,
    task: impl Future<Output = ()> + Send + 'static,
) -> Option<JoinHandle<()>> {
    loom::thread::spawn(move || {
        let mut task = pin!(task);
        park_until(Deadline::Never, |cx| task.as_mut().poll(cx));
    });
    None
}

pub(crate) fn enter(_: &Handle) -> Option<()> {
    None
}

pub(crate) fn on_worker() -> bool {
    false
}
