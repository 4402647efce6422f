//! A `Decoder` driven by hand: bytes in from a blocking read, frames out.

use crate::sync::prim::atomic::{AtomicBool, Ordering};
use bytes::BytesMut;
use std::error::Error;
use std::io::{self, Read};
use thiserror::Error as ThisError;
use tokio_util::codec::{
    AnyDelimiterCodecError, Decoder, LengthDelimitedCodecError, LinesCodecError,
};

/// How much one read asks for.
const READ: usize = 64 * 1024;

/// Why a byte stream could not be cut into frames.
///
/// Every kind names the offset at which the offending frame began, counted in bytes from the start
/// of the stream.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameError, ReadSource};
/// use callbridge::listener::FrameSource;
/// use tokio_util::codec::LinesCodec;
///
/// let endless = std::io::Cursor::new(b"short\nmuch too long\n");
/// let mut source = ReadSource::new(endless, 8, LinesCodec::new()).unwrap();
/// assert_eq!(source.next_frame().unwrap().as_deref(), Some("short"));
/// let error = source.next_frame().unwrap_err();
/// let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
/// assert!(matches!(error, FrameError::TooLong { offset: 6, limit: 8 }));
/// ```
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than the source takes, or than its decoder does.
    ///
    /// The decoder's own refusal is recognised if it is tokio-util's `LengthDelimitedCodec` (its
    /// error may be wrapped in an [`io::Error`]), `LinesCodec` or `AnyDelimiterCodec`.
    #[error(
        "frame at byte {offset} is too long: raise the limit ({limit} bytes, or the decoder's own) \
         or check the peer"
    )]
    TooLong {
        /// Where the frame began.
        offset: u64,
        /// The source's limit, in bytes on the wire; the decoder's may be lower.
        limit: usize,
    },
    /// The decoder refused the bytes.
    #[error("frame at byte {offset} is malformed ({source}): check that both ends use one framing")]
    Malformed {
        /// Where the frame began.
        offset: u64,
        /// What the decoder said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The stream ended inside a frame.
    #[error(
        "frame at byte {offset} breaks off after {received} bytes: the peer left in the middle"
    )]
    Incomplete {
        /// Where the frame began.
        offset: u64,
        /// How many of its bytes had come.
        received: u64,
    },
}

impl FrameError {
    /// Where the offending frame began, in bytes from the start of the stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::FrameError;
    ///
    /// assert_eq!(FrameError::TooLong { offset: 12, limit: 1024 }.offset(), 12);
    /// ```
    pub fn offset(&self) -> u64 {
        match *self {
            FrameError::TooLong { offset, .. }
            | FrameError::Malformed { offset, .. }
            | FrameError::Incomplete { offset, .. } => offset,
        }
    }

    pub(crate) fn into_io(self) -> io::Error {
        let kind = match self {
            FrameError::Incomplete { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }
}

/// Whether one of tokio-util's codecs refuses a frame for its length.
fn says_too_long(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.get_ref().is_some_and(|inner| says_too_long(inner));
    }
    error.is::<LengthDelimitedCodecError>()
        || matches!(error.downcast_ref(), Some(LinesCodecError::MaxLineLengthExceeded))
        || matches!(error.downcast_ref(), Some(AnyDelimiterCodecError::MaxChunkLengthExceeded))
}

/// Cuts a byte stream into frames.
///
/// A frame's length is what it takes on the wire, from the end of the frame before it; so the
/// verdict on it doesn't depend on how the reads happen to chop the stream.
pub(crate) struct Framer<D> {
    decoder: D,
    /// What has been read and not decoded.
    buffer: BytesMut,
    /// Where a read lands: initialised once, so that no read needs fresh zeroed memory.
    scratch: Box<[u8]>,
    /// The most bytes a frame may take.
    limit: usize,
    /// How many bytes the decoder has taken.
    consumed: u64,
    /// What `consumed` was when the last frame came out.
    frame_start: u64,
    /// Whether the stream has ended.
    eof: bool,
}

impl<D> Framer<D>
where
    D: Decoder,
    D::Error: Error + Send + Sync + 'static,
{
    pub(crate) fn new(limit: usize, decoder: D) -> io::Result<Self> {
        check_limit(limit)?;
        Ok(Framer {
            decoder,
            buffer: BytesMut::new(),
            scratch: vec![0; READ].into_boxed_slice(),
            limit,
            consumed: 0,
            frame_start: 0,
            eof: false,
        })
    }

    pub(crate) fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// The next frame of what has been read; `None` when more must be read, or at the end.
    pub(crate) fn decode(&mut self) -> Result<Option<D::Item>, FrameError> {
        let before = self.buffer.len();
        let result = if self.eof {
            self.decoder.decode_eof(&mut self.buffer)
        } else {
            self.decoder.decode(&mut self.buffer)
        };
        self.consumed += before.saturating_sub(self.buffer.len()) as u64;
        let offset = self.frame_start;
        match result {
            Ok(Some(frame)) => {
                if self.consumed - offset > self.limit as u64 {
                    return Err(self.too_long());
                }
                self.frame_start = self.consumed;
                Ok(Some(frame))
            }
            Ok(None) => {
                let received = self.consumed + self.buffer.len() as u64 - offset;
                if received > self.limit as u64 {
                    Err(self.too_long())
                } else if self.eof && received > 0 {
                    Err(FrameError::Incomplete { offset, received })
                } else {
                    Ok(None)
                }
            }
            // The default `decode_eof` has no other way to say that bytes were left over.
            Err(_) if self.eof && self.consumed + before as u64 > offset => {
                let received = self.consumed + self.buffer.len() as u64 - offset;
                Err(FrameError::Incomplete { offset, received })
            }
            Err(source) => {
                let source: Box<dyn Error + Send + Sync> = Box::new(source);
                // Whatever else is wrong with it, as it would be had it come in smaller pieces.
                let over = self.consumed - offset > self.limit as u64;
                Err(if over || says_too_long(&*source) {
                    self.too_long()
                } else {
                    FrameError::Malformed { offset, source }
                })
            }
        }
    }

    fn too_long(&self) -> FrameError {
        FrameError::TooLong { offset: self.frame_start, limit: self.limit }
    }

    /// Reads once; zero bytes mean the end of the stream.
    pub(crate) fn fill(&mut self, reader: &mut impl Read) -> io::Result<()> {
        let count = reader.read(&mut self.scratch)?;
        let data = self.scratch.get(..count).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the reader claims more than it was asked for",
            )
        })?;
        self.eof = data.is_empty();
        if self.buffer.capacity() - self.buffer.len() < count {
            // A large block serves many small reads, and is used again once its frames are gone.
            self.buffer.reserve(READ);
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    pub(crate) fn at_eof(&self) -> bool {
        self.eof
    }

    /// The next frame, reading as needed; `None` at the end of the stream.
    ///
    /// `cut` says that this side has ended it: what is left then is neither a frame nor one that the
    /// peer broke off.
    pub(crate) fn next_frame(
        &mut self,
        reader: &mut impl Read,
        cut: &AtomicBool,
    ) -> io::Result<Option<D::Item>> {
        loop {
            match self.decode() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) if self.eof => return Ok(None),
                Ok(None) => {
                    self.fill(reader)?;
                    if self.eof && cut.load(Ordering::Acquire) {
                        self.eof = false;
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into_io()),
            }
        }
    }
}

pub(crate) fn check_limit(limit: usize) -> io::Result<()> {
    if limit == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a maximum frame length of 0 bytes lets nothing through: give at least 1",
        ));
    }
    Ok(())
}
