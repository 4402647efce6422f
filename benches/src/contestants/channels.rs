//! Channels from a thread to a task: ours, the peers at their best settings, and limits.

use super::frames::Sink;
use bytes::Bytes;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;

/// A bounded channel of frames; sending blocks while it is full.
pub(crate) trait Channel: 'static {
    type Tx: Send + 'static;
    type Rx: Send + 'static;

    fn open(capacity: usize) -> (Self::Tx, Self::Rx);

    /// A sender for a further producer.
    fn another(tx: &Self::Tx) -> Self::Tx;

    fn send(tx: &mut Self::Tx, frame: Bytes);

    /// Starts a consumer that gives every frame to the sink, and finishes it at the end.
    fn consume(rx: Self::Rx, on: &Handle, sink: Sink);

    /// How long a sender has waited for room at most, if the channel knows.
    fn longest_wait(_tx: &Self::Tx) -> Option<Duration> {
        None
    }
}

/// How many frames a batched receive takes at most.
const BATCH: usize = 256;

const OPEN: &str = "the consumer is there";

/// A channel whose consumer is a task.
macro_rules! channel {
    (
        $(#[$doc:meta])* $name:ident: $tx:ty, $rx:ty;
        open |$capacity:ident| $open:expr;
        another |$first:ident| $another:expr;
        send |$sender:ident, $frame:ident| $send:expr;
        consume |$receiver:ident, $sink:ident| $consume:expr;
        $(longest_wait |$asked:ident| $longest_wait:expr;)?
    ) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Channel for $name {
            type Tx = $tx;
            type Rx = $rx;

            fn open($capacity: usize) -> (Self::Tx, Self::Rx) {
                $open
            }

            fn another($first: &Self::Tx) -> Self::Tx {
                $another
            }

            fn send($sender: &mut Self::Tx, $frame: Bytes) {
                $send
            }

            #[allow(unused_mut, reason = "some peers receive by a shared reference")]
            fn consume(mut $receiver: Self::Rx, on: &Handle, mut $sink: Sink) {
                on.spawn(async move {
                    $consume
                    $sink.finish();
                });
            }

            $(fn longest_wait($asked: &Self::Tx) -> Option<Duration> {
                Some($longest_wait)
            })?
        }
    };
}

channel! {
    /// callbridge with default settings: `send` and `recv`.
    Ours: callbridge::Sender<Bytes>, callbridge::FrameStream<Bytes>;
    open |capacity| callbridge::channel(capacity);
    another |tx| tx.clone();
    send |tx, frame| drop(tx.send(frame).expect(OPEN));
    consume |rx, sink| while let Some(frame) = rx.recv().await {
        sink.take(&frame);
    };
    longest_wait |tx| tx.stats().blocked.longest;
}

channel! {
    /// callbridge, the consumer taking batches.
    OursMany: callbridge::Sender<Bytes>, callbridge::FrameStream<Bytes>;
    open |capacity| callbridge::channel(capacity);
    another |tx| tx.clone();
    send |tx, frame| drop(tx.send(frame).expect(OPEN));
    consume |rx, sink| {
        let mut batch = Vec::with_capacity(BATCH);
        while rx.recv_many(&mut batch, BATCH).await > 0 {
            batch.drain(..).for_each(|frame| sink.take(&frame));
        }
    };
}

channel! {
    /// What people write: `blocking_send` and `recv`.
    TokioBlocking: tokio::sync::mpsc::Sender<Bytes>, tokio::sync::mpsc::Receiver<Bytes>;
    open |capacity| tokio::sync::mpsc::channel(capacity);
    another |tx| tx.clone();
    send |tx, frame| tx.blocking_send(frame).expect(OPEN);
    consume |rx, sink| while let Some(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    /// tokio at its best: `try_send` first, and batches.
    TokioBest: tokio::sync::mpsc::Sender<Bytes>, tokio::sync::mpsc::Receiver<Bytes>;
    open |capacity| tokio::sync::mpsc::channel(capacity);
    another |tx| tx.clone();
    send |tx, frame| match tx.try_send(frame) {
        Ok(()) => {}
        Err(TrySendError::Full(frame)) => tx.blocking_send(frame).expect(OPEN),
        Err(TrySendError::Closed(_)) => panic!("{OPEN}"),
    };
    consume |rx, sink| {
        let mut batch = Vec::with_capacity(BATCH);
        while rx.recv_many(&mut batch, BATCH).await > 0 {
            batch.drain(..).for_each(|frame| sink.take(&frame));
        }
    };
}

channel! {
    AsyncChannel: async_channel::Sender<Bytes>, async_channel::Receiver<Bytes>;
    open |capacity| async_channel::bounded(capacity);
    another |tx| tx.clone();
    send |tx, frame| tx.send_blocking(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    Flume: flume::Sender<Bytes>, flume::Receiver<Bytes>;
    open |capacity| flume::bounded(capacity);
    another |tx| tx.clone();
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv_async().await {
        sink.take(&frame);
    };
}

channel! {
    Kanal: kanal::Sender<Bytes>, kanal::AsyncReceiver<Bytes>;
    open |capacity| {
        let (tx, rx) = kanal::bounded(capacity);
        (tx, rx.to_async())
    };
    another |tx| tx.clone();
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    CrossfireMpsc: crossfire::MTx<crossfire::mpsc::Array<Bytes>>, crossfire::AsyncRx<crossfire::mpsc::Array<Bytes>>;
    open |capacity| crossfire::mpsc::bounded_blocking_async(capacity);
    another |tx| tx.clone();
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    /// One producer only.
    CrossfireSpsc: crossfire::Tx<crossfire::spsc::Array<Bytes>>, crossfire::AsyncRx<crossfire::spsc::Array<Bytes>>;
    open |capacity| crossfire::spsc::bounded_blocking_async(capacity);
    another |tx| {
        let _ = tx;
        unreachable!("has one producer")
    };
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    FibreMpsc: fibre::mpsc::BoundedSyncSender<Bytes>, fibre::mpsc::BoundedAsyncReceiver<Bytes>;
    open |capacity| {
        let (tx, rx) = fibre::mpsc::bounded(capacity);
        (tx, rx.to_async())
    };
    another |tx| tx.clone();
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    /// One producer only.
    FibreSpsc: fibre::spsc::BoundedSyncSender<Bytes>, fibre::spsc::BoundedAsyncReceiver<Bytes>;
    open |capacity| {
        let (tx, rx) = fibre::spsc::bounded_sync(capacity);
        (tx, rx.to_async())
    };
    another |tx| {
        let _ = tx;
        unreachable!("has one producer")
    };
    send |tx, frame| tx.send(frame).expect(OPEN);
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

channel! {
    /// `try_send` first; it blocks by a general executor, since it has no blocking send of its own.
    Tachyonix: tachyonix::Sender<Bytes>, tachyonix::Receiver<Bytes>;
    open |capacity| tachyonix::channel(capacity);
    another |tx| tx.clone();
    send |tx, frame| match tx.try_send(frame) {
        Ok(()) => {}
        Err(tachyonix::TrySendError::Full(frame)) => {
            futures::executor::block_on(tx.send(frame)).expect(OPEN);
        }
        Err(tachyonix::TrySendError::Closed(_)) => panic!("{OPEN}"),
    };
    consume |rx, sink| while let Ok(frame) = rx.recv().await {
        sink.take(&frame);
    };
}

/// Limit: thread to thread by std's channel, no event loop.
pub(crate) struct StdThread;

impl Channel for StdThread {
    type Tx = std::sync::mpsc::SyncSender<Bytes>;
    type Rx = std::sync::mpsc::Receiver<Bytes>;

    fn open(capacity: usize) -> (Self::Tx, Self::Rx) {
        std::sync::mpsc::sync_channel(capacity)
    }

    fn another(tx: &Self::Tx) -> Self::Tx {
        tx.clone()
    }

    fn send(tx: &mut Self::Tx, frame: Bytes) {
        tx.send(frame).expect(OPEN);
    }

    fn consume(rx: Self::Rx, _: &Handle, mut sink: Sink) {
        std::thread::spawn(move || {
            rx.iter().for_each(|frame| sink.take(&frame));
            sink.finish();
        });
    }
}

/// Limit: a bare ring between two threads that both spin; one producer only.
pub(crate) struct SpinRing;

impl Channel for SpinRing {
    type Tx = rtrb::Producer<Bytes>;
    type Rx = rtrb::Consumer<Bytes>;

    fn open(capacity: usize) -> (Self::Tx, Self::Rx) {
        rtrb::RingBuffer::new(capacity)
    }

    fn another(_: &Self::Tx) -> Self::Tx {
        unreachable!("has one producer")
    }

    fn send(tx: &mut Self::Tx, mut frame: Bytes) {
        while let Err(rtrb::PushError::Full(back)) = tx.push(frame) {
            frame = back;
            std::hint::spin_loop();
        }
    }

    fn consume(mut rx: Self::Rx, _: &Handle, mut sink: Sink) {
        std::thread::spawn(move || {
            loop {
                match rx.pop() {
                    Ok(frame) => sink.take(&frame),
                    Err(_) if rx.is_abandoned() && rx.is_empty() => break,
                    Err(_) => std::hint::spin_loop(),
                }
            }
            sink.finish();
        });
    }
}
