//! Any sequence of operations on a bridge must do what a list of calls on paper does.
//!
//! The loop is a current-thread one that only runs when the script says so: everything between is
//! up to the operations alone.

use super::Script;
use callbridge::future::{FutureState, SubmitError};
use callbridge::{Bridge, ResultError};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Opened by the script, so that a call ends; and by a loop that has nothing to do.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, SeqCst);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn shut(&self) {
        self.open.store(false, SeqCst);
    }

    /// Leaves no waker behind: the loop's own keeps the loop alive.
    async fn pass(&self) {
        poll_fn(|cx| {
            if self.open.load(SeqCst) {
                return Poll::Ready(());
            }
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Counts what is alive of the futures and of their results.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Live(Arc::clone(count))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// What the body does once its gate is open.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Return,
    Panic,
}

/// One call on paper.
struct Call {
    future: Option<callbridge::BlockingFuture<(u32, Live)>>,
    id: u32,
    act: Act,
    gate: Arc<Gate>,
    cancel_asked: bool,
    cancel_on_drop: bool,
    /// How it ended; `None` while it is in flight.
    ended: Option<FutureState>,
    taken: bool,
    callbacks: Arc<AtomicUsize>,
    callbacks_expected: usize,
    live: Arc<AtomicUsize>,
}

impl Call {
    fn settle(&mut self, alive: bool) {
        if self.ended.is_some() {
            return;
        }
        self.ended = if self.cancel_asked {
            Some(FutureState::Cancelled)
        } else if !alive {
            Some(FutureState::LoopClosed)
        } else if self.gate.open.load(SeqCst) {
            Some(match self.act {
                Act::Return => FutureState::Finished,
                Act::Panic => FutureState::Panicked,
            })
        } else {
            None
        };
    }
}

struct Run {
    bridge: Bridge,
    limit: usize,
    runtime: Option<Runtime>,
    /// Opened whenever the loop is about to sleep.
    at_rest: Arc<Gate>,
    closed: bool,
    calls: Vec<Call>,
    submitted: u64,
    refused: u64,
    posted: Arc<Mutex<Vec<u32>>>,
    /// Callbacks that the loop has yet to run, and those it has run.
    to_run: Vec<u32>,
    ran: Vec<u32>,
    /// Callbacks that went with the loop.
    never_ran: u64,
    next_id: u32,
}

impl Run {
    fn new(script: &mut Script<'_>) -> Self {
        let at_rest = Arc::new(Gate::default());
        let resting = Arc::clone(&at_rest);
        let runtime =
            Builder::new_current_thread().on_thread_park(move || resting.open()).build().unwrap();
        let limit = usize::from(script.byte() % 4) + 1;
        let bridge = Bridge::builder(runtime.handle().clone())
            .max_in_flight(limit)
            .spin_before_park(false)
            .build()
            .unwrap();
        Run {
            bridge,
            limit,
            runtime: Some(runtime),
            at_rest,
            closed: false,
            calls: Vec::new(),
            submitted: 0,
            refused: 0,
            posted: Arc::default(),
            to_run: Vec::new(),
            ran: Vec::new(),
            never_ran: 0,
            next_id: 0,
        }
    }

    fn in_flight(&self) -> usize {
        self.calls.iter().filter(|call| call.ended.is_none()).count() + self.to_run.len()
    }

    fn accepts(&self) -> bool {
        !self.closed && self.runtime.is_some()
    }

    fn submit(&mut self, op: u8) {
        self.next_id += 1;
        let (id, gate) = (self.next_id, Arc::new(Gate::default()));
        let act = if op & 0x40 == 0 { Act::Return } else { Act::Panic };
        let live = Arc::new(AtomicUsize::new(0));
        let (passing, guard) = (Arc::clone(&gate), Live::new(&live));
        if op & 0x80 != 0 {
            gate.open();
        }
        let body = async move {
            passing.pass().await;
            assert!(act == Act::Return, "as the script says");
            (id, guard)
        };
        let full = self.in_flight() >= self.limit;
        match self.bridge.try_run_coroutine_threadsafe(body) {
            Ok(future) => {
                assert!(self.accepts() && !full, "let in though closed or full");
                self.submitted += 1;
                self.calls.push(Call {
                    future: Some(future),
                    id,
                    act,
                    gate,
                    cancel_asked: false,
                    cancel_on_drop: false,
                    ended: None,
                    taken: false,
                    callbacks: Arc::default(),
                    callbacks_expected: 0,
                    live,
                });
            }
            Err(SubmitError::Full(body)) => {
                assert!(self.accepts() && full);
                self.refused += 1;
                drop(body);
                assert_eq!(live.load(SeqCst), 0);
            }
            Err(SubmitError::Closed(_)) => {
                assert!(!self.accepts());
                self.refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Runs the loop until it goes to sleep; one that never does runs into the fuzzer's timeout.
    fn drive(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        self.at_rest.shut();
        runtime.block_on(self.at_rest.pass());
        self.settle();
        self.ran.append(&mut self.to_run);
    }

    fn settle(&mut self) {
        // Closing waits for nothing here: what is in flight then goes with the drivers.
        let alive = self.accepts();
        for call in &mut self.calls {
            call.settle(alive);
        }
    }

    fn close(&mut self) {
        if self.runtime.is_none() {
            return;
        }
        // Stays short when nothing is in flight, and else waits its grace for a loop that nobody
        // drives; so everything is brought to its end first.
        for call in &self.calls {
            call.gate.open();
        }
        self.drive();
        let report = self.bridge.close_blocking(Duration::ZERO);
        self.closed = true;
        assert!(report.is_clean(), "{report}");
    }

    fn stop_loop(&mut self) {
        if self.runtime.take().is_some() {
            self.settle();
            self.never_ran += self.to_run.len() as u64;
            self.to_run.clear();
        }
    }

    fn post(&mut self) {
        self.next_id += 1;
        let (id, log) = (self.next_id, Arc::clone(&self.posted));
        let full = self.in_flight() >= self.limit;
        let answer = self.bridge.try_call_soon_threadsafe(move || log.lock().unwrap().push(id));
        assert_eq!(answer.is_ok(), self.accepts() && !full);
        match answer {
            Ok(()) => {
                self.submitted += 1;
                self.to_run.push(id);
            }
            Err(_) => self.refused += 1,
        }
    }

    fn step(&mut self, op: u8, script: &mut Script<'_>) {
        match op % 16 {
            0..=3 => return self.submit(op),
            4..=5 => return self.drive(),
            6 => return self.post(),
            7 if op & 0xf0 == 0x10 => return self.close(),
            7 if op & 0xf0 == 0x20 => return self.stop_loop(),
            _ => {}
        }
        let calls = self.calls.len();
        let Some(call) = self.calls.get_mut(usize::from(script.byte()) % calls.max(1)) else {
            return;
        };
        match op % 16 {
            7..=9 => call.gate.open(),
            10 => drop_future(call),
            _ => {
                let Some(mut future) = call.future.take() else { return };
                match op % 16 {
                    11 => {
                        let first = call.ended.is_none() && !call.cancel_asked;
                        assert_eq!(future.cancel(), first, "whether this call asked");
                        call.cancel_asked |= call.ended.is_none();
                    }
                    12 => look(call, &future.result(Duration::ZERO)),
                    13 => match future.try_result() {
                        Some(result) => look(call, &result),
                        None => assert!(call.ended.is_none()),
                    },
                    14 => {
                        let count = Arc::clone(&call.callbacks);
                        future.add_done_callback(move |_| {
                            count.fetch_add(1, SeqCst);
                        });
                        call.callbacks_expected += 1;
                    }
                    _ => {
                        call.cancel_on_drop = true;
                        future = future.cancel_on_drop();
                    }
                }
                call.future = Some(future);
            }
        }
    }

    fn check(&self) {
        let stats = self.bridge.stats();
        assert!(stats.balances(), "{stats:?}");
        let ended = |state| self.calls.iter().filter(|call| call.ended == Some(state)).count();
        let paper = [
            self.submitted,
            (ended(FutureState::Finished) + self.ran.len()) as u64,
            ended(FutureState::Cancelled) as u64,
            ended(FutureState::Panicked) as u64,
            ended(FutureState::LoopClosed) as u64 + self.never_ran,
            self.in_flight() as u64,
            self.refused,
        ];
        let counters = [
            stats.submitted,
            stats.finished,
            stats.cancelled,
            stats.panicked,
            stats.loop_closed,
            stats.in_flight as u64,
            stats.refused,
        ];
        assert_eq!(
            counters, paper,
            "submitted, finished, cancelled, panicked, loop closed, in flight, refused"
        );
        assert!(stats.high_water <= self.limit);
        assert_eq!(*self.posted.lock().unwrap(), self.ran, "callbacks in order, none twice");
        for call in &self.calls {
            let done = if call.ended.is_some() { call.callbacks_expected } else { 0 };
            assert_eq!(call.callbacks.load(SeqCst), done, "done callbacks");
            let alive = match call.ended {
                None => true,
                Some(FutureState::Finished) => call.future.is_some() && !call.taken,
                Some(_) => false,
            };
            assert_eq!(call.live.load(SeqCst), usize::from(alive), "{:?} {}", call.ended, call.id);
            if let Some(future) = &call.future {
                match call.ended {
                    Some(state) => assert_eq!(future.state(), state),
                    None => assert!(!future.is_done()),
                }
            }
        }
    }
}

fn drop_future(call: &mut Call) {
    if call.future.take().is_some() && call.cancel_on_drop && call.ended.is_none() {
        call.cancel_asked = true;
    }
}

fn look(call: &mut Call, result: &Result<(u32, Live), ResultError>) {
    match (result, call.ended, call.taken) {
        (Err(ResultError::TimedOut { state }), None, _) => assert!(!state.is_done()),
        (Err(ResultError::AlreadyTaken), Some(_), true) => {}
        (Ok((id, _)), Some(FutureState::Finished), false) => assert_eq!(*id, call.id),
        (Err(ResultError::Cancelled), Some(FutureState::Cancelled), _)
        | (Err(ResultError::Panicked(_)), Some(FutureState::Panicked), false)
        | (Err(ResultError::LoopClosed), Some(FutureState::LoopClosed), _) => {}
        (other, ended, taken) => panic!("{other:?} of a call that ended {ended:?}, {taken}"),
    }
    call.taken |= call.ended.is_some();
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

pub fn check(input: &[u8]) {
    quiet();
    let mut script = Script::new(input);
    let mut run = Run::new(&mut script);
    while let Some(op) = script.next() {
        run.step(op, &mut script);
        run.check();
    }
    run.stop_loop();
    run.check();
}

/// The panics that a script asks for don't show, nor stop the fuzzer.
fn quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let asked = info.payload().downcast_ref::<&str>() == Some(&"as the script says");
            if !asked {
                before(info);
            }
        }));
    });
}
