//! Callbacks from C, without a C compiler: the tests call the extern functions themselves. The
//! numbers e1 to e47 are rows of `tests/PEERS.md`. What must not compile is in
//! `src/ffi/compile_fail.rs`.
#![allow(unsafe_code, reason = "plays the part of C")]

mod panics;
mod registration;
mod stops;
#[cfg(feature = "tracing")]
mod swallowed;
mod trampoline;
mod views;

use callbridge::ffi::UserData;
use std::ffi::{c_int, c_void};
use std::ptr::without_provenance_mut;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender as Tell, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A handler that the test writes anew each time.
type Handler = Box<dyn Fn() -> c_int + Send + Sync>;

callbridge::trampoline! {
    fn run(user_data: *mut c_void) -> c_int;
    |handler: Handler = user_data| { handler() }
    panicked -1, swallowed -2
}

fn call(user_data: *mut c_void) -> c_int {
    // SAFETY: any user data may come, and there is no other pointer.
    unsafe { run(user_data) }
}

fn handler(body: impl Fn() -> c_int + Send + Sync + 'static) -> UserData<Handler> {
    UserData::new(Box::new(body))
}

/// A raw pointer for another thread.
#[derive(Clone, Copy)]
struct Held(usize);

impl Held {
    fn by_c<T: Send + Sync>(user_data: &UserData<T>) -> Self {
        Held(user_data.as_ptr().addr())
    }

    fn call(self) -> c_int {
        call(without_provenance_mut(self.0))
    }
}

/// A handler that says when it is inside, and leaves when told.
fn slow() -> (UserData<Handler>, Receiver<()>, Tell<()>) {
    let (tell_inside, inside) = channel();
    let (leave, told_to_leave) = channel();
    let told_to_leave = Mutex::new(told_to_leave);
    let user_data = handler(move || {
        tell_inside.send(()).unwrap();
        told_to_leave.lock().unwrap().recv_timeout(LONG).unwrap();
        7
    });
    (user_data, inside, leave)
}

struct TellsDrop(Arc<AtomicU64>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}
