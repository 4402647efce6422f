//! The lines of a file, from where an earlier process stopped.

use callbridge::channel::Sender;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A line, and where it ends.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) text: Vec<u8>,
    pub(crate) end: Position,
}

/// How far a file has been read: lines and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) lines: u64,
    bytes: u64,
}

/// Where a position is kept.
pub(crate) struct Bookmark {
    path: PathBuf,
}

impl Bookmark {
    pub(crate) fn new(path: &Path) -> Self {
        Bookmark { path: path.to_owned() }
    }

    /// What was saved last; the beginning if nothing was.
    pub(crate) fn load(&self) -> io::Result<Position> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Position::default()),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(lines)), Some(Ok(bytes))) => Ok(Position { lines, bytes }),
            _ => Err(io::Error::other(format!("{} holds no position", self.path.display()))),
        }
    }

    /// Saves it so that the old or the new is there, whatever happens to the process.
    pub(crate) fn save(&self, position: Position) -> io::Result<()> {
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{} {}\n", position.lines, position.bytes))?;
        fs::rename(new, &self.path)
    }
}

/// Sends the lines behind `position`, on the calling thread. A last line without an end counts.
pub(crate) fn send_lines(file: File, position: Position, sender: &Sender<Line>) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    file.seek(SeekFrom::Start(position.bytes))?;
    let mut end = position;
    loop {
        let mut text = Vec::new();
        let read = file.read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(());
        }
        end = Position { lines: end.lines + 1, bytes: end.bytes + read as u64 };
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        if sender.send(Line { text, end }).is_err() {
            return Ok(());
        }
    }
}
