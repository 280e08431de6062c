//! Bars with whiskers, as SVG that takes its colours from the page.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::judge::short;
use crate::stats::Summary;

/// A bar.
pub(super) struct Bar<'b> {
    pub(super) label: &'b str,
    pub(super) summary: Summary,
    /// One of ours: it gets the colour.
    pub(super) ours: bool,
}

const WIDTH: u32 = 480;
const ROW: u32 = 24;
const LABELS: i32 = 158;
const RIGHT: i32 = 56;
const AXIS: u32 = 22;
const FONT: (&str, u32) = ("sans-serif", 12);

/// Colours that stand for those of the page, and their names there.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const THEIRS: RGBColor = RGBColor(3, 3, 3);
const OURS: RGBColor = RGBColor(4, 4, 4);
const WHISKER: RGBColor = RGBColor(5, 5, 5);
const NAMES: [(&str, &str); 5] = [
    ("\"#010101\"", "\"var(--ink)\""),
    ("\"#020202\"", "\"var(--grid)\""),
    ("\"#030303\"", "\"var(--theirs)\""),
    ("\"#040404\"", "\"var(--ours)\""),
    ("\"#050505\"", "\"var(--whisker)\""),
];

/// What the axis shows.
struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Axis {
    /// Logarithmic where the least could not be seen beside the greatest.
    fn of(bars: &[Bar<'_>]) -> Axis {
        let medians = || bars.iter().map(|bar| bar.summary.median);
        let least = medians().fold(f64::INFINITY, f64::min);
        let greatest = medians().fold(f64::NEG_INFINITY, f64::max);
        // A single wild round must not make all bars short: its whisker leaves the picture.
        let wildest = bars.iter().map(|bar| bar.summary.max).fold(0.0, f64::max);
        let to = (wildest.min(greatest.abs() * 1.6) * 1.02).max(f64::MIN_POSITIVE);
        if least > 0.0 && greatest / least > 20.0 {
            Axis { from: 10_f64.powf((least * 0.7).log10().floor()), to, logarithmic: true }
        } else {
            Axis { from: least.min(0.0), to, logarithmic: false }
        }
    }

    /// Where a value lies, between zero and one.
    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        place.clamp(0.0, 1.0)
    }

    /// Values to write below: powers of ten, or a few round ones.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (0..12).map(|power| self.from * 10_f64.powi(power));
            return powers.take_while(|tick| *tick <= self.to).collect();
        }
        let rough = (self.to - self.from) / 4.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.from / step).ceil() as i64;
        (first..first + 6).map(|n| n as f64 * step).take_while(|tick| *tick <= self.to).collect()
    }
}

/// The picture, and whether its axis is logarithmic.
pub(super) fn bars(bars: &[Bar<'_>]) -> Result<(String, bool), Box<dyn Error + Send + Sync>> {
    let axis = Axis::of(bars);
    let height = ROW * bars.len() as u32 + AXIS;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area, bars, &axis).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    for (number, name) in NAMES {
        svg = svg.replace(number, name);
    }
    // Its size is the page's business; the view box that it has is enough.
    let size = format!("<svg width=\"{WIDTH}\" height=\"{height}\" ");
    Ok((svg.replacen(&size, "<svg ", 1), axis.logarithmic))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

fn draw(area: &Area<'_>, bars: &[Bar<'_>], axis: &Axis) -> Drawn {
    let wide = f64::from(WIDTH as i32 - LABELS - RIGHT);
    let across = |value: f64| LABELS + (axis.place(value) * wide) as i32;
    draw_axis(area, axis, bars.len(), across)?;
    for (row, bar) in bars.iter().enumerate() {
        draw_bar(area, bar, (row as u32 * ROW) as i32, across)?;
    }
    Ok(())
}

fn draw_axis(area: &Area<'_>, axis: &Axis, rows: usize, across: impl Fn(f64) -> i32) -> Drawn {
    let bottom = (rows as u32 * ROW) as i32;
    let centred = style(INK).pos(Pos::new(HPos::Center, VPos::Top));
    for tick in axis.ticks() {
        let x = across(tick);
        area.draw(&PathElement::new([(x, 0), (x, bottom)], GRID.stroke_width(1)))?;
        area.draw(&Text::new(short_tick(tick), (x, bottom + 5), centred.clone()))?;
    }
    Ok(())
}

fn draw_bar(area: &Area<'_>, bar: &Bar<'_>, top: i32, across: impl Fn(f64) -> i32) -> Drawn {
    let middle = top + ROW as i32 / 2;
    let Summary { min, median, max, .. } = bar.summary;
    let colour = if bar.ours { OURS } else { THEIRS };
    let zero = across(0.0);
    let (left, right) = (across(median).min(zero), across(median).max(zero + 1));
    area.draw(&Rectangle::new([(left, top + 4), (right, top + 20)], colour.filled()))?;
    let line = WHISKER.stroke_width(1);
    let (from, to) = (across(min), across(max));
    area.draw(&PathElement::new([(from, middle), (to, middle)], line))?;
    for end in [from, to] {
        area.draw(&PathElement::new([(end, middle - 4), (end, middle + 4)], line))?;
    }
    let label = style(INK).pos(Pos::new(HPos::Right, VPos::Center));
    area.draw(&Text::new(bar.label, (LABELS - 8, middle), label))?;
    let value = style(INK).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(short(median), (right.max(to) + 6, middle), value))?;
    Ok(())
}

fn style(colour: RGBColor) -> TextStyle<'static> {
    FONT.into_font().color(&colour)
}

/// Ticks are round: without the digits that say nothing.
fn short_tick(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        short(value).split('.').next().unwrap_or_default().to_owned()
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(label: &str, values: [f64; 3]) -> Bar<'_> {
        let summary = Summary::of(values).unwrap();
        Bar { label, summary, ours: false }
    }

    #[test]
    fn picture_has_the_colours_of_the_page_only() {
        let (svg, logarithmic) = bars(&[bar("a", [1.0, 2.0, 3.0]), bar("b", [4.0; 3])]).unwrap();
        assert!(!logarithmic);
        assert!(svg.contains("var(--theirs)") && !svg.contains("\"#"), "{svg}");
    }

    #[test]
    fn far_apart_is_logarithmic_and_negative_is_not() {
        let far = [bar("a", [3.0; 3]), bar("b", [3_000.0; 3])];
        assert!(bars(&far).unwrap().1);
        let negative = [bar("a", [-3.0; 3]), bar("b", [3_000.0; 3])];
        assert!(!bars(&negative).unwrap().1);
    }

    #[test]
    fn nothing_but_zeros_is_drawn_too() {
        assert!(bars(&[bar("a", [0.0; 3])]).is_ok());
    }
}
