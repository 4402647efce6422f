use super::call::ThreadCall;
use super::job::Site;
use super::pool::ThreadPool;
use crate::future::ResultError;
use futures_core::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The results of a function over an iterator's items, in the items' order; see
/// [`ThreadPool::map`](super::ThreadPool::map).
///
/// # Cancel safety
///
/// Waiting for the next result can be given up at any time. Dropping the stream abandons the calls
/// that it holds: those that haven't begun never run.
///
/// # Examples
///
/// See [`ThreadPool::map`](super::ThreadPool::map).
#[must_use = "dropping it abandons the calls"]
pub struct Map<I: Iterator, F, T> {
    pool: ThreadPool,
    /// `None` once it has ended.
    items: Option<I>,
    function: Arc<F>,
    /// Calls made and not handed out, in order.
    calls: VecDeque<ThreadCall<T>>,
    /// The most calls held at a time.
    buffer: usize,
    site: Site,
}

impl<I, F, T> Map<I, F, T>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    pub(super) fn new(pool: ThreadPool, items: I, function: F, buffer: usize, site: Site) -> Self {
        let mut map = Map {
            pool,
            items: Some(items),
            function: Arc::new(function),
            calls: VecDeque::new(),
            buffer,
            site,
        };
        map.top_up();
        map
    }

    fn top_up(&mut self) {
        while self.calls.len() < self.buffer {
            let Some(items) = &mut self.items else { return };
            let Some(item) = items.next() else {
                self.items = None;
                return;
            };
            let function = Arc::clone(&self.function);
            let call = self.pool.call(move || function(item), self.site);
            self.calls.push_back(call);
        }
    }
}

impl<I, F, T> Stream for Map<I, F, T>
where
    I: Iterator<Item: Send + 'static> + Unpin,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = Result<T, ResultError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.top_up();
        let Some(first) = self.calls.front_mut() else { return Poll::Ready(None) };
        let Poll::Ready(result) = Pin::new(first).poll(cx) else { return Poll::Pending };
        self.calls.pop_front();
        // A pool that takes none will take none later.
        if matches!(result, Err(ResultError::Refused(_) | ResultError::Forked)) {
            self.items = None;
        }
        self.top_up();
        Poll::Ready(Some(result))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        let held = self.calls.len();
        (least.saturating_add(held), most.and_then(|most| most.checked_add(held)))
    }
}

impl<I: Iterator, F, T> fmt::Debug for Map<I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("held", &self.calls.len()).finish_non_exhaustive()
    }
}
