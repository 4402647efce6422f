//! # SQLite, or any handle that isn't `Send`, on a thread of its own
//!
//! A `DedicatedThread` opens the handle, calls it and drops it, always on the same thread. Calls keep their order, none blocks the
//! event loop, and no `unsafe impl Send` is needed. With SQLite, `build` is `rusqlite::Connection::open(path)`; here a table with
//! an `Rc` in it stands for the database.

use callbridge::DedicatedThread;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Not `Send`: as handles of C libraries are, of COM, of scripting languages.
struct Database(Rc<RefCell<Vec<(u32, String)>>>);

impl Database {
    fn open() -> Result<Self, String> {
        Ok(Database(Rc::default()))
    }

    fn insert(&mut self, id: u32, name: &str) -> Result<(), String> {
        if self.0.borrow().iter().any(|row| row.0 == id) {
            return Err(format!("there is a row {id}"));
        }
        self.0.borrow_mut().push((id, name.to_owned()));
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let database = DedicatedThread::spawn(Database::open).await?;

    // Awaited calls; the answer is the closure's own.
    database.call(|db| db.insert(1, "ann")).await??;
    let twice = database.call(|db| db.insert(1, "bob")).await?;
    println!("{twice:?}");
    assert!(twice.is_err());

    // Queued: whoever needs the answer waits for it later, here or on another thread.
    let queued = database.submit(|db| db.insert(2, "bob"));
    let rows = database.call(|db| db.0.borrow().len()).await?;
    assert_eq!(rows, 2); // calls run in their order
    queued.await??;

    // The end: what was accepted still runs, then the handle is dropped, on its thread.
    let report = database.close(Duration::from_secs(5)).await;
    println!("{report}");
    assert!(report.is_clean());
    Ok(())
}
