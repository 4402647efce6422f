//! Talks over a WebSocket: lines of standard input go out, messages are printed.
//!
//! ```text
//! cargo run -p callbridge-websocket -- 127.0.0.1:9001
//! cargo run -p callbridge-websocket -- --smoke
//! ```
//!
//! With `--smoke` it talks to an echo server of its own, and ends by itself.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("a session is waited for here as Unix does it");
}

#[cfg(unix)]
mod unix {
    use callbridge::Listener;
    use callbridge::listener::ReadSource;
    use callbridge_websocket::{Client, Message, connect, echo};
    use std::error::Error;
    use std::process::ExitCode;
    use std::time::Duration;
    use tokio_util::codec::LinesCodec;

    /// How long the server may take to say goodbye.
    const GOODBYE: Duration = Duration::from_secs(5);

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn main() -> ExitCode {
        let done = match std::env::args().nth(1).as_deref() {
            Some("--smoke") => smoke().await,
            Some(address) if !address.starts_with('-') => run(address).await,
            _ => Err("give an address such as 127.0.0.1:9001, or --smoke".into()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("websocket: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Until either side has said all.
    async fn run(address: &str) -> Result<(), Box<dyn Error>> {
        let mut client = connect(address)?;
        let typed = ReadSource::new(std::io::stdin(), 1 << 16, LinesCodec::new())?.polled()?;
        let (_typing, mut typed) = Listener::builder(typed).name("stdin").spawn()?;
        loop {
            tokio::select! {
                message = client.incoming.recv() => match message {
                    Some(message) => println!("{message}"),
                    None => break,
                },
                line = typed.recv() => match line {
                    Some(line) => client.outgoing.send(Message::text(line)).await?,
                    None => break,
                },
            }
        }
        goodbye(client).await
    }

    /// Ends the session in order: says so, and reads until the server has.
    async fn goodbye(mut client: Client) -> Result<(), Box<dyn Error>> {
        // It may have ended by itself.
        let _ = client.outgoing.send(Message::Close(None)).await;
        let ended = tokio::time::timeout(GOODBYE, async {
            while let Some(message) = client.incoming.recv().await {
                println!("{message}");
            }
        });
        let _ = ended.await;
        let report = client.listener.close(Duration::from_secs(1)).await;
        println!("{report}");
        report.error.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn smoke() -> Result<(), Box<dyn Error>> {
        let (addr, server) = echo::start(echo::echo)?;
        let mut client = connect(&addr.to_string())?;
        for text in ["hello", "how are you?"] {
            client.outgoing.send(Message::text(text)).await?;
            let answer = client.incoming.recv().await.ok_or("the server has left")?;
            println!("{answer}");
            if answer != Message::text(text) {
                return Err("that isn't what was said".into());
            }
        }
        goodbye(client).await?;
        let pongs = server.join().map_err(|_| "the server failed")?;
        println!("{pongs} pings were answered");
        Ok(())
    }
}
