//! Encoded frames that haven't been written yet.

use super::is_timeout;
use bytes::{Buf, BytesMut};
use std::error::Error;
use std::io::{self, ErrorKind};
use tokio_util::codec::Encoder;

/// How much memory an empty outbox keeps.
const KEPT: usize = 256 * 1024;

/// What was encoded and hasn't left.
#[derive(Default)]
pub(crate) struct Outbox(BytesMut);

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Encodes behind what is there; false, since nothing has left. A failure leaves no trace.
    pub(crate) fn encode<T, E>(&mut self, encoder: &mut E, item: T) -> io::Result<bool>
    where
        E: Encoder<T>,
        E::Error: Error + Send + Sync + 'static,
    {
        let before = self.0.len();
        match encoder.encode(item, &mut self.0) {
            Ok(()) => Ok(false),
            Err(error) => {
                self.0.truncate(before);
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    /// Takes over what another has, behind what is there; where nothing is, the two are exchanged.
    pub(crate) fn append(&mut self, other: &mut Self) {
        if self.0.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.0.extend_from_slice(&other.0);
        }
        other.0.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Writes once; true if nothing is left. What can't be written is given up: nothing of it is written later.
    pub(crate) fn flush(
        &mut self,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        let written = self.write(write);
        if written.as_ref().is_err_and(|error| !is_timeout(error)) {
            self.clear();
        }
        written
    }

    /// Writes once; true if nothing is left.
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let written = write(&self.0)?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.0.advance(written);
        if self.0.is_empty() && self.0.capacity() > KEPT {
            self.0 = BytesMut::new();
        }
        Ok(self.0.is_empty())
    }
}
