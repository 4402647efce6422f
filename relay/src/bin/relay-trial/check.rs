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
    /// Frames behind one that comes after them.
    pub(crate) out_of_order: u64,
    /// Deliveries of what had been delivered before; the server's, not the relay's.
    pub(crate) delivered_again: u64,
}

impl Arrived {
    pub(crate) fn is_right(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.out_of_order == 0
    }
}

/// Reads a stream until the last frame is there.
pub(crate) async fn read(url: String, stream: String, frames: u64) -> Outcome<Arrived> {
    let client = connect(url, Default::default()).await?;
    let builder = Consumer::builder(client, stream, "trial").window(4096);
    let (consumer, mut deliveries) = builder.start().await?;
    let mut arrived = Arrived::default();
    let mut seen = vec![false; usize::try_from(frames)? + 1];
    let (mut last_stored, mut last_frame) = (0, 0);
    while last_frame < frames {
        let delivery = tokio::time::timeout(SILENCE, deliveries.recv()).await;
        let Ok(Some(delivery)) = delivery else { break };
        let delivery = delivery.done();
        if delivery.sequence <= last_stored {
            arrived.delivered_again += 1;
            continue;
        }
        last_stored = delivery.sequence;
        let number: u64 =
            std::str::from_utf8(&delivery.payload)?.split(' ').next().unwrap_or("").parse()?;
        arrived.stored += 1;
        arrived.out_of_order += u64::from(number < last_frame);
        last_frame = last_frame.max(number);
        let before = std::mem::replace(&mut seen[usize::try_from(number)?], true);
        arrived.doubled += u64::from(before);
    }
    arrived.missing = seen[1..].iter().filter(|seen| !**seen).count() as u64;
    drop(deliveries);
    consumer.close(Duration::from_secs(10)).await;
    Ok(arrived)
}
