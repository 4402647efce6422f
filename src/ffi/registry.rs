//! Where a user-data pointer leads: a number into a table of gates that are never freed.
//!
//! Looking a pointer up never follows it, so any bit pattern may come: a stale one names a
//! generation that is over, an invented one a gate that doesn't exist.

use super::gate::{Gate, LAST_GENERATION};
use crate::sync::prim::Mutex;
use std::any::Any;
use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

pub(super) type Value = std::sync::Arc<dyn Any + Send + Sync>;

/// What stays of a registration for the life of the process.
///
/// All that a call writes is in here, two cache lines of its own (processors fetch them in pairs):
/// calls of one registration cost those of another nothing.
#[repr(align(128))]
pub(super) struct Slot {
    pub(super) gate: Gate<Value>,
    /// The generation in the upper half, and how many of its calls came after its gate was shut.
    late: AtomicU64,
    /// Of the newest generation, as the next two: counted by calls that are inside.
    pub(super) calls: AtomicU64,
    pub(super) bad_arguments: AtomicU64,
    pub(super) panicked: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Slot {
            gate: Gate::new(),
            late: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            bad_arguments: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
        }
    }

    /// Counts a late call, unless the place has another user by now. Whether it is the first.
    pub(super) fn count_late(&self, generation: u32) -> Option<bool> {
        let counted = self.late.fetch_update(Relaxed, Relaxed, |late| {
            (late >> 32 == u64::from(generation) && late as u32 != u32::MAX).then(|| late + 1)
        });
        counted.ok().map(|before| before as u32 == 0)
    }

    /// Late calls of the newest generation.
    pub(super) fn late(&self) -> u64 {
        u64::from(self.late.load(Relaxed) as u32)
    }
}

/// With the generations no more than 47 bits, as an address has: some libraries keep no more.
const INDEX_BITS: u32 = if usize::BITS < 64 { 16 } else { 24 };
/// The first chunk; each next one is twice as large, and none ever moves.
const FIRST_CHUNK: usize = 16;
const CHUNKS: usize = INDEX_BITS as usize - 4;
/// How many used places there are before one of them is used again, so that a pointer comes again
/// as late as can be: on 64 bits after 400 million registrations, on 32 after three million.
const RESTING: usize = 3 * FIRST_CHUNK - 1;

static TABLE: [OnceLock<Box<[Slot]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
static VACANT: OnceLock<Mutex<Vacant>> = OnceLock::new();

struct Vacant {
    /// Places whose registration is over, the longest unused first.
    used: VecDeque<usize>,
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
    pub(super) fn from_bits(bits: usize) -> Option<Self> {
        let generation = u32::try_from(bits >> INDEX_BITS).ok()?;
        let index = bits & ((1 << INDEX_BITS) - 1);
        (1..=LAST_GENERATION).contains(&generation).then_some(Key { index, generation })
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
    let vacant = VACANT.get_or_init(|| Mutex::new(Vacant { used: VecDeque::new(), fresh: 0 }));
    change(&mut vacant.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Vacant {
    /// A place that nobody uses.
    fn take(&mut self) -> Option<usize> {
        let all_taken = locate(self.fresh).0 == CHUNKS;
        if all_taken || self.used.len() >= RESTING {
            return self.used.pop_front();
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }
}

/// Puts `value` behind a gate and opens it.
///
/// # Panics
///
/// If every place of the table is in use.
pub(super) fn register(mut value: Value) -> (Key, &'static Slot) {
    loop {
        let index =
            with_vacant(Vacant::take).expect("too many registrations at once: unregister some");
        let (chunk, place) = locate(index);
        let slots =
            TABLE[chunk].get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| Slot::new()).collect());
        let slot = &slots[place];
        for counter in [&slot.calls, &slot.bad_arguments, &slot.panicked] {
            counter.store(0, Relaxed);
        }
        match slot.gate.open(value) {
            Ok(generation) => {
                slot.late.store(u64::from(generation) << 32, Relaxed);
                return (Key { index, generation }, slot);
            }
            Err(refused) => value = refused,
        }
    }
}

/// Lets another registration use the gate.
pub(super) fn recycle(key: Key) {
    with_vacant(|vacant| vacant.used.push_back(key.index));
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::*;
    use crate::ffi::gate::Released;

    #[test]
    fn a_slot_outlasts_its_generations() {
        let gate = Gate::new();
        let open = || {
            let generation = gate.open(()).unwrap();
            assert!(matches!(gate.release(), Released::Value(())));
            generation
        };
        assert_eq!(open(), 1);
        assert!((2..=LAST_GENERATION).all(|generation| open() == generation));
        assert_eq!(open(), 1);
    }

    #[test]
    fn a_late_call_is_counted_for_its_own_registration_only() {
        let (old, slot) = register(std::sync::Arc::new(()));
        assert_eq!(slot.count_late(old.generation), Some(true));
        assert_eq!(slot.count_late(old.generation), Some(false));
        drop(slot.gate.release());
        recycle(old);
        // Until its place is used again.
        let new = loop {
            let (new, its_slot) = register(std::sync::Arc::new(()));
            if std::ptr::eq(its_slot, slot) {
                break new;
            }
            drop(its_slot.gate.release());
            recycle(new);
        };
        assert_ne!(new.generation, old.generation);
        assert_eq!((slot.count_late(old.generation), slot.late()), (None, 0));
        assert_eq!((slot.count_late(new.generation), slot.late()), (Some(true), 1));
    }

    #[test]
    fn no_two_slots_share_a_cache_line() {
        assert_eq!((align_of::<Slot>(), size_of::<Slot>()), (128, 128));
    }
}
