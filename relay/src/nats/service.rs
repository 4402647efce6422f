//! A service that answers requests from other machines.

use super::connect::ConnectError;
use super::request::{FAILURE_HEADER, TIMEOUT_HEADER};
use crate::panics::contained;
use async_nats::{Client, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};

/// A request from another machine.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServiceRequest {
    /// What is asked.
    pub payload: Bytes,
    /// When the answer is too late; none if the caller didn't say. The handler is dropped then.
    pub deadline: Option<Instant>,
}

impl ServiceRequest {
    /// A request of one's own, to test a handler with.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        ServiceRequest { payload: payload.into(), deadline: None }
    }
}

impl fmt::Debug for ServiceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceRequest")
            .field("bytes", &self.payload.len())
            .field("deadline", &self.deadline)
            .finish()
    }
}

/// Answers the requests at a subject by an async handler.
///
/// Services with the same subject share the requests. An error of the handler, or a panic, is the caller's
/// error at once. Dropping the handle stops it.
#[must_use = "dropping it stops it"]
pub struct Service {
    stop: watch::Sender<Option<Option<Instant>>>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counters {
    received: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    expired: AtomicU64,
}

/// The counters of a [`Service`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Requests that came.
    pub received: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those whose handler failed or panicked; the caller was told.
    pub failed: u64,
    /// Those that were too late before they began, or became so.
    pub expired: u64,
    /// Those that are worked on.
    pub in_flight: u64,
}

impl fmt::Display for ServiceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceStats { received, answered, failed, expired, in_flight } = self;
        write!(
            f,
            "{received} received = {answered} answered + {failed} failed + {expired} expired + \
             {in_flight} in flight"
        )
    }
}

impl Counters {
    fn stats(&self) -> ServiceStats {
        // Each is counted as received before it is counted as anything else.
        let answered = self.answered.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let expired = self.expired.load(Ordering::Acquire);
        let received = self.received.load(Ordering::Acquire);
        let in_flight = received - answered - failed - expired;
        ServiceStats { received, answered, failed, expired, in_flight }
    }
}

impl Service {
    /// Answers what is asked at `subject`, up to `max_in_flight` requests at a time.
    ///
    /// # Errors
    ///
    /// If the connection is gone for good.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start<H, F, E>(
        client: Client,
        subject: impl Into<String>,
        max_in_flight: usize,
        handler: H,
    ) -> Result<Self, ConnectError>
    where
        H: Fn(ServiceRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Bytes, E>> + Send + 'static,
        E: fmt::Display + Send + 'static,
    {
        let subject = subject.into();
        let requests = client.queue_subscribe(subject, "relay".to_owned()).await;
        let requests = requests.map_err(ConnectError::lost)?;
        client.flush().await.map_err(ConnectError::lost)?;
        // Others may rely on it from here on.
        heard(&client).await;
        let (stop, stopped) = watch::channel(None);
        let counters = Arc::<Counters>::default();
        let permits = Arc::new(Semaphore::new(max_in_flight.clamp(1, Semaphore::MAX_PERMITS)));
        let worker = Worker { client, handler: Arc::new(handler), counters: Arc::clone(&counters) };
        let task = tokio::spawn(worker.run(requests, permits, stopped));
        Ok(Service { stop, counters, task })
    }

    /// The counters.
    pub fn stats(&self) -> ServiceStats {
        self.counters.stats()
    }

    /// Takes no more requests, answers those that it has, and ends, at `timeout` with those that are late.
    pub async fn close(mut self, timeout: impl Into<Option<Duration>>) -> ServiceStats {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        self.stop.send_replace(Some(deadline));
        let _ = (&mut self.task).await;
        self.counters.stats()
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

struct Worker<H> {
    client: Client,
    handler: Arc<H>,
    counters: Arc<Counters>,
}

impl<H, F, E> Worker<H>
where
    H: Fn(ServiceRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Bytes, E>> + Send + 'static,
    E: fmt::Display + Send + 'static,
{
    async fn run(
        self,
        mut requests: Subscriber,
        permits: Arc<Semaphore>,
        mut stopped: watch::Receiver<Option<Option<Instant>>>,
    ) {
        let all = u32::try_from(permits.available_permits()).unwrap_or(u32::MAX);
        loop {
            let next = async {
                let permit = Arc::clone(&permits).acquire_owned().await.ok()?;
                Some((requests.next().await?, permit))
            };
            tokio::select! {
                next = next => match next {
                    Some((request, permit)) => self.take(request, permit),
                    None => break,
                },
                changed = stopped.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
        let _ = requests.unsubscribe().await;
        // What others ask from here on finds no service, and what came before is here.
        heard(&self.client).await;
        let deadline = stopped.borrow().flatten();
        let far = Instant::now() + Duration::from_secs(3600);
        let answer_all = async {
            // What had come before is still answered.
            while let Some(Some(request)) = requests.next().now_or_never() {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                self.take(request, permit);
            }
            let _ = permits.acquire_many(all).await;
        };
        tokio::select! {
            () = answer_all => {}
            () = sleep_until(deadline.unwrap_or(far).into()) => {}
            _ = stopped.changed() => {}
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.flush()).await;
    }

    /// Works on one request, as a task.
    fn take(&self, message: Message, permit: OwnedSemaphorePermit) {
        self.counters.received.fetch_add(1, Ordering::Release);
        let deadline = deadline(&message);
        let request = ServiceRequest { payload: message.payload, deadline };
        let (client, handler) = (self.client.clone(), Arc::clone(&self.handler));
        let counters = Arc::clone(&self.counters);
        tokio::spawn(async move {
            let _permit = permit;
            let work = AssertUnwindSafe(async { handler(request).await }).catch_unwind();
            let answer = match deadline {
                Some(deadline) => timeout_at(deadline.into(), work).await,
                None => Ok(work.await),
            };
            let (count, answer) = match answer {
                Ok(Ok(Ok(answer))) => (&counters.answered, Ok(answer)),
                Ok(Ok(Err(error))) => (&counters.failed, Err(one_line(&error.to_string()))),
                Ok(Err(panic)) => {
                    contained(|| drop(panic));
                    (&counters.failed, Err("its handler panicked".to_owned()))
                }
                Err(_) => {
                    counters.expired.fetch_add(1, Ordering::Release);
                    return;
                }
            };
            if let Some(reply) = message.reply {
                // Without a connection the caller's time runs out.
                let _ = match answer {
                    Ok(answer) => client.publish(reply, answer).await,
                    Err(why) => {
                        let mut headers = HeaderMap::new();
                        headers.insert(FAILURE_HEADER, why);
                        client.publish_with_headers(reply, headers, Bytes::new()).await
                    }
                };
            }
            count.fetch_add(1, Ordering::Release);
        });
    }
}

/// Returns once the server has dealt with what was sent before: it has sent a message back. A flush only
/// writes. A server that may not send it, or is away, is waited for as long as a person would.
async fn heard(client: &Client) {
    let inbox = client.new_inbox();
    let echoed = async {
        let mut echo = client.subscribe(inbox.clone()).await.ok()?;
        client.publish(inbox, Bytes::new()).await.ok()?;
        echo.next().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), echoed).await;
}

fn deadline(message: &Message) -> Option<Instant> {
    let left = message.headers.as_ref()?.get(TIMEOUT_HEADER)?.as_str().parse().ok()?;
    Instant::now().checked_add(Duration::from_micros(left))
}

/// What fits into a header.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
