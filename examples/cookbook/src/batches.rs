//! # Batches: so many frames, or what came in so much time
//!
//! For databases and uploads. `recv_many` is cancel safe, so a timeout around it loses nothing: what it had appended to the
//! batch is there.

use callbridge::channel;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

const MOST: usize = 100;
const LONGEST: Duration = Duration::from_millis(20);

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (sender, mut frames) = channel(1024);
    let source = std::thread::spawn(move || (0..250).try_for_each(|n| sender.send(n).map(drop)));

    let mut written = 0;
    let mut batch = Vec::with_capacity(MOST);
    loop {
        // The time begins with the first frame: an idle source costs no timer.
        let mut open = frames.recv_many(&mut batch, MOST).await > 0;
        let deadline = Instant::now() + LONGEST;
        while open && batch.len() < MOST {
            let room = MOST - batch.len();
            match timeout_at(deadline, frames.recv_many(&mut batch, room)).await {
                Ok(taken) => open = taken > 0,
                Err(_) => break, // the time is up
            }
        }
        if !batch.is_empty() {
            println!("a batch of {}", batch.len());
            written += batch.len();
            batch.clear(); // here: INSERT, upload, ...
        }
        if !open {
            break;
        }
    }
    assert_eq!(written, 250);
    source.join().expect("the source doesn't panic")?;
    Ok(())
}
