//! Receive buffers: payloads are cut from a few large blocks, which are used again once the
//! consumer has dropped what was cut from them.

use bytes::{Bytes, BytesMut};

/// How much one block holds, unless one payload needs more.
const BLOCK: usize = 256 * 1024;

/// How many blocks are kept for reuse.
const BLOCKS: usize = 8;

/// A small ring of blocks; allocates only while every block is still in the consumer's hands.
#[derive(Default)]
pub(crate) struct Pool {
    /// The blocks, all of them possibly shared with payloads cut from them.
    blocks: Vec<BytesMut>,
    /// The block that payloads are cut from now.
    at: usize,
}

impl Pool {
    /// A payload that holds a copy of `data`.
    pub(crate) fn copy_in(&mut self, data: &[u8]) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        let block = self.block_with(data.len());
        block.extend_from_slice(data);
        block.split().freeze()
    }

    fn block_with(&mut self, room: usize) -> &mut BytesMut {
        let count = self.blocks.len();
        let found = (0..count)
            .map(|step| (self.at + step) % count)
            .find(|&index| self.blocks[index].try_reclaim(room));
        self.at = match found {
            Some(index) => index,
            None if count < BLOCKS => {
                self.blocks.push(BytesMut::with_capacity(room.max(BLOCK)));
                count
            }
            None => {
                let oldest = (self.at + 1) % count;
                self.blocks[oldest] = BytesMut::with_capacity(room.max(BLOCK));
                oldest
            }
        };
        &mut self.blocks[self.at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_once_payloads_are_dropped() {
        let mut pool = Pool::default();
        let first = pool.copy_in(&[1; 1000]);
        let start = first.as_ptr();
        drop(first);
        let mut reused = false;
        for round in 0..10_000_u32 {
            let payload = pool.copy_in(&[round as u8; 1000]);
            assert_eq!(payload, vec![round as u8; 1000]);
            reused |= payload.as_ptr() == start;
        }
        assert!(reused);
        assert_eq!(pool.blocks.len(), 1);
    }

    #[test]
    fn payloads_that_are_kept_stay_intact() {
        let mut pool = Pool::default();
        let kept: Vec<Bytes> = (0..100_u8).map(|byte| pool.copy_in(&[byte; 60_000])).collect();
        for (byte, payload) in (0_u8..).zip(&kept) {
            assert!(payload.iter().all(|&b| b == byte));
        }
        assert_eq!(pool.blocks.len(), BLOCKS);
    }
}
