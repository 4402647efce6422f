//! Requests of a server's connections: each connection is served by its own thread.

use super::super::core::{End, judged};
use super::super::driver::Driver;
use super::super::server::{Accepted, ConnectionHandle, StreamServer};
use super::super::source::{StreamKind, StreamSource};
use super::super::stats::count;
use super::{Request, Serve, Service};
use crate::channel::Ending;
use crate::sync::contain;
use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::codec::{Decoder, Encoder};

impl<M, C, K, R> Serve<R> for StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder + Encoder<R> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<R>>::Error: Error + Send + Sync + 'static,
    K: StreamKind,
    R: Send + 'static,
{
    fn launch_service<H, Fut>(self, service: Service<R, H>) -> io::Result<()>
    where
        H: Fn(Self::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let core = Arc::clone(&service.core);
        let last = Arc::clone(&core);
        let work = move |accepted: Accepted, stream: StreamSource<C, K>| {
            let Accepted { link, limits, linger, place, .. } = accepted;
            let connection = ConnectionHandle { link: Arc::clone(&link) };
            let request = |frame, at: Instant| Request {
                frame,
                connection: connection.clone(),
                deadline: at.checked_add(service.reply_timeout),
            };
            let mut driver = Driver::of_connection(&service.core, &link, limits, stream);
            let verdict = judged(|| service.run(&mut driver, request));
            link.peer_is_gone();
            driver.part(linger);
            link.end();
            contain("the destructor of a codec", || drop(driver));
            let name =
                format_args!("connection {} of {}", link.id(), service.core.name).to_string();
            match End::of(verdict, &name) {
                End::Failed(_) => count(&service.core.counters.failed_connections),
                End::Of(Ending::LoopClosed) => service.core.stop_for(Ending::LoopClosed),
                End::Of(_) => {}
            }
            // Whoever sees it gone finds it counted.
            drop(place);
        };
        let end = move |verdict| last.conclude(&End::of(verdict, &last.name));
        self.serve_on_threads(&core, work, end)
    }
}
