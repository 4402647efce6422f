//! The run without a user: a click, pictures, a report.

use crate::window;
use eframe::egui::{
    ColorImage, Context, Event, Modifiers, PointerButton, Pos2, RawInput, Rect, UserData,
    ViewportCommand,
};
use image::ColorType;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Refreshes before the click, and after the answer: about half a second each.
const AROUND: u32 = 8;
/// When the run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who moves the pointer and clicks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Click {
    Toolkit,
    XServer,
}

/// What a refresh of the window leaves to be seen.
pub(crate) struct Seen {
    pub(crate) button: Rect,
    /// Per cent done, while a request runs.
    pub(crate) asking: Option<u8>,
    /// Whether there is an answer, and how long it took.
    pub(crate) ended: Option<(bool, Duration)>,
    pub(crate) longest: Duration,
}

#[derive(Debug)]
enum Step {
    Warm(u32),
    Press(Pos2),
    Release(Pos2),
    Asked,
    Settle(u32),
    Shoot,
    Closed,
}

#[derive(Debug)]
pub(crate) struct Smoke {
    click: Click,
    pictures: bool,
    began: Instant,
    step: Step,
    /// The program that clicks, if one does.
    clicker: Option<Child>,
    /// Refreshes that showed the request under way.
    shown: u32,
    half_way_shot: bool,
    /// Whether there was an answer, and how long it took.
    ended: Option<(bool, Duration)>,
    longest: Duration,
    shots: Vec<(&'static str, Arc<ColorImage>)>,
}

const HALF_WAY: &str = "-asking";
const END: &str = "";

impl Smoke {
    pub(crate) fn new(click: Click, pictures: bool) -> Self {
        Smoke {
            click,
            pictures,
            began: Instant::now(),
            step: Step::Warm(0),
            clicker: None,
            shown: 0,
            half_way_shot: false,
            ended: None,
            longest: Duration::ZERO,
            shots: Vec::new(),
        }
    }

    /// Before a refresh: takes the pictures that have arrived, and clicks when it is time to.
    pub(crate) fn input(&mut self, ctx: &Context, input: &mut RawInput) {
        for event in &input.events {
            if let Event::Screenshot { user_data, image, .. } = event {
                let data = user_data.data.as_ref();
                if let Some(name) = data.and_then(|data| data.downcast_ref::<&'static str>()) {
                    self.shots.push((name, Arc::clone(image)));
                }
            }
        }
        let button = |pos, pressed| Event::PointerButton {
            pos,
            button: PointerButton::Primary,
            pressed,
            modifiers: Modifiers::NONE,
        };
        self.step = match (&self.step, self.click) {
            (Step::Press(pos), Click::Toolkit) => {
                input.events.extend([Event::PointerMoved(*pos), button(*pos, true)]);
                Step::Release(*pos)
            }
            (Step::Release(pos), Click::Toolkit) => {
                input.events.push(button(*pos, false));
                Step::Asked
            }
            (Step::Press(pos), Click::XServer) => {
                let place = *pos * ctx.pixels_per_point();
                match xdotool(place) {
                    Ok(child) => self.clicker = Some(child),
                    Err(error) => eprintln!("xdotool: {error}"),
                }
                Step::Asked
            }
            _ => return,
        };
    }

    /// After a refresh.
    pub(crate) fn refreshed(&mut self, ctx: &Context, seen: &Seen) {
        self.shown += u32::from(seen.asking.is_some());
        if !self.half_way_shot && seen.asking.is_some_and(|percent| percent >= 50) {
            self.half_way_shot = true;
            self.shoot(ctx, HALF_WAY);
        }
        if self.began.elapsed() > PATIENCE && !matches!(self.step, Step::Closed) {
            return self.close(ctx);
        }
        self.step = match self.step {
            Step::Warm(AROUND) => Step::Press(seen.button.center()),
            Step::Warm(refreshes) => Step::Warm(refreshes + 1),
            Step::Asked if seen.ended.is_some() => Step::Settle(0),
            Step::Settle(AROUND) => {
                (self.ended, self.longest) = (seen.ended, seen.longest);
                self.shoot(ctx, END);
                Step::Shoot
            }
            Step::Settle(refreshes) => Step::Settle(refreshes + 1),
            Step::Shoot if !self.pictures || self.has_shot(END) => return self.close(ctx),
            _ => return,
        };
    }

    fn close(&mut self, ctx: &Context) {
        self.step = Step::Closed;
        if let Some(mut clicker) = self.clicker.take() {
            // It ended long ago; were it stuck, this would end it.
            drop(clicker.kill().and_then(|()| clicker.wait()));
        }
        ctx.send_viewport_cmd(ViewportCommand::Close);
    }

    fn shoot(&self, ctx: &Context, name: &'static str) {
        if self.pictures {
            ctx.send_viewport_cmd(ViewportCommand::Screenshot(UserData::new(name)));
        }
    }

    fn has_shot(&self, name: &str) -> bool {
        self.shots.iter().any(|(shot, _)| *shot == name)
    }

    /// Writes the pictures to `path`, those before the end with a suffix.
    pub(crate) fn save_shots(&self, path: &Path) -> image::ImageResult<()> {
        for (suffix, shot) in &self.shots {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let path = path.with_file_name(format!("{stem}{suffix}.png"));
            let [width, height] = shot.size.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
            image::save_buffer(&path, shot.as_raw(), width, height, ColorType::Rgba8)?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }

    /// Prints what happened; whether it is as it should be.
    pub(crate) fn report(&self, blocking: bool) -> bool {
        let Some((answered, took)) = self.ended else {
            println!("no answer within {PATIENCE:?}");
            return false;
        };
        println!(
            "{}: {} after {} ms; the window showed progress {} times; longest gap between two refreshes {} ms",
            if blocking { "blocking call" } else { "event loop" },
            if answered { "answer" } else { "failure" },
            took.as_millis(),
            self.shown,
            self.longest.as_millis(),
        );
        let alive = blocking || self.longest < took / 2;
        if !alive {
            println!("the window froze: a gap should stay well below half of the request's time");
        }
        let pictured = !self.pictures || self.has_shot(END);
        answered && alive && pictured
    }
}

/// Has the pointer moved to `place`, in pixels of this program's window, and clicked.
fn xdotool(place: Pos2) -> io::Result<Child> {
    let (pid, x, y) = (std::process::id().to_string(), place.x as i32, place.y as i32);
    let (x, y) = (x.to_string(), y.to_string());
    Command::new("xdotool")
        .args(["search", "--all", "--onlyvisible", "--pid", &pid, "--name", window::TITLE])
        .args(["mousemove", "--window", "%1", &x, &y, "click", "1"])
        .spawn()
}
