//! The least of a web server: a page that draws itself anew, and the text.

use crate::table::{Figures, Table};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Serves until the runtime ends; returns where.
pub(crate) async fn serve(
    port: u16,
    render: impl Fn() -> String + Send + Sync + 'static,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let pages = Arc::new(Pages { render, table: Mutex::default() });
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let pages = Arc::clone(&pages);
            tokio::spawn(async move { pages.answer(peer).await });
        }
    });
    Ok(address)
}

struct Pages<F> {
    render: F,
    /// Knows the last look at the page, for the figures per second.
    table: Mutex<Table>,
}

impl<F: Fn() -> String> Pages<F> {
    async fn answer(&self, mut peer: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(&mut peer).lines();
        let Some(request) = lines.next_line().await? else { return Ok(()) };
        while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
        let (status, kind, body) = match request.split(' ').nth(1) {
            Some("/metrics") => ("200 OK", "text/plain; version=0.0.4", (self.render)()),
            Some("/") => ("200 OK", "text/html; charset=utf-8", self.page()),
            _ => ("404 Not Found", "text/plain", String::new()),
        };
        let head = format!(
            "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        peer.write_all(head.as_bytes()).await?;
        peer.write_all(body.as_bytes()).await?;
        peer.shutdown().await
    }

    fn page(&self) -> String {
        let figures = Figures::of(&(self.render)());
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let drawn = table.draw(&figures, Instant::now());
        let escaped = drawn.replace('&', "&amp;").replace('<', "&lt;");
        format!(
            "<!doctype html><meta http-equiv=refresh content=1><title>callbridge</title>\
             <body style='background:#111;color:#ddd'><pre>{escaped}</pre>"
        )
    }
}
