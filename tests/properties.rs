//! Laws of the channel, over random settings, programs and interleavings.

use callbridge::channel::{self, Builder, Fallback, FrameOrGap};
use callbridge::channel::{Loss, LossReason, RecvError, SendError, Sent};
use callbridge::{FrameStream, Overflow, Sender};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// Frames weigh 0 to 4, so that some budgets are too small for some frames.
const WEIGHTS: u32 = 5;

type Id = (usize, u32);

/// A frame that counts how many of its kind are alive.
struct Frame {
    id: Id,
    live: Arc<AtomicUsize>,
}

impl Frame {
    fn new(id: Id, live: &Arc<AtomicUsize>) -> Self {
        live.fetch_add(1, SeqCst);
        Frame { id, live: Arc::clone(live) }
    }

    fn weight(&self) -> usize {
        (self.id.1 % WEIGHTS) as usize
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.live.fetch_sub(1, SeqCst);
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Send,
    Try,
    Timeout,
    Callback,
    Control,
    Reserve,
}

/// What the consumer does after it has read its share.
#[derive(Clone, Copy, Debug)]
enum Leaving {
    ReadsToTheEnd,
    Drops,
    ClosesAndReads,
}

#[derive(Clone, Debug)]
struct Settings {
    overflow: Overflow,
    capacity: usize,
    budget: Option<usize>,
}

type Losses = Arc<Mutex<Vec<(Id, LossReason)>>>;

impl Settings {
    fn build(&self) -> (Sender<Frame>, FrameStream<Frame>, Losses) {
        let losses = Losses::default();
        let log = Arc::clone(&losses);
        let mut builder: Builder<Frame> = channel::builder()
            .capacity(self.capacity)
            .overflow(self.overflow)
            .on_loss(move |loss: Loss<'_, Frame>| {
                log.lock().unwrap().push((loss.frame.id, loss.reason));
            });
        if let Some(budget) = self.budget.filter(|_| self.overflow != Overflow::Unbounded) {
            builder = builder.weigh(Frame::weight, budget);
        }
        let (sender, frames) = builder.build().expect("the settings make sense");
        (sender, frames, losses)
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let short = Duration::from_micros(200);
    let overflow = prop_oneof![
        3 => Just(Overflow::Block),
        1 => Just(Overflow::BlockFor(short, Fallback::DropNewest)),
        1 => Just(Overflow::BlockFor(short, Fallback::DropOldest)),
        1 => Just(Overflow::BlockFor(short, Fallback::Fail)),
        1 => Just(Overflow::DropNewest),
        1 => Just(Overflow::DropOldest),
        1 => Just(Overflow::Latest),
        1 => Just(Overflow::Fail),
        1 => Just(Overflow::Unbounded),
    ];
    let budget = prop_oneof![2 => Just(None), 1 => (1usize..12).prop_map(Some)];
    (overflow, 1usize..7, budget).prop_map(|(overflow, capacity, budget)| Settings {
        overflow,
        capacity,
        budget,
    })
}

fn way() -> impl Strategy<Value = Way> {
    prop_oneof![
        4 => Just(Way::Send),
        1 => Just(Way::Try),
        1 => Just(Way::Timeout),
        1 => Just(Way::Callback),
        1 => Just(Way::Control),
        1 => Just(Way::Reserve),
    ]
}

fn leaving() -> impl Strategy<Value = Leaving> {
    prop_oneof![Just(Leaving::ReadsToTheEnd), Just(Leaving::Drops), Just(Leaving::ClosesAndReads),]
}

/// Whether the sender got the frame back as refused; what was lost is the loss hook's to tell.
fn is_refused(sender: &Sender<Frame>, frame: Frame, way: Way, capacity: usize) -> bool {
    let id = frame.id;
    let (sent, refused) = match way {
        Way::Send => match sender.send(frame) {
            Ok(sent) => (Some(sent), None),
            Err(SendError::TooHeavy(_)) => (None, None),
            Err(error) => (None, Some(error.into_inner())),
        },
        Way::Try => match sender.try_send(frame) {
            Ok(sent) => (Some(sent), None),
            Err(SendError::TooHeavy(_)) => (None, None),
            Err(error) => (None, Some(error.into_inner())),
        },
        Way::Timeout => match sender.send_timeout(frame, Duration::from_micros(50)) {
            Ok(sent) => (Some(sent), None),
            Err(SendError::TooHeavy(_)) => (None, None),
            Err(error) => (None, Some(error.into_inner())),
        },
        Way::Callback => {
            sender.callback()(frame);
            (None, None)
        }
        Way::Reserve => {
            let sent = match sender.reserve(Duration::from_micros(50)) {
                Ok(permit) => permit.send(frame),
                Err(_) => sender.try_send(frame),
            };
            match sent {
                Ok(sent) => (Some(sent), None),
                Err(SendError::TooHeavy(_)) => (None, None),
                Err(error) => (None, Some(error.into_inner())),
            }
        }
        Way::Control => (None, sender.send_control(frame).err().map(SendError::into_inner)),
    };
    if let Some(Sent::Queued { remaining }) = sent {
        // Read after the frame went in, when the consumer may have taken it again.
        assert!(remaining <= capacity);
    }
    refused.is_some_and(|frame| {
        assert_eq!(frame.id, id, "the sender's own frame comes back");
        true
    })
}

fn read_to_the_end(frames: &mut FrameStream<Frame>, read: &mut Vec<Id>) {
    loop {
        match frames.recv_blocking(PATIENCE) {
            Ok(frame) => read.push(frame.id),
            Err(RecvError::Ended) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn consume(mut frames: FrameStream<Frame>, share: usize, leaving: Leaving) -> Vec<Id> {
    let mut read = Vec::new();
    while read.len() < share {
        match frames.recv_blocking(PATIENCE) {
            Ok(frame) => read.push(frame.id),
            Err(RecvError::Ended) => return read,
            Err(error) => panic!("{error}"),
        }
    }
    match leaving {
        Leaving::Drops => {}
        Leaving::ReadsToTheEnd => read_to_the_end(&mut frames, &mut read),
        Leaving::ClosesAndReads => {
            frames.close();
            read_to_the_end(&mut frames, &mut read);
        }
    }
    read
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    /// Whatever threads send and however the consumer leaves: every frame has exactly one fate,
    /// the counters say which, each producer's frames keep their order, and nothing stays alive.
    #[test]
    fn every_frame_has_one_fate_and_the_counters_say_which(
        settings in settings(),
        programs in vec(vec(way(), 0..24), 1..4),
        share in 0usize..30,
        leaving in leaving(),
    ) {
        let live = Arc::new(AtomicUsize::new(0));
        let (sender, frames, losses) = settings.build();
        let monitor = sender.downgrade();
        let capacity = sender.capacity();
        let offered: usize = programs.iter().map(Vec::len).sum();
        let producers: Vec<_> = programs
            .into_iter()
            .enumerate()
            .map(|(producer, program)| {
                let (sender, live) = (sender.clone(), Arc::clone(&live));
                thread::spawn(move || {
                    let mut refused = Vec::new();
                    for (number, way) in (0..).zip(program) {
                        let id = (producer, number);
                        if is_refused(&sender, Frame::new(id, &live), way, capacity) {
                            refused.push(id);
                        }
                    }
                    refused
                })
            })
            .collect();
        drop(sender);
        let read = consume(frames, share, leaving);
        let refused: Vec<Id> =
            producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
        let lost: Vec<Id> = losses.lock().unwrap().iter().map(|(id, _)| *id).collect();

        let fates: HashSet<Id> = read.iter().chain(&refused).chain(&lost).copied().collect();
        prop_assert_eq!(fates.len(), offered, "a frame has no fate");
        prop_assert_eq!(read.len() + refused.len() + lost.len(), offered, "a frame has two fates");

        let stats = monitor.stats();
        prop_assert!(stats.balances(), "{:?}", stats);
        prop_assert_eq!(stats.offered, offered as u64);
        prop_assert_eq!(stats.delivered, read.len() as u64);
        prop_assert_eq!(stats.refused, refused.len() as u64);
        prop_assert_eq!(stats.lost.total(), lost.len() as u64);
        prop_assert_eq!((stats.queued, stats.waiting), (0, 0));
        prop_assert!(stats.high_water <= capacity as u64, "{:?}", stats);

        let mut last: HashMap<usize, u32> = HashMap::new();
        for (producer, number) in read {
            let before = last.insert(producer, number);
            prop_assert!(before.is_none_or(|before| before < number), "a frame was overtaken");
        }
        prop_assert_eq!(live.load(SeqCst), 0);
    }

    /// At every quiescent point the counters balance, and what is queued keeps within both bounds.
    #[test]
    fn what_is_queued_never_exceeds_capacity_or_budget(
        settings in settings(),
        program in vec((way(), 0usize..3), 0..60),
    ) {
        let live = Arc::new(AtomicUsize::new(0));
        let (sender, mut frames, losses) = settings.build();
        let mut queued: Vec<Id> = Vec::new();
        let mut controls: HashSet<Id> = HashSet::new();
        for (number, (way, reads)) in (0..).zip(program) {
            let frame = Frame::new((0, number), &live);
            // Alone, a sender that waits without limit would wait for itself.
            let way = match (settings.overflow, way) {
                (Overflow::Block, Way::Send | Way::Callback) => Way::Try,
                (_, way) => way,
            };
            if let Way::Control = way {
                controls.insert(frame.id);
            }
            if !is_refused(&sender, frame, way, sender.capacity()) {
                queued.push((0, number));
            }
            for _ in 0..reads {
                let lost: Vec<Id> = losses.lock().unwrap().iter().map(|(id, _)| *id).collect();
                queued.retain(|id| !lost.contains(id));
                let read = frames.try_recv().map(|frame| frame.id).ok();
                prop_assert_eq!(read, (!queued.is_empty()).then(|| queued.remove(0)));
            }
            let lost: Vec<Id> = losses.lock().unwrap().iter().map(|(id, _)| *id).collect();
            queued.retain(|id| !lost.contains(id));
            prop_assert_eq!(sender.len(), queued.len());
            prop_assert!(controls.iter().all(|id| !lost.contains(id)), "a policy lost a control frame");
            let data: Vec<_> = queued.iter().filter(|id| !controls.contains(id)).collect();
            prop_assert!(data.len() <= sender.capacity());
            if let Some(budget) = settings.budget.filter(|_| settings.overflow != Overflow::Unbounded) {
                let weight: u32 = data.iter().map(|id| id.1 % WEIGHTS).sum();
                prop_assert!(weight as usize <= budget, "{} over {}", weight, budget);
            }
            prop_assert!(sender.stats().balances());
            prop_assert_eq!(live.load(SeqCst), queued.len());
        }
        drop(sender);
        drop(frames);
        prop_assert_eq!(live.load(SeqCst), 0);
    }

    /// A consumer that asks for gaps finds, in the order the frames were sent in, each of them or a
    /// gap in its place.
    #[test]
    fn every_lost_frame_leaves_a_gap_in_its_place(
        settings in settings(),
        program in vec((way(), 0usize..3), 0..60),
    ) {
        let live = Arc::new(AtomicUsize::new(0));
        let (sender, frames, losses) = settings.build();
        let mut frames = frames.with_gaps();
        let mut sent: Vec<Id> = Vec::new();
        let mut read = Vec::new();
        for (number, (way, reads)) in (0..).zip(program) {
            let way = match (settings.overflow, way) {
                (Overflow::Block, Way::Send | Way::Callback) => Way::Try,
                (_, way) => way,
            };
            if !is_refused(&sender, Frame::new((0, number), &live), way, sender.capacity()) {
                sent.push((0, number));
            }
            read.extend((0..reads).map_while(|_| frames.try_recv().ok()));
        }
        drop(sender);
        read.extend(std::iter::from_fn(|| frames.try_recv().ok()));

        let lost: HashSet<Id> = losses.lock().unwrap().iter().map(|(id, _)| *id).collect();
        let expected: Vec<Option<Id>> =
            sent.into_iter().map(|id| (!lost.contains(&id)).then_some(id)).collect();
        let mut found = Vec::new();
        for item in &read {
            match item {
                FrameOrGap::Frame(frame) => found.push(Some(frame.id)),
                FrameOrGap::Gap(frames) => found.extend((0..*frames).map(|_| None)),
            }
        }
        prop_assert_eq!(found, expected);
        prop_assert!(frames.get_ref().stats().balances());
    }
}
