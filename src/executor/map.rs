use super::call::ThreadCall;
use super::pool::ThreadPool;
use crate::future::ResultError;
use crate::sync::Site;
use futures_core::Stream;
use std::collections::VecDeque;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

struct Map<I: Iterator, F, T> {
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

impl ThreadPool {
    /// Runs `function` over `items` on the pool, and gives the results in the items' order.
    ///
    /// At most `buffer` items are taken from the iterator and not handed out as results: it may be
    /// endless. The first ones are submitted at once, more as results are taken. The iterator runs on
    /// the thread that polls the stream, so it must not block. A call that panics gives its error in
    /// its place, and the stream goes on; a pool that refuses a call ends it. The stream is a handle to
    /// the pool.
    ///
    /// Python: `Executor.map(function, items, buffersize=buffer)`.
    ///
    /// # Cancel safety
    ///
    /// Waiting for the next result can be given up at any time. Dropping the stream abandons the calls
    /// that it holds: those that haven't begun never run.
    ///
    /// # Panics
    ///
    /// If `buffer` is 0: nothing could ever be submitted.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadPool;
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    /// # use futures_core::Stream;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pool = ThreadPool::builder().max_workers(2).build().unwrap();
    /// let mut squares = pool.map(1_u64.., |n| n * n, 8);
    /// for n in 1..100 {
    ///     // With `futures::StreamExt`: `squares.next().await`.
    ///     let square = poll_fn(|cx| Pin::new(&mut squares).poll_next(cx)).await;
    ///     assert_eq!(square.unwrap().unwrap(), n * n);
    /// }
    /// # }
    /// ```
    #[track_caller]
    pub fn map<I, F, T>(
        &self,
        items: I,
        function: F,
        buffer: usize,
    ) -> impl Stream<Item = Result<T, ResultError>> + use<I, F, T>
    where
        I: IntoIterator<Item: Send + 'static, IntoIter: Unpin>,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        assert!(buffer > 0, "map with a buffer of 0 would submit nothing: allow at least 1");
        Map::new(self.clone(), items.into_iter(), function, buffer, Location::caller())
    }
}

impl<I, F, T> Map<I, F, T>
where
    I: Iterator<Item: Send + 'static>,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    fn new(pool: ThreadPool, items: I, function: F, buffer: usize, site: Site) -> Self {
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
