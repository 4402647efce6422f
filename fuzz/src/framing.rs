//! A byte stream in arbitrary chunks must decode as it does in one piece.

use super::Script;
use bytes::{Buf, BytesMut};
use callbridge::listener::{FrameError, FrameSource, ReadSource};
use std::error::Error;
use std::fmt::Debug;
use std::io::{self, Read};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, LengthDelimitedCodec, LinesCodec};

/// What came out: the frames, and how it ended.
#[derive(Debug, PartialEq)]
struct Decoded<F> {
    frames: Vec<F>,
    ending: End,
}

#[derive(Debug, PartialEq)]
enum End {
    Finished,
    TooLong { offset: u64 },
    Malformed { offset: u64 },
    Incomplete { offset: u64, received: u64 },
}

/// Hands data over in chunks of the given sizes, round and round; a zero is a tick.
struct Chunks {
    data: Vec<u8>,
    position: usize,
    sizes: Vec<u8>,
    turn: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.data[self.position..];
        let size = match self.sizes.get(self.turn % self.sizes.len().max(1)) {
            None => left.len(),
            Some(&size) => usize::from(size),
        };
        self.turn += 1;
        if size == 0 && self.sizes.iter().any(|&size| size > 0) {
            let ticks =
                [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted];
            return Err(ticks[self.turn % ticks.len()].into());
        }
        let count = size.max(1).min(left.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.position += count;
        Ok(count)
    }
}

fn run<D>(data: &[u8], sizes: &[u8], peek: bool, limit: usize, codec: D) -> Decoded<D::Item>
where
    D: Decoder + Send + 'static,
    D::Item: Send + 'static,
    D::Error: Error + Send + Sync + 'static,
{
    let reader = Chunks { data: data.to_vec(), position: 0, sizes: sizes.to_vec(), turn: 0 };
    let mut source = ReadSource::new(reader, limit, codec).expect("the limit is above 0");
    let mut frames = Vec::new();
    let ending = 'stream: loop {
        let mut step = source.next_frame();
        loop {
            match step {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break 'stream End::Finished,
                Err(error) => match end_of(&error) {
                    Some(end) => break 'stream end,
                    None => break,
                },
            }
            if !peek {
                break;
            }
            step = match source.next_ready() {
                Ok(None) => break,
                ready => ready,
            };
        }
    };
    assert!(matches!(source.next_frame(), Ok(None)), "nothing comes after the end");
    assert!(matches!(source.next_ready(), Ok(None)), "nothing comes after the end");
    Decoded { frames, ending }
}

fn end_of(error: &io::Error) -> Option<End> {
    match error.get_ref()?.downcast_ref::<FrameError>()? {
        FrameError::TooLong { offset, .. } => Some(End::TooLong { offset: *offset }),
        FrameError::Malformed { offset, .. } => Some(End::Malformed { offset: *offset }),
        FrameError::Incomplete { offset, received } => {
            Some(End::Incomplete { offset: *offset, received: *received })
        }
        other => panic!("an ending that nobody modelled: {other:?}"),
    }
}

/// The frames that the codec alone finds, up to its first error and to the first frame over `limit`.
fn alone<D: Decoder>(data: &[u8], limit: usize, mut codec: D) -> Vec<D::Item> {
    let mut buffer = BytesMut::from(data);
    let mut frames = Vec::new();
    let mut at_end = false;
    let mut start = data.len();
    loop {
        let step = if at_end { codec.decode_eof(&mut buffer) } else { codec.decode(&mut buffer) };
        match step {
            Ok(Some(_)) if start - buffer.len() > limit => return frames,
            Ok(Some(frame)) => {
                frames.push(frame);
                start = buffer.len();
            }
            // What was taken without a trace belongs to no frame.
            Ok(None) if buffer.is_empty() => {
                if at_end {
                    return frames;
                }
                (start, at_end) = (0, true);
            }
            Ok(None) if start > limit || at_end => return frames,
            Ok(None) => at_end = true,
            Err(_) => return frames,
        }
    }
}

/// Whether chunks may have given `chopped` where one piece gives `whole`.
///
/// What a decoder has taken at the end of a chunk without making a frame of it counts towards no frame
/// (see `FrameError`): later frames begin later then, and one that was too long may not be.
fn agrees<F: PartialEq>(chopped: &Decoded<F>, whole: &Decoded<F>) -> bool {
    if let End::TooLong { offset } = whole.ending {
        let same = matches!(chopped.ending, End::TooLong { offset: later } if later >= offset);
        return chopped.frames.starts_with(&whole.frames)
            && (same
                || chopped.frames.len() > whole.frames.len()
                || goes_on(&chopped.ending, offset));
    }
    chopped.frames == whole.frames
        && match (&chopped.ending, &whole.ending) {
            // One that is too long as well may be called either.
            (
                End::Malformed { offset: later } | End::TooLong { offset: later },
                End::Malformed { offset },
            ) => later >= offset,
            (
                End::Incomplete { offset: later, received: fewer },
                End::Incomplete { offset, received },
            ) => later >= offset && later + fewer == offset + received,
            (chopped, whole) => chopped == whole,
        }
}

/// Whether something else has come of the bytes from `offset` on.
fn goes_on(ending: &End, from: u64) -> bool {
    match *ending {
        End::Finished => true,
        End::TooLong { offset } | End::Malformed { offset } | End::Incomplete { offset, .. } => {
            offset >= from
        }
    }
}

fn compare<D>(data: &[u8], sizes: &[u8], peek: bool, limit: usize, make: impl Fn() -> D)
where
    D: Decoder + Send + 'static,
    D::Item: Send + Debug + PartialEq + 'static,
    D::Error: Error + Send + Sync + 'static,
{
    let whole = run(data, &[], false, limit, make());
    let chopped = run(data, sizes, peek, limit, make());
    assert!(agrees(&chopped, &whole), "chunks: {chopped:?}\none piece: {whole:?}");
    assert_eq!(whole.frames, alone(data, limit, make()));
}

/// A user's codec: a type byte, a length of one or two bytes, the body; a NUL between frames is
/// skipped, a type with its high bit set is malformed, and the last frame may be cut short.
struct Tagged {
    head: Option<(u8, usize)>,
}

impl Decoder for Tagged {
    type Item = (u8, Vec<u8>);
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        let (tag, length) = match self.head {
            Some(head) => head,
            None => {
                while bytes.first() == Some(&0) {
                    bytes.advance(1);
                }
                let &[tag, ref rest @ ..] = &bytes[..] else { return Ok(None) };
                if tag & 0x80 != 0 {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "no such type"));
                }
                let (length, taken) = match *rest {
                    [short, ..] if short < 0x80 => (usize::from(short), 2),
                    [high, low, ..] => ((usize::from(high & 0x7f) << 8) | usize::from(low), 3),
                    _ => return Ok(None),
                };
                bytes.advance(taken);
                *self.head.insert((tag, length))
            }
        };
        if bytes.len() < length {
            return Ok(None);
        }
        self.head = None;
        Ok(Some((tag, bytes.split_to(length).to_vec())))
    }

    fn decode_eof(&mut self, bytes: &mut BytesMut) -> io::Result<Option<Self::Item>> {
        if let Some(frame) = self.decode(bytes)? {
            return Ok(Some(frame));
        }
        Ok(self.head.take().map(|(tag, _)| (tag, bytes.split().to_vec())))
    }
}

pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (which, limit, flags) = (script.byte(), usize::from(script.byte()) + 1, script.byte());
    let sizes: Vec<u8> = (0..flags % 8).map(|_| script.byte()).collect();
    let peek = flags & 0x80 != 0;
    let own_limit = usize::from(flags >> 4 & 7) * 8 + 1;
    let data = script.rest();
    match which % 6 {
        0 => compare(data, &sizes, peek, limit, LengthDelimitedCodec::new),
        1 => compare(data, &sizes, peek, limit, || {
            LengthDelimitedCodec::builder()
                .length_field_type::<u16>()
                .little_endian()
                .length_adjustment(-2)
                .max_frame_length(own_limit)
                .new_codec()
        }),
        2 => compare(data, &sizes, peek, limit, LinesCodec::new),
        3 => compare(data, &sizes, peek, limit, || LinesCodec::new_with_max_length(own_limit)),
        4 => compare(data, &sizes, peek, limit, || {
            AnyDelimiterCodec::new(b",;\n".to_vec(), b";".to_vec())
        }),
        _ => compare(data, &sizes, peek, limit, || Tagged { head: None }),
    }
}
