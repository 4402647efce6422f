//! The loop's budget: a task that always finds frames still lets its neighbours run.

use std::task::{Context, Poll};

#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(super) use tokio::task::coop::poll_proceed as proceed;

/// The model checks run without a loop.
#[cfg(any(callbridge_loom, callbridge_shuttle))]
pub(super) fn proceed(_: &mut Context<'_>) -> Poll<Permit> {
    Poll::Ready(Permit)
}

#[cfg(any(callbridge_loom, callbridge_shuttle))]
pub(super) struct Permit;

#[cfg(any(callbridge_loom, callbridge_shuttle))]
impl Permit {
    pub(super) fn made_progress(&self) {}
}

/// Spends one unit of the budget if `poll` is ready.
pub(super) fn within_budget<R>(
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<R>,
) -> Poll<R> {
    let permit = std::task::ready!(proceed(cx));
    let result = poll(cx);
    if result.is_ready() {
        permit.made_progress();
    }
    result
}
