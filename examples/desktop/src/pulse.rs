//! When the window was refreshed: the longest gap, and a strip with a tick for each refresh.

use eframe::egui::{Color32, Sense, Stroke, Ui, vec2};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back the strip goes.
pub(crate) const SPAN: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// The refreshes within the span, oldest first, and whether a request was running.
    ticks: VecDeque<(Instant, bool)>,
    /// The longest gap between two refreshes since the last call of `measure`.
    longest: Duration,
}

impl Pulse {
    /// Notes a refresh.
    pub(crate) fn beat(&mut self, asking: bool) {
        let now = Instant::now();
        if let Some((last, _)) = self.ticks.back() {
            self.longest = self.longest.max(now - *last);
        }
        self.ticks.push_back((now, asking));
        while self.ticks.front().is_some_and(|(tick, _)| now - *tick > SPAN) {
            self.ticks.pop_front();
        }
    }

    /// Forgets the gaps so far; the one that begins with the refresh under way counts.
    pub(crate) fn measure(&mut self) {
        self.longest = Duration::ZERO;
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// Draws the strip: now at its right end, ticks during a request taller and in colour.
    pub(crate) fn show(&self, ui: &mut Ui) {
        let (strip, _) = ui.allocate_exact_size(vec2(ui.available_width(), 36.0), Sense::hover());
        let painter = ui.painter_at(strip);
        painter.rect_filled(strip, 2.0, ui.visuals().extreme_bg_color);
        let Some((now, _)) = self.ticks.back() else { return };
        for (tick, asking) in &self.ticks {
            let age = (*now - *tick).as_secs_f32() / SPAN.as_secs_f32();
            let x = strip.right() - 1.0 - age * strip.width();
            let (height, colour) = match asking {
                true => (1.0, Color32::from_rgb(90, 190, 255)),
                false => (0.5, ui.visuals().weak_text_color()),
            };
            let top = strip.bottom() - height * strip.height();
            painter.vline(x, top..=strip.bottom(), Stroke::new(1.5, colour));
        }
    }
}
