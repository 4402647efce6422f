//! `stream` mode: frames are awaited on the event loop, and answered from there.

use super::codec::FrameCodec;
use bytes::BytesMut;
use callbridge::listener::{Datagram, Event, Incoming, Replier};
use callbridge::{FrameStream, Stats};
use std::collections::{HashMap, HashSet};

/// Events that are taken at once.
const BATCH: usize = 256;

/// The loop's part, once the stream has ended.
pub(super) struct Answered {
    /// The books of the stream.
    pub(super) stream: Stats,
    /// Answers that the listener didn't take.
    pub(super) unsent: u64,
}

/// Echoes datagrams until the stream ends.
pub(super) async fn datagrams(mut datagrams: FrameStream<Datagram>, replier: Replier) -> Answered {
    let mut unsent = 0;
    while let Some(datagram) = datagrams.recv().await {
        // What can't be sent right now is lost, as a datagram may be: the client asks again.
        let whole = !datagram.truncated;
        if whole && replier.send_to(&datagram.payload, &datagram.peer).is_err() {
            unsent += 1;
        }
    }
    Answered { stream: datagrams.stats(), unsent }
}

/// Echoes the frames of all connections until the stream ends.
///
/// What one batch of events brings leaves in one write per connection. A peer that doesn't read holds
/// the others up once its answers exceed the budget, until the listener's write timeout closes its
/// connection.
pub(super) async fn connections(
    mut events: FrameStream<Incoming<BytesMut>>,
    make: impl Fn() -> FrameCodec,
) -> Answered {
    let mut unsent = 0;
    let (mut repliers, mut fed, mut batch) = (HashMap::new(), HashSet::new(), Vec::new());
    while events.recv_many(&mut batch, BATCH).await > 0 {
        for incoming in batch.drain(..) {
            let id = incoming.connection.id();
            match incoming.event {
                Event::Opened => {
                    repliers.insert(id, incoming.connection.replier(make()));
                }
                Event::Frame(frame) => {
                    let replier = repliers.get_mut(&id).expect("`Opened` comes first");
                    match replier.feed(frame.freeze()) {
                        Ok(()) => drop(fed.insert(id)),
                        Err(_) => unsent += 1,
                    }
                }
                // The connection is closed with the last handle on it.
                Event::Closed(_) => {
                    if let Some(mut replier) = repliers.remove(&id) {
                        let _ = replier.flush().await;
                    }
                    fed.remove(&id);
                }
                _ => {}
            }
        }
        for id in fed.drain() {
            // Fails when the connection is over; the listener has counted what was lost.
            if let Some(replier) = repliers.get_mut(&id) {
                let _ = replier.flush().await;
            }
        }
    }
    Answered { stream: events.stats(), unsent }
}
