//! Calls that stay pending until a gate opens.

use super::callers::Caller;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Lets every call through at once. The wakers lie here, so that a call's memory is its own.
pub(crate) struct Gate {
    open: AtomicBool,
    waiting: AtomicU64,
    wakers: Vec<Mutex<Option<Waker>>>,
}

impl Gate {
    pub(crate) fn new(calls: u64) -> Arc<Self> {
        let wakers = (0..calls).map(|_| Mutex::new(None)).collect();
        Arc::new(Gate { open: AtomicBool::new(false), waiting: AtomicU64::new(0), wakers })
    }

    fn waker(&self, n: u64) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.wakers[n as usize].lock().expect("nobody panics with it")
    }

    fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
        for n in 0..self.wakers.len() as u64 {
            let waker = self.waker(n).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A call of 24 bytes, and `STATE` more.
struct Call<const STATE: usize> {
    gate: Arc<Gate>,
    n: u64,
    waiting: bool,
    state: [u8; STATE],
}

/// The size of a call's future in bytes.
pub(crate) fn call_size<const STATE: usize>() -> usize {
    size_of::<Call<STATE>>()
}

impl<const STATE: usize> Future for Call<STATE> {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        if !self.gate.open.load(Ordering::SeqCst) {
            *self.gate.waker(self.n) = Some(cx.waker().clone());
            if !self.waiting {
                self.waiting = true;
                self.gate.waiting.fetch_add(1, Ordering::Relaxed);
            }
            if !self.gate.open.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.n + self.state.iter().map(|it| u64::from(*it)).sum::<u64>())
    }
}

/// How long the two halves of a burst took.
pub(crate) struct Burst {
    pub(crate) submit: Duration,
    pub(crate) resolve: Duration,
}

/// Submits `calls`, waits until all are pending, tells `pending`, lets them through and collects
/// and checks every result.
pub(crate) fn burst<C: Caller, const STATE: usize>(
    caller: &C,
    gate: &Arc<Gate>,
    pending: impl FnOnce(),
) -> Burst {
    let calls = gate.wakers.len() as u64;
    let start = Instant::now();
    let mut handles = Vec::with_capacity(calls as usize);
    for n in 0..calls {
        let call = Call::<STATE> { gate: Arc::clone(gate), n, waiting: false, state: [0; STATE] };
        handles.push(caller.submit(call));
    }
    let submit = start.elapsed();
    while gate.waiting.load(Ordering::Relaxed) < calls {
        thread::sleep(Duration::from_micros(50));
    }
    pending();
    let start = Instant::now();
    gate.open();
    let sum: u64 = handles.into_iter().map(|handle| caller.wait(handle)).sum();
    let resolve = start.elapsed();
    assert_eq!(sum, calls * (calls - 1) / 2, "wrong results");
    Burst { submit, resolve }
}
