//! `relay forward`

use super::file::{Bookmark, Line, Position, send_lines};
use super::{Outcome, Server, interrupted, make_stream};
use callbridge::channel::{FrameStream, Tracked, channel};
use callbridge::listener::{Listener, Request, TcpServer, UdpSource};
use callbridge::{Bridge, Overflow};
use callbridge_relay::nats::JetStream;
use callbridge_relay::{Fault, Forwarder, ForwarderBuilder, Message, StartError};
use clap::Args;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// The longest line of a TCP peer.
const LONGEST: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Forward {
    #[command(flatten)]
    server: Server,
    /// The JetStream stream
    #[arg(long)]
    stream: String,
    /// The subject
    #[arg(long)]
    subject: String,
    /// Makes the stream if there is none
    #[arg(long)]
    create: bool,
    /// Others write to the stream, too; then only a window of 1 keeps the order
    #[arg(long)]
    shared: bool,
    /// The most messages in flight
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Names the run; needed for a source that goes on after a restart
    #[arg(long)]
    run: Option<String>,
    /// How long the end may take, in seconds
    #[arg(long, default_value_t = 10.0)]
    drain: f64,
    /// Prints the counters this often, in seconds
    #[arg(long, value_name = "SECONDS")]
    report_every: Option<f64>,
    #[command(flatten)]
    source: Source,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Lines of standard input
    #[arg(long)]
    stdin: bool,
    /// Lines of a file; where it stopped is kept in FILE.position, and a restart goes on there
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Datagrams; the oldest are dropped, and counted, when nothing more fits
    #[arg(long, value_name = "ADDRESS")]
    udp: Option<String>,
    /// Lines of TCP peers, each answered by `stored` once it is
    #[arg(long, value_name = "ADDRESS")]
    tcp: Option<String>,
}

impl Forward {
    pub(crate) async fn run(self) -> Outcome {
        let client = self.server.connect().await?;
        if self.create {
            make_stream(&client, &self.stream, &self.subject).await?;
        }
        let engine = self.engine().await?;
        if let Some(path) = self.source.file.clone() {
            return self.file(path, engine).await;
        }
        if let Some(at) = &self.source.udp {
            return self.udp(at, engine).await;
        }
        if let Some(at) = &self.source.tcp {
            return self.tcp(at, engine).await;
        }
        let (sender, frames) = channel::<Vec<u8>>(1024);
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            for line in std::io::stdin().lock().split(b'\n') {
                match line {
                    Ok(line) => {
                        if sender.send(line).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        sender.fail(error);
                        return;
                    }
                }
            }
        })?;
        self.carry(self.settings(frames, |line: &Vec<u8>| line.clone().into()), engine).await
    }

    /// The stream, which must take the subject: nothing is read before that is known.
    async fn engine(&self) -> Result<JetStream, Box<dyn Error + Send + Sync>> {
        let server = &*self.server.server;
        let mut engine = JetStream::connect(server, Default::default(), &*self.stream).await?;
        if self.shared {
            engine = engine.shared();
        }
        match engine.check_subject(&self.subject).await {
            Ok(()) => Ok(engine),
            Err(Fault::Rejected(why)) => {
                Err(format!("{why}: give --subject what it takes, or have the stream take it")
                    .into())
            }
            Err(fault) => Err(StartError::Engine(fault).into()),
        }
    }

    /// A forwarder with the settings of the command line.
    fn settings<T: Send + 'static>(
        &self,
        frames: FrameStream<T>,
        payload: impl Fn(&T) -> bytes::Bytes + Send + 'static,
    ) -> ForwarderBuilder<T> {
        let subject: Arc<str> = self.subject.as_str().into();
        let builder = Forwarder::builder(frames, move |frame: &T| {
            Message::new(Arc::clone(&subject), payload(frame))
        });
        let builder = builder.window(self.window).on_rejected(|_, id, why| {
            let source = why.source().map(ToString::to_string);
            eprintln!("rejected {id}: {why}: {}", source.unwrap_or_default());
        });
        match &self.run {
            Some(run) => builder.run(run.as_str()),
            None => builder,
        }
    }

    async fn carry<T: Send + 'static>(
        &self,
        builder: ForwarderBuilder<T>,
        engine: JetStream,
    ) -> Outcome {
        let mut forwarder = builder.start(engine).await?;
        let drain = Duration::try_from_secs_f64(self.drain).unwrap_or(Duration::MAX);
        let every = self.report_every.and_then(|every| Duration::try_from_secs_f64(every).ok());
        let mut interrupted = std::pin::pin!(interrupted());
        let report = loop {
            tokio::select! {
                report = forwarder.finished() => break report,
                () = &mut interrupted => break forwarder.close(drain).await,
                () = tokio::time::sleep(every.unwrap_or(Duration::MAX)) => {
                    let counters = format!("{}\n", forwarder.stats());
                    let _ = std::io::stderr().write_all(counters.as_bytes());
                }
            }
        };
        eprintln!("{report}");
        match (report.is_clean(), report.stats.rejected) {
            (true, 0) => Ok(()),
            (true, n) => Err(format!(
                "{n} rejected, and so not stored: see above why, mend it, and send again"
            )
            .into()),
            (false, _) => Err("not everything was acknowledged".into()),
        }
    }

    async fn file(self, path: PathBuf, engine: JetStream) -> Outcome {
        let name = path.display().to_string();
        let bookmark = Bookmark::new(&PathBuf::from(format!("{name}.position")));
        let position = bookmark.load()?;
        let file = File::open(&path).map_err(|error| format!("{name}: {error}"))?;
        let (sender, frames) = channel(1024);
        let reader = std::thread::Builder::new()
            .name("file".to_owned())
            .spawn(move || send_lines(file, position, &sender))?;
        let reached = Arc::new(Mutex::new(position));
        let mark = {
            let reached = Arc::clone(&reached);
            move |line: Line| *reached.lock().unwrap_or_else(PoisonError::into_inner) = line.end
        };
        let look = move || *reached.lock().unwrap_or_else(PoisonError::into_inner);
        let run = self.run.clone().unwrap_or_else(|| run_of(&path));
        let builder = self
            .settings(frames, |line: &Line| line.text.clone().into())
            .run(run)
            .sequence(|line| line.end.lines)
            .on_acknowledged(mark);
        let save = async {
            let mut saved = position;
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = look();
                if now != saved {
                    bookmark.save(now)?;
                    saved = now;
                }
            }
        };
        let outcome: Outcome = tokio::select! {
            outcome = self.carry(builder, engine) => outcome,
            error = save => {
                let error: std::io::Result<Position> = error;
                error.map(drop).map_err(|error| format!("can't keep the position: {error}").into())
            }
        };
        bookmark.save(look())?;
        if reader.is_finished()
            && let Ok(read) = reader.join()
        {
            read?;
        }
        outcome
    }

    async fn udp(&self, at: &str, engine: JetStream) -> Outcome {
        let source = UdpSource::bind(at)?;
        let (listener, frames) = Listener::builder(source)
            .name("udp")
            .capacity(8192)
            .overflow(Overflow::DropOldest)
            .spawn()?;
        eprintln!(
            "listening at {}",
            listener.local_addr().map_or(at.to_owned(), |at| at.to_string())
        );
        let builder = self.settings(frames, |frame| frame.payload.clone());
        let outcome = self.carry(builder, engine).await;
        eprintln!("{}", listener.close(Duration::from_secs(1)).await);
        outcome
    }

    async fn tcp(&self, at: &str, engine: JetStream) -> Outcome {
        let server = TcpServer::bind(at, LONGEST, || LinesCodec::new_with_max_length(LONGEST))?;
        // Room for what 64 peers may ask at once: nobody waits for room, and so nobody is overtaken.
        let (sender, frames) = channel::<Tracked<String>>(64 * 64);
        let listener = Listener::builder(server)
            .name("tcp")
            .serve(&Bridge::current(), move |request: Request<String>| {
                let sender = sender.clone();
                async move {
                    let stored = match sender.send_tracked_async(request.frame).await {
                        Ok(receipt) => matches!(receipt.await, Ok(Ok(()))),
                        Err(_) => false,
                    };
                    Some(if stored { "stored" } else { "not stored" })
                }
            })
            .reply_timeout(Duration::MAX)
            .spawn()?;
        eprintln!(
            "listening at {}",
            listener.local_addr().map_or(at.to_owned(), |at| at.to_string())
        );
        let builder = self.settings(frames, |frame| frame.as_bytes().to_vec().into());
        let builder = builder.on_acknowledged(|frame| drop(frame.done()));
        let outcome = self.carry(builder, engine).await;
        eprintln!("{}", listener.close(Duration::from_secs(1)).await);
        outcome
    }
}

/// The file's name, which stays the same.
fn run_of(path: &std::path::Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect()
}
