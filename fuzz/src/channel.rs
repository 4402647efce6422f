//! Any sequence of operations on a channel, of every policy, must do what a queue on paper does.

use super::Script;
use callbridge::channel::{self, Builder, Fallback};
use callbridge::channel::{Ending, Loss, LossReason, RecvError, SendError, Sent, Stats};
use callbridge::{FrameStream, Overflow, Sender};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A frame that knows how many of its kind are alive.
#[derive(Debug)]
struct Frame {
    id: u32,
    live: Arc<AtomicUsize>,
}

impl Frame {
    fn new(id: u32, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, SeqCst);
        Frame { id, live: Arc::clone(live) }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.live.fetch_sub(1, SeqCst);
    }
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Answer {
    Queued { remaining: usize },
    Evicted(u32),
    Dropped(u32),
    Full(u32),
    TimedOut(u32),
    Closed(u32),
    TooHeavy(u32),
}

fn sent(sent: &Sent<Frame>) -> Answer {
    match sent {
        Sent::Queued { remaining } => Answer::Queued { remaining: *remaining },
        Sent::Evicted(frame) => Answer::Evicted(frame.id),
        Sent::Dropped(frame) => Answer::Dropped(frame.id),
    }
}

fn of_send(result: Result<Sent<Frame>, SendError<Frame>>) -> Answer {
    match result {
        Ok(ok) => sent(&ok),
        Err(SendError::Full(frame)) => Answer::Full(frame.id),
        Err(SendError::TimedOut(frame)) => Answer::TimedOut(frame.id),
        Err(SendError::Closed(frame)) => Answer::Closed(frame.id),
        Err(SendError::TooHeavy(frame)) => Answer::TooHeavy(frame.id),
        Err(other) => panic!("{other:?}"),
    }
}

fn of_try_send(result: Result<Sent<Frame>, SendError<Frame>>) -> Answer {
    match result {
        Ok(ok) => sent(&ok),
        Err(SendError::Full(frame)) => Answer::Full(frame.id),
        Err(SendError::Closed(frame)) => Answer::Closed(frame.id),
        Err(SendError::TooHeavy(frame)) => Answer::TooHeavy(frame.id),
        Err(other) => panic!("{other:?}"),
    }
}

fn of_send_timeout(result: Result<Sent<Frame>, SendError<Frame>>) -> Answer {
    match result {
        Ok(ok) => sent(&ok),
        Err(SendError::TimedOut(frame)) => Answer::TimedOut(frame.id),
        Err(SendError::Closed(frame)) => Answer::Closed(frame.id),
        Err(SendError::TooHeavy(frame)) => Answer::TooHeavy(frame.id),
        Err(other) => panic!("{other:?}"),
    }
}

/// What to do with a frame that doesn't fit, on paper.
#[derive(Clone, Copy, PartialEq)]
enum OnFull {
    Full,
    TimedOut,
    Drop,
    Evict,
}

/// The channel on paper.
struct Paper {
    policy: Overflow,
    capacity: usize,
    budget: Option<usize>,
    queue: VecDeque<u32>,
    /// The frames that wait in line; each has a sending future.
    parked: VecDeque<u32>,
    ending: Option<Ending>,
    counters: Stats,
    losses: Vec<(u32, LossReason)>,
    /// Whether the consumer awaits, and how often it must have been woken.
    awaiting: bool,
    rings: usize,
}

impl Paper {
    fn weight(&self, id: u32) -> usize {
        self.budget.map_or(0, |_| (id % 5) as usize)
    }

    fn fits(&self, id: u32) -> bool {
        let queued: usize = self.queue.iter().map(|&id| self.weight(id)).sum();
        self.queue.len() < self.capacity
            && self.budget.is_none_or(|budget| queued + self.weight(id) <= budget)
    }

    fn too_heavy(&self, id: u32) -> bool {
        self.budget.is_some_and(|budget| self.weight(id) > budget)
    }

    fn would_wait(&self, id: u32) -> bool {
        self.ending.is_none() && !self.too_heavy(id) && !(self.parked.is_empty() && self.fits(id))
    }

    fn ring(&mut self) {
        if std::mem::take(&mut self.awaiting) {
            self.rings += 1;
        }
    }

    fn accept(&mut self, id: u32) -> Answer {
        self.counters.offered += 1;
        self.queue.push_back(id);
        self.ring();
        let slots = match self.capacity {
            usize::MAX => usize::MAX,
            capacity => capacity - self.queue.len(),
        };
        // So many more fit, of a frame of weight 1.
        let queued: usize = self.queue.iter().map(|&id| self.weight(id)).sum();
        let weight_left = self.budget.map_or(usize::MAX, |budget| budget - queued);
        Answer::Queued { remaining: slots.min(weight_left) }
    }

    fn lose(&mut self, id: u32, reason: LossReason) {
        self.losses.push((id, reason));
        let lost = &mut self.counters.lost;
        *match reason {
            LossReason::Overflow => &mut lost.overflow,
            LossReason::Evicted => &mut lost.evicted,
            LossReason::ConsumerDropped => &mut lost.consumer_dropped,
            LossReason::Closed => &mut lost.closed,
            LossReason::TooHeavy => &mut lost.too_heavy,
            LossReason::SendCancelled => &mut lost.send_cancelled,
            other => panic!("nothing here loses by {other:?}"),
        } += 1;
    }

    fn refuse(&mut self) {
        self.counters.offered += 1;
        self.counters.refused += 1;
    }

    /// A send that doesn't wait in line.
    fn offer(&mut self, id: u32, on_full: OnFull) -> Answer {
        if self.ending.is_some() {
            self.refuse();
            return Answer::Closed(id);
        }
        if self.too_heavy(id) {
            self.counters.offered += 1;
            self.lose(id, LossReason::TooHeavy);
            return Answer::TooHeavy(id);
        }
        if !self.would_wait(id) {
            return self.accept(id);
        }
        match on_full {
            OnFull::Full => {
                self.refuse();
                Answer::Full(id)
            }
            OnFull::TimedOut => {
                self.refuse();
                Answer::TimedOut(id)
            }
            OnFull::Drop => {
                self.counters.offered += 1;
                self.lose(id, LossReason::Overflow);
                Answer::Dropped(id)
            }
            OnFull::Evict => {
                let mut victims = Vec::new();
                while !self.fits(id) {
                    victims.push(self.queue.pop_front().expect("a light frame fits at last"));
                }
                let queued = self.accept(id);
                for &victim in &victims {
                    self.lose(victim, LossReason::Evicted);
                }
                self.serve();
                victims.first().map_or(queued, |&first| Answer::Evicted(first))
            }
        }
    }

    fn on_full(&self) -> OnFull {
        match self.policy {
            Overflow::BlockFor(_, Fallback::DropNewest) | Overflow::DropNewest => OnFull::Drop,
            Overflow::BlockFor(_, Fallback::DropOldest)
            | Overflow::DropOldest
            | Overflow::Latest => OnFull::Evict,
            Overflow::BlockFor(_, Fallback::Fail) => OnFull::TimedOut,
            _ => OnFull::Full,
        }
    }

    fn serve(&mut self) {
        while let Some(&first) = self.parked.front() {
            if self.ending.is_some() || !self.fits(first) {
                return;
            }
            self.parked.pop_front();
            self.accept(first);
        }
    }

    fn deliver(&mut self) -> Option<u32> {
        if self.queue.is_empty() {
            self.serve();
        }
        let id = self.queue.pop_front()?;
        self.counters.delivered += 1;
        Some(id)
    }

    fn end(&mut self, ending: Ending) -> bool {
        if self.ending.is_some() {
            return false;
        }
        self.ending = Some(ending);
        self.ring();
        true
    }
}

type Sending = Pin<Box<dyn Future<Output = Answer>>>;

/// A frame that waits in line.
struct Waiting {
    id: u32,
    future: Sending,
    bell: Arc<Bell>,
}

struct Run {
    paper: Paper,
    senders: Vec<Sender<Frame>>,
    waiting: Vec<Waiting>,
    frames: Option<FrameStream<Frame>>,
    bell: Arc<Bell>,
    live: Arc<AtomicUsize>,
    losses: Arc<Mutex<Vec<(u32, LossReason)>>>,
    endings: Arc<Mutex<Vec<Ending>>>,
    monitor: callbridge::channel::WeakSender<Frame>,
    next_id: u32,
}

const POLICIES: [Overflow; 9] = [
    Overflow::Block,
    Overflow::BlockFor(Duration::ZERO, Fallback::DropNewest),
    Overflow::BlockFor(Duration::ZERO, Fallback::DropOldest),
    Overflow::BlockFor(Duration::ZERO, Fallback::Fail),
    Overflow::DropNewest,
    Overflow::DropOldest,
    Overflow::Latest,
    Overflow::Fail,
    Overflow::Unbounded,
];

impl Run {
    fn new(script: &mut Script<'_>) -> Self {
        let policy = POLICIES[usize::from(script.byte()) % POLICIES.len()];
        let asked = usize::from(script.byte() % 6) + 1;
        let budget = match script.byte() {
            flag if flag & 1 == 1 && policy != Overflow::Unbounded => {
                Some(usize::from(flag >> 1) % 9 + 1)
            }
            _ => None,
        };
        let capacity = match policy {
            Overflow::Latest => 1,
            Overflow::Unbounded => usize::MAX,
            _ => asked,
        };
        let losses = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&losses);
        let mut builder: Builder<Frame> =
            channel::builder().capacity(asked).overflow(policy).on_loss(
                move |loss: Loss<'_, Frame>| log.lock().unwrap().push((loss.frame.id, loss.reason)),
            );
        if let Some(budget) = budget {
            builder = builder.weigh(|frame| (frame.id % 5) as usize, budget);
        }
        let (sender, frames) = builder.build().expect("the settings make sense");
        let endings = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&endings);
        sender.on_termination(move |ending| told.lock().unwrap().push(ending));
        Run {
            paper: Paper {
                policy,
                capacity,
                budget,
                queue: VecDeque::new(),
                parked: VecDeque::new(),
                ending: None,
                counters: Stats::default(),
                losses: Vec::new(),
                awaiting: false,
                rings: 0,
            },
            monitor: sender.downgrade(),
            senders: vec![sender],
            waiting: Vec::new(),
            frames: Some(frames),
            bell: Arc::default(),
            live: Arc::default(),
            losses,
            endings,
            next_id: 0,
        }
    }

    fn frame(&mut self, byte: u8) -> Frame {
        // The weight is the script's choice, the rest a running number.
        self.next_id += 1;
        Frame::new(self.next_id * 5 + u32::from(byte % 5), &self.live)
    }

    fn last_sender_gone(&mut self) {
        if self.senders.is_empty() && self.waiting.is_empty() {
            self.paper.end(Ending::Finished);
        }
    }

    fn step(&mut self, op: u8, script: &mut Script<'_>) {
        match op % 24 {
            0..=3 => self.send_async(script.byte()),
            4..=5 => self.send(op, script.byte()),
            6..=8 => self.try_send(script.byte()),
            9 => self.send_timeout(script.byte()),
            10 => self.cancel_parked(script.byte()),
            11 => self.drop_waiting(script.byte()),
            12..=13 => self.poll_waiting(script.byte()),
            14..=16 => self.try_recv(),
            17 => self.poll_recv(),
            18..=19 => self.recv_many(script.byte()),
            20 => self.clone_or_drop_sender(script.byte()),
            21 => self.end(script.byte()),
            22 => self.leave(script.byte()),
            _ => self.drop_fresh(script.byte()),
        }
    }

    fn send(&mut self, op: u8, byte: u8) {
        let frame = self.frame(byte);
        let id = frame.id;
        let Some(sender) = self.senders.first() else { return };
        if self.paper.policy == Overflow::Block && self.paper.would_wait(id) {
            return;
        }
        let on_full = self.paper.on_full();
        let expected = self.paper.offer(id, on_full);
        if op % 2 == 0 {
            assert_eq!(of_send(sender.send(frame)), expected);
            return;
        }
        sender.callback()(frame);
        let reason = match expected {
            Answer::Full(_) | Answer::TimedOut(_) => LossReason::Overflow,
            Answer::Closed(_) => LossReason::Closed,
            _ => return,
        };
        self.paper.counters.refused -= 1;
        self.paper.lose(id, reason);
    }

    fn try_send(&mut self, byte: u8) {
        let frame = self.frame(byte);
        let Some(sender) = self.senders.first() else { return };
        let expected = self.paper.offer(frame.id, OnFull::Full);
        assert_eq!(of_try_send(sender.try_send(frame)), expected);
    }

    fn send_timeout(&mut self, byte: u8) {
        let frame = self.frame(byte);
        let Some(sender) = self.senders.first() else { return };
        let expected = self.paper.offer(frame.id, OnFull::TimedOut);
        assert_eq!(of_send_timeout(sender.send_timeout(frame, Duration::ZERO)), expected);
    }

    fn waits_in_line(&self) -> bool {
        matches!(self.paper.policy, Overflow::Block | Overflow::BlockFor(..))
    }

    fn send_async(&mut self, byte: u8) {
        let frame = self.frame(byte);
        let id = frame.id;
        let Some(sender) = self.senders.first().cloned() else { return };
        let bell = Arc::new(Bell::default());
        let mut future: Sending = Box::pin(async move { of_send(sender.send_async(frame).await) });
        let waker = Waker::from(Arc::clone(&bell));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if self.waits_in_line() && self.paper.would_wait(id) {
            assert_eq!(polled, Poll::Pending);
            self.paper.parked.push_back(id);
            self.waiting.push(Waiting { id, future, bell });
        } else {
            let on_full = self.paper.on_full();
            assert_eq!(polled, Poll::Ready(self.paper.offer(id, on_full)));
        }
    }

    /// A frame that steps into the line and takes itself back.
    fn cancel_parked(&mut self, byte: u8) {
        let frame = self.frame(byte);
        let id = frame.id;
        let Some(sender) = self.senders.first() else { return };
        if !self.waits_in_line() || !self.paper.would_wait(id) {
            return;
        }
        let mut future = sender.send_async(frame);
        let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        assert_eq!(future.cancel().map(|frame| frame.id), Some(id));
        assert!(future.cancel().is_none());
        self.paper.refuse();
    }

    fn drop_fresh(&mut self, byte: u8) {
        let frame = self.frame(byte);
        let Some(sender) = self.senders.first() else { return };
        self.paper.counters.offered += 1;
        self.paper.lose(frame.id, LossReason::SendCancelled);
        drop(sender.send_async(frame));
    }

    fn drop_waiting(&mut self, byte: u8) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = self.waiting.remove(usize::from(byte) % self.waiting.len());
        if let Some(place) = self.paper.parked.iter().position(|&id| id == waiting.id) {
            self.paper.parked.remove(place);
            self.paper.counters.offered += 1;
            self.paper.lose(waiting.id, LossReason::SendCancelled);
            self.paper.serve();
        }
        drop(waiting);
        self.last_sender_gone();
    }

    fn poll_waiting(&mut self, byte: u8) {
        if self.waiting.is_empty() {
            return;
        }
        let index = usize::from(byte) % self.waiting.len();
        let waiting = &mut self.waiting[index];
        let waker = Waker::from(Arc::clone(&waiting.bell));
        let polled = waiting.future.as_mut().poll(&mut Context::from_waker(&waker));
        match self.paper.parked.iter().position(|&id| id == waiting.id) {
            Some(place) if self.paper.ending.is_some() => {
                assert_eq!(polled, Poll::Ready(Answer::Closed(waiting.id)));
                self.paper.parked.remove(place);
                self.paper.refuse();
            }
            Some(_) => return assert_eq!(polled, Poll::Pending),
            None => assert!(matches!(polled, Poll::Ready(Answer::Queued { .. })), "{polled:?}"),
        }
        drop(self.waiting.remove(index));
        self.last_sender_gone();
    }

    fn try_recv(&mut self) {
        let Some(frames) = &mut self.frames else { return };
        let expected = match self.paper.deliver() {
            Some(id) => Ok(id),
            None if self.paper.ending.is_some() => Err(RecvError::Ended),
            None => Err(RecvError::Empty),
        };
        assert_eq!(frames.try_recv().map(|frame| frame.id), expected);
        self.paper.serve();
        if expected == Err(RecvError::Ended) {
            assert_eq!(frames.ending(), self.paper.ending);
        }
    }

    fn poll_recv(&mut self) {
        let Some(frames) = &mut self.frames else { return };
        let waker = Waker::from(Arc::clone(&self.bell));
        let polled = frames.poll_recv(&mut Context::from_waker(&waker));
        let polled = polled.map(|frame| frame.map(|frame| frame.id));
        match self.paper.deliver() {
            Some(id) => {
                assert_eq!(polled, Poll::Ready(Some(id)));
                self.paper.awaiting = false;
            }
            None if self.paper.ending.is_some() => assert_eq!(polled, Poll::Ready(None)),
            None => {
                assert_eq!(polled, Poll::Pending);
                self.paper.awaiting = true;
            }
        }
        self.paper.serve();
    }

    fn recv_many(&mut self, byte: u8) {
        let Some(frames) = &mut self.frames else { return };
        let max = usize::from(byte % 5) + 1;
        let mut buffer = Vec::new();
        let waker = Waker::from(Arc::clone(&self.bell));
        let polled = frames.poll_recv_many(&mut Context::from_waker(&waker), &mut buffer, max);
        let expected = max.min(self.paper.queue.len());
        if expected == 0 {
            let ended = self.paper.ending.is_some();
            self.paper.awaiting |= !ended;
            return assert_eq!(polled, if ended { Poll::Ready(0) } else { Poll::Pending });
        }
        // What its own reading lets in it may take along.
        assert_eq!(polled, Poll::Ready(buffer.len()));
        assert!((expected..=max).contains(&buffer.len()), "{} of {expected}", buffer.len());
        for frame in &buffer {
            assert_eq!(self.paper.deliver(), Some(frame.id));
        }
        self.paper.awaiting = false;
        self.paper.serve();
    }

    fn clone_or_drop_sender(&mut self, byte: u8) {
        if byte % 2 == 0 {
            if let Some(another) = self.senders.first().cloned() {
                self.senders.push(another);
            }
        } else if self.senders.pop().is_some() {
            self.last_sender_gone();
        }
    }

    fn end(&mut self, byte: u8) {
        match (byte % 12, self.senders.first(), &mut self.frames) {
            (0, Some(sender), _) => assert_eq!(sender.close(), self.paper.end(Ending::Finished)),
            (1, Some(sender), _) => assert_eq!(sender.fail("x"), self.paper.end(Ending::Failed)),
            (2, _, Some(frames)) => {
                assert_eq!(frames.close(), self.paper.end(Ending::ConsumerDropped));
            }
            _ => {}
        }
    }

    fn leave(&mut self, byte: u8) {
        if byte % 8 != 0 {
            return;
        }
        let Some(frames) = self.frames.take() else { return };
        drop(frames);
        self.paper.end(Ending::ConsumerDropped);
        while let Some(id) = self.paper.queue.pop_front() {
            self.paper.lose(id, LossReason::ConsumerDropped);
        }
    }

    fn check(&self) {
        let paper = &self.paper;
        let stats = self.monitor.stats();
        assert!(stats.balances(), "{stats:?}");
        let mut counters = paper.counters;
        counters.queued = paper.queue.len() as u64;
        counters.waiting = paper.parked.len() as u64;
        (counters.high_water, counters.blocked) = (stats.high_water, stats.blocked);
        assert_eq!(stats, counters);
        assert!(stats.high_water <= paper.capacity as u64);
        assert_eq!(*self.losses.lock().unwrap(), paper.losses);
        assert_eq!(*self.endings.lock().unwrap(), Vec::from_iter(paper.ending));
        assert_eq!(self.bell.0.load(SeqCst), paper.rings, "the consumer's wake-ups");
        let alive = paper.queue.len() + paper.parked.len();
        assert_eq!(self.live.load(SeqCst), alive, "frames alive");
        for waiting in &self.waiting {
            let due = paper.ending.is_some() || !paper.parked.contains(&waiting.id);
            assert_eq!(waiting.bell.0.load(SeqCst), usize::from(due), "a sender's wake-ups");
        }
        if let Some(sender) = self.senders.first() {
            assert_eq!(sender.len(), paper.queue.len());
            assert_eq!(sender.ending(), paper.ending);
            assert_eq!(sender.sender_count(), self.senders.len() + self.waiting.len());
        }
    }
}

pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let mut run = Run::new(&mut script);
    while let Some(op) = script.next() {
        run.step(op, &mut script);
        run.check();
    }
    while !run.waiting.is_empty() {
        run.drop_waiting(0);
        run.check();
    }
    let live = Arc::clone(&run.live);
    drop(run);
    assert_eq!(live.load(SeqCst), 0, "frames alive after everything is gone");
}
