//! Requests to a service on another machine.

use crate::publish::BoxError;
use async_nats::{Client, HeaderMap, RequestErrorKind, Subject};
use bytes::Bytes;
use std::fmt;
use std::time::Duration;

/// How long the caller waits, in microseconds. Clocks of two machines differ; what is left of the time
/// doesn't.
pub(super) const TIMEOUT_HEADER: &str = "Relay-Timeout-Us";
/// Why there is no answer, from a service that has failed.
pub(super) const FAILURE_HEADER: &str = "Relay-Failure";

/// Asks a [`Service`](super::Service), wherever it runs.
///
/// From a foreign thread: `bridge.call(requester.request(question, limit), limit)`; in the handler of a
/// listener: `requester.request(request.frame, time_left)`.
#[derive(Clone)]
pub struct Requester {
    client: Client,
    subject: Subject,
}

impl Requester {
    /// A requester of the service at `subject`.
    pub fn new(client: Client, subject: impl Into<String>) -> Self {
        Requester { client, subject: Subject::from(subject.into()) }
    }

    /// Asks, and waits for the answer for as long as `timeout`, which travels along: the service doesn't
    /// begin what is too late, and stops what has become so.
    ///
    /// # Errors
    ///
    /// At once if no service is there. A service that dies doesn't answer; the error comes at the timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the answer is not awaited; the service works on until the timeout.
    pub async fn request(
        &self,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT_HEADER, timeout.as_micros().to_string());
        let request = async_nats::Request::new()
            .payload(payload.into())
            .headers(headers)
            .timeout(Some(timeout));
        // It would wait for room in the client while there is no connection.
        let answer = self.client.send_request(self.subject.clone(), request);
        let answer = match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(|error| match error.kind() {
                RequestErrorKind::TimedOut => RequestError::TimedOut,
                RequestErrorKind::NoResponders => RequestError::NoService,
                _ => RequestError::Refused(error.into()),
            })?,
            Err(_) => return Err(RequestError::TimedOut),
        };
        match answer.headers.as_ref().and_then(|headers| headers.get(FAILURE_HEADER)) {
            Some(why) => Err(RequestError::Failed(why.as_str().to_owned())),
            None => Ok(answer.payload),
        }
    }
}

impl fmt::Debug for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requester").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No service is there.
    #[error("no service answers there: start one, or ask elsewhere")]
    NoService,
    /// The answer didn't come in time.
    #[error("the service didn't answer in time")]
    TimedOut,
    /// The service has failed, and says why.
    #[error("the service failed: {0}")]
    Failed(String),
    /// The request can't be sent: too large, a bad subject.
    #[error("the request can't be sent")]
    Refused(#[source] BoxError),
}
