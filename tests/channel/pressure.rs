//! Watermarks.

use crate::*;
use callbridge::channel::Pressure;
use callbridge::{FrameStream, Overflow, channel};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

type Log = Arc<Mutex<Vec<Pressure>>>;

fn marked(low: usize, high: usize, capacity: usize) -> (Sender<u32>, FrameStream<u32>, Log) {
    let log = Log::default();
    let told = Arc::clone(&log);
    let (sender, frames) = channel::builder()
        .capacity(capacity)
        .watermarks(low, high, move |pressure| told.lock().unwrap().push(pressure))
        .build()
        .unwrap();
    (sender, frames, log)
}

/// b52. Swift: with watermarks 2 and 4 the producer stops at 4 and restarts at 2, not at 3.
#[test]
fn high_is_told_at_the_high_mark_and_low_at_the_low_one() {
    let (sender, mut frames, log) = marked(2, 4, 8);
    for frame in 0..3 {
        sender.send(frame).unwrap();
    }
    assert!(log.lock().unwrap().is_empty());
    sender.send(3).unwrap();
    sender.send(4).unwrap();
    assert_eq!(*log.lock().unwrap(), [Pressure::High]);
    frames.try_recv().unwrap();
    frames.try_recv().unwrap();
    assert_eq!(frames.len(), 3);
    assert_eq!(*log.lock().unwrap(), [Pressure::High]);
    frames.try_recv().unwrap();
    assert_eq!(*log.lock().unwrap(), [Pressure::High, Pressure::Low]);
    sender.send(5).unwrap();
    sender.send(6).unwrap();
    assert_eq!(*log.lock().unwrap(), [Pressure::High, Pressure::Low, Pressure::High]);
}

#[test]
fn a_batch_that_is_read_at_once_crosses_the_low_mark_once() {
    let (sender, mut frames, log) = marked(1, 3, 8);
    for frame in 0..5 {
        sender.send(frame).unwrap();
    }
    let mut buffer = Vec::new();
    assert!(
        frames.poll_recv_many(&mut Context::from_waker(Waker::noop()), &mut buffer, 9).is_ready()
    );
    assert_eq!(buffer.len(), 5);
    assert_eq!(*log.lock().unwrap(), [Pressure::High, Pressure::Low]);
}

#[test]
fn a_dropped_stream_takes_the_pressure_away() {
    let (sender, frames, log) = marked(0, 2, 2);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    drop(frames);
    assert_eq!(*log.lock().unwrap(), [Pressure::High, Pressure::Low]);
    assert_balanced(&sender.stats());
}

#[test]
fn an_evicting_channel_tells_high_once() {
    let log = Log::default();
    let told = Arc::clone(&log);
    let (sender, _frames) = channel::builder()
        .capacity(2)
        .overflow(Overflow::DropOldest)
        .watermarks(0, 2, move |pressure| told.lock().unwrap().push(pressure))
        .build()
        .unwrap();
    for frame in 0..10 {
        sender.send(frame).unwrap();
    }
    assert_eq!(*log.lock().unwrap(), [Pressure::High]);
}

#[test]
fn a_hook_that_crosses_the_mark_itself_is_told_afterwards() {
    let log = Log::default();
    let told = Arc::clone(&log);
    within(move || {
        let cell = Arc::new(Mutex::new(None::<FrameStream<u32>>));
        let inside = Arc::clone(&cell);
        let (sender, frames) = channel::builder()
            .capacity(2)
            .watermarks(0, 1, move |pressure| {
                if let Some(frames) = inside.lock().unwrap().as_mut() {
                    while frames.try_recv().is_ok() {}
                }
                told.lock().unwrap().push(pressure);
            })
            .build()
            .unwrap();
        *cell.lock().unwrap() = Some(frames);
        sender.send(1).unwrap();
        // The hook and the stream hold each other.
        let frames = cell.lock().unwrap().take();
        drop(frames);
    });
    assert_eq!(*log.lock().unwrap(), [Pressure::High, Pressure::Low]);
}

#[test]
fn a_hook_that_panics_is_told_the_next_crossing_all_the_same() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let (sender, mut frames) = channel::builder()
        .capacity(1)
        .watermarks(0, 1, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("the hook's own fault");
        })
        .build()
        .unwrap();
    sender.send(1).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

/// The hook runs beside itself only while it is still at work on another thread, and then the
/// newest state is told once more: what a flag holds in the end is always right.
#[test]
fn the_last_that_a_hook_is_told_is_the_newest_state() {
    for _ in 0..20 {
        let is_high = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_high);
        let (sender, mut frames) = channel::builder()
            .capacity(4)
            .watermarks(1, 3, move |pressure| {
                std::thread::yield_now();
                flag.store(pressure == Pressure::High, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let sources: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    (0..100).for_each(|frame| {
                        sender.send(frame).unwrap();
                    });
                })
            })
            .collect();
        for _ in 0..397 {
            frames.recv_blocking(LIMIT).unwrap();
        }
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert!(frames.len() == 3 && is_high.load(Ordering::SeqCst));
        for _ in 0..3 {
            frames.try_recv().unwrap();
        }
        assert!(!is_high.load(Ordering::SeqCst));
    }
}

#[test]
fn a_hook_may_wait_in_high_until_low_is_told() {
    let (resume, resumed) = mpsc::channel();
    let resumed = Mutex::new(resumed);
    let (sender, mut frames) = channel::builder()
        .capacity(4)
        .watermarks(1, 3, move |pressure| match pressure {
            Pressure::High => resumed.lock().unwrap().recv_timeout(LIMIT).unwrap(),
            Pressure::Low => resume.send(()).unwrap(),
        })
        .build()
        .unwrap();
    within(move || {
        let source = std::thread::spawn(move || {
            (0..4).for_each(|frame| {
                sender.send(frame).unwrap();
            });
        });
        while frames.recv_blocking(None).is_ok() {}
        source.join().unwrap();
    });
}

/// While one thread is in the hook, others cross the marks a hundred times: it hears of the newest
/// state afterwards, not of each crossing.
#[test]
fn a_thread_in_the_hook_is_not_told_what_others_have_told() {
    let (entered, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (released, first) = (Mutex::new(released), AtomicBool::new(true));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let (sender, mut frames) = channel::builder()
        .capacity(2)
        .watermarks(0, 1, move |_| {
            if first.swap(false, Ordering::SeqCst) {
                entered.send(()).unwrap();
                released.lock().unwrap().recv_timeout(LIMIT).unwrap();
            }
            count.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    within(move || {
        let other = sender.clone();
        let kept = std::thread::spawn(move || sender.send(0).is_ok());
        begun.recv_timeout(LIMIT).unwrap();
        frames.try_recv().unwrap();
        for frame in 0..100 {
            other.send(frame).unwrap();
            frames.try_recv().unwrap();
        }
        let told = calls.load(Ordering::SeqCst);
        assert_eq!(told, 201, "who crosses a mark tells it at once");
        release.send(()).unwrap();
        assert!(kept.join().unwrap());
        assert!(
            calls.load(Ordering::SeqCst) <= told + 2,
            "its own, and the newest state once more"
        );
    });
}
