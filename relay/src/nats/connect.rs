//! A connection, and what happens to it.

use crate::publish::BoxError;
use async_nats::{Client, ConnectOptions, Event, ToServerAddrs};
use std::time::Duration;
use tokio::sync::mpsc;

/// There is no connection to a server.
#[derive(Debug, thiserror::Error)]
#[error("no connection to a NATS server")]
pub struct ConnectError(#[source] BoxError);

impl ConnectError {
    pub(super) fn lost(error: impl Into<BoxError>) -> Self {
        ConnectError(error.into())
    }
}

/// Connects with the options of a relay: it tries again quickly when the connection is lost, for ever.
///
/// # Errors
///
/// If no server is there, or none lets us in.
pub async fn connect(
    servers: impl ToServerAddrs,
    options: ConnectOptions,
) -> Result<Client, ConnectError> {
    quick(options).connect(servers).await.map_err(ConnectError::lost)
}

/// As [`connect`], and tells what happens to the connection.
pub(super) async fn connect_watched(
    servers: impl ToServerAddrs,
    options: ConnectOptions,
) -> Result<(Client, mpsc::UnboundedReceiver<Event>), ConnectError> {
    let (tell, told) = mpsc::unbounded_channel();
    let options = options.event_callback(move |event| {
        let _ = tell.send(event);
        std::future::ready(())
    });
    Ok((connect(servers, options).await?, told))
}

fn quick(options: ConnectOptions) -> ConnectOptions {
    options.reconnect_delay_callback(|attempts| {
        let tries = u32::try_from(attempts.min(8)).unwrap_or(8);
        Duration::from_millis(10 << tries).min(Duration::from_secs(1))
    })
}
