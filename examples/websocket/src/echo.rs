//! A blocking echo server, for the smoke run and the tests: one client, a thread.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use tungstenite::{Error, Message, WebSocket};

/// Serves one client by `serve`.
///
/// # Errors
///
/// What the system says.
pub fn start<T: Send + 'static>(
    serve: impl FnOnce(WebSocket<TcpStream>) -> T + Send + 'static,
) -> io::Result<(SocketAddr, JoinHandle<T>)> {
    let listening = TcpListener::bind("127.0.0.1:0")?;
    let addr = listening.local_addr()?;
    let thread = std::thread::spawn(move || {
        let (stream, _) = listening.accept().expect("a client");
        serve(tungstenite::accept(stream).expect("a handshake"))
    });
    Ok((addr, thread))
}

/// Sends back what comes, a ping before each; gives how many pings were answered, at the end.
pub fn echo(mut client: WebSocket<TcpStream>) -> usize {
    let mut pongs = 0;
    loop {
        match client.read() {
            Ok(Message::Pong(_)) => pongs += 1,
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                client.send(Message::Ping(Default::default())).expect("a client that reads");
                client.send(message).expect("a client that reads");
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return pongs,
            Err(error) => panic!("the client left without a word: {error}"),
        }
    }
}
