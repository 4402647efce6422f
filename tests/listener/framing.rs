//! Byte streams: a decoder gets the same frames however the bytes are chopped, and bad input is told.

use crate::support::{end, next};
use bytes::BytesMut;
use callbridge::channel::Ending;
use callbridge::listener::{FrameError, FrameSource, Listener, ReadSource, WholeFrames};
use std::io::{self, Cursor, ErrorKind, Read};
use tokio_util::codec::{AnyDelimiterCodec, Decoder, LengthDelimitedCodec, LinesCodec};

/// Returns at most `chunk` bytes at a time, with a tick now and then.
struct Chopped {
    data: Cursor<Vec<u8>>,
    state: u64,
    most: u64,
}

impl Chopped {
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

impl Read for Chopped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random() % 5 == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = (1 + self.random() % self.most) as usize;
        let most = most.min(buffer.len());
        self.data.read(&mut buffer[..most])
    }
}

/// Everything a source gives, and how it ends.
fn drain<D>(data: &[u8], seed: u64, most: u64, limit: usize, codec: D) -> (Vec<D::Item>, String)
where
    D: Decoder + Send + 'static,
    D::Item: Send + 'static,
    D::Error: std::error::Error + Send + Sync + 'static,
{
    let reader = Chopped { data: Cursor::new(data.to_vec()), state: seed, most };
    let mut source = ReadSource::new(reader, limit, codec).unwrap();
    let mut frames = Vec::new();
    loop {
        match source.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, "finished".to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return (frames, error.to_string()),
        }
    }
}

#[test]
fn a_stream_chopped_anywhere_decodes_as_in_one_piece() {
    let mut random = Chopped { data: Cursor::default(), state: 0x9e37_79b9_7f4a_7c15, most: 1 };
    for round in 0..300 {
        // Lengths and noise: some streams are whole, some break off, some are garbage.
        let mut lines = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..random.random() % 20 {
            let size = (random.random() % 40) as usize;
            lines.extend(std::iter::repeat_n(b'a' + (size % 26) as u8, size));
            lines.push(b'\n');
            blocks.extend_from_slice(&(size as u32).to_be_bytes());
            blocks.extend(std::iter::repeat_n(size as u8, size));
        }
        if round % 3 == 0 {
            lines.truncate(lines.len() - lines.len().min(3));
            blocks.truncate(blocks.len() - blocks.len().min(3));
        }
        let whole = |data: &[u8]| drain(data, 1, u64::MAX, 30, LinesCodec::new());
        let whole_blocks = |data: &[u8]| drain(data, 1, u64::MAX, 30, LengthDelimitedCodec::new());
        for most in [1, 2, 7, 64] {
            let seed = random.random() | 1;
            assert_eq!(drain(&lines, seed, most, 30, LinesCodec::new()), whole(&lines));
            assert_eq!(
                drain(&blocks, seed, most, 30, LengthDelimitedCodec::new()),
                whole_blocks(&blocks)
            );
        }
    }
}

/// Around a codec that judges its end in the same way it changes nothing, wherever the stream is chopped or ends.
#[test]
fn whole_frames_are_those_of_the_codec_inside() {
    let mut blocks = Vec::new();
    for size in [0, 5, 1, 26, 30] {
        blocks.extend_from_slice(&u32::to_be_bytes(size));
        blocks.extend(std::iter::repeat_n(b'x', size as usize));
    }
    for end in 0..=blocks.len() {
        for most in [1, 4, 64] {
            let data = &blocks[..end];
            let plain = drain(data, 7, most, 32, LengthDelimitedCodec::new());
            assert_eq!(drain(data, 7, most, 32, WholeFrames(LengthDelimitedCodec::new())), plain);
        }
    }
}

#[test]
fn a_line_that_breaks_off_is_no_whole_frame() {
    let (lines, end) = drain(b"21.5\n2", 1, 9, 80, WholeFrames(LinesCodec::new()));
    assert_eq!(lines, ["21.5"]);
    assert_eq!(end, "frame at byte 5 breaks off after 1 bytes: the peer left in the middle");
    assert_eq!(drain(b"21.5\n", 1, 9, 80, WholeFrames(LinesCodec::new())).1, "finished");
}

#[test]
fn a_frame_that_is_too_long_and_malformed_is_too_long_however_it_is_chopped() {
    let line = b"good\n\xff\xff\xff\xff\xff\xff\n";
    let (frames, end) = drain(line, 1, u64::MAX, 5, LinesCodec::new());
    assert_eq!(frames, ["good"]);
    assert!(end.contains("too long"), "{end}");
    assert_eq!(drain(line, 1, 1, 5, LinesCodec::new()), (frames, end));
}

#[test]
fn frames_before_a_bad_one_are_handed_over_first() {
    let (frames, end) =
        drain(b"one\ntwo\nmuch too long\nnever seen\n", 1, 99, 9, LinesCodec::new());
    assert_eq!(frames, ["one", "two"]);
    assert_eq!(
        end,
        "frame at byte 8 is too long: raise the limit (9 bytes, or the decoder's own) or check the peer"
    );
}

#[test]
fn a_frame_of_exactly_the_limit_passes() {
    assert_eq!(drain(b"12345\n", 1, 99, 6, LinesCodec::new()).0, ["12345"]);
    assert!(drain(b"123456\n", 1, 99, 6, LinesCodec::new()).0.is_empty());
}

#[test]
fn a_garbage_length_is_an_error_with_its_offset() {
    let mut data = b"\0\0\0\x02ok".to_vec();
    data.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    let mut source = ReadSource::new(Cursor::new(data), 1024, LengthDelimitedCodec::new()).unwrap();
    assert_eq!(source.next_frame().unwrap(), Some(BytesMut::from("ok")));
    let error = source.next_frame().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
    assert!(matches!(error, FrameError::TooLong { offset: 6, .. }), "{error}");
    assert!(source.next_frame().unwrap().is_none(), "a framing error is final");
}

#[test]
fn a_frame_over_any_limit_is_too_long_whichever_fires() {
    let length = |most| LengthDelimitedCodec::builder().max_frame_length(most).new_codec();
    fn refused<C>(data: &'static [u8], limit: usize, codec: C)
    where
        C: Decoder<Error: std::error::Error + Send + Sync, Item: Send> + Send + 'static,
    {
        let mut source = ReadSource::new(Cursor::new(data), limit, codec).unwrap();
        let Err(error) = source.next_frame() else { panic!("it is too long") };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
        assert!(matches!(error, FrameError::TooLong { offset: 0, .. }), "{error}");
    }
    // The source's limit fires, and the codec's.
    for (limit, most) in [(12, 100), (100, 8)] {
        refused(b"\0\0\0\x09123456789", limit, length(most));
        refused(b"123456789012\n", limit, LinesCodec::new_with_max_length(most));
        let (end, ends) = (b";".to_vec(), b";".to_vec());
        refused(b"123456789012;", limit, AnyDelimiterCodec::new_with_max_length(end, ends, most));
    }
}

#[test]
fn a_frame_that_isnt_one_is_malformed() {
    let mut source = ReadSource::new(Cursor::new(b"\xff\xff\n"), 100, LinesCodec::new()).unwrap();
    let error = source.next_frame().unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
    assert!(matches!(error, FrameError::Malformed { offset: 0, .. }), "{error}");
}

#[test]
fn half_a_frame_then_the_end_is_an_error() {
    // Inside the header, right behind it, inside the payload.
    for (data, offset, received) in
        [(&b"\0\0\0\x01a\0\0"[..], 5, 2), (b"\0\0\0\x05", 0, 4), (b"\0\0\0\x05half", 0, 8)]
    {
        let mut source =
            ReadSource::new(Cursor::new(data), 1024, LengthDelimitedCodec::new()).unwrap();
        let error = loop {
            if let Err(error) = source.next_frame() {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        match error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap() {
            FrameError::Incomplete { offset: o, received: r } => {
                assert_eq!((*o, *r), (offset, received));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_limit_of_zero_is_refused_with_a_reason() {
    let refused = ReadSource::new(io::empty(), 0, LinesCodec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("at least 1"));
}

#[test]
fn a_reader_that_lies_about_its_length_is_an_error_not_a_panic() {
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(usize::MAX)
        }
    }
    let mut source = ReadSource::new(Liar, 10, LinesCodec::new()).unwrap();
    assert_eq!(source.next_frame().unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn what_was_wrong_with_a_frame_is_found_in_the_error_that_the_stream_ends_with() {
    for data in [&b"\0\0\0\x02ok\xFF\0\0\0"[..], b"\0\0\0\x02ok\0\0\0\x09half"] {
        let source = ReadSource::new(Cursor::new(data), 80, LengthDelimitedCodec::new()).unwrap();
        let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
        assert_eq!(&next(&mut frames)[..], b"ok");
        assert_eq!(end(&mut frames), Ending::Failed);
        let error = frames.error().unwrap();
        match FrameError::find(&error) {
            Some(FrameError::TooLong { offset, .. } | FrameError::Incomplete { offset, .. }) => {
                assert_eq!(*offset, 6);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(FrameError::find(&io::Error::other("unplugged")).is_none());
    assert!(FrameError::find(&io::Error::from(ErrorKind::BrokenPipe)).is_none());
}
