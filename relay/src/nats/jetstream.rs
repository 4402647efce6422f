//! JetStream as an engine.

use super::connect::{ConnectError, connect_watched};
use super::subject::covers;
use crate::id::MessageId;
use crate::publish::{After, Attempt, Bound, Fault, Message, Publish, Said, Stored, Ticket};
use async_nats::client::PublishErrorKind;
use async_nats::connection::State;
use async_nats::header::{
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, HeaderValue, ServerError, StatusCode, Subject,
    Subscriber, ToServerAddrs,
};
use futures_core::Stream;
use serde::Deserialize;
use std::collections::HashSet;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// A stream of JetStream's, as an engine that a [`Forwarder`](crate::Forwarder) writes to.
///
/// It has a connection of its own. Unless it is [`shared`](Self::shared) each message says which one it comes
/// after, so the server stores none before those ahead of it, and none twice, whatever time has passed; others
/// that write to the stream cost time. A message that is acknowledged is with the server, which
/// has it on disk only when it has synced its file.
pub struct JetStream {
    client: Client,
    events: mpsc::UnboundedReceiver<Event>,
    acks: Subscriber,
    inbox: String,
    stream: String,
    shared: bool,
    /// What the stream takes.
    subjects: Vec<String>,
    /// What the server doesn't let us publish to.
    denied: HashSet<String>,
    last_subject: Option<(Arc<str>, Subject)>,
}

/// How long the server may take to say where a stream ends.
const API_TIMEOUT: Duration = Duration::from_secs(5);

impl JetStream {
    /// Connects to a server; `stream` must exist there when the forwarder starts.
    ///
    /// The event callback of the options is not kept.
    ///
    /// # Errors
    ///
    /// If no server is there, or none lets us in.
    pub async fn connect(
        servers: impl ToServerAddrs,
        options: ConnectOptions,
        stream: impl Into<String>,
    ) -> Result<Self, ConnectError> {
        let (client, events) = connect_watched(servers, options).await?;
        let inbox = client.new_inbox();
        let acks = client.subscribe(format!("{inbox}.>")).await;
        let acks = acks.map_err(ConnectError::lost)?;
        Ok(JetStream {
            client,
            events,
            acks,
            inbox,
            stream: stream.into(),
            shared: false,
            subjects: Vec::new(),
            denied: HashSet::new(),
            last_subject: None,
        })
    }

    /// Others write to the stream, too: no message says what it comes after.
    ///
    /// Then only a window of 1 keeps the order, and a message is stored once as long as it is not tried again
    /// after the stream's duplicate window.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Looks whether the stream takes a subject: where all messages go to one, this is told before there
    /// is any.
    ///
    /// # Errors
    ///
    /// [`Fault::Rejected`] if it doesn't; another if there is no such stream, or it can't be asked.
    pub async fn check_subject(&mut self, subject: &str) -> Result<(), Fault> {
        self.bind().await?;
        self.covered(subject)
    }

    fn covered(&self, subject: &str) -> Result<(), Fault> {
        if self.subjects.iter().any(|pattern| covers(pattern, subject)) {
            return Ok(());
        }
        let (stream, takes) = (&self.stream, self.subjects.join(", "));
        Err(Fault::rejected(format!(
            "stream {stream} doesn't take the subject {subject}, only {takes}"
        )))
    }

    fn subject(&mut self, subject: &Arc<str>) -> Result<Subject, Fault> {
        if let Some((known, checked)) = &self.last_subject
            && (Arc::ptr_eq(known, subject) || known == subject)
        {
            return Ok(checked.clone());
        }
        self.covered(subject)?;
        if self.denied.contains(&**subject) {
            return Err(Fault::rejected(format!("not allowed to publish to {subject}")));
        }
        let checked = Subject::from(subject.to_string());
        self.last_subject = Some((Arc::clone(subject), checked.clone()));
        Ok(checked)
    }

    fn poll_outcomes(&mut self, cx: &mut Context<'_>, said: &mut Vec<Said>) -> Poll<()> {
        let before = said.len();
        while let Poll::Ready(Some(message)) = Pin::new(&mut self.acks).poll_next(cx) {
            said.extend(outcome(&message, self.inbox.len()));
            if said.len() - before >= MOST_AT_ONCE {
                return Poll::Ready(());
            }
        }
        while let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            said.extend(self.happened(event));
        }
        if said.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }

    fn happened(&mut self, event: Event) -> Option<Said> {
        match event {
            Event::Disconnected | Event::SlowConsumer(_) => Some(Said::Interrupted),
            Event::Connected => {
                self.denied.clear();
                Some(Said::Connected)
            }
            Event::ServerError(ServerError::Other(error)) => {
                let subject = denied_subject(&error)?;
                self.denied.insert(subject.to_owned());
                self.last_subject = None;
                Some(Said::Interrupted)
            }
            _ => None,
        }
    }
}

/// What is heard before something is sent again.
const MOST_AT_ONCE: usize = 256;

impl Publish for JetStream {
    async fn bind(&mut self) -> Result<Bound, Fault> {
        let mut context = jetstream::new(self.client.clone());
        context.set_timeout(API_TIMEOUT);
        let stream = context.get_stream(&self.stream).await.map_err(Fault::passing)?;
        let info = stream.cached_info();
        self.subjects.clone_from(&info.config.subjects);
        self.last_subject = None;
        let position = info.state.last_sequence;
        if self.shared {
            return Ok(Bound::default());
        }
        let mut last = None;
        if info.state.messages > 0 {
            let message = stream.get_raw_message(position).await.map_err(Fault::passing)?;
            last = message.headers.get(NATS_MESSAGE_ID).and_then(|id| id.as_str().parse().ok());
        }
        Ok(Bound { position: Some(position), last })
    }

    async fn send(&mut self, attempt: Attempt<'_>, message: Message) -> Result<(), Fault> {
        let subject = self.subject(&message.subject)?;
        // It would wait in the client, and go out when its time is long over.
        if self.client.connection_state() != State::Connected {
            return Err(Fault::passing("not connected"));
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, attempt.id().to_string());
        match attempt.after {
            After::Anything => {}
            After::Position(position) => {
                headers.insert(NATS_EXPECTED_LAST_SEQUENCE, HeaderValue::from(position));
            }
            After::Message(sequence) => {
                let id = MessageId::new(Arc::clone(attempt.run), sequence).to_string();
                headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, id);
            }
        }
        let Ticket { place, round } = attempt.ticket;
        let reply = Subject::from(format!("{}.{round:x}.{place:x}", self.inbox));
        let sent =
            self.client.publish_with_reply_and_headers(subject, reply, headers, message.payload);
        sent.await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                Fault::rejected(error)
            }
            PublishErrorKind::Send => Fault::passing(error),
        })
    }

    async fn outcomes(&mut self, said: &mut Vec<Said>) {
        poll_fn(|cx| self.poll_outcomes(cx, said)).await;
    }
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// A server's answer to a publish.
#[derive(Deserialize)]
struct Answer {
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<jetstream::Error>,
}

/// What an answer says, and to which attempt.
fn outcome(message: &async_nats::Message, inbox: usize) -> Option<Said> {
    let (round, place) = message.subject.get(inbox + 1..)?.split_once('.')?;
    let round = u32::from_str_radix(round, 16).ok()?;
    let place = u64::from_str_radix(place, 16).ok()?;
    Some(Said::Outcome(Ticket { place, round }, judge(message)))
}

fn judge(message: &async_nats::Message) -> Result<Stored, Fault> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        // The stream was there; so the server is just starting, or it has been removed for now.
        return Err(Fault::passing("no stream takes it"));
    }
    let answer: Answer = serde_json::from_slice(&message.payload).map_err(Fault::passing)?;
    let Some(error) = answer.error else {
        return Ok(Stored { position: answer.seq, repeat: answer.duplicate });
    };
    Err(match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_MESSAGE_ID => {
            Fault::OutOfOrder
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
        | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
        | ErrorCode::STREAM_SEALED
        | ErrorCode::STREAM_NOT_MATCH => Fault::rejected(error),
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED => Fault::Full(error.into()),
        _ => Fault::passing(error),
    })
}

/// The subject in a server's `Permissions Violation for Publish to "subject"`.
fn denied_subject(error: &str) -> Option<&str> {
    let lower = error.to_ascii_lowercase();
    let at = lower.find("permissions violation for publish to ")?;
    error.get(at..)?.split('"').nth(1)
}
