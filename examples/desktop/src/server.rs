//! A slow server on loopback: says how far it is, ten times, and then the answer.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const STEPS: u32 = 10;

/// Starts it on a thread that lives as long as the program; a request takes `latency`.
pub(crate) fn start(latency: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::Builder::new().name("server".into()).spawn(move || {
        for peer in listener.incoming().flatten() {
            // A client may go away early; that is its own affair.
            drop(serve(peer, latency / STEPS));
        }
    })?;
    Ok(address)
}

fn serve(mut peer: TcpStream, step: Duration) -> io::Result<()> {
    peer.set_nodelay(true)?;
    for done in 1..=STEPS {
        thread::sleep(step);
        writeln!(peer, "{}", done * 100 / STEPS)?;
    }
    writeln!(peer, "the water stands at 4.12 m")
}
