use super::ThreadRunner;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The runner that leases share, as long as there are any. The std lock: this is a static, and the
/// model checks have no locks for those.
static SHARED: Mutex<Weak<ThreadRunner>> = Mutex::new(Weak::new());

/// A share of the process's common [`ThreadRunner`]; see [`ThreadRunner::shared`].
#[derive(Clone)]
#[must_use = "dropping the last lease closes the runner"]
pub struct SharedRunner {
    runner: Arc<ThreadRunner>,
}

impl SharedRunner {
    pub(super) fn take() -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let current = shared.upgrade();
        let (runner, replaced) = match current {
            Some(runner) if !runner.is_closed() && !runner.core.is_forked() => (runner, None),
            closed => {
                let runner = Arc::new(ThreadRunner::new());
                *shared = Arc::downgrade(&runner);
                (runner, closed)
            }
        };
        drop(shared);
        // Possibly the last share of a closed runner: dropped without the lock.
        drop(replaced);
        SharedRunner { runner }
    }
}

impl Deref for SharedRunner {
    type Target = ThreadRunner;

    fn deref(&self) -> &ThreadRunner {
        &self.runner
    }
}

impl fmt::Debug for SharedRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedRunner").field(&*self.runner).finish()
    }
}
