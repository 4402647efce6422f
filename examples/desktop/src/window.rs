//! The window: a button, its handler, and a status text that is refreshed every 60 ms.

use crate::client;
use crate::pulse::{Pulse, SPAN};
use crate::smoke::{Seen, Smoke};
use callbridge::{BlockingFuture, FrameStream, Overflow, ThreadRunner, channel};
use eframe::egui::{Button, CentralPanel, Context, RawInput, RichText};
use eframe::{App, Frame};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) const TITLE: &str = "callbridge desktop";
pub(crate) const SIZE: [f32; 2] = [460.0, 180.0];
const REFRESH: Duration = Duration::from_millis(60);

pub(crate) struct Window<'a> {
    server: SocketAddr,
    /// The event loop that requests run on; made and closed by `main`.
    runner: &'a ThreadRunner,
    /// Whether the handler makes the request itself.
    blocking: bool,
    request: Option<Request>,
    status: String,
    /// How the last request ended, and how long it took.
    ended: Option<(bool, Duration)>,
    pulse: Pulse,
    smoke: Option<&'a mut Smoke>,
}

/// A request that runs on the event loop; it ends with the window.
struct Request {
    answer: BlockingFuture<io::Result<String>>,
    /// The newest progress, in per cent, which asks for a repaint when it comes.
    progress: FrameStream<u8>,
    percent: u8,
    began: Instant,
}

impl<'a> Window<'a> {
    pub(crate) fn new(
        server: SocketAddr,
        runner: &'a ThreadRunner,
        blocking: bool,
        smoke: Option<&'a mut Smoke>,
    ) -> Self {
        Window {
            server,
            runner,
            blocking,
            request: None,
            status: "nothing asked yet".into(),
            ended: None,
            pulse: Pulse::default(),
            smoke,
        }
    }

    /// The handler: hands the request over and returns.
    fn on_click(&mut self, ctx: &Context) {
        self.pulse.measure();
        let (server, began) = (self.server, Instant::now());
        let (told, mut progress) = channel::builder()
            .overflow(Overflow::Latest)
            .build()
            .expect("one frame is always room enough");
        if self.blocking {
            // Nothing of this window moves until the server has answered.
            let answer = client::ask_blocking(server, &told);
            return self.show_end(answer, began);
        }
        let window = ctx.clone();
        progress.on_ready(move || window.request_repaint());
        let answer = self.runner.spawn(async move { client::ask(server, &told).await });
        let window = ctx.clone();
        answer.add_done_callback(move |_| window.request_repaint());
        self.request =
            Some(Request { answer: answer.cancel_on_drop(), progress, percent: 0, began });
    }

    /// A look at the request, which never waits.
    fn refresh_status(&mut self) {
        let Some(request) = &mut self.request else { return };
        if let Ok(percent) = request.progress.try_recv() {
            request.percent = percent;
        }
        let (percent, began) = (request.percent, request.began);
        match request.answer.try_result() {
            None => {
                let seconds = began.elapsed().as_secs_f32();
                self.status = format!("asking … {percent} % after {seconds:.1} s");
            }
            Some(result) => {
                self.request = None;
                self.show_end(result.unwrap_or_else(|error| Err(io::Error::other(error))), began);
            }
        }
    }

    fn show_end(&mut self, answer: io::Result<String>, began: Instant) {
        let took = began.elapsed();
        self.ended = Some((answer.is_ok(), took));
        self.status = match answer {
            Ok(answer) => format!("{answer}  (after {:.1} s)", took.as_secs_f32()),
            Err(error) => format!("no answer: {error}"),
        };
    }
}

impl App for Window<'_> {
    fn raw_input_hook(&mut self, ctx: &Context, input: &mut RawInput) {
        if let Some(smoke) = &mut self.smoke {
            smoke.input(ctx, input);
        }
    }

    fn update(&mut self, ctx: &Context, _: &mut Frame) {
        self.pulse.beat(self.request.is_some());
        self.refresh_status();
        let button = CentralPanel::default().show(ctx, |ui| {
            ui.label(if self.blocking {
                "The handler makes a blocking call."
            } else {
                "The handler hands the request to an event loop."
            });
            ui.add_space(8.0);
            let ask = Button::new(RichText::new("Ask for the water level").size(18.0));
            let button = ui.add_enabled(self.request.is_none(), ask);
            if button.clicked() {
                self.on_click(ctx);
            }
            ui.add_space(8.0);
            ui.label(RichText::new(&self.status).size(18.0).strong());
            ui.add_space(8.0);
            let gap = self.pulse.longest().as_millis();
            ui.label(format!("longest gap between two refreshes since the click: {gap} ms"));
            ui.add_space(8.0);
            self.pulse.show(ui);
            ui.small(format!("each refresh of the last {} s", SPAN.as_secs()));
            button.rect
        });
        if let Some(smoke) = &mut self.smoke {
            let seen = Seen {
                button: button.inner,
                asking: self.request.as_ref().map(|request| request.percent),
                ended: self.ended,
                longest: self.pulse.longest(),
            };
            smoke.refreshed(ctx, &seen);
        }
        // The toolkit comes a frame early, to have it drawn in time.
        let frame = ctx.input(|input| input.predicted_dt);
        ctx.request_repaint_after(REFRESH + Duration::from_secs_f32(frame));
    }
}
