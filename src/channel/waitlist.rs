//! Who waits, in the order of arrival.

use std::collections::VecDeque;
use std::task::Waker;

/// A FIFO of waiting parties, each with what it brought along, found again by its ticket.
pub(super) struct WaitList<P> {
    /// In ascending order of tickets, so that one is found by binary search.
    entries: VecDeque<Entry<P>>,
    /// The next ticket; never reused.
    next: u64,
}

struct Entry<P> {
    ticket: u64,
    /// `None` once it was taken out to be woken.
    waker: Option<Waker>,
    payload: P,
}

impl<P> WaitList<P> {
    pub(super) fn new() -> Self {
        WaitList { entries: VecDeque::new(), next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, payload: P, waker: Waker) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.entries.push_back(Entry { ticket, waker: Some(waker), payload });
        ticket
    }

    pub(super) fn front(&self) -> Option<&P> {
        self.entries.front().map(|entry| &entry.payload)
    }

    pub(super) fn pop_front(&mut self) -> Option<(P, Option<Waker>)> {
        self.entries.pop_front().map(|entry| (entry.payload, entry.waker))
    }

    pub(super) fn contains(&self, ticket: u64) -> bool {
        self.find(ticket).is_some()
    }

    /// Takes a party out, wherever it stands. The waker is for the caller to drop unlocked.
    pub(super) fn remove(&mut self, ticket: u64) -> Option<(P, Option<Waker>)> {
        let index = self.find(ticket)?;
        self.entries.remove(index).map(|entry| (entry.payload, entry.waker))
    }

    /// Exchanges the waker of a party that still waits. What comes back is for the caller to drop
    /// unlocked.
    pub(super) fn rewire(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        match self.find(ticket) {
            Some(index) => self.entries[index].waker.replace(waker),
            None => Some(waker),
        }
    }

    /// All wakers; the parties stay in line and fetch what they brought themselves.
    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        self.entries.iter_mut().filter_map(|entry| entry.waker.take()).collect()
    }

    fn find(&self, ticket: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()
    }
}
