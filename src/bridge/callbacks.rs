use super::error::LoopClosed;
use super::ledger::Ledger;
use crate::future::Failure;
use crate::sync::event_loop::spawn;
use crate::sync::{Deadline, contain};
use async_channel::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;

pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// The lane of `call_soon_threadsafe`: one task on the loop that runs callbacks in order.
pub(super) struct Callbacks {
    /// The way into the lane, whose task starts with the first callback.
    entrance: OnceLock<Sender<Soon>>,
    /// Callbacks accepted and not run.
    ledger: Arc<Ledger>,
}

/// An accepted callback; its drop keeps the books, run or not.
struct Soon {
    callback: Option<Callback>,
    ledger: Arc<Ledger>,
}

impl Soon {
    fn run(mut self) {
        if let Some(callback) = self.callback.take() {
            contain("a call_soon_threadsafe callback", callback);
            self.ledger.release(None);
        }
    }
}

impl Drop for Soon {
    fn drop(&mut self) {
        if let Some(callback) = self.callback.take() {
            contain("the drop of a callback that never ran", || drop(callback));
            self.ledger.release(Some(&Failure::LoopClosed));
        }
    }
}

/// The lane's end of the queue; what is left in it goes when the loop drops the lane.
struct Exit(Receiver<Soon>);

impl Drop for Exit {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

impl Callbacks {
    pub(super) fn new() -> Self {
        Callbacks { entrance: OnceLock::new(), ledger: Arc::new(Ledger::new(usize::MAX)) }
    }

    pub(super) fn push(&self, callback: Callback, handle: &Handle) -> Result<(), LoopClosed> {
        let entrance = self.entrance.get_or_init(|| {
            let (entrance, exit) = async_channel::unbounded();
            spawn(handle, run_in_order(Exit(exit)));
            entrance
        });
        self.ledger.try_admit().map_err(|_| LoopClosed)?;
        let soon = Soon { callback: Some(callback), ledger: Arc::clone(&self.ledger) };
        entrance.try_send(soon).map_err(|_| LoopClosed)
    }

    /// Accepts no more; what is accepted still runs.
    pub(super) fn close(&self) {
        self.ledger.close();
        if let Some(entrance) = self.entrance.get() {
            entrance.close();
        }
    }

    /// Waits for what is accepted; what is left at the deadline.
    pub(super) fn wait_drained(&self, deadline: Deadline) -> usize {
        self.ledger.wait_drained(deadline)
    }

    pub(super) fn pending(&self) -> usize {
        self.ledger.in_flight()
    }
}

async fn run_in_order(exit: Exit) {
    while let Ok(soon) = exit.0.recv().await {
        soon.run();
        tokio::task::coop::consume_budget().await;
    }
}
