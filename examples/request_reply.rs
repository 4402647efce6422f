//! A listener whose requests an async handler answers, within a timeout.
//!
//! `cargo run --example request_reply`

use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// A plain blocking client.
fn ask(addr: SocketAddr, question: &str) -> std::io::Result<String> {
    let mut client = TcpStream::connect(addr)?;
    writeln!(client, "{question}")?;
    let mut reply = String::new();
    BufReader::new(client).read_line(&mut reply)?;
    Ok(reply)
}

async fn answer(request: Request<String>) -> Option<String> {
    if request.frame == "something hard" {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    Some(format!("{} has {} letters", request.frame, request.frame.len()))
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    let addr = server.local_addr()?;
    let listener = Listener::builder(server)
        .serve(&Bridge::current(), answer)
        .reply_timeout(Duration::from_millis(100))
        .fallback(|why| Some(format!("sorry: {why:?}")))
        .spawn()?;

    for question in ["callbridge", "something hard"] {
        let reply = tokio::task::spawn_blocking(move || ask(addr, question)).await??;
        print!("{reply}");
    }
    let report = listener.close(Duration::from_secs(5)).await;
    println!("{report}: {} replies, {} late", report.stats.replies, report.stats.late);
    assert!(report.is_clean() && report.stats.balances());
    Ok(())
}
