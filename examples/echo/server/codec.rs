//! How a byte stream is cut into frames, and frames become bytes again.

use crate::cli::Framing;
use bytes::{Bytes, BytesMut};
use std::io;
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec};

#[derive(Clone)]
pub(crate) enum FrameCodec {
    /// A 4-byte big-endian length, then the frame.
    Length(LengthDelimitedCodec),
    /// A frame is a line with its newline, whatever its bytes: it goes back as it came.
    Lines {
        /// Bytes at the front of the buffer that hold no newline.
        searched: usize,
    },
}

impl FrameCodec {
    pub(crate) fn new(framing: Framing, max_frame: usize) -> Self {
        match framing {
            Framing::Length => FrameCodec::Length(
                LengthDelimitedCodec::builder().max_frame_length(max_frame).new_codec(),
            ),
            Framing::Lines => FrameCodec::Lines { searched: 0 },
        }
    }

    /// The bytes that a frame of `length` takes on the wire.
    pub(crate) fn on_the_wire(&self, length: usize) -> usize {
        match self {
            FrameCodec::Length(_) => length + 4,
            FrameCodec::Lines { .. } => length + 1,
        }
    }
}

impl Decoder for FrameCodec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        match self {
            FrameCodec::Length(codec) => codec.decode(bytes),
            FrameCodec::Lines { searched } => {
                let newline = bytes[*searched..].iter().position(|&byte| byte == b'\n');
                let line = newline.map(|at| bytes.split_to(*searched + at + 1));
                *searched = if line.is_some() { 0 } else { bytes.len() };
                Ok(line)
            }
        }
    }

    /// A last line may lack its newline.
    fn decode_eof(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        if let FrameCodec::Length(codec) = self {
            return codec.decode_eof(bytes);
        }
        let line = self.decode(bytes)?;
        if line.is_some() || bytes.is_empty() {
            return Ok(line);
        }
        *self = FrameCodec::Lines { searched: 0 };
        Ok(Some(bytes.split()))
    }
}

impl Encoder<Bytes> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, bytes: &mut BytesMut) -> io::Result<()> {
        match self {
            FrameCodec::Length(codec) => codec.encode(frame, bytes),
            FrameCodec::Lines { .. } => {
                bytes.extend_from_slice(&frame);
                Ok(())
            }
        }
    }
}
