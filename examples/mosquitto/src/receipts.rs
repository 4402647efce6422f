//! Who awaits which message id.
//!
//! The library numbers what it sends and calls back with the number when it has arrived. It may do so
//! before the call that sends has returned the number, from its own thread; and at QoS 0 it never
//! does if the connection goes away first.
//!
//! Invariants:
//! 1. The lock is held for a look at the map and nothing else: neither the library is called with it
//!    (it calls back under its own lock), nor anybody woken.
//! 2. Each id that the library gave is put in once, by `expect` or by `resolve`, and taken out by the
//!    other of the two, by `connection_lost` or by `close`. A publisher that has stopped waiting leaves its entry
//!    there, with its permit: the id isn't free before its receipt came.

use crate::error::DeliveryError;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

type Outcome = Result<(), DeliveryError>;

pub(crate) struct Receipts {
    book: Mutex<Book>,
    /// Fewer than there are ids, so that none comes up again while it is awaited.
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct Book {
    by_id: HashMap<c_int, Awaited>,
    /// How many connections were lost so far.
    lost: u64,
}

enum Awaited {
    /// The receipt came before the id was known.
    Arrived,
    By {
        publisher: oneshot::Sender<Outcome>,
        /// The library doesn't try again after a reconnect.
        dies_with_connection: bool,
        _permit: Option<OwnedSemaphorePermit>,
    },
}

/// A permit to send one message, taken before the library is called.
pub(crate) struct Departure {
    permit: Option<OwnedSemaphorePermit>,
    dies_with_connection: bool,
    lost: u64,
}

impl Receipts {
    pub(crate) fn new(max_in_flight: u16) -> Self {
        let permits = usize::from(max_in_flight.clamp(1, 32_768));
        Receipts { book: Mutex::default(), permits: Arc::new(Semaphore::new(permits)) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more may be in flight.
    pub(crate) async fn permit(&self) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.permits);
        permits.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// To be called right before the library is.
    pub(crate) fn depart(
        &self,
        permit: Option<OwnedSemaphorePermit>,
        dies_with_connection: bool,
    ) -> Departure {
        Departure { permit, dies_with_connection, lost: self.book().lost }
    }

    /// The library has sent it under this id.
    pub(crate) fn expect(&self, id: c_int, departure: Departure) -> Delivery {
        let Departure { permit, dies_with_connection, lost } = departure;
        let (publisher, outcome) = oneshot::channel();
        let mut book = self.book();
        let lost_already = dies_with_connection && book.lost != lost;
        let known = match book.by_id.entry(id) {
            Entry::Occupied(entry) if matches!(entry.get(), Awaited::Arrived) => {
                entry.remove();
                Some(Ok(()))
            }
            _ if lost_already => Some(Err(DeliveryError::ConnectionLost)),
            entry => {
                let by = Awaited::By { publisher, dies_with_connection, _permit: permit };
                entry.insert_entry(by);
                return Delivery { outcome };
            }
        };
        drop(book);
        if let Some(known) = known {
            let _ = publisher.send(known);
        }
        Delivery { outcome }
    }

    /// The library's thread has the receipt for this id.
    pub(crate) fn resolve(&self, id: c_int) {
        let mut book = self.book();
        let awaited = book.by_id.remove(&id);
        if awaited.is_none() {
            book.by_id.insert(id, Awaited::Arrived);
        }
        drop(book);
        if let Some(Awaited::By { publisher, .. }) = awaited {
            let _ = publisher.send(Ok(()));
        }
    }

    /// What the library doesn't send again is lost.
    pub(crate) fn connection_lost(&self) {
        let mut book = self.book();
        book.lost += 1;
        let by_id = std::mem::take(&mut book.by_id);
        let (lost, kept) = by_id.into_iter().partition(|(_, awaited)| {
            matches!(awaited, Awaited::By { dies_with_connection: true, .. })
        });
        book.by_id = kept;
        drop(book);
        tell(lost, DeliveryError::ConnectionLost);
    }

    /// There will be no more receipts; the library's thread is gone.
    pub(crate) fn close(&self) {
        let awaited = std::mem::take(&mut self.book().by_id);
        tell(awaited, DeliveryError::Closed);
    }

    /// How many ids wait for their receipts.
    pub(crate) fn awaited(&self) -> usize {
        self.book().by_id.len()
    }
}

fn tell(publishers: HashMap<c_int, Awaited>, error: DeliveryError) {
    for awaited in publishers.into_values() {
        if let Awaited::By { publisher, .. } = awaited {
            let _ = publisher.send(Err(error));
        }
    }
}

/// A message that the library has taken, on its way.
#[derive(Debug)]
#[must_use = "the receipt tells whether it arrived"]
pub struct Delivery {
    outcome: oneshot::Receiver<Outcome>,
}

impl Delivery {
    /// Waits for the receipt.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait, not the message.
    pub async fn within(self, timeout: Duration) -> Result<(), DeliveryError> {
        match tokio::time::timeout(timeout, self.outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(DeliveryError::Closed),
            Err(_) => Err(DeliveryError::TimedOut),
        }
    }
}
