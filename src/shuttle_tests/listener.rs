//! A listener's thread from its source to the channel, or to a handler on the loop and back.

use super::*;
use crate::channel::Ending;
use crate::listener::{FirstPoll, FrameSource, Interrupter, Listener, RequestSource};
use crate::sync::model::drop_loop;
use crate::{Bridge, FrameStream, Sender, channel};
use shuttle::future::{block_on, yield_now};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SOON: Duration = Duration::from_millis(1);

/// The other end of the wire.
#[derive(Default)]
struct Peer {
    wire: Mutex<Wire>,
    changed: Condvar,
}

#[derive(Default)]
struct Wire {
    frames: VecDeque<Counted>,
    hung_up: bool,
    interrupted: bool,
    /// The source has been dropped.
    gone: bool,
}

impl Peer {
    fn change(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.wire.lock().unwrap());
        self.changed.notify_all();
    }

    /// Sends all at once and hangs up, or some frames, one by one, and hangs up if it likes to.
    fn talk(self: &Arc<Self>, tally: &Tally, at_once: bool) -> JoinHandle<()> {
        let (peer, tally) = (Arc::clone(self), tally.clone());
        thread::spawn(move || {
            if at_once {
                peer.change(|wire| wire.frames.extend([(); 3].map(|()| tally.make())));
            } else {
                let frames = (0..any(4)).map(|_| tally.make());
                frames.for_each(|frame| peer.change(|wire| wire.frames.push_back(frame)));
            }
            if at_once || maybe() {
                peer.change(|wire| wire.hung_up = true);
            }
        })
    }

    /// Waits for the source's end without telling anybody again to stop.
    fn wait_gone(&self) {
        let mut wire = self.wire.lock().unwrap();
        while !wire.gone {
            wire = self.changed.wait(wire).unwrap();
        }
        for frame in wire.frames.drain(..) {
            frame.became("unread");
        }
    }
}

/// Blocks on the wire until it is interrupted.
struct Source(Arc<Peer>);

impl FrameSource for Source {
    type Frame = Counted;

    fn next_frame(&mut self) -> io::Result<Option<Counted>> {
        let mut wire = self.0.wire.lock().unwrap();
        loop {
            if let Some(frame) = wire.frames.pop_front() {
                return Ok(Some(frame));
            }
            if std::mem::take(&mut wire.interrupted) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if wire.hung_up {
                return Ok(None);
            }
            wire = self.0.changed.wait(wire).unwrap();
        }
    }

    fn next_ready(&mut self) -> io::Result<Option<Counted>> {
        let frame = self.0.wire.lock().unwrap().frames.pop_front();
        frame.map(Some).ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn interrupter(&self) -> Interrupter {
        let peer = Arc::clone(&self.0);
        Interrupter::new(move || peer.change(|wire| wire.interrupted = true))
    }
}

impl RequestSource<Counted> for Source {
    type Address = usize;

    fn address(&mut self, frame: &mut Counted) -> usize {
        frame.id
    }

    fn answer(&mut self, to: usize, reply: Counted) -> io::Result<bool> {
        assert_eq!(to, reply.id, "a reply for another request");
        reply.became("answered");
        Ok(maybe())
    }

    fn replies_in_order(&self) -> bool {
        true
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.0.change(|wire| wire.gone = true);
    }
}

/// Asks the listener to stop in one of all ways.
fn stop(listener: Listener, token: &CancellationToken) -> Option<Listener> {
    match any(5) {
        0 => listener.stop(),
        1 => drop(listener.close_blocking(SOON)),
        2 => drop(block_on(listener.close(SOON))),
        3 => token.cancel(),
        _ => {
            drop(listener);
            return None;
        }
    }
    Some(listener)
}

/// Reads to the end, or leaves before.
fn consume(mut frames: FrameStream<Counted>) -> JoinHandle<Option<FrameStream<Counted>>> {
    thread::spawn(move || {
        let leaves_after = any(4);
        for _ in 0..leaves_after {
            match block_on(frames.recv()) {
                Some(frame) => frame.became("delivered"),
                None => return Some(frames),
            }
        }
        None
    })
}

#[test]
fn a_stop_ends_the_thread_and_every_frame_has_one_fate() {
    check(|| {
        let (tally, peer, token) = (Tally::default(), Arc::default(), CancellationToken::new());
        let talk = Peer::talk(&peer, &tally, false);
        let (listener, frames) = Listener::builder(Source(Arc::clone(&peer)))
            .capacity(1)
            .stop_on(token.clone())
            .on_loss(|loss: crate::channel::Loss<'_, Counted>| loss.frame.became("lost"))
            .spawn()
            .unwrap();
        let consumer = consume(frames);
        let listener = stop(listener, &token);
        peer.wait_gone();
        talk.join().unwrap();
        let frames = consumer.join().unwrap();
        if let Some(listener) = listener {
            // Its thread has nothing more to wait for.
            while !listener.is_finished() {
                thread::yield_now();
            }
            let ending = listener.ending();
            assert!(ending.is_some_and(|ending| ending != Ending::Panicked), "{ending:?}");
            let read = tally.count("delivered") + tally.count("lost");
            assert_eq!(listener.stats().frames as usize, read);
        }
        peer.wait_gone();
        if let Some(frames) = frames {
            assert_balanced(&frames.stats(), &tally);
        }
        tally.assert_settled();
    });
}

/// A library with a thread of its own: takes what the handlers send, and answers each.
fn library(mut calls: FrameStream<(Counted, Sender<Counted>)>) -> JoinHandle<()> {
    let patience = any(4);
    thread::spawn(move || {
        for _ in 0..patience {
            let Ok((frame, answer)) = calls.recv_blocking(None) else { return };
            // A handler that was given up isn't there any more.
            drop(answer.send(frame));
        }
    })
}

/// Answers at once, later, never, with nothing, or what the library says.
async fn handle_request(
    request: Counted,
    library: Sender<(Counted, Sender<Counted>)>,
) -> Option<Counted> {
    match any(6) {
        0 => Some(request),
        1 => {
            yield_now().await;
            Some(request)
        }
        2 => None,
        3 => std::future::pending().await,
        _ => {
            let (answer, mut answers) = channel(1);
            library.send_async((request, answer)).await.ok()?;
            answers.recv().await
        }
    }
}

/// The listener stops, the bridge closes, the loop goes, the library goes, each at any time.
#[test]
fn every_request_is_settled_whoever_goes_first() {
    check(|| {
        let (tally, peer, token) = (Tally::default(), Arc::default(), CancellationToken::new());
        // Either there is room for all and the listener is left to itself until the peer hangs
        // up, or there is hardly any, and it may be stopped at any time.
        let patient = maybe();
        let limit = if patient { 64 } else { 1 + any(3) };
        let bridge = Bridge::builder(handle()).max_in_flight(limit).build().unwrap();
        let (calls, frames) = channel(1);
        let library = library(frames);
        let talk = Peer::talk(&peer, &tally, patient);
        let listener = Listener::builder(Source(Arc::clone(&peer)))
            .stop_on(token.clone())
            .serve(&bridge, move |request| handle_request(request, calls.clone()))
            .reply_timeout(if patient || maybe() { SOON } else { Duration::MAX })
            .pipeline(if patient { 3 } else { 1 + any(3) })
            .first_poll(if maybe() { FirstPoll::Here } else { FirstPoll::OnLoop })
            .close_on_missing_reply(maybe())
            .spawn()
            .unwrap();
        let ender = {
            let bridge = bridge.clone();
            thread::spawn(move || match any(4) {
                0 => drop(bridge.close_blocking(SOON)),
                1 => drop(block_on(bridge.close(SOON))),
                2 => drop_loop(),
                _ => {}
            })
        };
        if patient {
            peer.wait_gone();
        }
        let listener = stop(listener, &token);
        peer.wait_gone();
        talk.join().unwrap();
        peer.wait_gone();
        ender.join().unwrap();
        if let Some(listener) = listener {
            while !listener.is_finished() {
                thread::yield_now();
            }
            let ending = listener.ending();
            assert!(ending.is_some_and(|ending| ending != Ending::Panicked), "{ending:?}");
            let stats = listener.stats();
            assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
            assert!(stats.replies + stats.reply_errors >= tally.count("answered") as u64);
        }
        drop_loop();
        library.join().unwrap();
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        tally.assert_gone();
    });
}

/// A loop that blocks in its own way is told, whenever it says how.
#[test]
fn an_interrupter_that_comes_amid_a_stop_runs() {
    check(|| {
        let steps = Arc::new((Mutex::new(0), Condvar::new()));
        let step = |steps: &(Mutex<u8>, Condvar)| {
            *steps.0.lock().unwrap() += 1;
            steps.1.notify_all();
        };
        let wait = |steps: &(Mutex<u8>, Condvar), at_least: u8| {
            let mut now = steps.0.lock().unwrap();
            while *now < at_least {
                now = steps.1.wait(now).unwrap();
            }
        };
        let own = Arc::clone(&steps);
        let (listener, frames) = Listener::from_fn::<u8, _>(move |sink| {
            let told = Arc::clone(&own);
            let guard = sink.on_stop(Interrupter::new(move || step(&told)));
            wait(&own, 1);
            // None runs any more once it is dropped.
            drop(guard);
            *own.0.lock().unwrap() = 10;
            own.1.notify_all();
            Ok(())
        })
        .spawn()
        .unwrap();
        listener.stop();
        wait(&steps, 10);
        drop((listener, frames));
        assert_eq!(*steps.0.lock().unwrap(), 10);
    });
}
