//! A legacy listener that owns its thread and calls back into a closure, as an async stream.
//!
//! `cargo run --example wrap_listener`

use callbridge::channel::{Ending, Loss};
use callbridge::{Overflow, channel};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stands for the library: a thread you do not own, a callback, and a way to unregister.
fn listen(on_frame: impl Fn(Vec<u8>) + Send + 'static) -> (SocketAddr, impl FnOnce() + Send) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let (addr, stopped) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
    let stop = stopped.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while !stopped.load(Ordering::Relaxed) {
            let length = socket.recv(&mut buffer).unwrap();
            on_frame(buffer[..length].to_vec());
        }
    });
    (addr, move || stop.store(true, Ordering::Relaxed))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, mut frames) = channel::builder()
        .capacity(1024)
        .overflow(Overflow::DropOldest) // its thread is not ours to hold up
        .on_loss(|loss: Loss<'_, Vec<u8>>| eprintln!("lost {}: {}", loss.frame.len(), loss.reason))
        .build()?;
    let (addr, unregister) = listen(sender.callback());
    sender.on_termination(move |_ending| unregister());

    let client = UdpSocket::bind("127.0.0.1:0")?;
    for text in ["one", "two", "three"] {
        client.send_to(text.as_bytes(), addr)?;
        let frame = frames.recv().await.expect("the listener is running");
        println!("{}", String::from_utf8_lossy(&frame));
    }
    drop(frames); // whoever stops reading unregisters the callback
    assert_eq!(sender.ending(), Some(Ending::ConsumerDropped));
    Ok(())
}
