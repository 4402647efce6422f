//! The event loops.

use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// A current-thread runtime on a thread of its own.
    Ct,
    /// A multi-thread runtime with one worker.
    Mt1,
    /// The same with two.
    Mt2,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::Ct => "ct",
            Flavour::Mt1 => "mt1",
            Flavour::Mt2 => "mt2",
        }
    }
}

/// A running event loop; it ends when dropped.
pub(crate) struct Loop {
    handle: Handle,
    driver: Driver,
}

enum Driver {
    Thread(Option<(oneshot::Sender<()>, JoinHandle<()>)>),
    Workers(Option<Runtime>),
}

impl Loop {
    pub(crate) fn new(flavour: Flavour) -> Self {
        let workers = match flavour {
            Flavour::Ct => {
                let runtime =
                    Builder::new_current_thread().enable_all().build().expect("a runtime");
                let handle = runtime.handle().clone();
                let (stop, stopped) = oneshot::channel();
                let thread = std::thread::spawn(move || {
                    let _ = runtime.block_on(stopped);
                });
                return Loop { handle, driver: Driver::Thread(Some((stop, thread))) };
            }
            Flavour::Mt1 => 1,
            Flavour::Mt2 => 2,
        };
        let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
        let runtime = runtime.expect("a runtime");
        Loop { handle: runtime.handle().clone(), driver: Driver::Workers(Some(runtime)) }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        match &mut self.driver {
            Driver::Thread(thread) => {
                if let Some((stop, thread)) = thread.take() {
                    let _ = stop.send(());
                    let _ = thread.join();
                }
            }
            Driver::Workers(runtime) => {
                if let Some(runtime) = runtime.take() {
                    runtime.shutdown_timeout(Duration::from_secs(5));
                }
            }
        }
    }
}
