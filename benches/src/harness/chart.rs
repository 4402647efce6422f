//! Bar charts: one panel for each case, one bar for each contestant, ours in a colour of its own.

use super::case::{CaseResult, Role};
use super::goal::figure;
use super::report::number;
use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// What one panel shows.
pub(crate) struct Panel {
    pub(crate) workload: &'static str,
    pub(crate) case: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) title: &'static str,
}

/// A panel with its bars, the shortest first.
pub(super) struct Bars<'a> {
    title: &'static str,
    bars: Vec<(&'a str, Role, f64)>,
}

impl Panel {
    /// `None` when the case was not run.
    pub(super) fn filled<'a>(&self, results: &'a [CaseResult]) -> Option<Bars<'a>> {
        let case =
            results.iter().find(|it| it.workload == self.workload && it.case == self.case)?;
        let rows = case.rows.iter();
        let bar = |value, row: &'a super::case::Row| (row.contestant.as_str(), row.role, value);
        let mut bars: Vec<_> =
            rows.filter_map(|row| Some(bar(figure(row, self.figure)?, row))).collect();
        bars.sort_by(|a, b| a.2.total_cmp(&b.2));
        Some(Bars { title: self.title, bars })
    }
}

const WIDTH: i32 = 820;
const NAMES: i32 = 250;
const BAR: i32 = 20;
const MARGIN: i32 = 16;

/// Draws the panels one below the other.
pub(super) fn draw(file: &Path, title: &str, panels: &[Bars<'_>]) -> anyhow::Result<()> {
    let rows: i32 = panels.iter().map(|panel| panel.bars.len() as i32).sum();
    let height = 52 + rows * BAR + panels.len() as i32 * 46;
    let area = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    paint(&area, title, panels).map_err(|error| anyhow!("the chart can't be drawn: {error}"))
}

fn paint(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    panels: &[Bars<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let font = |size| ("sans-serif", size).into_font();
    let style = |size, horizontal| {
        let text = TextStyle::from(font(size)).color(&RGBColor(40, 44, 52));
        text.pos(Pos::new(horizontal, VPos::Center))
    };
    area.fill(&WHITE)?;
    area.draw_text(title, &style(24, HPos::Left), (MARGIN, 24))?;
    let mut y = 52;
    for panel in panels {
        area.draw_text(panel.title, &style(18, HPos::Left), (MARGIN, y + 8))?;
        y += 26;
        let longest = panel.bars.iter().map(|bar| bar.2).fold(f64::MIN_POSITIVE, f64::max);
        let room = f64::from(WIDTH - NAMES - 2 * MARGIN - 64);
        for (name, role, value) in &panel.bars {
            let colour = match role {
                Role::Ours => RGBColor(214, 92, 36),
                Role::Peer => RGBColor(110, 132, 163),
                Role::Limit => RGBColor(200, 205, 212),
            };
            let end = NAMES + MARGIN + ((value / longest * room) as i32).max(1);
            let middle = y + BAR / 2;
            area.draw_text(name, &style(15, HPos::Right), (NAMES + MARGIN - 8, middle))?;
            let corners = [(NAMES + MARGIN, y + 3), (end, y + BAR - 3)];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            area.draw_text(&number(*value), &style(15, HPos::Left), (end + 6, middle))?;
            y += BAR;
        }
        y += 20;
    }
    area.present()?;
    Ok(())
}
