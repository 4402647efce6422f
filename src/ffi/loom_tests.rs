//! Model checks of the gate: enter, shut, release, enter again, and the wait for the last call.
//!
//! The cell is loom's, so that a value looked at while it is put in or taken out fails the model,
//! not only a value that is freed twice or never.

use super::gate::{Gate, Left, Released};
use crate::sync::{Deadline, Parker};
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;
use std::task::Waker;

/// Counts its end.
struct Value(Arc<AtomicUsize>, usize);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn open() -> (Arc<Gate<Value>>, u32, Arc<AtomicUsize>) {
    let (gate, freed) = (Arc::new(Gate::new()), Arc::new(AtomicUsize::new(0)));
    let generation = gate.open(Value(Arc::clone(&freed), 1)).map_err(drop).unwrap();
    (gate, generation, freed)
}

/// One call of C's: whether it got in.
fn call(gate: &Gate<Value>, generation: u32, expected: usize) -> bool {
    let Some(inside) = gate.enter(generation) else { return false };
    inside.with(|value| {
        assert_eq!(value.1, expected);
        assert_eq!(value.0.load(SeqCst), 0, "freed under a call");
    });
    if let Left::Free(value) = inside.leave() {
        drop(value);
    }
    true
}

#[test]
fn the_value_is_freed_once_by_the_owner_or_by_the_last_of_two_calls() {
    loom::model(|| {
        let (gate, generation, freed) = open();
        let callers: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || call(&gate, generation, 1))
            })
            .collect();
        if let Released::Value(value) = gate.release() {
            drop(value);
        }
        for caller in callers {
            caller.join().unwrap();
        }
        assert_eq!(freed.load(SeqCst), 1);
        assert!(!call(&gate, generation, 1), "let in after the end");
    });
}

#[test]
fn nobody_is_inside_once_the_wait_is_over() {
    loom::model(|| {
        let (gate, generation, freed) = open();
        let caller = thread::spawn({
            let gate = Arc::clone(&gate);
            move || call(&gate, generation, 1)
        });
        gate.shut();
        let parker = Parker::new();
        while !gate.idle_or_tell(parker.waker()) {
            parker.park(Deadline::Never);
        }
        let Released::Value(value) = gate.release() else { panic!("a call is still inside") };
        drop(value);
        assert_eq!(freed.load(SeqCst), 1);
        caller.join().unwrap();
    });
}

#[test]
fn the_call_that_was_inside_ends_the_wait() {
    loom::model(|| {
        let (gate, generation, freed) = open();
        let inside = gate.enter(generation).unwrap();
        let owner = thread::spawn({
            let gate = Arc::clone(&gate);
            move || {
                gate.shut();
                let parker = Parker::new();
                while !gate.idle_or_tell(parker.waker()) {
                    parker.park(Deadline::Never);
                }
                assert!(matches!(gate.release(), Released::Value(_)));
            }
        });
        assert!(matches!(inside.leave(), Left::Nothing));
        owner.join().unwrap();
        assert_eq!(freed.load(SeqCst), 1);
    });
}

#[test]
fn a_late_call_never_sees_the_next_registrations_value() {
    loom::model(|| {
        let (gate, first, freed) = open();
        let caller = thread::spawn({
            let gate = Arc::clone(&gate);
            move || call(&gate, first, 1)
        });
        if let Released::Value(value) = gate.release() {
            drop(value);
        }
        let next = Arc::new(AtomicUsize::new(0));
        if let Ok(second) = gate.open(Value(Arc::clone(&next), 2)) {
            assert!(call(&gate, second, 2));
            let Released::Value(value) = gate.release() else { panic!("nobody is inside") };
            drop(value);
        }
        caller.join().unwrap();
        assert_eq!((freed.load(SeqCst), next.load(SeqCst)), (1, 1));
    });
}

#[test]
fn a_call_inside_a_call_that_drops_the_owner_leaves_the_value_to_the_outer_one() {
    loom::model(|| {
        let (gate, generation, freed) = open();
        let other = thread::spawn({
            let gate = Arc::clone(&gate);
            move || call(&gate, generation, 1)
        });
        let outer = gate.enter(generation).unwrap();
        let inner = gate.enter(generation).unwrap();
        assert!(matches!(gate.release(), Released::Left));
        assert!(matches!(inner.leave(), Left::Nothing));
        assert_eq!(freed.load(SeqCst), 0);
        if let Left::Free(value) = outer.leave() {
            drop(value);
        }
        other.join().unwrap();
        assert_eq!(freed.load(SeqCst), 1);
    });
}

#[test]
fn a_wait_that_found_nobody_inside_leaves_no_waker_behind() {
    loom::model(|| {
        let (gate, _, _) = open();
        gate.shut();
        assert!(gate.idle_or_tell(Waker::noop()));
        assert!(matches!(gate.release(), Released::Value(_)));
    });
}
