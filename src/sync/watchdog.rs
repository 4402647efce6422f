//! One thread of the process that looks after whatever wants to be looked after, for as long as there is any.
//!
//! Invariants:
//! 1. `thread` is set while there is a thread that will look at `watched` again: it goes with the lock in its
//!    hands, having found nobody, so whoever comes later starts another.
//! 2. Nothing watched is looked at or dropped while the lock is held.

use super::contain;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Something that is looked at again and again, on a thread of the crate's.
pub(crate) trait Watched: Send + Sync {
    /// Looks, and says how long to wait before the next look.
    fn look(&self) -> Duration;
}

/// When to look again after a look that panicked.
const AGAIN: Duration = Duration::from_secs(1);

struct Entry {
    watched: Weak<dyn Watched>,
    next: Instant,
}

struct State {
    watched: Vec<Entry>,
    /// The process that has the thread.
    thread: Option<u32>,
}

static STATE: Mutex<State> = Mutex::new(State { watched: Vec::new(), thread: None });
static CHANGED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has it looked at from now on, until it is dropped.
pub(crate) fn watch(watched: &Arc<impl Watched + 'static>) -> io::Result<()> {
    let watched = Arc::downgrade(watched) as Weak<dyn Watched>;
    let mut state = state();
    state.watched.push(Entry { watched, next: Instant::now() });
    let process = std::process::id();
    if state.thread != Some(process) {
        thread::Builder::new().name("cb-watchdog".to_owned()).spawn(run)?;
        state.thread = Some(process);
    }
    drop(state);
    CHANGED.notify_one();
    Ok(())
}

fn run() {
    let mut state = state();
    loop {
        state.watched.retain(|entry| entry.watched.strong_count() > 0);
        let now = Instant::now();
        let Some(first) = state.watched.iter_mut().min_by_key(|entry| entry.next) else {
            state.thread = None;
            return;
        };
        let (next, due) = (first.next, Weak::clone(&first.watched));
        if next > now {
            let wait = CHANGED.wait_timeout(state, next - now);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
            continue;
        }
        drop(state);
        let look = |due: Arc<dyn Watched>| contain("a look of the watchdog", || due.look());
        let pause = due.upgrade().and_then(look).unwrap_or(AGAIN);
        state = self::state();
        let same = |entry: &&mut Entry| Weak::ptr_eq(&entry.watched, &due);
        if let Some(entry) = state.watched.iter_mut().find(same) {
            entry.next = Instant::now() + pause;
        }
    }
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PAUSE: Duration = Duration::from_millis(20);

    struct Told(mpsc::Sender<()>);

    impl Watched for Told {
        fn look(&self) -> Duration {
            let _ = self.0.send(());
            PAUSE
        }
    }

    #[test]
    fn what_is_watched_is_left_alone_for_as_long_as_it_says_and_the_thread_goes_with_it() {
        let (tell, looks) = mpsc::channel();
        let began = Instant::now();
        let watched = Arc::new(Told(tell));
        watch(&watched).unwrap();
        (0..3).for_each(|_| looks.recv().unwrap());
        assert!(began.elapsed() >= 2 * PAUSE);
        drop(watched);
        while state().thread.is_some() {
            assert!(began.elapsed() < Duration::from_secs(60), "there is nobody to look at");
            thread::yield_now();
        }
    }
}
