//! A consumer of JetStream's, as a stream of frames.

use crate::id::MessageId;
use crate::publish::BoxError;
use async_nats::Client;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::pull::{self, MessagesErrorKind};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::message::Acker;
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;
use callbridge::channel::{FrameStream, Receipt, Sender, Tracked, channel};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;

/// A message that a stream of JetStream's has delivered.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Where it went.
    pub subject: String,
    /// What it says.
    pub payload: Bytes,
    /// Its id, if a relay has sent it.
    pub id: Option<MessageId>,
    /// Its number in the stream.
    pub sequence: u64,
    /// How often it has been delivered, this time included.
    pub deliveries: u64,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("subject", &self.subject)
            .field("bytes", &self.payload.len())
            .field("id", &self.id)
            .field("sequence", &self.sequence)
            .field("deliveries", &self.deliveries)
            .finish()
    }
}

/// Reads a stream of JetStream's by a durable consumer, into a [`FrameStream`].
///
/// Each frame is acknowledged to the server once it is [`done`](Tracked::done). One that is dropped before, or
/// not done within the consumer's time, is delivered again, after others that may have come later. So each is
/// delivered at least once, and in order as long as none is delivered again.
///
/// Dropping the handle stops it at once; what is not acknowledged is delivered again later.
#[must_use = "dropping it stops it"]
pub struct Consumer {
    stop: watch::Sender<Option<Option<Instant>>>,
    task: JoinHandle<ConsumerReport>,
}

/// How a consumer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// Messages that were delivered.
    pub delivered: u64,
    /// Those of them that were acknowledged.
    pub acknowledged: u64,
    /// Those that were dropped before they were done, and those that came too late to be read; the server
    /// was told to deliver them again.
    pub returned: u64,
    /// Those that were neither when time was up.
    pub left: u64,
}

impl ConsumerReport {
    /// Whether nothing is left.
    pub fn is_clean(&self) -> bool {
        self.left == 0
    }
}

impl fmt::Display for ConsumerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConsumerReport { delivered, acknowledged, returned, left } = self;
        write!(
            f,
            "{delivered} delivered = {acknowledged} acknowledged + {returned} returned + {left} left"
        )
    }
}

/// A consumer could not begin, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The server has no such stream, or doesn't answer.
    #[error("can't read the stream")]
    Stream(#[source] BoxError),
    /// The server has no such consumer, or ended it.
    #[error("can't read by the consumer")]
    Consumer(#[source] BoxError),
}

/// The settings of a [`Consumer`].
#[derive(Debug)]
#[must_use]
pub struct ConsumerBuilder {
    client: Client,
    stream: String,
    durable: String,
    window: usize,
    ack_wait: Duration,
}

impl Consumer {
    /// A consumer of `stream` that the server knows as `durable`, and makes if there is none.
    pub fn builder(
        client: Client,
        stream: impl Into<String>,
        durable: impl Into<String>,
    ) -> ConsumerBuilder {
        ConsumerBuilder {
            client,
            stream: stream.into(),
            durable: durable.into(),
            window: 256,
            ack_wait: Duration::from_secs(30),
        }
    }

    /// Reads no more, waits until what was delivered is done, and ends, at `timeout` with what is not.
    pub async fn close(mut self, timeout: impl Into<Option<Duration>>) -> ConsumerReport {
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        self.stop.send_replace(Some(deadline));
        (&mut self.task).await.unwrap_or_default()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl ConsumerBuilder {
    /// The most messages that are delivered and not acknowledged; 256 unless set.
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages.max(1);
        self
    }

    /// How long a message may be delivered and not acknowledged before it is delivered again; 30 s unless set.
    pub fn ack_wait(mut self, time: Duration) -> Self {
        self.ack_wait = time;
        self
    }

    /// Begins to read.
    ///
    /// # Errors
    ///
    /// If there is no such stream, or the server has a consumer of that name that is of another kind.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn start(self) -> Result<(Consumer, FrameStream<Tracked<Delivery>>), ConsumeError> {
        let context = jetstream::new(self.client.clone());
        let stream = context.get_stream(&self.stream).await;
        let stream = stream.map_err(|error| ConsumeError::Stream(error.into()))?;
        let config = pull::Config {
            durable_name: Some(self.durable.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_ack_pending: i64::try_from(self.window).unwrap_or(i64::MAX),
            ..pull::Config::default()
        };
        let source = stream.get_or_create_consumer(&self.durable, config).await;
        let source = source.map_err(|error| ConsumeError::Consumer(error.into()))?;
        let messages = read(&source, self.window).await?;
        let (sender, frames) = channel(self.window);
        let (stop, stopped) = watch::channel(None);
        let reader = Reader {
            client: self.client,
            source,
            window: self.window,
            sender: Some(sender),
            undone: FuturesUnordered::new(),
            stopped,
            report: ConsumerReport::default(),
        };
        Ok((Consumer { stop, task: tokio::spawn(reader.run(messages)) }, frames))
    }
}

async fn read(source: &PullConsumer, window: usize) -> Result<pull::Stream, ConsumeError> {
    let messages = source.stream().max_messages_per_batch(window).messages().await;
    messages.map_err(|error| ConsumeError::Consumer(error.into()))
}

/// The task that reads.
struct Reader {
    client: Client,
    source: PullConsumer,
    window: usize,
    /// None once nothing more is read.
    sender: Option<Sender<Tracked<Delivery>>>,
    undone: FuturesUnordered<Undone>,
    stopped: watch::Receiver<Option<Option<Instant>>>,
    report: ConsumerReport,
}

/// A message that has been delivered and is not yet acknowledged.
struct Undone {
    receipt: Receipt,
    acker: Option<Acker>,
}

impl Future for Undone {
    type Output = (Option<Acker>, bool);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receipt = ready!(Pin::new(&mut self.receipt).poll(cx));
        Poll::Ready((self.acker.take(), matches!(receipt, Ok(Ok(())))))
    }
}

impl Reader {
    async fn run(mut self, messages: pull::Stream) -> ConsumerReport {
        let mut messages = Some(messages);
        while messages.is_some() || !self.undone.is_empty() {
            let has_room = self.undone.len() < self.window;
            let deadline = self.stopped.borrow().flatten();
            tokio::select! {
                Some((acker, done)) = self.undone.next(), if !self.undone.is_empty() => {
                    if self.sender.as_ref().is_some_and(Sender::is_closed) {
                        self.sender = None;
                        self.return_ahead(messages.take()).await;
                    }
                    self.settle(acker, done).await;
                }
                message = next(&mut messages), if has_room && messages.is_some() => match message {
                    Some(Ok(message)) => self.deliver(message).await,
                    Some(Err(error)) if is_the_end(error.kind()) => {
                        if let Some(sender) = self.sender.take() {
                            sender.fail(ConsumeError::Consumer(error.into()));
                        }
                    }
                    // It goes on by itself once there is a connection.
                    Some(Err(_)) => {}
                    None => match read(&self.source, self.window).await {
                        Ok(again) => messages = Some(again),
                        Err(_) => tokio::time::sleep(AGAIN).await,
                    },
                },
                changed = self.stopped.changed() => {
                    self.sender = None;
                    if changed.is_err() {
                        break;
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(far).into()) => break,
            }
            if self.sender.is_none() {
                self.return_ahead(messages.take()).await;
            }
        }
        self.report.left = self.undone.len() as u64;
        let _ = tokio::time::timeout(FLUSH, self.client.flush()).await;
        self.report
    }

    /// Gives back what the client has read ahead, to be delivered to others.
    async fn return_ahead(&mut self, messages: Option<pull::Stream>) {
        let Some(mut messages) = messages else { return };
        // What the server has sent is here then, and it sends no more until something is settled.
        let _ = tokio::time::timeout(FLUSH, self.round_trip()).await;
        let mut ahead = Vec::new();
        while let Some(Some(message)) = messages.next().now_or_never() {
            ahead.extend(message.ok().map(|message| message.split().1));
        }
        // Not asked any more, the server doesn't deliver it here again.
        drop(messages);
        for acker in ahead {
            self.report.delivered += 1;
            self.settle(Some(acker), false).await;
        }
    }

    async fn deliver(&mut self, message: jetstream::Message) {
        let Ok((sequence, deliveries)) = message
            .info()
            .map(|info| (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1)))
        else {
            return;
        };
        let (message, acker) = message.split();
        let id = message.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
        let id = id.and_then(|id| id.as_str().parse().ok());
        let subject = message.subject.to_string();
        let delivery = Delivery { subject, payload: message.payload, id, sequence, deliveries };
        self.report.delivered += 1;
        let Some(sender) = &self.sender else { return };
        // There is room for as many as may be undone.
        match sender.send_tracked_async(delivery).await {
            Ok(receipt) => self.undone.push(Undone { receipt, acker: Some(acker) }),
            Err(_) => {
                self.sender = None;
                self.settle(Some(acker), false).await;
            }
        }
    }

    async fn round_trip(&self) {
        let nobody = self.client.new_inbox();
        let _ = self.client.request(nobody, Bytes::new()).await;
    }

    async fn settle(&mut self, acker: Option<Acker>, done: bool) {
        let (count, kind) = match done {
            true => (&mut self.report.acknowledged, AckKind::Ack),
            false => (&mut self.report.returned, AckKind::Nak(None)),
        };
        *count += 1;
        if let Some(acker) = acker {
            // Without a connection it is delivered again when its time is up.
            let _ = acker.ack_with(kind).await;
        }
    }
}

async fn next(
    messages: &mut Option<pull::Stream>,
) -> Option<Result<jetstream::Message, pull::MessagesError>> {
    match messages {
        Some(messages) => messages.next().await,
        None => None,
    }
}

/// The pause before a consumer that has ended is read again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long the last acknowledgements may take to leave.
const FLUSH: Duration = Duration::from_secs(1);

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn is_the_end(kind: MessagesErrorKind) -> bool {
    matches!(kind, MessagesErrorKind::ConsumerDeleted | MessagesErrorKind::PushBasedConsumer)
}
