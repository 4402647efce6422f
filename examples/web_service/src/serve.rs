//! Serving until something happens, and the end: connections first, then the pools.

use crate::Refused;
use crate::cli::Options;
use crate::old::Backends;
use crate::shop::Shop;
use crate::ticker::Ticker;
use callbridge::ThreadPool;
use callbridge::bridge::CloseReport;
use std::error::Error;
use std::fmt;
use std::future::IntoFuture as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How the service ended.
pub(crate) struct Ended {
    /// Requests were still under way at the deadline.
    requests_left: bool,
    pool: CloseReport,
    shared: CloseReport,
    longest_gap: Duration,
}

impl Ended {
    pub(crate) fn is_clean(&self) -> bool {
        !self.requests_left && self.pool.is_clean() && self.shared.is_clean()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = if self.requests_left { "some left at the deadline" } else { "all answered" };
        writeln!(f, "  requests          {left}")?;
        writeln!(f, "  pool              {}", self.pool)?;
        writeln!(f, "  to_thread's pool  {}", self.shared)?;
        let (gap, period) = (self.longest_gap, Ticker::PERIOD);
        writeln!(f, "  the loop          longest gap {gap:.1?} between ticks {period:?} apart")
    }
}

/// Serves until Ctrl-C and says how it ended; whether that was well.
pub(crate) async fn until_ctrl_c(
    options: &Options,
    backends: &Backends,
) -> Result<bool, Box<dyn Error>> {
    // Installed before anybody is told that the service is up.
    let mut interrupts = ctrl_c()?;
    let address = options.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Refused(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr()?;
    writeln!(io::stdout(), "listening on http://{address}; Ctrl-C stops")?;

    let shop = Shop::open(backends, options.limit());
    let interrupted = async {
        interrupts.recv().await;
        tokio::spawn(async move {
            interrupts.recv().await;
            std::process::exit(130);
        });
    };
    let ((), ended) = until(listener, &shop, options.deadline(), interrupted).await;
    write!(io::stdout(), "\nstopped\n{ended}")?;
    Ok(ended.is_clean())
}

/// Serves until `event`, then ends within `deadline`.
pub(crate) async fn until<T>(
    listener: TcpListener,
    shop: &Shop,
    deadline: Duration,
    event: impl Future<Output = T>,
) -> (T, Ended) {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let server = axum::serve(listener, shop.router()).with_graceful_shutdown(stopped);
    let server = tokio::spawn(server.into_future());
    let event = event.await;

    let end = Instant::now() + deadline;
    let left = || end.saturating_duration_since(Instant::now());
    drop(stop);
    // Requests under way need the pools, so these come after them.
    let requests_left = timeout(left(), server).await.is_err();
    let pool = shop.pool.close(left()).await;
    // The process ends with the service; otherwise this one would not be ours to shut down.
    let shared = ThreadPool::shared().close(left()).await;
    let longest_gap = shop.ticker().longest_gap();
    (event, Ended { requests_left, pool, shared, longest_gap })
}

#[cfg(unix)]
fn ctrl_c() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn ctrl_c() -> io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}
