//! Who waits, in the order of arrival.

use std::collections::VecDeque;
use std::task::Waker;

/// A FIFO of waiting parties, each with what it brought along, found again by its ticket.
///
/// Wakers that come out are for the caller to wake or drop once its lock is released.
pub(crate) struct WaitList<P = ()> {
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
    pub(crate) fn new() -> Self {
        WaitList { entries: VecDeque::new(), next: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Enters a party at the end of the line; `waker` is `None` for one that isn't to be woken.
    pub(crate) fn push(&mut self, payload: P, waker: impl Into<Option<Waker>>) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.entries.push_back(Entry { ticket, waker: waker.into(), payload });
        ticket
    }

    pub(crate) fn front(&self) -> Option<&P> {
        self.entries.front().map(|entry| &entry.payload)
    }

    /// The ticket of the first in line.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.ticket)
    }

    /// The ticket that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn pop_front(&mut self) -> Option<(P, Option<Waker>)> {
        self.entries.pop_front().map(|entry| (entry.payload, entry.waker))
    }

    pub(crate) fn contains(&self, ticket: u64) -> bool {
        self.position(ticket).is_some()
    }

    /// Takes a party out, wherever it stands.
    pub(crate) fn remove(&mut self, ticket: u64) -> Option<(P, Option<Waker>)> {
        let index = self.position(ticket)?;
        self.entries.remove(index).map(|entry| (entry.payload, entry.waker))
    }

    /// Exchanges the waker of a party that still waits; gives back the old one, or one too many.
    pub(crate) fn replace_waker(&mut self, ticket: u64, waker: Waker) -> Option<Waker> {
        match self.position(ticket) {
            Some(index) => self.entries[index].waker.replace(waker),
            None => Some(waker),
        }
    }

    /// The waker of the party at `position` in the line; `None` if nobody stands there.
    pub(crate) fn waker_mut(&mut self, position: usize) -> Option<&mut Option<Waker>> {
        self.entries.get_mut(position).map(|entry| &mut entry.waker)
    }

    /// What the parties brought, in their order.
    pub(crate) fn payloads(&self) -> impl Iterator<Item = &P> {
        self.entries.iter().map(|entry| &entry.payload)
    }

    /// All wakers; the parties stay in line.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        self.entries.iter_mut().filter_map(|entry| entry.waker.take()).collect()
    }

    /// All parties, in their order.
    pub(crate) fn drain(&mut self) -> Vec<(P, Option<Waker>)> {
        self.entries.drain(..).map(|entry| (entry.payload, entry.waker)).collect()
    }

    /// Where in the line a party stands, 0 for the first.
    pub(crate) fn position(&self, ticket: u64) -> Option<usize> {
        self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok()
    }
}
