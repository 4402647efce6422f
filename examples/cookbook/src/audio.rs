//! # Audio: a real-time callback through a ring
//!
//! A real-time callback may not wait, lock or allocate, and a `Sender` takes a lock for a moment. So the callback fills a wait-free
//! ring, and a thread of a `Listener` empties it into the channel. The thread looks every few milliseconds, since waking it would be a
//! system call in the callback; a ring of twice as much keeps what comes in between.
//!
//! Besides: `rtrb = "0.4"`.

use callbridge::Listener;
use rtrb::RingBuffer;
use std::time::Duration;

const BLOCK: usize = 64; // samples of one callback
const LOOK: Duration = Duration::from_millis(2);

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (mut ring, mut out) = RingBuffer::<f32>::new(BLOCK * 64);

    // What is registered with the audio library. What finds no room is lost: count it, as the library does.
    let mut callback = move |samples: &[f32]| {
        let fits = ring.slots().min(samples.len());
        if let Ok(chunk) = ring.write_chunk_uninit(fits) {
            chunk.fill_from_iter(samples[..fits].iter().copied());
        }
    };
    let card = std::thread::spawn(move || (0..100).for_each(|n| callback(&[n as f32; BLOCK])));

    let pump = Listener::from_fn(move |sink| {
        loop {
            let over = out.is_abandoned(); // first: what was written before is seen then
            let filled = out.slots();
            if filled > 0 {
                let chunk = out.read_chunk(filled).map_err(std::io::Error::other)?;
                let samples: Vec<f32> = chunk.into_iter().collect();
                if sink.send(samples).is_err() {
                    return Ok(()); // nobody listens any more
                }
            } else if over || sink.wait_stop(LOOK).is_ok() {
                return Ok(());
            }
        }
    });
    let (_listener, mut blocks) = pump.name("audio").capacity(32).spawn()?;

    let mut heard = 0;
    while let Some(samples) = blocks.recv().await {
        heard += samples.len();
    }
    card.join().expect("the card doesn't panic");
    println!("{heard} samples");
    assert!(heard > 0);
    Ok(())
}
