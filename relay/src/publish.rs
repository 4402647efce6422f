//! What a forwarder asks of an engine.

use crate::id::MessageId;
use bytes::Bytes;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// An engine that keeps messages and acknowledges each.
///
/// A forwarder owns it and calls one method at a time. The engine needn't order, retry or bound
/// anything: it says what became of each attempt, and recognises a repeat by its id.
pub trait Publish: Send + 'static {
    /// Looks at the place where messages go, before the first is sent and whenever the engine's end
    /// of it is not where it was thought to be.
    ///
    /// # Errors
    ///
    /// If it isn't there, or can't be asked.
    fn bind(&mut self) -> impl Future<Output = Result<Bound, Fault>> + Send;

    /// Hands one attempt to the engine. What becomes of it comes out of [`outcomes`](Self::outcomes).
    ///
    /// # Errors
    ///
    /// If it was not sent; there is no other outcome then.
    fn send(
        &mut self,
        attempt: Attempt<'_>,
        message: Message,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Waits until the engine has said something, and appends all that it has.
    ///
    /// # Cancel safety
    ///
    /// Must be cancel safe: dropped, it has lost nothing.
    fn outcomes(&mut self, said: &mut Vec<Said>) -> impl Future<Output = ()> + Send;
}

/// A message as it goes to an engine.
#[derive(Clone)]
pub struct Message {
    /// Where it goes: a subject, a key, a topic.
    pub subject: Arc<str>,
    /// What it says.
    pub payload: Bytes,
}

impl Message {
    /// A message to `subject`.
    pub fn new(subject: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Message { subject: subject.into(), payload: payload.into() }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("subject", &self.subject)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// One try to send a message.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What to name it by when its outcome is known.
    pub ticket: Ticket,
    /// The message's run.
    pub run: &'a Arc<str>,
    /// The message's number in its run.
    pub sequence: u64,
    /// What must be the last that the engine has, or the message may not be stored: it would overtake
    /// another.
    pub after: After,
}

impl Attempt<'_> {
    /// The id, which is the same on each try.
    pub fn id(&self) -> MessageId {
        MessageId::new(Arc::clone(self.run), self.sequence)
    }
}

/// What a message comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Whatever there is: the engine keeps no positions, or others write there too.
    Anything,
    /// What stands at this position, 0 if nothing ever did.
    Position(u64),
    /// The message of the same run with this number. Where it will stand isn't known yet.
    Message(u64),
}

/// Names an attempt: which message of the window, and which round of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The message's place in the line, counted from 0.
    pub place: u64,
    /// How often sending has begun again.
    pub round: u32,
}

/// Where an engine's end is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// The position of the last message, 0 if there was none yet. None if the engine has no
    /// positions, or others write there too: each message then comes after [`After::Anything`].
    pub position: Option<u64>,
    /// The id of the last message, if it has one.
    pub last: Option<MessageId>,
}

/// What an engine said.
#[derive(Debug)]
pub enum Said {
    /// What became of an attempt.
    Outcome(Ticket, Result<Stored, Fault>),
    /// The connection was lost: what was in flight may never be answered.
    Interrupted,
    /// There is a connection again.
    Connected,
}

/// A message is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stored {
    /// Where, if the engine keeps positions.
    pub position: Option<u64>,
    /// It had been stored by an earlier attempt.
    pub repeat: bool,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It may go better next time: not connected, nobody there, an internal error.
    #[error("the engine can't take the message now")]
    Passing(#[source] BoxError),
    /// There is no room; the engine stores no more until somebody reads or removes something.
    #[error("the engine is full")]
    Full(#[source] BoxError),
    /// The engine's end isn't where [`Attempt::after`] said.
    #[error("the message would have overtaken another, or somebody else writes there too")]
    OutOfOrder,
    /// Not this message, never: too large, a bad subject, not allowed.
    #[error("the engine rejects the message")]
    Rejected(#[source] BoxError),
}

/// An error of an engine's client.
pub type BoxError = Box<dyn Error + Send + Sync>;

impl Fault {
    /// A fault that passes.
    pub fn passing(error: impl Into<BoxError>) -> Self {
        Fault::Passing(error.into())
    }

    /// A fault that doesn't.
    pub fn rejected(error: impl Into<BoxError>) -> Self {
        Fault::Rejected(error.into())
    }
}
