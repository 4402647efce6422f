//! The loop of a thread that feeds a stream, and writes what async code gives it.

use super::core::{Feed, Verdict};
use super::driver::{Driver, Taken};
use super::patience::Patience;
use super::source::{FrameSource, is_timeout};
use super::stats::count;
use super::stop::Phase;
use crate::channel::{Overflow, SendError};
use crate::sync::{Deadline, contain};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a thread writes into its source between the frames that it reads.
pub(crate) trait Outflow<S>: Send {
    /// Writes what there is and fits now; true if there is more.
    ///
    /// A timeout says that nothing fits now; another error costs what was being written.
    fn write(&mut self, source: &mut S) -> io::Result<bool>;

    /// How many bytes have left so far.
    fn written(&self) -> u64;

    /// Whether more may come although nothing more can be read; also of somebody who has not begun yet,
    /// unless the listener is `ending`.
    fn is_open(&self, ending: bool) -> bool;

    /// Whether somebody has begun to read or to write; nobody else is waited for once the listener is ending.
    fn has_begun(&self) -> bool;

    /// Refuses what comes from now on, unless it may still follow.
    fn refuse(&mut self) {}

    /// Refuses what comes from now on, and whatever hasn't been written.
    fn close(&mut self);
}

/// So often is written in a row, before the source is read again and a stop is looked for.
const IN_A_ROW: usize = 16;

/// What is to be written, and for how long it has been waiting.
pub(crate) struct Writing<'a, S> {
    outflow: Option<&'a mut dyn Outflow<S>>,
    patience: Patience,
}

impl<'a, S: FrameSource> Writing<'a, S> {
    pub(crate) fn new(outflow: Option<&'a mut dyn Outflow<S>>) -> Self {
        Writing { outflow, patience: Patience::default() }
    }

    /// Writes what fits; false if the peer is given up.
    fn go_on(&mut self, driver: &mut Driver<S>) -> bool {
        let Some(outflow) = &mut self.outflow else { return true };
        let write_timeout = driver.core.write_timeout;
        for _ in 0..IN_A_ROW {
            match outflow.write(&mut driver.source) {
                Ok(true) => {}
                Err(error) if is_timeout(&error) => {
                    if !self.patience.is_over(outflow.written(), write_timeout) {
                        return true;
                    }
                    if !driver.source.give_up(unread()) {
                        return false;
                    }
                }
                Ok(false) | Err(_) => {
                    self.patience.end();
                    return true;
                }
            }
        }
        // There is more at hand, which wakes nobody.
        self.patience.restart(outflow.written(), write_timeout);
        driver.wake.notify();
        true
    }

    fn has_begun(&self) -> bool {
        self.outflow.as_ref().is_none_or(|outflow| outflow.has_begun())
    }

    /// Writes the rest after the reading has ended, and whatever may still follow.
    pub(crate) fn finish(mut self, driver: &mut Driver<S>, may_follow: bool) {
        if let Some(outflow) = &mut self.outflow {
            outflow.refuse();
        }
        while !driver.is_cut() && self.go_on(driver) {
            let ending = driver.phase() > Phase::Running;
            let open = self.outflow.as_ref().is_some_and(|outflow| outflow.is_open(ending));
            if !(self.patience.is_waiting() || may_follow && open) {
                break;
            }
            driver.wait(false, &self.patience, Deadline::Never);
        }
        if let Some(outflow) = self.outflow {
            driver.written = outflow.written();
            outflow.close();
        }
    }
}

/// Feeds what the source gives into the channel, until it ends or the listener does.
pub(crate) fn pump<S: FrameSource>(
    driver: &mut Driver<S>,
    feed: &Feed<S::Frame>,
    writing: &mut Writing<'_, S>,
) -> Verdict {
    loop {
        if !writing.go_on(driver) {
            return Verdict::Failed(unread());
        }
        // Who may be woken to write waits for its descriptor, if there is one.
        let may_wait = writing.outflow.is_none() || !driver.has_descriptor();
        match driver.take(may_wait) {
            Taken::Frame(frame) => {
                count(&driver.core.counters.frames);
                if let Err(verdict) = put(frame, driver, feed, writing) {
                    return verdict;
                }
            }
            Taken::Nothing => {
                driver.wait(true, &writing.patience, Deadline::Never);
            }
            Taken::End(verdict) => return verdict,
        }
    }
}

/// Whether more may be written although the reading has ended with `verdict`.
pub(crate) fn may_follow<S: FrameSource>(driver: &Driver<S>, verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Finished => true,
        Verdict::Stopped => driver.phase() == Phase::Draining,
        _ => false,
    }
}

/// Counts what the source has received and nobody will get; the stream has ended.
pub(crate) fn lose_buffered<S: FrameSource>(driver: &mut Driver<S>, feed: &Feed<S::Frame>) {
    contain("a source", || {
        while let Ok(Some(frame)) = driver.source.next_buffered() {
            count(&driver.core.counters.frames);
            feed.put(frame);
        }
    });
}

fn unread() -> io::Error {
    let text = "the peer doesn't read what is sent to it: the connection is given up";
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Sends a frame; goes on writing while the channel is full, and waits for room as long as it may come.
fn put<S: FrameSource>(
    frame: S::Frame,
    driver: &mut Driver<S>,
    feed: &Feed<S::Frame>,
    writing: &mut Writing<'_, S>,
) -> Result<(), Verdict> {
    let taken = |taken: bool| if taken { Ok(()) } else { Err(Verdict::Stopped) };
    if driver.source.is_control(&frame) {
        return taken(feed.tell(frame));
    }
    if writing.outflow.is_none() || !matches!(feed.sender.overflow(), Overflow::Block) {
        return taken(feed.put(frame));
    }
    let waker = driver.wake.waker();
    let mut sending = feed.sender.send_async(frame);
    let verdict = loop {
        if let Poll::Ready(sent) = Pin::new(&mut sending).poll(&mut Context::from_waker(&waker)) {
            return taken(feed.settle(sent));
        }
        if !writing.go_on(driver) {
            break Verdict::Failed(unread());
        }
        if driver.is_closing() {
            break Verdict::Closed;
        }
        if driver.phase() > Phase::Running && !writing.has_begun() {
            break Verdict::Stopped;
        }
        driver.wait(false, &writing.patience, Deadline::Never);
    };
    if let Some(frame) = sending.cancel() {
        feed.settle(Err(SendError::Closed(frame)));
    }
    Err(verdict)
}
