//! `relay request-serve` and `relay answer`

use super::{Outcome, Server, interrupted};
use bytes::Bytes;
use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use callbridge_relay::nats::{Requester, Service, ServiceRequest};
use clap::Args;
use std::convert::Infallible;
use std::io::BufRead;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

const LONGEST: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct RequestServe {
    #[command(flatten)]
    server: Server,
    /// The service's subject
    #[arg(long)]
    subject: String,
    /// How long an answer may take, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    timeout: u64,
    /// Listens here and has each line answered, instead of reading standard input
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<String>,
}

impl RequestServe {
    pub(crate) async fn run(self) -> Outcome {
        let requester = Requester::new(self.server.connect().await?, &*self.subject);
        let timeout = Duration::from_millis(self.timeout);
        match &self.tcp {
            Some(at) => serve(at, requester, timeout).await,
            None => ask(requester, timeout).await,
        }
    }
}

/// Each line of standard input, by a foreign thread.
async fn ask(requester: Requester, timeout: Duration) -> Outcome {
    let bridge = Bridge::current();
    let thread = std::thread::spawn(move || -> Outcome {
        for line in std::io::stdin().lock().lines() {
            let answer = bridge.call(requester.request(line?, timeout), timeout * 2)??;
            println!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    });
    let ended = tokio::task::spawn_blocking(move || thread.join());
    tokio::select! {
        ended = ended => ended?.unwrap_or_else(|_| Err("the asking thread panicked".into())),
        () = interrupted() => Ok(()),
    }
}

async fn serve(at: &str, requester: Requester, timeout: Duration) -> Outcome {
    let server = TcpServer::bind(at, LONGEST, || LinesCodec::new_with_max_length(LONGEST))?;
    let listener = Listener::builder(server)
        .name("requests")
        .serve(&Bridge::current(), move |request: Request<String>| {
            let requester = requester.clone();
            async move {
                let left = request.deadline.map_or(timeout, |deadline| {
                    deadline.saturating_duration_since(Instant::now()).min(timeout)
                });
                Some(match requester.request(request.frame, left).await {
                    Ok(answer) => String::from_utf8_lossy(&answer).into_owned(),
                    Err(error) => format!("error: {error}"),
                })
            }
        })
        .reply_timeout(timeout + Duration::from_secs(1))
        .spawn()?;
    eprintln!("listening at {}", listener.local_addr().map_or(at.to_owned(), |at| at.to_string()));
    interrupted().await;
    eprintln!("{}", listener.close(timeout).await);
    Ok(())
}

#[derive(Args)]
pub(crate) struct Answer {
    #[command(flatten)]
    server: Server,
    /// The service's subject
    #[arg(long)]
    subject: String,
    /// The most requests at a time
    #[arg(long, default_value_t = 1_000)]
    max_in_flight: usize,
}

impl Answer {
    pub(crate) async fn run(self) -> Outcome {
        let client = self.server.connect().await?;
        let service = Service::start(client, self.subject, self.max_in_flight, upper_case).await?;
        eprintln!("answering");
        interrupted().await;
        eprintln!("{}", service.close(Duration::from_secs(5)).await);
        Ok(())
    }
}

async fn upper_case(request: ServiceRequest) -> Result<Bytes, Infallible> {
    Ok(request.payload.to_ascii_uppercase().into())
}
