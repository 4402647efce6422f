//! Bridges **foreign threads** and **a tokio event loop**, both ways.
#![deny(missing_docs)]

mod bridge;
pub mod channel;
mod future;
pub mod listener;
mod sync;

pub use bridge::{
    Bridge, BridgeBuilder, BridgeStats, CloseReport, HandleExt, LoopClosed, NoCurrentLoop,
    StuckCall, SubmitTimeoutError, TrySubmitError, run_coroutine_threadsafe,
};
pub use channel::{
    Ending, FrameStream, Loss, LossReason, Overflow, Pressure, RecvBlockingError, SendError,
    SendTimeoutError, Sender, Sent, SourceError, Stats, TryRecvError, TrySendError, WeakSender,
    channel,
};
pub use future::{
    AsCompleted, AsCompletedTimeout, BlockingFuture, Canceller, FutureState, Panic, ResultError,
    ReturnWhen, WaitError, as_completed, wait,
};
pub use listener::{FrameSource, Listener};
