//! How many frames of which size: many small ones, few big ones, a bounded number of bytes.

/// What one size may send, so that big frames don't make the run long.
const BYTES_PER_SIZE: usize = 32 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) size: usize,
    pub(crate) frames: u32,
}

/// Spreads `frames` over `sizes` (ascending): an even share each, less where the bytes would be
/// too many, and what remains to the smallest.
pub(crate) fn plan(frames: u32, sizes: &[usize]) -> Vec<Batch> {
    let mut left = frames;
    let mut batches: Vec<Batch> = Vec::with_capacity(sizes.len());
    for (smaller, &size) in sizes.iter().enumerate().rev() {
        let share = left.div_ceil(smaller as u32 + 1);
        let affordable = u32::try_from(BYTES_PER_SIZE / size).unwrap_or(u32::MAX).max(1);
        let frames = if smaller == 0 { left } else { share.min(affordable) };
        left -= frames;
        batches.push(Batch { size, frames });
    }
    batches.retain(|batch| batch.frames > 0);
    batches.reverse();
    batches
}

/// The part of `batches` that client `index` of `clients` sends.
pub(crate) fn share(batches: &[Batch], index: u32, clients: u32) -> Vec<Batch> {
    let part = |frames: u32| frames / clients + u32::from(index < frames % clients);
    batches
        .iter()
        .map(|batch| Batch { frames: part(batch.frames), ..*batch })
        .filter(|batch| batch.frames > 0)
        .collect()
}
