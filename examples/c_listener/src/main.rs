//! Shows the datagrams that a C library hands over on its own thread, in an async loop.
//!
//! `callbridge-c-listener` runs until its input ends; `callbridge-c-listener --smoke` sends itself
//! some datagrams, prints the counters and ends.

use callbridge::FrameStream;
use callbridge_c_listener::CListener;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

const SMOKE_FRAMES: usize = 100;

fn main() -> io::Result<()> {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (sender, mut frames) = callbridge::channel(256);
    let counters = sender.downgrade();
    let listener = CListener::start(sender)?;
    println!("listening on 127.0.0.1:{}", listener.port());

    let port = listener.port();
    let (enough, told_enough) = std::sync::mpsc::channel::<()>();
    // Stopping joins the library's thread, so it is done on a thread that may block.
    let stopper = std::thread::spawn(move || {
        if smoke {
            send_some(port)?;
            let _ = told_enough.recv_timeout(Duration::from_secs(30));
        } else {
            io::copy(&mut io::stdin(), &mut io::sink())?;
        }
        listener.stop(Duration::from_secs(5))
    });

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let shown_frames = runtime.block_on(async {
        let first = show(&mut frames, if smoke { SMOKE_FRAMES } else { usize::MAX }).await;
        drop(enough);
        first + show(&mut frames, usize::MAX).await
    });
    let library = stopper.join().expect("the stopper doesn't panic")?;
    let stats = counters.stats();
    println!("shown {shown_frames}; from C {}, swallowed {}", library.calls, library.late);
    println!("counters balance: {}", stats.balances());
    if smoke && (shown_frames != SMOKE_FRAMES || !stats.balances()) {
        return Err(io::Error::other("a frame is missing"));
    }
    Ok(())
}

/// Shows up to `most` frames; how many there were before the stream ended.
async fn show(frames: &mut FrameStream<Vec<u8>>, most: usize) -> usize {
    let mut shown = 0;
    while shown < most {
        let Some(frame) = frames.recv().await else { break };
        println!("{}", frame.escape_ascii());
        shown += 1;
    }
    shown
}

fn send_some(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    for n in 0..SMOKE_FRAMES {
        socket.send_to(format!("frame {n}").as_bytes(), (Ipv4Addr::LOCALHOST, port))?;
    }
    Ok(())
}
