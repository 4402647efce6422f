//! The pool of the process, one for each process of a family that forks.

use super::pool::ThreadPool;
use crate::sync::SettingError;
use crate::sync::prim::thread_local;
use std::cell::Cell;
use std::sync::OnceLock;
use tokio::runtime::{Handle, Id};

/// A process's pool, and that of the process that is forked off from it.
struct Process {
    id: u32,
    pool: ThreadPool,
    child: Link,
}

struct Link(OnceLock<Box<Process>>);

static FIRST: Link = Link(OnceLock::new());

thread_local! {
    /// The runtime at the thread's last look at its process, and the pool found then.
    static SEEN: Cell<Option<(Id, &'static ThreadPool)>> = const { Cell::new(None) };
}

impl Link {
    fn find(&'static self, id: u32, make: impl FnOnce() -> ThreadPool) -> &'static ThreadPool {
        let mut make = Some(make);
        let mut link = self;
        loop {
            let process = link.0.get_or_init(|| {
                let make =
                    make.take().expect("the process that is made is the one that is looked for");
                Box::new(Process { id, pool: make(), child: Link(OnceLock::new()) })
            });
            if process.id == id {
                return &process.pool;
            }
            link = &process.child;
        }
    }
}

fn default() -> ThreadPool {
    let pool = ThreadPool::builder().name("callbridge").build();
    pool.expect("the default settings make sense")
}

/// Asking for the process takes a system call, so it is asked for only on a thread that isn't at the
/// runtime that it was at before. Who goes on with a runtime in a forked process is told by his waits.
fn get() -> &'static ThreadPool {
    let runtime = Handle::try_current().ok().map(|handle| handle.id());
    let seen = SEEN.try_with(Cell::get).ok().flatten();
    if let (Some(runtime), Some((id, pool))) = (runtime, seen) {
        if runtime == id {
            return pool;
        }
    }
    let pool = FIRST.find(std::process::id(), default);
    if let Some(runtime) = runtime {
        let _ = SEEN.try_with(|cell| cell.set(Some((runtime, pool))));
    }
    pool
}

impl ThreadPool {
    /// The process-wide pool behind [`to_thread`](super::to_thread), with the default settings unless
    /// [`build_shared`](super::ThreadPoolBuilder::build_shared) gave it others.
    ///
    /// Whoever closes it closes it for the whole process. A forked process gets another one, with
    /// the default settings; a task of the parent's runtime that goes on in the forked process gets
    /// [`Forked`](crate::ResultError::Forked).
    ///
    /// # Examples
    ///
    /// ```
    /// let mut answer = callbridge::ThreadPool::shared().submit(|| 42);
    /// assert_eq!(answer.result(None).unwrap(), 42);
    /// ```
    pub fn shared() -> &'static ThreadPool {
        get()
    }
}

pub(super) fn set(pool: ThreadPool) -> Result<&'static ThreadPool, SettingError> {
    let mut unused = true;
    let found = FIRST.find(std::process::id(), || {
        unused = false;
        pool
    });
    if unused {
        Err(SettingError::new(
            "build_shared",
            "came too late: the shared pool is in use already, set it up before",
        ))
    } else {
        Ok(found)
    }
}
