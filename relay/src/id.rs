//! What a message is known by, however often it is sent.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A message's id: the run it belongs to, and its number in there.
///
/// It is the same on each try, which is how an engine tells a repeat from a new message. Written as
/// `run.sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The run: one source as long as its numbers go on.
    pub run: Arc<str>,
    /// The number of the frame, counted from 1 unless the source has numbers of its own.
    pub sequence: u64,
}

impl MessageId {
    /// An id out of its parts.
    pub fn new(run: impl Into<Arc<str>>, sequence: u64) -> Self {
        MessageId { run: run.into(), sequence }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.sequence)
    }
}

/// The text is no id of a relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form run.sequence")]
pub struct ParseIdError;

impl FromStr for MessageId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (run, sequence) = text.rsplit_once('.').ok_or(ParseIdError)?;
        let sequence = sequence.parse().map_err(|_| ParseIdError)?;
        if run.is_empty() {
            return Err(ParseIdError);
        }
        Ok(MessageId::new(run, sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = MessageId::new("host.meter-7", 42);
        assert_eq!(id.to_string(), "host.meter-7.42");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn what_has_no_run_or_no_number_is_no_id() {
        for text in ["", "7", ".7", "run.", "run.x", "run.-1"] {
            assert_eq!(text.parse::<MessageId>(), Err(ParseIdError), "{text}");
        }
    }
}
