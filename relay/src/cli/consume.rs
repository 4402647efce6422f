//! `relay consume`

use super::{Outcome, Server, interrupted};
use callbridge_relay::nats::Consumer;
use clap::Args;
use std::io::Write;
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    server: Server,
    /// The JetStream stream
    #[arg(long)]
    stream: String,
    /// What the server knows this reader by; it goes on where the last one of that name stopped
    #[arg(long)]
    durable: String,
    /// The most messages that are read and not acknowledged
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Ends after so many messages
    #[arg(long)]
    count: Option<u64>,
    /// Prints each message's id before it
    #[arg(long)]
    ids: bool,
}

impl Consume {
    pub(crate) async fn run(self) -> Outcome {
        let client = self.server.connect().await?;
        let builder = Consumer::builder(client, &*self.stream, &*self.durable);
        let (consumer, mut frames) = builder.window(self.window).start().await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut out = std::io::stdout();
        let mut interrupted = std::pin::pin!(interrupted());
        while left > 0 {
            let frame = tokio::select! {
                frame = frames.recv() => frame,
                () = &mut interrupted => break,
            };
            let Some(frame) = frame else { break };
            if self.ids {
                let id = frame.id.as_ref().map(ToString::to_string);
                write!(out, "{}\t", id.as_deref().unwrap_or("-"))?;
            }
            out.write_all(&frame.payload)?;
            out.write_all(b"\n")?;
            out.flush()?;
            frame.done();
            left -= 1;
        }
        let error = frames.error();
        drop(frames);
        eprintln!("{}", consumer.close(Duration::from_secs(5)).await);
        error.map_or(Ok(()), |error| Err(error.into()))
    }
}
