//! Where a user-data pointer leads: a number into a table of gates that are never freed.
//!
//! Looking a pointer up never follows it, so any bit pattern may come: a stale one names a
//! generation that is over, an invented one a gate that doesn't exist.

use super::gate::Gate;
use crate::sync::prim::Mutex;
use std::any::Any;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

pub(super) type Value = std::sync::Arc<dyn Any + Send + Sync>;

/// What stays of a registration for the life of the process.
pub(super) struct Slot {
    pub(super) gate: Gate<Value>,
    /// Calls of the newest generation that came after its gate was shut.
    pub(super) late: AtomicU64,
}

const INDEX_BITS: u32 = usize::BITS / 2;
const LAST_GENERATION: u32 = (usize::MAX >> INDEX_BITS) as u32;
/// The first chunk; each next one is twice as large, and none ever moves.
const FIRST_CHUNK: usize = 16;
const CHUNKS: usize = INDEX_BITS as usize - 4;

static TABLE: [OnceLock<Box<[Slot]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static VACANT: OnceLock<Mutex<Vacant>> = OnceLock::new();

struct Vacant {
    /// Gates whose registration is over.
    used: Vec<usize>,
    /// The first index that was never used.
    fresh: usize,
}

/// Names one registration: a place in the table, and which of its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    index: usize,
    pub(super) generation: u32,
}

impl Key {
    pub(super) fn from_ptr(user_data: *mut c_void) -> Option<Self> {
        let bits = user_data.addr();
        let generation = (bits >> INDEX_BITS) as u32;
        (generation != 0).then_some(Key { index: bits & ((1 << INDEX_BITS) - 1), generation })
    }

    /// Never null, since generations start at 1.
    pub(super) fn as_ptr(self) -> *mut c_void {
        std::ptr::without_provenance_mut(((self.generation as usize) << INDEX_BITS) | self.index)
    }
}

/// Chunk and place in it: chunk `n` begins at index `FIRST_CHUNK * (2^n - 1)`.
fn locate(index: usize) -> (usize, usize) {
    let shifted = index + FIRST_CHUNK;
    let chunk = (shifted / FIRST_CHUNK).ilog2() as usize;
    (chunk, shifted - (FIRST_CHUNK << chunk))
}

/// The slot that `key` names, if there ever was one.
pub(super) fn find(key: Key) -> Option<&'static Slot> {
    let (chunk, place) = locate(key.index);
    TABLE.get(chunk)?.get()?.get(place)
}

fn with_vacant<R>(change: impl FnOnce(&mut Vacant) -> R) -> R {
    let vacant = VACANT.get_or_init(|| Mutex::new(Vacant { used: Vec::new(), fresh: 0 }));
    change(&mut vacant.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Puts `value` behind a gate and opens it.
///
/// # Panics
///
/// If every place of the table is in use or used up.
pub(super) fn register(mut value: Value) -> (Key, &'static Slot) {
    loop {
        let index = with_vacant(|vacant| {
            vacant.used.pop().unwrap_or_else(|| {
                vacant.fresh += 1;
                vacant.fresh - 1
            })
        });
        let (chunk, place) = locate(index);
        assert!(chunk < CHUNKS, "too many registrations at once: unregister some");
        let slots = TABLE[chunk].get_or_init(|| {
            (0..FIRST_CHUNK << chunk)
                .map(|_| Slot { gate: Gate::new(), late: AtomicU64::new(0) })
                .collect()
        });
        let slot = &slots[place];
        slot.late.store(0, Relaxed);
        match slot.gate.open(value) {
            Ok(generation) => return (Key { index, generation }, slot),
            Err(refused) => value = refused,
        }
    }
}

/// Lets another registration use the gate, unless its generations are used up.
pub(super) fn recycle(key: Key) {
    if key.generation < LAST_GENERATION {
        with_vacant(|vacant| vacant.used.push(key.index));
    }
}
