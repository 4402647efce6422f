//! A consumer that checks what it gets.

use crate::Outcome;
use callbridge_relay::nats::{Consumer, connect};
use std::time::Duration;

/// Nothing for so long, and something is lost.
const SILENCE: Duration = Duration::from_secs(60);

/// What arrived from one relay.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Frames in the stream.
    pub(crate) stored: u64,
    /// Frames that were not there.
    pub(crate) missing: u64,
    /// Frames that were there twice.
    pub(crate) doubled: u64,
    /// Frames stored behind one that comes after them.
    pub(crate) out_of_order: u64,
    /// Deliveries of what had been delivered before; the server's, not the relay's.
    pub(crate) delivered_again: u64,
}

impl Arrived {
    pub(crate) fn is_right(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.out_of_order == 0
    }
}

/// Reads a stream until every frame is there.
pub(crate) async fn read(url: String, stream: String, frames: u64) -> Outcome<Arrived> {
    let client = connect(url, Default::default()).await?;
    let builder = Consumer::builder(client, stream, "trial").window(4096);
    let (consumer, mut deliveries) = builder.start().await?;
    let mut arrived = Arrived::default();
    // Where each frame is stored; what the server has to deliver again comes behind what comes after it.
    let mut places = vec![0; usize::try_from(frames)? + 1];
    while arrived.stored < frames {
        let delivery = tokio::time::timeout(SILENCE, deliveries.recv()).await;
        let Ok(Some(delivery)) = delivery else { break };
        let delivery = delivery.done();
        let number: usize =
            std::str::from_utf8(&delivery.payload)?.split(' ').next().unwrap_or("").parse()?;
        match std::mem::replace(&mut places[number], delivery.sequence) {
            0 => arrived.stored += 1,
            place if place == delivery.sequence => arrived.delivered_again += 1,
            _ => arrived.doubled += 1,
        }
    }
    let there = || places[1..].iter().filter(|place| **place > 0);
    arrived.missing = frames - arrived.stored;
    arrived.out_of_order = there().zip(there().skip(1)).filter(|(a, b)| a > b).count() as u64;
    drop(deliveries);
    consumer.close(Duration::from_secs(10)).await;
    Ok(arrived)
}
