//! # A window that is woken
//!
//! A window has a loop of its own, which can't await. `on_ready` wakes it when a stream becomes readable or ends; it then takes what is
//! there, and never waits. The hook is called once until the stream was found empty, so a flood of frames is one wake-up. With egui
//! it is `context.request_repaint()`, with winit `proxy.send_event(..)`, with a loop of descriptors a write to an `eventfd`
//! (`examples/poll_loop.rs`). `examples/desktop` is a whole window.

use callbridge::{Overflow, ThreadRunner, channel};
use std::sync::mpsc;
use std::time::Duration;

enum Event {
    Click,
    Wake,
    Quit,
}

pub(crate) fn main() -> crate::Ended {
    let runner = ThreadRunner::new(); // where async code runs
    let (events, window) = mpsc::channel(); // stands for the window's own loop
    events.send(Event::Click)?;

    let mut request = None;
    let mut label = String::from("nothing asked yet");
    while let Ok(event) = window.recv() {
        match event {
            Event::Click => {
                let (progress, mut shown) =
                    channel::builder().overflow(Overflow::Latest).build()?;
                let wake = events.clone();
                shown.on_ready(move || drop(wake.send(Event::Wake)));
                let answer = runner.spawn(async move {
                    for percent in [50, 100] {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        let _ = progress.send(percent);
                    }
                    "the answer"
                });
                let wake = events.clone();
                answer.add_done_callback(move |_| drop(wake.send(Event::Wake)));
                // A request that is replaced is cancelled.
                request = Some((answer.cancel_on_drop(), shown));
            }
            Event::Wake => {
                let Some((answer, shown)) = &mut request else { continue };
                while let Ok(percent) = shown.try_recv() {
                    label = format!("asking ... {percent} %");
                }
                if let Some(result) = answer.try_result() {
                    label = result?.to_owned();
                    request = None;
                    events.send(Event::Quit)?;
                }
                println!("{label}"); // draw
            }
            Event::Quit => break,
        }
    }
    assert_eq!(label, "the answer");
    println!("{}", runner.close(Duration::from_secs(5)));
    Ok(())
}
