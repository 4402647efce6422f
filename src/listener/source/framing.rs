//! A `Decoder` driven by hand: bytes in from a blocking read, frames out.

use super::poll::POLL_TIMEOUT;
use super::{Gauge, SourceStats};
use crate::channel::SourceError;
use crate::sync::SettingError;
use crate::sync::prim::atomic::{AtomicU64, Ordering};
use bytes::{Buf, BytesMut};
use std::any::TypeId;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error as ThisError;
use tokio_util::codec::{
    AnyDelimiterCodecError, Decoder, Encoder, LengthDelimitedCodec, LengthDelimitedCodecError,
    LinesCodecError,
};

/// How much one read asks for.
const READ: usize = 64 * 1024;

/// How much is reserved at least for what was read. Frames that share memory with the buffer, as those of
/// `LengthDelimitedCodec` do, keep up to so much of it while they live.
const BLOCK: usize = 8 * 1024;

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

/// What a source does with bytes that make no frame.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{BadFrames, ReadSource};
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let noisy = std::io::Cursor::new(b"temp \xff\xfe\ntemp 21\n".to_vec());
/// let lines = LinesCodec::new_with_max_length(80);
/// let meter = ReadSource::new(noisy, 256, lines)?.with_bad_frames(BadFrames::Skip);
/// let (_listener, mut lines) = callbridge::Listener::builder(meter).spawn()?;
/// assert_eq!(lines.recv_blocking(None).unwrap(), "temp 21");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadFrames {
    /// The source fails with a [`FrameError`]; a server closes the connection.
    #[default]
    Fail,
    /// They are counted ([`SourceStats::skipped`](super::SourceStats::skipped)) and left out. The decoder
    /// goes on behind what it had consumed when it refused; where it refuses twice and consumes nothing, one
    /// byte further.
    ///
    /// A frame that is longer than the source's limit and whose end the decoder hasn't found still fails: the
    /// decoder keeps its place in it. Give the decoder a limit of its own, which it can get over, such as
    /// `LinesCodec::new_with_max_length`.
    Skip,
}

/// A codec around another, of which a frame that breaks off at the end of a stream is none:
/// [`Incomplete`](FrameError::Incomplete).
///
/// `LinesCodec` and the like make a frame of whatever is left at the end: half a reading, where a device was
/// unplugged in the middle of a line.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{BadFrames, FrameSource, ReadSource, WholeFrames};
/// use tokio_util::codec::LinesCodec;
///
/// let unplugged = &b"temp 21.5\ntemp 2"[..];
/// let mut meter = ReadSource::new(unplugged, 80, WholeFrames(LinesCodec::new()))?
///     .with_bad_frames(BadFrames::Skip);
/// assert_eq!(meter.next_frame()?.as_deref(), Some("temp 21.5"));
/// assert_eq!(meter.next_frame()?, None);
/// assert_eq!(meter.gauge().read().skipped, 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct WholeFrames<C>(
    /// The codec inside.
    pub C,
);

impl<C: Decoder> Decoder for WholeFrames<C> {
    type Item = C::Item;
    type Error = C::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<C::Item>, C::Error> {
        self.0.decode(bytes)
    }
}

impl<T, C: Encoder<T>> Encoder<T> for WholeFrames<C> {
    type Error = C::Error;

    fn encode(&mut self, item: T, bytes: &mut BytesMut) -> Result<(), C::Error> {
        self.0.encode(item, bytes)
    }
}

impl FrameError {
    /// The frame error inside an error of a source, a connection or a stream, if there is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{FrameError, FrameSource, ReadSource};
    /// use tokio_util::codec::LinesCodec;
    ///
    /// let mut source = ReadSource::new(&b"\xff\n"[..], 80, LinesCodec::new()).unwrap();
    /// let error = source.next_frame().unwrap_err();
    /// assert!(matches!(FrameError::find(&error), Some(FrameError::Malformed { offset: 0, .. })));
    /// ```
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner: &'a (dyn Error + 'static) = match error.downcast_ref::<io::Error>() {
            Some(error) => error.get_ref()?,
            None => error.downcast_ref::<SourceError>()?.get_ref(),
        };
        Self::find(inner)
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

/// A decoder, and the bytes that it hasn't made frames of.
pub(crate) struct Framer<D> {
    decoder: D,
    buffer: BytesMut,
    scratch: Box<[u8]>,
    /// The longest frame, in bytes.
    limit: usize,
    /// How many bytes the decoder has taken so far.
    consumed: u64,
    /// Where the present frame began.
    frame_start: u64,
    /// The reader has ended.
    eof: bool,
    /// Bytes made no frame, and nothing more is read.
    broken: bool,
    bad_frames: BadFrames,
    skipped: Arc<AtomicU64>,
    /// What `consumed` was when the decoder last refused.
    refused_at: Option<u64>,
    /// Whether what the decoder takes without a frame is the header of the next one.
    keeps_headers: bool,
}

impl<D> Framer<D>
where
    D: Decoder + 'static,
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
            broken: false,
            bad_frames: BadFrames::Fail,
            skipped: Arc::default(),
            refused_at: None,
            keeps_headers: [
                TypeId::of::<LengthDelimitedCodec>(),
                TypeId::of::<WholeFrames<LengthDelimitedCodec>>(),
            ]
            .contains(&TypeId::of::<D>()),
        })
    }

    pub(crate) fn set_bad_frames(&mut self, bad_frames: BadFrames) {
        self.bad_frames = bad_frames;
    }

    pub(crate) fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// Whether bytes have come that make no whole frame yet.
    pub(crate) fn is_inside_frame(&self) -> bool {
        !self.buffer.is_empty() || self.consumed > self.frame_start
    }

    /// Whether nothing more will be read.
    pub(crate) fn at_end(&self) -> bool {
        self.eof || self.broken
    }

    pub(crate) fn gauge(&self) -> Gauge {
        let skipped = Arc::clone(&self.skipped);
        Gauge::new(move || SourceStats {
            skipped: skipped.load(Ordering::Relaxed),
            ..SourceStats::default()
        })
    }

    /// The next frame out of what was read.
    ///
    /// An error is final, unless bad frames are skipped.
    pub(crate) fn decode(&mut self) -> Result<Option<D::Item>, FrameError> {
        while !self.broken {
            match self.decode_once() {
                Ok(decoded) => return Ok(decoded),
                Err(error) if self.bad_frames == BadFrames::Skip && !self.broken => {
                    self.skip(&error);
                }
                Err(error) => {
                    self.broken = true;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    fn decode_once(&mut self) -> Result<Option<D::Item>, FrameError> {
        let before = self.buffer.len();
        let result = if self.eof {
            self.decoder.decode_eof(&mut self.buffer)
        } else {
            self.decoder.decode(&mut self.buffer)
        };
        self.consumed += before.saturating_sub(self.buffer.len()) as u64;
        let offset = self.frame_start;
        let received = self.consumed + self.buffer.len() as u64 - offset;
        match result {
            Ok(Some(frame)) => {
                if self.consumed - offset > self.limit as u64 {
                    return Err(self.too_long());
                }
                self.frame_start = self.consumed;
                Ok(Some(frame))
            }
            // What a decoder takes without a trace, heartbeats and blank lines, belongs to no frame.
            Ok(None) if self.buffer.is_empty() && !self.keeps_headers => {
                self.frame_start = self.consumed;
                Ok(None)
            }
            Ok(None) if received > self.limit as u64 => {
                // The decoder has its place in these bytes: they can't be taken away under it.
                self.broken = true;
                Err(self.too_long())
            }
            Ok(None) if self.eof && received > 0 => {
                Err(FrameError::Incomplete { offset, received })
            }
            Ok(None) => Ok(None),
            // The default `decode_eof` has no other way to say that bytes were left over.
            Err(_) if self.eof && received > 0 => Err(FrameError::Incomplete { offset, received }),
            // Whatever else is wrong with it, as it would be had it come in smaller pieces.
            Err(_) if self.consumed - offset > self.limit as u64 => Err(self.too_long()),
            Err(source) if says_too_long(&source) => Err(self.too_long()),
            Err(source) => Err(FrameError::Malformed { offset, source: Box::new(source) }),
        }
    }

    fn too_long(&self) -> FrameError {
        FrameError::TooLong { offset: self.frame_start, limit: self.limit }
    }

    /// Leaves out what made no frame.
    fn skip(&mut self, error: &FrameError) {
        // A decoder may need a second call to get over what it refused.
        let again = self.refused_at.replace(self.consumed) == Some(self.consumed);
        if again {
            let leave_out = self.buffer.len().min(1);
            self.buffer.advance(leave_out);
            self.consumed += leave_out as u64;
        } else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
        let at_end = matches!(error, FrameError::Incomplete { .. });
        self.broken = at_end || again && self.buffer.is_empty();
        self.frame_start = self.consumed;
    }

    /// Reads once; an empty read is the end.
    pub(crate) fn fill(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let count = read(&mut self.scratch)?;
        let data = self.scratch.get(..count).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "the reader claims more than it was asked for",
            )
        })?;
        self.eof = data.is_empty();
        if self.buffer.capacity() - self.buffer.len() < count {
            // One block serves many small reads, and is used again once its frames are gone.
            self.buffer.reserve(count.max(BLOCK));
        }
        self.buffer.extend_from_slice(data);
        Ok(())
    }

    /// The next frame, reading while there is none; `Ok(None)` at the end.
    ///
    /// Bytes that keep coming and make no frame hold up neither a stop nor what is to be written: then it is an
    /// interruption, after which it is to be asked again.
    pub(crate) fn next_frame(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<D::Item>> {
        let mut began: Option<Instant> = None;
        for reads in 0_u64.. {
            match self.decode() {
                Ok(None) if !self.eof && !self.broken => {
                    if began.is_some_and(|began| began.elapsed() >= POLL_TIMEOUT) {
                        break;
                    }
                    self.fill(&mut read)?;
                    // One read is the rule, and then the clock isn't looked at.
                    if reads > 0 {
                        began.get_or_insert_with(Instant::now);
                    }
                }
                Ok(decoded) => return Ok(decoded),
                Err(error) => return Err(error.into_io()),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// The next frame out of what was read, and nothing of what ends it.
    pub(crate) fn next_buffered(&mut self) -> io::Result<Option<D::Item>> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        self.decode().map_err(FrameError::into_io)
    }
}

pub(crate) fn check_limit(limit: usize) -> io::Result<()> {
    if limit == 0 {
        let why = "is 0 bytes, which lets nothing through: give at least 1";
        return Err(SettingError::new("max_frame", why).into());
    }
    Ok(())
}

/// Whether an error tells of bytes that made no frame.
pub(crate) fn is_framing(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<FrameError>())
}
