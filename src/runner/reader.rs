//! The loop's side of an iterator.

use crate::channel::Sender;
use futures_core::Stream;
use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::task::coop::consume_budget;

/// The most items taken in one turn, so that a stream that never waits lets others have theirs.
const MAX_BATCH: usize = 512;

/// Items that come over together.
pub(super) struct Batch<T> {
    pub(super) items: Vec<T>,
    pub(super) weight: usize,
}

/// How a round of reading ended.
enum Round {
    More,
    End,
    Panicked(Box<dyn Any + Send>),
}

/// Reads `stream` into batches, each of which is handed over when it weighs `share` or nothing more is
/// there.
pub(super) async fn read<S: Stream>(
    stream: S,
    sender: Sender<Batch<S::Item>>,
    share: usize,
    mut weigh: impl FnMut(&S::Item) -> usize,
) {
    let mut stream = pin!(stream);
    let mut likely = 0;
    loop {
        let mut batch = Batch { items: Vec::with_capacity(likely), weight: 0 };
        let round = poll_fn(|cx| fill(stream.as_mut(), cx, &mut batch, share, &mut weigh)).await;
        likely = batch.items.len();
        if likely > 0 && sender.send_async(batch).await.is_err() {
            return;
        }
        match round {
            Round::More => consume_budget().await,
            Round::End => return,
            Round::Panicked(payload) => resume_unwind(payload),
        }
    }
}

/// Takes what the stream has now; waits only while it has nothing.
fn fill<S: Stream>(
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    batch: &mut Batch<S::Item>,
    share: usize,
    mut weigh: impl FnMut(&S::Item) -> usize,
) -> Poll<Round> {
    let filled = catch_unwind(AssertUnwindSafe(|| {
        loop {
            match stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    batch.weight = batch.weight.saturating_add(weigh(&item).max(1));
                    batch.items.push(item);
                    if batch.weight >= share || batch.items.len() == MAX_BATCH {
                        return Poll::Ready(Round::More);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Round::End),
                Poll::Pending if batch.items.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Round::More),
            }
        }
    }));
    filled.unwrap_or_else(|payload| Poll::Ready(Round::Panicked(payload)))
}
