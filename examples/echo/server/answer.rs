//! `stream` mode: frames are awaited on the event loop, and answered from there.

use super::codec::FrameCodec;
use bytes::{Bytes, BytesMut};
use callbridge::FrameStream;
use callbridge::channel::Stats;
use callbridge::listener::{Connection, Datagram, Replier};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use tokio::task::JoinSet;

/// The loop's part, once the stream has ended.
#[derive(Default)]
pub(super) struct Answered {
    /// The counters of the frames' streams, together.
    pub(super) offered: u64,
    pub(super) delivered: u64,
    pub(super) queued: u64,
    pub(super) lost: u64,
    pub(super) refused: u64,
    /// Answers that the listener didn't take.
    pub(super) unsent: u64,
}

impl Answered {
    fn add(&mut self, stream: &Stats) {
        self.offered += stream.offered;
        self.delivered += stream.delivered;
        self.queued += stream.queued;
        self.lost += stream.lost.total();
        self.refused += stream.refused;
    }

    pub(super) fn balances(&self) -> bool {
        self.offered == self.delivered + self.queued + self.lost + self.refused
    }
}

/// Echoes datagrams until the stream ends.
pub(super) async fn datagrams(mut datagrams: FrameStream<Datagram>, replier: Replier) -> Answered {
    let mut answered = Answered::default();
    while let Some(datagram) = datagrams.recv().await {
        // What can't be sent right now is lost, as a datagram may be: the client asks again.
        let whole = !datagram.truncated;
        if whole && replier.send_to(&datagram.payload, &datagram.peer).is_err() {
            answered.unsent += 1;
        }
    }
    answered.add(&datagrams.stats());
    answered
}

/// Echoes the frames of all connections, each by a task of its own, until the listener ends.
pub(super) async fn connections(mut connections: FrameStream<Connection<FrameCodec>>) -> Answered {
    let (mut answered, mut echoes) = (Answered::default(), JoinSet::new());
    loop {
        tokio::select! {
            Some(ended) = echoes.join_next() => answered.add(&ended.expect("it doesn't panic")),
            connection = connections.recv() => match connection {
                Some(connection) => drop(echoes.spawn(echo(connection))),
                None => break,
            },
        }
    }
    while let Some(ended) = echoes.join_next().await {
        answered.add(&ended.expect("it doesn't panic"));
    }
    answered
}

/// Echoes one connection. A peer that doesn't read holds up nobody else: its frames are read no further
/// once the write buffer is full, and the write timeout ends its connection.
async fn echo(connection: Connection<FrameCodec>) -> Stats {
    let (mut answers, mut frames) = connection.split::<Bytes>();
    let frozen = (&mut frames).map_ok(BytesMut::freeze);
    if frozen.forward(&mut answers).await.is_err() {
        // The frames before a bad one are still answered; the listener counts what is lost.
        let _ = answers.close().await;
    }
    frames.reunite(answers).expect("two halves of one").frames().stats()
}
