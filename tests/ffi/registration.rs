//! The guard: who may come in, who waits, who frees.

use super::{Handler, Held, LONG, TellsDrop, call, handler, slow};
use callbridge::WaitError;
use callbridge::ffi::{UnregisterError, UserData, UserDataStats, in_callback, process_stats};
use std::ffi::c_int;
use std::future::Future;
use std::pin::pin;
use std::ptr::{null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Sender as Tell, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

#[test]
fn the_pointer_is_thin_not_null_and_survives_a_move_of_the_guard_e1_e2_e6() {
    let user_data = handler(|| 3);
    let held = user_data.as_ptr();
    let moved = Box::new(user_data);
    assert!(!held.is_null());
    assert_eq!(moved.as_ptr(), held);
    assert_eq!(call(held), 3);
    assert_eq!(call(held), 3, "borrowed for each call, not consumed (e4)");
}

#[test]
fn a_dropped_guard_frees_the_value_once_as_after_a_failed_registration_e3() {
    let drops = Arc::new(AtomicU64::new(0));
    let user_data = UserData::new(TellsDrop(Arc::clone(&drops)));
    drop(user_data);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_call_may_come_before_the_guard_is_handed_over_e10() {
    let user_data = handler(|| 5);
    let held = Held::by_c(&user_data);
    assert_eq!(thread::spawn(move || held.call()).join().unwrap(), 5);
    assert_eq!(user_data.stats().calls, 1);
}

#[test]
fn a_shut_gate_swallows_and_counts_e35() {
    let user_data = handler(|| 5);
    let held = user_data.as_ptr();
    assert!(user_data.shut());
    assert!(!user_data.shut(), "twice is once (e36)");
    assert_eq!(call(held), -2);
    assert_eq!((user_data.stats().late, user_data.stats().calls), (1, 0));
}

#[test]
fn late_calls_are_swallowed_after_the_value_is_freed_and_its_place_used_again_e12() {
    let old = handler(|| panic!("a stale pointer reached the next registration"));
    let held = old.as_ptr();
    drop(old);
    // Each of these may get the freed place; none may get the old calls.
    for round in 0..100 {
        let next = handler(move || round);
        let late = process_stats().late;
        assert_eq!(call(held), -2);
        assert!(process_stats().late > late);
        assert_ne!(next.as_ptr(), held);
        assert_eq!(call(next.as_ptr()), round);
        assert_eq!(next.stats().late, 0);
    }
}

#[test]
fn null_invented_and_mistyped_user_data_is_swallowed_and_counted_e6_e40() {
    let before = process_stats();
    assert_eq!(call(null_mut()), -2);
    assert_eq!(call(without_provenance_mut(usize::MAX)), -2);
    assert_eq!(call(without_provenance_mut(1)), -2);
    let other = UserData::new(String::from("not a handler"));
    assert_eq!(call(other.as_ptr()), -2);
    let after = process_stats();
    assert!(after.null > before.null);
    assert!(after.unknown >= before.unknown + 3);
}

#[test]
fn unregister_waits_for_the_call_inside_and_gives_the_value_back_e8() {
    let (user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let refused = user_data.unregister(Duration::ZERO);
    let user_data = match refused {
        Err(UnregisterError::TimedOut(user_data)) => user_data,
        other => panic!("a call is inside, and yet {:?}", other.map(|_| ())),
    };
    assert_eq!((user_data.stats().inside, user_data.is_shut()), (1, true));
    let waiter = thread::spawn(move || user_data.unregister(LONG).map(drop));
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
    waiter.join().unwrap().unwrap();
}

#[test]
fn unregister_inside_its_own_callback_only_asks_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let user_data = handler(move || {
        let user_data = inner.lock().unwrap().take().unwrap();
        let refused = user_data.unregister(None).map(drop).unwrap_err();
        let asked = matches!(refused, UnregisterError::InCallback(_));
        let user_data = refused.into_inner();
        assert!(user_data.is_shut());
        *inner.lock().unwrap() = Some(user_data);
        c_int::from(asked)
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
    let user_data = slot.lock().unwrap().take().unwrap();
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
}

#[test]
fn unregister_of_another_registration_inside_a_callback_is_done_e28() {
    let other = Mutex::new(Some(handler(|| 0)));
    let user_data = handler(move || {
        let other = other.lock().unwrap().take().unwrap();
        c_int::from(other.unregister(LONG).is_ok())
    });
    assert_eq!(call(user_data.as_ptr()), 1);
}

#[test]
fn unregister_doesnt_block_an_event_loop_e21_e38() {
    let (user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut user_data = runtime.block_on(async {
        let refused = user_data.unregister(LONG).map(drop).unwrap_err();
        assert!(matches!(refused, UnregisterError::WouldDeadlock(_)));
        refused.into_inner()
    });
    runtime.block_on(async {
        let waiting = std::pin::pin!(user_data.idle());
        let mut waiting = waiting;
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(waiting.as_mut().poll(context).is_pending())
        });
        assert!(first.await);
        leave.send(()).unwrap();
        waiting.await.unwrap();
    });
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
}

#[test]
fn idle_polled_inside_its_own_callback_only_asks_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let user_data = handler(move || {
        let mut user_data = inner.lock().unwrap().take().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        c_int::from(runtime.block_on(user_data.idle()) == Err(WaitError::WouldDeadlock))
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
}

#[test]
fn drop_never_waits_and_leaves_the_value_to_the_last_call_e30_e34() {
    let drops = Arc::new(AtomicU64::new(0));
    let (tell_inside, inside) = channel();
    let (leave, told_to_leave) = channel::<()>();
    let told_to_leave = Mutex::new(told_to_leave);
    let value = TellsDrop(Arc::clone(&drops));
    let user_data = handler(move || {
        let _ = &value;
        tell_inside.send(()).unwrap();
        told_to_leave.lock().unwrap().recv_timeout(LONG).unwrap();
        9
    });
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let orphaned = process_stats().orphaned;
    drop(user_data);
    assert!(process_stats().orphaned > orphaned);
    assert_eq!(drops.load(SeqCst), 0, "a call is still inside");
    assert_eq!(held.call(), -2);
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 9);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn drop_inside_the_callback_frees_at_the_outermost_exit_e8_e30() {
    let drops = Arc::new(AtomicU64::new(0));
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let (inner, value) = (Arc::clone(&slot), TellsDrop(Arc::clone(&drops)));
    let depth = AtomicU64::new(0);
    let seen = Arc::clone(&drops);
    let user_data = handler(move || {
        let _ = &value;
        if depth.fetch_add(1, SeqCst) == 0 {
            let held = Held::by_c(inner.lock().unwrap().as_ref().unwrap());
            let answer = held.call();
            assert_eq!(seen.load(SeqCst), 0, "the outer call is still inside");
            answer
        } else {
            drop(inner.lock().unwrap().take());
            11
        }
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 11);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn in_callback_is_true_inside_at_any_depth_and_after_a_panic_no_more_e28() {
    let inner = handler(|| c_int::from(in_callback()));
    let held = Held::by_c(&inner);
    let outer = handler(move || held.call() + c_int::from(in_callback()));
    assert_eq!(call(outer.as_ptr()), 2);
    let panics = handler(|| panic!("on purpose: the mark goes too"));
    assert_eq!(call(panics.as_ptr()), -1);
    assert!(!in_callback());
}

#[test]
fn unregister_at_any_depth_of_its_own_callbacks_only_asks_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let (inner, asked) = (Arc::clone(&slot), Arc::new(AtomicBool::new(false)));
    let (depth, saw) = (AtomicU64::new(0), Arc::clone(&asked));
    let filler = handler(|| 0);
    let filler = Held::by_c(&filler);
    let user_data = handler(move || {
        filler.call();
        if depth.fetch_add(1, SeqCst) < 20 {
            let held = Held::by_c(inner.lock().unwrap().as_ref().unwrap());
            return held.call();
        }
        let user_data = inner.lock().unwrap().take().unwrap();
        saw.store(user_data.unregister(LONG).is_err(), SeqCst);
        1
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
    assert!(asked.load(SeqCst));
}

#[test]
fn several_threads_are_inside_at_once_e7() {
    let together = Arc::new(std::sync::Barrier::new(4));
    let meet = Arc::clone(&together);
    let user_data = handler(move || {
        meet.wait();
        1
    });
    let held = Held::by_c(&user_data);
    let callers: Vec<_> = (0..4).map(|_| thread::spawn(move || held.call())).collect();
    assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
    assert_eq!(user_data.stats().calls, 4);
}

#[test]
fn places_are_used_again() {
    // Far more in turn than places at once; each must find one.
    for round in 0..100_000 {
        let user_data = handler(move || round);
        assert_eq!(call(user_data.as_ptr()), round);
    }
    let many: Vec<_> = (0..1000).map(|n| handler(move || n)).collect();
    for (n, user_data) in many.iter().enumerate() {
        assert_eq!(call(user_data.as_ptr()), n as c_int);
    }
}

#[test]
fn calls_during_thread_exit_are_served_e22() {
    struct AtExit(std::cell::Cell<Option<Held>>, Tell<c_int>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.1.send(self.0.get().unwrap().call()).unwrap();
        }
    }
    std::thread_local! {
        static AT_EXIT: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) };
    }
    let user_data = handler(|| 6);
    let held = Held::by_c(&user_data);
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        AT_EXIT.with(|at_exit| {
            *at_exit.borrow_mut() = Some(AtExit(std::cell::Cell::new(Some(held)), tell));
        });
    });
    thread.join().unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(6));
}

struct Quiet;

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_wait_that_was_given_up_keeps_no_waker() {
    let (mut user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let task = Arc::new(Quiet);
    {
        let waker = Waker::from(Arc::clone(&task));
        let waiting = pin!(user_data.idle());
        assert!(waiting.poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(Arc::strong_count(&task), 3, "the gate has one");
    }
    assert_eq!(Arc::strong_count(&task), 1, "references to the task");
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
}

#[test]
fn a_wait_for_calls_that_wait_for_each_other_is_refused() {
    type Other = Arc<Mutex<Option<UserData<Handler>>>>;
    let (tell, told) = channel();
    let both = Arc::new(Barrier::new(2));
    let partner = |other: &Other| {
        let (other, both, tell) = (Arc::clone(other), Arc::clone(&both), tell.clone());
        handler(move || {
            let other = other.lock().unwrap().take().unwrap();
            both.wait();
            let ended = other.unregister(None);
            both.wait();
            tell.send(matches!(ended, Err(UnregisterError::InCallback(_)))).unwrap();
            0
        })
    };
    let (of_a, of_b) = (Other::default(), Other::default());
    let (a, b) = (partner(&of_a), partner(&of_b));
    let held = [Held::by_c(&a), Held::by_c(&b)];
    (*of_a.lock().unwrap(), *of_b.lock().unwrap()) = (Some(b), Some(a));
    for held in held {
        thread::spawn(move || held.call());
    }
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    assert_eq!(told.recv_timeout(LONG), Ok(true));
}

#[test]
fn unregister_hands_over_the_final_statistics() {
    let (user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    assert!(user_data.shut());
    assert_eq!(held.call(), -2);
    leave.send(()).unwrap();
    let (_, UserDataStats { calls, inside, late, .. }) = user_data.unregister(LONG).unwrap();
    assert_eq!((calls, inside, late), (1, 0, 1));
    caller.join().unwrap();
}

#[test]
fn a_pointer_is_as_short_as_an_address() {
    let user_data = handler(|| 0);
    for _ in 0..1000 {
        drop(handler(|| 0));
    }
    let last = handler(|| 0);
    for pointer in [user_data.as_ptr(), last.as_ptr()] {
        assert!((pointer.addr() as u64) < 1 << 47);
    }
}
